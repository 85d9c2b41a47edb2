"""A normal copula with sinh-arcsinh marginals over all unconstrained values of a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from autovi.distributions.copula import bend, correlate, decorrelate, split_rows, unbend
from autovi.families.base import Layout, NoiseFamily, Params


@dataclass(frozen=True)
class SinhArcsinh(NoiseFamily):
    """u_i = loc_i + exp(log_scale_i) z_i, z_i = (sinh(t_i asinh(y_i) + s_i) - sinh(s_i)) / (t_i cosh(s_i)).

    y = the rows of (I + strictly_lower(lower)) scaled to length 1, times standard normal noise: correlated standard
    normals. `skew` s lengthens the right tail (s > 0) or the left one, `log_tail` log t both (t > 1) or neither; loc is
    the median and exp(log_scale) the slope there, whatever s and t. With s = 0 and t = 1 it is a normal of full rank.
    Jones and Pewsey (2009), "Sinh-arcsinh distributions". Parameters: `loc`, `log_scale`, `skew`, `log_tail` (D,) and
    `lower` (D, D).

    Example:
        >>> autovi.fit(model, data, families={"*": "sinh_arcsinh"})
    """

    name: ClassVar[str] = "sinh_arcsinh"
    rotates: ClassVar[bool] = True

    def from_normal(self, loc: jax.Array, scale: jax.Array, layout: Layout) -> Params:
        length, lower = split_rows(loc, scale)
        skew, log_tail = jnp.zeros_like(loc), jnp.zeros_like(loc)
        return {"loc": loc, "log_scale": jnp.log(length), "lower": lower, "skew": skew, "log_tail": log_tail}

    def forward(self, params: Params, noise: jax.Array, layout: Layout) -> tuple[jax.Array, jax.Array]:
        y, log_det = correlate(params["lower"], noise)
        z, log_slope = bend(y, params["skew"], params["log_tail"])
        value = params["loc"] + jnp.exp(params["log_scale"]) * z
        return value, log_det + jnp.sum(log_slope + params["log_scale"])

    def inverse(self, params: Params, value: jax.Array, layout: Layout) -> tuple[jax.Array, jax.Array]:
        z = (value - params["loc"]) * jnp.exp(-params["log_scale"])
        y, log_slope = unbend(z, params["skew"], params["log_tail"])
        noise, log_det = decorrelate(params["lower"], y)
        return noise, log_det + jnp.sum(log_slope + params["log_scale"])
