"""A hidden Markov model of one long sequence: autovi's fit of the program in `scan`, and its forward algorithm by hand.

    moves, a row a state: softmax of independent normals; locations of the states: normals 3 apart;
    x_t ~ moves[x_(t-1)] from x_0 = 0, y_t ~ Normal(location of x_t, 1).

All parameters are normal, so that the program by hand has autovi's family of independent normals without maps between
them: `value_and_grad` of the ELBO of one flat vector, the same Adam with the same steps, in one `lax.scan`.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

RATE = 0.03  # falls to zero along a cosine: the last steps average the noise out
DRAWS = 4000
SMALL = 2_000  # numbers of all transitions, up to which shorter fits than those timed are compiled in less time
LARGE = 500_000  # from which on fewer steps are timed


def model(y: Any, states: int) -> None:
    """The program that is fitted."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.contrib.control_flow import scan

    moves = numpyro.sample("moves", dist.Normal(2.0 * jnp.eye(states), 1.0).to_event(2))
    loc = numpyro.sample("loc", dist.Normal(3.0 * jnp.arange(states), 1.0).to_event(1))
    logits = jax.nn.log_softmax(moves)

    def step(x: Any, y: Any) -> Any:
        x = numpyro.sample("x", dist.Categorical(logits=logits[x]))
        numpyro.sample("y", dist.Normal(loc[x], 1.0), obs=y)
        return x, None

    scan(step, jnp.zeros((), int), y)


def simulate(length: int, states: int) -> np.ndarray:
    """A sequence from states that last for five steps on average, 3 apart."""
    rng = np.random.default_rng(states)
    x = np.zeros(length, int)
    for t in range(1, length):
        x[t] = x[t - 1] if rng.random() < 0.8 else rng.integers(states)
    return (3.0 * x + rng.normal(size=length)).astype(np.float32)


def prior_means(states: int) -> Any:
    """The prior means of [moves, loc], where the program by hand starts."""
    import jax.numpy as jnp

    return jnp.concatenate([2.0 * jnp.eye(states).ravel(), 3.0 * jnp.arange(states)])


def log_joint(y: Any, states: int) -> Callable[[Any], Any]:
    """The log density of [moves, loc], with the states summed out by the forward algorithm in logarithms."""
    import jax
    import jax.numpy as jnp

    half = 0.5 * math.log(2.0 * math.pi)
    rows = states * states
    prior_mean = prior_means(states)

    def density(z: Any) -> Any:
        logits = jax.nn.log_softmax(z[:rows].reshape(states, states))
        seen = -0.5 * (jnp.asarray(y)[:, None] - z[rows:]) ** 2 - half

        def forward(alpha: Any, row: Any) -> Any:
            return jax.nn.logsumexp(alpha[:, None] + logits, axis=0) + row, None

        alpha = jax.lax.scan(forward, logits[0] + seen[0], seen[1:])[0]
        return jax.nn.logsumexp(alpha) - jnp.sum(0.5 * (z - prior_mean) ** 2 + half)

    return density


class ByHand:
    """`run(num_steps) -> losses`, and the ELBO of where it ended."""

    def __init__(self, y: np.ndarray, states: int, schedule: Callable[[int], Any]):
        import jax.numpy as jnp

        self.density, self.schedule = log_joint(y, states), schedule
        self.size = (states + 1) * states
        self.start = prior_means(states), jnp.full(self.size, math.log(0.1))
        self.kept: dict[int, Any] = {}
        self.params: Any = None

    def _elbo(self, params: Any, noise: Any) -> Any:
        import jax.numpy as jnp

        entropy = jnp.sum(params[1]) + 0.5 * self.size * (1.0 + math.log(2.0 * math.pi))
        return self.density(params[0] + jnp.exp(params[1]) * noise) + entropy

    def compiled(self, num_steps: int) -> Any:
        """The program of so many steps."""
        import jax
        import optax

        optimizer = optax.adam(self.schedule(num_steps))

        def step(carry: Any, key: Any) -> Any:
            params, state = carry
            noise = jax.random.normal(key, (self.size,))
            loss, gradient = jax.value_and_grad(lambda p: -self._elbo(p, noise))(params)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), loss

        def run(params: Any, key: Any) -> Any:
            keys = jax.random.split(key, num_steps)
            (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), keys)
            return params, losses

        if num_steps not in self.kept:
            self.kept[num_steps] = jax.jit(run).lower(self.start, jax.random.key(0)).compile()
        return self.kept[num_steps]

    def __call__(self, num_steps: int) -> np.ndarray:
        import jax

        self.params, losses = self.compiled(num_steps)(self.start, jax.random.key(0))
        return np.asarray(losses)

    def elbo(self) -> tuple[float, float]:
        """The ELBO of the last run and its standard error."""
        import jax

        noise = jax.random.normal(jax.random.key(1), (DRAWS, self.size))
        values = np.asarray(jax.jit(lambda p, n: jax.lax.map(lambda e: self._elbo(p, e), n))(self.params, noise), float)
        return float(values.mean()), float(values.std() / math.sqrt(DRAWS))


