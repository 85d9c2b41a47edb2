"""What a variational family is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.distributions.layouts import Structure
from autovi.distributions.pushforward import Pushforward, slope_by_inverse
from autovi.model.sites import Site

Params = dict[str, jax.Array]
Levels = tuple[tuple[str, ...], ...]  # the sites of each set of plates, outer plates first

INIT_SCALE = 0.1
MAX_DENSE = 600  # numbers of a block, up to which matrices of all pairs are held and decomposed


@dataclass(frozen=True)
class Layout:
    """The array a family is asked for: `batch_shape` elements that are independent, each an `event_shape` array."""

    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...]
    num_values: int | None = None  # of a finite support
    num_parents: int = 0  # numbers that a conditional family is given
    reads: tuple[tuple[int, ...], ...] = ()  # shapes of what an estimator reads for each element
    structure: Structure | None = None  # which coordinates of a flat block belong to elements of plates


@dataclass(frozen=True)
class Family(ABC):
    """A parametric set of distributions for one block.

    A family on the `unconstrained` scale is a distribution of what each site's own bijection maps to the site's value;
    the others draw the value itself. A `joint` family ties all elements of a block, or all values of each element of a
    plate, which it takes as one vector, the event. A `conditional` one is drawn given the values of other blocks.

    Parameters are unconstrained arrays whose leading axes are the layout's batch shape, so that the rows of a
    subsampled plate can be taken out of them. A complete example of a new family is in docs/extending.md.
    """

    name: ClassVar[str]
    distribution_name: ClassVar[str]  # NumPyro's class of its draws, whose row in the table says how they differentiate
    unconstrained: ClassVar[bool] = False
    support: ClassVar[Any] = None  # NumPyro's constraint, of continuous families on the site's own scale
    joint: ClassVar[bool] = False
    conditional: ClassVar[bool] = False
    rotates: ClassVar[bool] = False  # does it mean the same behind a map that mixes the coordinates of a block?
    estimators: ClassVar[tuple[str, ...]]  # those that are right for it, the default first

    @abstractmethod
    def refuses(self, site: Site) -> str | None:
        """Why this family cannot be the site's: None when it can."""

    @abstractmethod
    def init(self, start: jax.Array, layout: Layout) -> Params:
        """Parameters concentrated around `start`, an array of shape `batch_shape + event_shape`.

        `start` is on the unconstrained scale for unconstrained families, else a value inside the support; families
        with a finite support ignore it.
        """

    @abstractmethod
    def distribution(self, params: Params, event_ndim: int) -> Distribution:
        """The member of the family, with `event_ndim` event dimensions."""

    def member(self, params: Params, layout: Layout) -> Distribution:
        """The member of the family for a layout: `distribution`, unless it takes more of the layout to say."""
        return self.distribution(params, len(layout.event_shape))

    def given(self, params: Params, parents: jax.Array) -> Params:
        """The parameters, for `distribution`, of a conditional family's member given its parents' values, a vector."""
        return params

    def takes_apart(self, by_plates: Levels) -> tuple[Levels, tuple[int, ...]] | None:
        """The sites of each level into which the family takes a flat block apart, whose sites in plates are
        `by_plates`, and which of the levels are one element; None where all of a block has one distribution."""
        return None

    def statistics(self, value: jax.Array) -> jax.Array:
        """The sufficient statistics of each element, `batch_shape + (number,)`, of an array of values: of the families
        that the table of distributions names as the own ones of a prior.

        Raises:
            NotImplementedError: the family is not one of them.
        """
        raise NotImplementedError(f"family {self.name!r} has no sufficient statistics")

    def from_natural(self, coefficients: jax.Array) -> Params:
        """The parameters of the member whose log density is the sum of `statistics` with these coefficients (and a
        constant), `batch_shape + (number,)`: NaN or infinite where there is no such member.

        Raises:
            NotImplementedError: as in `statistics`.
        """
        raise NotImplementedError(f"family {self.name!r} has no sufficient statistics")

    def as_normal(self, params: Params) -> tuple[jax.Array, jax.Array] | None:
        """The member as N(loc, scale scale') of the flattened value: `scale` a lower triangle, or a vector where the
        coordinates are independent; with the layout's batch shape in front, if it has one. None where it is no
        normal."""
        return None

    def from_normal(self, loc: jax.Array, scale: jax.Array, layout: Layout) -> Params | None:
        """The parameters of the member that is this normal; None where the family does not hold it."""
        return None


