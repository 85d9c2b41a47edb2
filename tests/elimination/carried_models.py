"""Models whose scans carry what depends on all steps before, and takes few values; and their exact answers, from
NumPyro's own log density of every configuration, one step after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan
from numpyro.infer.util import log_density

Y = np.array([0.3, 1.4, -0.2, 0.9, 2.1])
HERE = np.array([True, False, True, True, False])
ROWS = np.array([[0.7, 0.2, 0.1], [0.0, 0.6, 0.4], [0.3, 0.0, 0.7]])  # two steps never happen
STAY = np.array([[0.8, 0.2], [0.35, 0.65]])


def slope() -> Any:
    return numpyro.sample("a", dist.Normal(0.0, 1.0))


def running_count(y):
    a = slope()

    def step(total, y):
        jump = numpyro.sample("x", dist.Bernoulli(jax.nn.sigmoid(a - 0.3 * total)))
        total = total + jump
        numpyro.sample("y", dist.Normal(a * total, 1.0), obs=y)
        return total, None

    scan(step, 0, y)


def kept(y, here):
    """The last value that a condition let through."""
    a, rows = slope(), jnp.asarray(ROWS)

    def step(z, now):
        y, here = now
        new = numpyro.sample("x", dist.Categorical(rows[z]))
        z = jnp.where(here, new, z)
        numpyro.sample("y", dist.Normal(a * z, 1.0), obs=y)
        return z, None

    scan(step, 1, (y, here))


def parity(y):
    a, rows = slope(), jnp.asarray(ROWS)

    def step(odd, y):
        x = numpyro.sample("x", dist.Categorical(rows[odd]))
        numpyro.sample("y", dist.Normal(a * odd + 0.2 * x, 1.0), obs=y)
        return (odd + x) % 2, None

    scan(step, 1, y)


def time_since(y):
    """Steps since the last event, up to three: the chance of one depends on it."""
    a, chances = slope(), jnp.array([0.1, 0.3, 0.5, 0.8])

    def step(since, y):
        event = numpyro.sample("x", dist.Bernoulli(chances[since]))
        numpyro.sample("y", dist.Normal(a * since + event, 1.0), obs=y)
        return jnp.where(event == 1, 0, jnp.minimum(since + 1, 3)), None

    scan(step, 2, y)


def sequences(y, here):
    """Two sequences side by side, each of which keeps its last value; another site at each step has no memory."""
    a, rows = slope(), jnp.asarray(STAY)

    def step(carry, now):
        z, t = carry
        y, here = now
        with numpyro.plate("sequence", 2):
            new = numpyro.sample("x", dist.Categorical(rows[z]))
            z = jnp.where(here, new, z)
            far = numpyro.sample("far", dist.Bernoulli(0.2))
            numpyro.sample("y", dist.Normal(a * z + 0.1 * t, 1.0 + 2.0 * far), obs=y)
        return (z, t + 1), None

    scan(step, (jnp.array([0, 1]), 0), (y, here))


def changes(y):
    """A chain, and how often it has changed, up to two."""
    a, rows = slope(), jnp.asarray(STAY)

    def step(carry, y):
        x, changed = carry
        new = numpyro.sample("x", dist.Categorical(rows[x]))
        changed = jnp.minimum(changed + (new != x), 2)
        numpyro.sample("y", dist.Normal(new + a * changed, 1.0), obs=y)
        return (new, changed), None

    scan(step, (0, 0), y)


def backward(y):
    a = slope()

    def step(total, y):
        jump = numpyro.sample("x", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(a * total + jump, 1.0), obs=y)
        return total + jump, None

    scan(step, 1, y, reverse=True)


def flag(y):
    """Whether a value was ever seen, and a start that is a site of its own."""
    a, rows = slope(), jnp.asarray(ROWS)
    first = numpyro.sample("first", dist.Categorical(jnp.array([0.5, 0.2, 0.3])))

    def step(carry, y):
        x, seen = carry
        new = numpyro.sample("x", dist.Categorical(rows[x]))
        seen = seen | (new == 2)
        numpyro.sample("y", dist.Normal(new + a * seen, 1.0), obs=y)
        return (new, seen), None

    scan(step, (first, first == 2), y)


def two_steps_before(y):
    """The count as it was two steps before, and that of this step."""
    a = slope()

    def step(carry, y):
        total, then = carry
        jump = numpyro.sample("x", dist.Bernoulli(jnp.where(then > 0, 0.6, 0.2)))
        numpyro.sample("y", dist.Normal(a * then + total, 1.0), obs=y)
        return (total + 1.0 * jump, total), None

    scan(step, (1.0, 0.0), y)


def circle(y):
    """Two leaves that are made of one another."""
    a = slope()

    def step(carry, y):
        one, other = carry
        x = numpyro.sample("x", dist.Bernoulli(0.4))
        numpyro.sample("y", dist.Normal(a * one - 0.5 * other, 1.0), obs=y)
        return (other, jnp.minimum(one + x, 2)), None

    scan(step, (0, 1), y)


TWO = {"y": np.stack([Y, Y[::-1]], 1), "here": np.stack([HERE, ~HERE], 1)}
ONE = {"y": Y}
CASES: dict[str, tuple[Callable, Mapping[str, Any]]] = {
    "count": (running_count, ONE),
    "kept": (kept, {"y": Y, "here": HERE}),
    "parity": (parity, ONE),
    "time since": (time_since, ONE),
    "sequences": (sequences, {n: x[:3] for n, x in TWO.items()}),
    "changes": (changes, ONE),
    "backward": (backward, ONE),
    "flag": (flag, {"y": Y[:4]}),
    "two steps before": (two_steps_before, ONE),
    "circle": (circle, ONE),
}
SHAPES = {"sequences": {"x": (2, (3, 2)), "far": (2, (3, 2))}, "flag": {"first": (3, ()), "x": (3, (4,))}}
VALUES = {"kept": 3, "parity": 3}


class Exact:
    """The log weight of every configuration at a value of the slope, and what follows from it."""

    def __init__(self, name: str, a: float):
        self.model, self.data = CASES[name]
        self.shapes = SHAPES.get(name, {"x": (VALUES.get(name, 2), (len(self.data["y"]),))})
        numbers = [range(k) for k, shape in self.shapes.values() for _ in range(int(np.prod(shape)))]
        flat = np.array(list(product(*numbers)))
        ends = np.cumsum([int(np.prod(shape)) for _, shape in self.shapes.values()])[:-1]
        parts = np.split(flat, ends, axis=1)
        self.states = {n: x.reshape(-1, *shape) for (n, (_, shape)), x in zip(self.shapes.items(), parts, strict=True)}
        one = lambda a, x: log_density(self.model, (), dict(self.data), {"a": a, **x})[0]  # noqa: E731
        self.prior = float(dist.Normal(0.0, 1.0).log_prob(a))

        def evidence(a: Any) -> tuple[Any, Any]:
            log = jax.vmap(lambda x: one(a, x))(self.states) - dist.Normal(0.0, 1.0).log_prob(a)
            return jax.nn.logsumexp(jnp.where(log == -jnp.inf, -1e30, log)), log

        (value, log), slope = jax.jit(jax.value_and_grad(evidence, has_aux=True))(jnp.asarray(a))
        self.evidence, self.slope, self.log = float(value), float(slope), np.asarray(log)
        self.weights = np.exp(self.log - self.evidence)

    def marginals(self) -> dict[str, np.ndarray]:
        """Site -> the probabilities of its values, [*shape, values]."""
        found = {}
        for n, (k, _) in self.shapes.items():
            each = [(self.states[n] == v).astype(float) for v in range(k)]
            found[n] = np.stack([np.tensordot(self.weights, x, 1) for x in each], -1)
        return found

    def numbers(self, draws: Mapping[str, Any]) -> np.ndarray:
        """Which configuration each draw is."""
        sizes = [k for k, shape in self.shapes.values() for _ in range(int(np.prod(shape)))]
        flat = np.concatenate([np.asarray(draws[n]).reshape(len(draws[n]), -1) for n in self.shapes], 1)
        return np.ravel_multi_index(tuple(flat.T.astype(int)), sizes)
