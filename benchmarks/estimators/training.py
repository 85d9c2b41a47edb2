"""The variance of every estimator while the parameters are trained by its own gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from autovi.estimators import Estimator
from benchmarks.estimators.measuring import flat, prepared
from benchmarks.estimators.problems import Problem

RATE = 0.01
POINTS = 40
DRAWS = 256


def curve(problem: Problem, estimator: Estimator | None) -> dict[str, list[float]]:
    """Exact loss and variance (of `DRAWS` gradients at the same parameters) at `POINTS` steps of Adam."""
    of = prepared(problem, estimator)
    own = of.engine.estimator_params()
    optimizers = {b.name: b.estimator.optimizer for b in of.engine.program.plan.blocks if b.name in own}
    adam = optax.adam(RATE)

    def step(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
        params, state, own, memory = carry
        _, (gradient, change) = of.gradients(params, own, key)
        updates, state = adam.update(gradient, state)
        moved = {n: optimizers[n].update(change[n], memory[n], own[n]) for n in own}
        own = {n: optax.apply_updates(own[n], moved[n][0]) for n in own}
        return (optax.apply_updates(params, updates), state, own, {n: m for n, (_, m) in moved.items()}), None

    @jax.jit
    def stretch(carry: tuple, key: jax.Array) -> tuple[tuple, jax.Array]:
        key, other = jax.random.split(key)
        one = lambda k: flat(of.gradients(carry[0], carry[2], k)[1][0])  # noqa: E731
        variance = jnp.sum(jnp.var(jax.lax.map(one, jax.random.split(other, DRAWS)), 0))
        carry, _ = jax.lax.scan(step, carry, jax.random.split(key, problem.steps // POINTS))
        return carry, variance

    carry: Any = of.params, adam.init(of.params), own, {n: optimizers[n].init(own[n]) for n in own}
    exact = jax.jit(problem.exact)
    found: dict[str, list[float]] = {"step": [], "loss": [], "variance": []}
    for point in range(POINTS):
        found["step"].append(point * (problem.steps // POINTS))
        found["loss"].append(float(exact(carry[0])))
        carry, variance = stretch(carry, jax.random.key(point))
        found["variance"].append(float(np.asarray(variance)))
    return found