@dataclass(frozen=True)
class NoiseFamily(Family):
    """A family whose members are smooth bijections of standard normal noise, u = T(eps; params), eps ~ N(0, I).

    `forward` and `inverse` are written for one vector; `distribution` batches them. Of a draw, log q comes from the
    noise and the log determinant alone. Every parameter has the layout's batch shape in front.
    """

    distribution_name: ClassVar[str] = "MultivariateNormal"  # the noise's: a draw is an explicit function of it
    unconstrained: ClassVar[bool] = True
    joint: ClassVar[bool] = True
    estimators: ClassVar[tuple[str, ...]] = ("sticking", "explicit", "score")

    @abstractmethod
    def forward(self, params: Params, noise: jax.Array, layout: Layout) -> tuple[jax.Array, jax.Array]:
        """u = T(noise), both of length D, and log |det dT/dnoise|."""

    @abstractmethod
    def inverse(self, params: Params, value: jax.Array, layout: Layout) -> tuple[jax.Array, jax.Array]:
        """The noise of a value, and log |det dT/dnoise| there."""

    def slope(self, params: Params, noise: jax.Array, value: jax.Array, layout: Layout) -> jax.Array:
        """The gradient of log q in u at a draw and its noise. By default that of the inverse; a family whose inverse is
        dear may solve with the Jacobian of `forward` instead."""
        return slope_by_inverse(self, params, value, layout)

    def refuses(self, site: Site) -> str | None:
        return continuous_with_bijection(site)

    def init(self, start: jax.Array, layout: Layout) -> Params:
        params = self.from_normal(start, jnp.full_like(start, INIT_SCALE), layout)
        assert params is not None
        return params

    def member(self, params: Params, layout: Layout) -> Distribution:
        return Pushforward(self, params, layout)

    def distribution(self, params: Params, event_ndim: int) -> Distribution:
        shape = jnp.shape(params["loc"])
        return self.member(params, Layout(shape[:-1], shape[-1:]))


def to_event(fn: Distribution, event_ndim: int) -> Distribution:
    """`fn` with its last batch dimensions made event dimensions until it has `event_ndim`."""
    extra = event_ndim - fn.event_dim
    return fn.to_event(extra) if extra else fn


def scale_tril(params: Params) -> jax.Array:
    """L (*batch, D, D) = (I + strictly_lower(lower)) exp(log_diagonal), row by row."""
    unit = jnp.tril(params["lower"], -1) + jnp.eye(params["lower"].shape[-1], dtype=params["lower"].dtype)
    return jnp.exp(params["log_diagonal"])[..., None] * unit


def full_rank_params(loc: jax.Array, scale: jax.Array) -> Params:
    """The parameters of N(loc, scale scale'), `loc` (*batch, D), `scale` a lower triangle or as `loc` a vector."""
    independent = scale.ndim == loc.ndim
    diagonal = scale if independent else jnp.diagonal(scale, axis1=-2, axis2=-1)
    zero = jnp.zeros((*loc.shape, loc.shape[-1]), loc.dtype)
    lower = zero if independent else jnp.tril(scale / diagonal[..., None], -1)
    return {"loc": loc, "log_diagonal": jnp.log(diagonal), "lower": lower}


def refuses_but_counts(site: Site) -> str | None:
    """The refusal of families of counts without a bound."""
    return None if site.is_count else f"its support is {site.support}, not the non-negative integers"


def continuous_with_bijection(site: Site) -> str | None:
    """The refusal of families on the unconstrained scale."""
    if site.discrete:
        return f"its values are discrete ({site.support})"
    if site.gradients.not_pathwise:
        return "one of its values has a probability of its own, which no density follows"
    if site.unconstrained_shape is None:
        return f"no bijection maps its support ({site.support}) to the real line"
    return None
