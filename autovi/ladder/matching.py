"""Batch and match: a normal distribution whose score is that of a log density, in closed-form steps without a step
size (Cai, Modi, Pillaud-Vivien, Margossian, Gower, Blei and Saul, ICML 2024)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from autovi.ladder.normal import LogDensity, Normal, behind, product, standard

NUM_DRAWS = 16
NUM_ITERATIONS = 100
AVERAGED = 0.5  # the last part of the iterations whose mean is the answer
ENOUGH = 2  # draws with finite scores, to move by


class Matched(NamedTuple):
    """What `match` found.

    Args:
        normal: the mean of the last iterates.
        last: the last iterate.
        elbos: estimate of the evidence lower bound of each iterate before its step, from its own draws, shape
            `(num_iterations,)`; NaN where no draw was good.
        good_draws: how many draws of each iteration had finite densities and scores, shape `(num_iterations,)`.
        moved: which iterations changed something, shape `(num_iterations,)`.
    """

    normal: Normal
    last: Normal
    elbos: jax.Array
    good_draws: jax.Array
    moved: jax.Array


def match(
    log_density: LogDensity,
    start: Normal,
    rng_key: jax.Array,
    num_draws: int = NUM_DRAWS,
    num_iterations: int = NUM_ITERATIONS,
) -> Matched:
    r"""Matches the scores of a normal distribution to those of a log density.

    In coordinates whitened by the start, with draws :math:`z_b` of the present distribution, their scores :math:`g_b`,
    means and covariances :math:`\bar z, \bar g, C, \Gamma`, and :math:`\lambda = B D / (t + 1)`:

    .. math::

        U = \lambda\Gamma + \tfrac{\lambda}{1 + \lambda} \bar g \bar g', \quad
        V = \Sigma + \lambda C + \tfrac{\lambda}{1 + \lambda} (\mu - \bar z)(\mu - \bar z)'

    the next :math:`\Sigma` solves :math:`\Sigma U \Sigma + \Sigma = V` and
    :math:`\mu \leftarrow \tfrac{1}{1 + \lambda} \mu + \tfrac{\lambda}{1 + \lambda} (\Sigma \bar g + \bar z)`. On a
    normal density every step is towards it, and there is no other fixed point. On others the fixed point has
    :math:`E\,g = 0` and :math:`Cov(g) = \Sigma^{-1}`, which is not the maximum of the ELBO.

    Draws whose density or score is not finite are left out; an iteration with less than two good ones, or whose step
    is not finite, changes nothing.

    Args:
        log_density: from `(D,)` to a number, differentiable.
        start: where to start.
        rng_key: for the draws.
        num_draws: gradients of each iteration.
        num_iterations: closed-form steps.
    """
    dimension, dtype = start.loc.shape[0], start.loc.dtype
    scores = jax.vmap(jax.value_and_grad(behind(log_density, start)))

    def body(present: Normal, t: jax.Array) -> tuple[Normal, tuple[Normal, jax.Array, jax.Array, jax.Array]]:
        noise = jax.random.normal(jax.random.fold_in(rng_key, t), (num_draws, dimension), dtype)
        draws = present.at(noise)
        values, gradients = scores(draws)
        good = jnp.isfinite(values) & jnp.isfinite(gradients).all(-1)
        log_ratio = jnp.where(good, values - present.log_density_at_noise(noise), 0)
        elbo = start.log_det + log_ratio.sum() / good.sum()
        following = _step(present, draws, jnp.where(good[:, None], gradients, 0), good, _weight(num_draws, dimension, t))
        sound = (good.sum() >= ENOUGH) & jnp.isfinite(following.loc).all() & jnp.isfinite(following.scale).all()
        new = jax.tree.map(lambda a, b: jnp.where(sound, a, b), following, present)
        return new, (new, elbo, good.sum(), sound)

    last, (iterates, elbos, good, moved) = jax.lax.scan(body, standard(dimension, dtype), jnp.arange(num_iterations))
    return Matched(start.after(last), start.after(last), elbos, good, moved)


def _weight(num_draws: int, dimension: int, t: jax.Array) -> jax.Array:
    """Of the scores against the distribution before."""
    return num_draws * dimension / (t + 1.0)
