"""Long chains, whose steps are computed again in the backward pass: nothing changes but the memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_checks import ONCE

from autovi.elimination import along
from autovi.elimination.eliminate import eliminated
from autovi.elimination.factors import Factor
from autovi.elimination.network import Network
from autovi.elimination.semirings import Largest, Sampled, Summed

SEMIRINGS = {"summed": Summed, "largest": Largest, "sampled": lambda: Sampled(jax.random.key(3))}


def log_sum(moves, first, seen, semiring, lanes=1):
    """A hidden Markov model from logs of its transitions `[steps or 1, states, states]`, which are the same in all
    steps or differ, of its first step `[states]`, and of what is seen `[steps, states]`."""
    length, states = seen.shape
    network = Network({"x": states, "x@1": states, "t": length}, {"x": frozenset("t")}, {"x": 1}, {"x": "t"})
    start = (jnp.broadcast_to(first, (states, states)),)
    factors = [Factor(moves, ("t", "x@1", "x"), first=start), Factor(seen, ("t", "x"))]
    return jnp.asarray(sum(jnp.sum(f.table) for f in eliminated(network, factors, semiring, lanes)))


@pytest.mark.parametrize("name", SEMIRINGS)
@pytest.mark.parametrize(("length", "differ"), [(2, False), (12, False), (7, True)])
def test_values_and_gradients_are_the_same(monkeypatch, name, length, differ):
    """Of sums, of the most likely configuration, and of draws, which are those of the same key."""
    rng = np.random.default_rng(length)
    tables = [rng.normal(size=s) for s in ((length if differ else 1, 3, 3), (3,), (length, 3))]

    def found(most_held):
        monkeypatch.setattr(along, "MOST_HELD", most_held)
        graded = jax.value_and_grad(lambda *t: log_sum(*t, SEMIRINGS[name]()), argnums=(0, 1, 2))
        return jax.jit(graded, compiler_options=ONCE)(*tables)

    with jax.enable_x64(True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found(0), found(10**9))


def test_curvature_is_the_same(monkeypatch):
    """A product with the Hessian, forward over backward."""
    rng = np.random.default_rng(1)
    moves, first, seen = rng.normal(size=(1, 3, 3)), rng.normal(size=3), rng.normal(size=(11, 3))

    def found(most_held):
        monkeypatch.setattr(along, "MOST_HELD", most_held)
        gradient = jax.grad(lambda m: log_sum(m, first, seen, Summed()))
        return jax.jit(lambda: jax.jvp(gradient, (moves,), (jnp.ones_like(moves),))[1], compiler_options=ONCE)()

    with jax.enable_x64(True):
        np.testing.assert_allclose(found(0), found(10**9), atol=1e-12)


@pytest.mark.parametrize(("length", "lanes"), [(50_000, 1), (5_000, 10)])
def test_the_memory_of_long_chains(length, lanes):
    """All products of a message with the transitions are 7.2 million numbers, 29 MB. The tables of what is seen and
    their copy in the order of the steps are 2.4 MB each, the messages are no more."""
    states, f = 12, jnp.float32

    def gradient(moves, first, seen):
        return jax.grad(lambda *t: log_sum(*t, Summed(), lanes), argnums=(0, 1, 2))(moves, first, seen)

    shapes = [(lanes, 1, states, states), (lanes, states), (lanes, length, states)]
    compiled = jax.jit(jax.vmap(gradient)).lower(*(jax.ShapeDtypeStruct(s, f) for s in shapes)).compile(ONCE)
    assert compiled.memory_analysis().temp_size_in_bytes < 10e6
