"""The contenders: mean-field ADVI of the same problem by hand, by NumPyro, and by autovi.

Each returns `run(num_steps) -> losses`. `by_hand` and `by_numpyro` do their steps in one `lax.scan` under
one `jit` (`Scan`). Imports stand in the functions, so that a fresh
process pays for its own program only.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.problem import LEARNING_RATE, NUM_DIMENSIONS, log_joint, model

Run = Callable[[int], np.ndarray]
INITIAL_SCALE = 0.1


class Scan:
    """`run(num_steps) -> losses` of a jitted `scan(carry, num_steps)`, compiled once for each number of steps."""

    def __init__(self, scan: Any, carry: Any):
        self.scan, self.carry = scan, carry
        self.kept: dict[int, Any] = {}

    def compiled(self, num_steps: int) -> Any:
        """The program of so many steps, compiled ahead."""
        if num_steps not in self.kept:
            self.kept[num_steps] = self.scan.lower(self.carry, num_steps).compile()
        return self.kept[num_steps]

    def __call__(self, num_steps: int) -> np.ndarray:
        return np.asarray(self.compiled(num_steps)(self.carry))


class Fits:
    """`run(num_steps) -> losses` by `autovi.fit` with the options given, whose program is kept from fit to fit."""

    def __init__(self, model: Callable, data: dict[str, Any], **options: Any):
        self.model, self.data, self.options = model, data, options

    def compiled(self, num_steps: int) -> Any:
        """The chunk of steps that every fit runs, whatever its number of steps."""
        import jax

        from autovi.preparation import Options, prepare

        engine, inputs = prepare(self.model, self.data, Options(**self.options))
        return engine.compile(jax.device_put(inputs.traced()), 0)[1]

    def __call__(self, num_steps: int) -> np.ndarray:
        import autovi

        return autovi.fit(self.model, self.data, num_steps=num_steps, progress_bar=False, **self.options).losses


def by_hand(data: dict[str, np.ndarray], num_particles: int) -> Scan:
    """The floor: q = Normal(m, exp s) on one flat vector, Adam written out, nothing else in the loop.

    The parameters are one array [m, s]; the loss is -(mean log joint over the particles + sum s + constant).
    The key is split once a step and the loss of every step is kept.
    """
    import jax
    import jax.numpy as jnp

    density = log_joint(data)
    entropy_constant = 0.5 * NUM_DIMENSIONS * (1.0 + math.log(2.0 * math.pi))

    def loss(params: jax.Array, key: jax.Array) -> jax.Array:
        loc, log_scale = params[:NUM_DIMENSIONS], params[NUM_DIMENSIONS:]
        if num_particles == 1:
            expected = density(loc + jnp.exp(log_scale) * jax.random.normal(key, (NUM_DIMENSIONS,)))
        else:
            noise = jax.random.normal(key, (num_particles, NUM_DIMENSIONS))
            expected = jnp.mean(jax.vmap(density)(loc + jnp.exp(log_scale) * noise))
        return -(expected + jnp.sum(log_scale) + entropy_constant)

    def step(carry: tuple, _: None) -> tuple[tuple, jax.Array]:
        params, first, second, count, key = carry
        key, subkey = jax.random.split(key)
        value, gradient = jax.value_and_grad(loss)(params, subkey)
        count = count + 1.0
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        unbiased_first, unbiased_second = first / (1.0 - 0.9**count), second / (1.0 - 0.999**count)
        params = params - LEARNING_RATE * unbiased_first / (jnp.sqrt(unbiased_second) + 1e-8)
        return (params, first, second, count, key), value

    @partial(jax.jit, static_argnums=1)
    def scan(carry: tuple, num_steps: int) -> jax.Array:
        return jax.lax.scan(step, carry, length=num_steps)[1]

    start = np.concatenate([np.zeros(NUM_DIMENSIONS), np.full(NUM_DIMENSIONS, math.log(INITIAL_SCALE))])
    params = jnp.asarray(start, jnp.float32)
    zeros = jnp.zeros_like(params)

    return Scan(scan, (params, zeros, zeros, jnp.float32(0.0), jax.random.key(0)))


def by_numpyro(data: dict[str, np.ndarray], num_particles: int, guide: str = "AutoDiagonalNormal") -> Scan:
    """NumPyro's SVI with `Trace_ELBO`, Adam and an autoguide; `svi.update` in a scan.

    AutoDiagonalNormal is the closest to the floor: one flat vector with one location and one scale array.
    """
    import jax
    from numpyro.infer import SVI, Trace_ELBO, autoguide
    from numpyro.optim import Adam

    auto = getattr(autoguide, guide)(model, init_scale=INITIAL_SCALE)
    svi = SVI(model, auto, Adam(LEARNING_RATE), Trace_ELBO(num_particles=num_particles))
    state = svi.init(jax.random.key(0), **data)

    @partial(jax.jit, static_argnums=1)
    def scan(state: Any, num_steps: int) -> jax.Array:
        return jax.lax.scan(lambda s, _: svi.update(s, **data), state, length=num_steps)[1]

    return Scan(scan, state)


def by_autovi(data: dict[str, np.ndarray], num_particles: int) -> "Fits":
    """autovi's public interface as a user would call it, with the floor's family and optimizer."""
    import optax

    return Fits(model, data, guide="mean_field", num_particles=num_particles, optimizer=optax.adam(LEARNING_RATE))


PROGRAMS: dict[str, Callable[..., Run]] = {
    "by hand": by_hand,
    "NumPyro": by_numpyro,
    "autovi": by_autovi,
}
