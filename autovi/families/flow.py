"""A coupling flow over all unconstrained values of a block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from autovi.distributions.copula import unmix
from autovi.families.base import Layout, NoiseFamily, Params, full_rank_params

MAX_LOG_SCALE = 2.0  # of one layer, either way: no layer overflows, whatever its network says


@dataclass(frozen=True)
class Flow(NoiseFamily):
    """u = loc + L x, x = noise through `num_layers` couplings: one half of the coordinates shifts and scales the other,

    x_b <- exp(s(x_a)) x_b + t(x_a), (t, s) a network with one hidden layer of `width` D units and smooth activation.

    The halves change roles, and every second time the coordinates are divided anew. Both directions are exact and cost
    the same, and s is bounded by 2. It starts as the normal N(loc, L L'), the last layer of every network being zero:
    behind a whitening map that is where a posterior nearly is, and the networks learn the difference. Parameters: those
    of `full_rank`, and of network i `hidden_i`, `hidden_bias_i`, `out_i`, `out_bias_i`, the weights times the square
    root of the number of inputs. Dinh, Sohl-Dickstein and Bengio (2017), "Density Estimation Using Real NVP".

    Args:
        num_layers: how many couplings, at least 1.
        width: hidden units of each network, in dimensions of the block, at least 1.

    Raises:
        ValueError: a number below 1.

    Example:
        >>> autovi.fit(model, data, families={"*": "flow"})
    """

    num_layers: int = 6
    width: int = 4

    name: ClassVar[str] = "flow"
    rotates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("num_layers", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected an integer of at least 1, got {getattr(self, name)}")

    def from_normal(self, loc: jax.Array, scale: jax.Array, layout: Layout) -> Params:
        params, batch, dtype = full_rank_params(loc, scale), loc.shape[:-1], loc.dtype
        for i, (given, moved) in self._halves(loc.shape[-1]):
            units = self.width * loc.shape[-1]
            key = jax.random.fold_in(jax.random.key(0), i)
            hidden = jax.random.normal(key, (len(given), units), dtype)
            params |= {
                f"hidden_{i}": jnp.broadcast_to(hidden, (*batch, *hidden.shape)),
                f"hidden_bias_{i}": jnp.zeros((*batch, units), dtype),
                f"out_{i}": jnp.zeros((*batch, units, 2 * len(moved)), dtype),
                f"out_bias_{i}": jnp.zeros((*batch, 2 * len(moved)), dtype),
            }
        return params

    def forward(self, params: Params, noise: jax.Array, layout: Layout) -> tuple[jax.Array, jax.Array]:
        x, log_det = noise, jnp.sum(params["log_diagonal"])
        for i, (given, moved) in self._halves(len(noise)):
            shift, log_scale = _network(params, i, x[given])
            x = _joined(given, moved, x[given], jnp.exp(log_scale) * x[moved] + shift)
            log_det += jnp.sum(log_scale)
        mixed = x + jnp.tril(params["lower"], -1) @ x
        return params["loc"] + jnp.exp(params["log_diagonal"]) * mixed, log_det

    def inverse(self, params: Params, value: jax.Array, layout: Layout) -> tuple[jax.Array, jax.Array]:
        mixed = (value - params["loc"]) * jnp.exp(-params["log_diagonal"])
        x, log_det = unmix(jnp.tril(params["lower"], -1), mixed), jnp.sum(params["log_diagonal"])
        for i, (given, moved) in reversed(list(self._halves(len(value)))):
            shift, log_scale = _network(params, i, x[given])
            x = _joined(given, moved, x[given], (x[moved] - shift) * jnp.exp(-log_scale))
            log_det += jnp.sum(log_scale)
        return x, log_det

    def _halves(self, size: int) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
        """Of every layer, the coordinates that are given and those that are moved."""
        rng = np.random.default_rng(0)
        order = np.arange(size)
        for i in range(self.num_layers):
            first, second = np.split(order, [(size + 1) // 2])
            yield i, (first, second) if i % 2 == 0 else (second, first)
            order = rng.permutation(size) if i % 2 else order


def _network(params: Params, i: int, given: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The shift and the log scale that one half has for the other."""
    # The difference from a normal is first of all quadratic: the activation must bend at zero, which tanh does not.
    hidden = jax.nn.silu(_product(given, params[f"hidden_{i}"]) + params[f"hidden_bias_{i}"])
    shift, log_scale = jnp.split(_product(hidden, params[f"out_{i}"]) + params[f"out_bias_{i}"], 2)
    return shift, MAX_LOG_SCALE * jnp.tanh(log_scale / MAX_LOG_SCALE)


def _product(x: jax.Array, weights: jax.Array) -> jax.Array:
    # Over the square root of their number, so that one step of Adam, which moves all weights at once, moves what they
    # make by as much as a step of `loc` does.
    return x @ weights / np.sqrt(max(1, len(x)))


def _joined(given: np.ndarray, moved: np.ndarray, x_given: jax.Array, x_moved: jax.Array) -> jax.Array:
    return jnp.concatenate([x_given, x_moved])[np.argsort(np.concatenate([given, moved]))]
