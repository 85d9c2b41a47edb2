"""Oracles for the gradients of draws, made of NumPyro's log densities and quadrature alone."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.flatten_util import ravel_pytree
from numpyro.distributions.transforms import biject_to

from autovi.compiling import compiler_options

FAR = 38.0  # the real line is looked at up to sinh(38) = 2e16
PANELS = 150
NODES = np.polynomial.legendre.leggauss(12)
STEP = 1e-4
Z = 5.5  # standard errors: a false alarm in 4e-8


def distribution_function(fn, values: jax.Array, edges: np.ndarray) -> jax.Array:
    """F at each value for a univariate distribution, by composite Gauss-Legendre quadrature of `exp(log_prob)`.

    In the coordinate v with x = T(sinh(v)), T the bijection onto the support, which makes poles at the edges and heavy
    tails smooth. `edges` are the panels' edges in v, of which those beyond the value count as the value itself.
    """
    transform = biject_to(fn.support)
    end = jnp.arcsinh(transform.inv(values))[:, None, None]
    low, high = jnp.minimum(edges[:-1, None], end), jnp.minimum(edges[1:, None], end)
    v = low + (high - low) * (1 + NODES[0]) / 2
    u = jnp.sinh(v)
    x = transform(u)
    log_density = fn.log_prob(x) + transform.log_abs_det_jacobian(u, x) + jnp.log(jnp.cosh(v))
    weights = (high - low) * NODES[1] / 2
    mass = jnp.sum(weights * jnp.where(jnp.isfinite(log_density), jnp.exp(log_density), 0.0), axis=(1, 2))
    return mass if transform(1.0) > transform(0.0) else 1 - mass


def exact_velocity(make: Callable, params: Mapping[str, float], name: str, values: np.ndarray) -> np.ndarray:
    """dz/dtheta = -(dF/dtheta) / p at draws, by a central difference of the distribution function: float64 only.

    Operation by operation: to compile it would take longer.
    """
    breaks = np.unique(np.concatenate([np.linspace(-FAR, FAR, PANELS + 1), np.linspace(-4, 4, PANELS + 1)]))
    at = lambda theta: make(**{**params, name: jnp.asarray(theta)})  # noqa: E731
    values = jnp.asarray(values)
    with numpyro.validation_enabled(False):  # the quadrature goes to the edge of the support
        upper, lower, far_upper, far_lower = (
            distribution_function(at(params[name] + step * STEP), values, breaks) for step in (1, -1, 2, -2)
        )
        density = jnp.exp(at(params[name]).log_prob(values))
    return -np.asarray((8 * (upper - lower) - (far_upper - far_lower)) / (12 * STEP) / density)


# `jax.jit` with little optimization: most of a test's time is the compiler's. Not for what another transformation is
# applied to, nor where a rounding error is measured that should be that of programs as users compile them.
jit = partial(jax.jit, compiler_options=compiler_options(work=0))


def quickly(fn: Callable, *args):
    """`fn(*args)`, compiled with little optimization."""
    return jit(fn)(*args)


def directional(draw: Callable, make: Callable, params: Mapping, cost: Callable, rng_key: jax.Array, num: int):
    """Two unbiased estimates per draw of one directional derivative of E cost(z): along the draws, and by the score.

    `draw(rng_key, distribution, sample_shape)` makes the draws. All parameters move at once, in a random direction that
    keeps matrices symmetric, so that no gradient that is missing can hide.
    """
    flat, unravel = ravel_pytree(params)
    direction = unravel(jnp.asarray(np.random.default_rng(0).uniform(0.5, 1.5, flat.size), flat.dtype))
    direction = jax.tree.map(lambda d: (d + d.T) / 2 if d.ndim == 2 and d.shape[0] == d.shape[1] else d, direction)

    def both(rng_key):
        costs, along = jax.jvp(lambda p: cost(draw(rng_key, make(**p), (num,))), (params,), (direction,))
        values = jax.lax.stop_gradient(draw(rng_key, make(**params), (num,)))
        _, score = jax.jvp(lambda p: make(**p).log_prob(values), (params,), (direction,))
        return along, (costs - jnp.mean(costs)) * score

    return quickly(both, rng_key)


def assert_agree(along: jax.Array, by_score: jax.Array, bound: float = Z, floor: float = 0.05) -> None:
    """The two estimates have one mean, within `bound` standard errors, each at most `floor` of it."""
    along, by_score = np.asarray(along, np.float64), np.asarray(by_score, np.float64)
    assert np.isfinite(along).all()
    se = np.sqrt((along.var() + by_score.var()) / along.size)
    assert se < floor * abs(by_score.mean()), f"standard error {se} of a mean of {by_score.mean()}"
    z = abs(along.mean() - by_score.mean()) / se
    assert z < bound, f"along the draws {along.mean()}, by the score {by_score.mean()}, standard error {se}"


def assert_mean(draws, exact) -> None:
    """The mean along the first axis is `exact`, entry by entry, within `Z` standard errors."""
    draws = np.asarray(draws, np.float64)
    error = draws.std(0) / np.sqrt(len(draws))
    z = np.abs(draws.mean(0) - exact) / (error + 1e-7 * np.abs(exact) + 1e-12)
    assert np.max(z) < Z, f"exact {exact}, mean {draws.mean(0)}, standard error {error}"
