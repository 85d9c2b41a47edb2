"""Independent normals, stretched or shrunk along a few directions that all coordinates share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from autovi.families.base import Layout, NoiseFamily, Params


@dataclass(frozen=True)
class Stretched(NoiseFamily):
    """u = loc + exp(log_scale) (eps + Q (exp(log_lengths) - 1) Q' eps), Q (D, rank) with orthonormal columns.

    A normal whose covariance is low rank plus diagonal, for more dimensions than a full covariance affords: along each
    column of Q it is exp(log_length) times as wide as the coordinates say, wider or narrower. Density, inverse and log
    determinant are exact, with no system to be solved. Parameters: `loc`, `log_scale` (D,), `log_lengths` (rank,) and
    `vectors` (D, rank), of which Q is the orthonormal basis; its entries are about one, so that a step of Adam turns
    all columns by the same angle, however many coordinates there are.

    `rank` None takes the nearest integer to sqrt(D). The vectors start at random.
    Ong, Nott and Smith (2018), "Gaussian Variational Approximation With a Factor Covariance Structure", for covariances
    of this form.

    Example:
        >>> autovi.fit(model, data, families={"*": autovi.families.Stretched(rank=5)})
    """

    rank: int | None = None

    name: ClassVar[str] = "stretched"
    rotates: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"rank: expected an integer of at least 1, got {self.rank}")

    def from_normal(self, loc: jax.Array, scale: jax.Array, layout: Layout) -> Params | None:
        if scale.ndim > loc.ndim:
            return None
        size = loc.shape[-1]
        rank = min(self.rank or max(1, round(size**0.5)), size)
        vectors = jax.random.normal(jax.random.key(size), (*loc.shape, rank), loc.dtype)
        lengths = jnp.zeros((*loc.shape[:-1], rank), loc.dtype)
        return {"loc": loc, "log_scale": jnp.log(scale), "log_lengths": lengths, "vectors": vectors}

    def as_normal(self, params: Params) -> tuple[jax.Array, jax.Array]:
        basis = _basis(params)
        wide = jnp.expm1(2 * params["log_lengths"])[..., None, :]
        inside = (basis * wide) @ basis.mT + jnp.eye(basis.shape[-2], dtype=basis.dtype)
        return params["loc"], jnp.exp(params["log_scale"])[..., None] * jnp.linalg.cholesky(inside)

    def forward(self, params: Params, noise: jax.Array, layout: Layout) -> tuple[jax.Array, jax.Array]:
        standard = _stretch(_basis(params), params["log_lengths"], noise)
        value = params["loc"] + jnp.exp(params["log_scale"]) * standard
        return value, _log_det(params)

    def inverse(self, params: Params, value: jax.Array, layout: Layout) -> tuple[jax.Array, jax.Array]:
        standard = (value - params["loc"]) * jnp.exp(-params["log_scale"])
        return _stretch(_basis(params), -params["log_lengths"], standard), _log_det(params)


def _basis(params: Params) -> jax.Array:
    return jnp.linalg.qr(params["vectors"], mode="reduced")[0]


def _stretch(basis: jax.Array, log_lengths: jax.Array, vector: jax.Array) -> jax.Array:
    return vector + basis @ (jnp.expm1(log_lengths) * (vector @ basis))


def _log_det(params: Params) -> jax.Array:
    return jnp.sum(params["log_scale"]) + jnp.sum(params["log_lengths"])
