"""R2-G2: the mean of the pathwise gradient over all draws that have the same product with data."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.distributions.noise import from_noise, is_of_noise, normal_of
from autovi.estimators.base import Draw, Estimator, Facts, Times, refuses_pathwise

stop = jax.lax.stop_gradient


@dataclass(frozen=True)
class R2G2(Estimator):
    """E[dh/dphi | h] in the place of dh/dphi, h = X w the product of a normal w = m + L eps with data.

    The cost's slope in h is a function of h, so that only the mean of the noise given h matters: eps' = B^+ B eps,
    B = X L, the part of eps that h sees. Terms of h are evaluated at the draw, and differentiated as X (m + L eps'),
    eps' held fixed. Terms that do not see h, such as the prior of w, see the draw itself. Unbiased under the ELBO. The
    variance of the gradient of the terms of h is never above that of `explicit` with the same draws; that of the whole
    gradient is neither where the others are in closed form (`Elbo(closed_form="kl")`). It gains in L, where w has more
    numbers than h, or X is rank-deficient: elsewhere h determines eps, and it is `explicit` at a higher cost. The
    gradient of m has no eps but that in h, and is the same everywhere.

    For normals, independent or of full covariance, that enter the cost by one product with data; refused elsewhere with
    the reason. Each step takes a singular value decomposition of B, numbers of h by numbers of w. Lam, Bui,
    Deligiannidis and Teh (2025), "Rao-Blackwellised Reparameterisation Gradients".

    Args:
        max_size: more numbers in a draw than this are refused, for the decomposition.

    Raises:
        ValueError: when the step is made, of a draw of more numbers.

    Example:
        >>> autovi.fit(model, data, guide="full_rank", estimators={"w": "r2g2"})
    """

    max_size: int = 500

    name: ClassVar[str] = "r2g2"
    pathwise: ClassVar[bool] = True
    local: ClassVar[bool] = True
    on_request: ClassVar[bool] = True

    def refuses(self, facts: Facts) -> str | None:
        if facts.distribution not in ("Normal", "MultivariateNormal") or facts.curved:
            return "the mean of its noise given a product with data is known for normals only"
        return refuses_pathwise(facts) or facts.tied or facts.not_linear

    @property
    def alone(self) -> bool:
        return True

    def noise(self, rng_key: jax.Array, num_particles: int, shape: tuple[int, ...]) -> Any:
        if (size := prod(shape)) > self.max_size:
            raise ValueError(
                f"estimator {self.name!r}: expected at most max_size={self.max_size} numbers in a draw, got {size}"
            )
        return jax.vmap(lambda key: jax.random.normal(key, shape))(super().noise(rng_key, num_particles, shape))

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        if is_of_noise(q):
            value, log_q = from_noise(q, noise)
            return Draw(value, log_q=log_q)
        return Draw(normal_of(q, noise))

    def product(self, noise: jax.Array, q: Distribution, draw: Draw, times: Times) -> jax.Array:
        _, linear = jax.linearize(lambda eps: times(normal_of(q, eps)), jnp.zeros_like(noise))
        columns = stop(jax.vmap(linear)(jnp.eye(noise.size, dtype=noise.dtype).reshape(-1, *noise.shape)))
        directions, lengths, _ = jnp.linalg.svd(columns.reshape(noise.size, -1), full_matrices=False)
        # A direction that is kept although h does not see it is noise; one that is lost is bias: only those that cannot
        # be told from zero are.
        seen = lengths > jnp.finfo(lengths.dtype).eps * jnp.max(lengths) * max(columns.shape)
        mean = directions @ jnp.where(seen, directions.T @ jnp.ravel(noise), 0)
        smooth = times(normal_of(q, stop(mean.reshape(noise.shape))))
        return stop(times(draw.value) - smooth) + smooth