def evidence_at(fit: Any, y: np.ndarray, states: int) -> tuple[float, float]:
    """The ELBO of autovi's answer and its standard error: the log joint by hand at draws of q, plus the entropy of
    independent normals with the sds of the draws. Nothing of what autovi sums out is in it."""
    import jax
    import jax.numpy as jnp

    draws = fit.sample(DRAWS, resample=False)
    flat = np.concatenate([draws["moves"].reshape(DRAWS, -1), draws["loc"]], axis=1)
    values = np.asarray(jax.jit(lambda z: jax.lax.map(log_joint(y, states), z))(jnp.asarray(flat)), float)
    log_sd = np.log(flat.std(axis=0, ddof=1))
    entropy = log_sd.sum() + 0.5 * flat.shape[1] * (1.0 + math.log(2.0 * math.pi))
    return float(values.mean() + entropy), float(values.std() / math.sqrt(DRAWS))


def measured(length: int, states: int, steps: int = 3000) -> dict[str, Any]:
    """ELBOs after so many steps, microseconds a step, and seconds to compile, of both."""
    import optax

    import autovi
    from benchmarks.programs import Fits
    from benchmarks.timing import alternating, slope

    y = simulate(length, states)
    transitions = length * states**2
    timed = (6_000, 12_000) if transitions < SMALL else (200, 1200) if transitions < LARGE else (100, 300)
    schedule = lambda count: optax.cosine_decay_schedule(RATE, count)  # noqa: E731
    hand = ByHand(y, states, schedule)
    compile_hand = _seconds(lambda: hand.compiled(steps))
    hand(steps)
    elbo, se = hand.elbo()
    found: dict[str, Any] = {"hand_elbo": elbo, "hand_elbo_se": se, "hand_compile_s": compile_hand}
    data = {"y": y, "states": states}
    settings = {"guide": "mean_field", "num_particles": 1}
    try:
        options = settings | {"optimizer": optax.adam(schedule(steps))}
        found["compile_s"] = _seconds(lambda: Fits(model, data, **options).compiled(steps))
        fit = autovi.fit(model, data, num_steps=steps, progress_bar=False, **options)
        found |= {"elbo": float(fit.elbo), "elbo_se": float(fit.elbo_se), "plan": fit.plan["x"].estimator}
        found["checked_elbo"], found["checked_elbo_se"] = evidence_at(fit, y, states)
        fits = Fits(model, data, **settings, optimizer=optax.adam(RATE))
        calls = {(who, n): (lambda run=run, n=n: run(n)) for who, run in (("hand", hand), ("fit", fits)) for n in timed}
        for call in calls.values():
            call()
        times = alternating(calls, rounds=5, seconds=60.0, limit=120.0)
        for who in ("hand", "fit"):
            found[f"{who}_us"] = _microseconds(slope(*(times[who, n] for n in timed), timed[1] - timed[0]))
    except Exception as error:
        found["failed"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return found


def _microseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1e6 * seconds


def _seconds(work: Callable[[], Any]) -> float:
    """CPU seconds, of all threads, which other processes do not lengthen."""
    before = time.process_time()
    work()
    return time.process_time() - before
