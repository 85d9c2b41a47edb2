"""Each coordinate normal given the earlier ones: shift and log scale linear in their noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from autovi.families.base import Layout, NoiseFamily, Params, full_rank_params


@dataclass(frozen=True)
class ConditionalAffine(NoiseFamily):
    """u_i = loc_i + exp(log_diagonal_i) (A_i eps + exp(B_i eps) eps_i), A and B strictly lower triangular.

    Shift and log scale of a coordinate are linear in the noise of those before it, in the order of the sites: funnels
    and products of scales, where no structure is known. With B = 0 it is a normal of full rank. Parameters: `loc`,
    `log_diagonal` (D,), `lower` A and `scale_lower` B times sqrt(D) (D, D). The inverse goes through the coordinates
    one by one.
    Papamakarios, Pavlakou and Murray (2017), "Masked Autoregressive Flow for Density Estimation", with linear networks.

    Example:
        >>> autovi.fit(model, data, families={"*": "conditional_affine"})
    """

    name: ClassVar[str] = "conditional_affine"
    rotates: ClassVar[bool] = True

    def from_normal(self, loc: jax.Array, scale: jax.Array, layout: Layout) -> Params:
        params = full_rank_params(loc, scale)
        return {**params, "scale_lower": jnp.zeros_like(params["lower"])}

    def forward(self, params: Params, noise: jax.Array, layout: Layout) -> tuple[jax.Array, jax.Array]:
        lower, scale_lower = _triangles(params)
        log_scale = scale_lower @ noise
        standard = lower @ noise + jnp.exp(log_scale) * noise
        value = params["loc"] + jnp.exp(params["log_diagonal"]) * standard
        return value, jnp.sum(params["log_diagonal"] + log_scale)

    def inverse(self, params: Params, value: jax.Array, layout: Layout) -> tuple[jax.Array, jax.Array]:
        lower, scale_lower = _triangles(params)
        standard = (value - params["loc"]) * jnp.exp(-params["log_diagonal"])

        def one(noise: jax.Array, row: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            place, shift, log_scale, at = row
            log_scale = log_scale @ noise
            return noise.at[place].set((at - shift @ noise) * jnp.exp(-log_scale)), log_scale

        rows = (jnp.arange(len(value)), lower, scale_lower, standard)
        noise, log_scale = jax.lax.scan(one, jnp.zeros_like(value), rows)
        return noise, jnp.sum(params["log_diagonal"] + log_scale)

    def slope(self, params: Params, noise: jax.Array, value: jax.Array, layout: Layout) -> jax.Array:
        # Solves with the Jacobian of `forward`, which is known with the noise: no coordinate waits for another one.
        lower, scale_lower = _triangles(params)
        scale = jnp.exp(scale_lower @ noise)
        jacobian = lower + (scale * noise)[:, None] * scale_lower + jnp.diag(scale)
        in_noise = -noise - jnp.sum(scale_lower, 0)
        return jnp.exp(-params["log_diagonal"]) * solve_triangular(jacobian, in_noise, lower=True, trans=1)


def _triangles(params: Params) -> tuple[jax.Array, jax.Array]:
    """A and B. A step of Adam moves all entries of a row of B at once, and what they make is in an exponential: over
    the square root of their number it moves as little as a scale does by a step of its own."""
    lower, scale_lower = (jnp.tril(params[name], -1) for name in ("lower", "scale_lower"))
    return lower, scale_lower / max(1, scale_lower.shape[-1]) ** 0.5
