"""What is known of a distribution: its row of the table, read for the instance at hand.

`lookup` reads `table.TABLE` through wrappers, transforms, mixtures and subclasses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from autovi.distributions.permutations import PlackettLuce, PlackettLuceMatrix
from autovi.distributions.table import OWN, TABLE, Known

# autovi's own classes, and those that users have made known.
_ADDED: dict[type, Known] = {cls: OWN[cls.__name__] for cls in (PlackettLuce, PlackettLuceMatrix)}

# Distributions that draw as another does.
WRAPPERS = (dist.ExpandedDistribution, dist.Independent, dist.MaskedDistribution)


def strip(fn: dist.Distribution) -> dist.Distribution:
    """The distribution inside any `ExpandedDistribution`, `Independent` and `MaskedDistribution`."""
    while isinstance(fn, WRAPPERS):
        fn = fn.base_dist
    return fn


def lookup(fn: dist.Distribution) -> Known:
    """What is known of `fn`: its row of `TABLE`, read for this instance.

    Wrappers, transforms, truncations, mixtures and gates are read through to what they wrap. A subclass of a
    listed class has that class's row unless it overrides `sample`. Any other class is unknown: a pathwise gradient,
    if it is univariate, only when asked for; and every parameter moves the support unless the support is a constant.

    Example:
        >>> lookup(dist.Uniform(0.0, 1.0).expand([3]).to_event(1)).moving_support
        ('low', 'high')
    """
    if type(fn) in _ADDED:
        return _ADDED[type(fn)]
    listed = _listed_class(type(fn))
    if listed is None or type(fn).sample is not listed.sample:
        return _unlisted(fn)
    row, refine = TABLE[listed.__name__], _PER_INSTANCE_ROWS.get(listed.__name__)
    return refine(fn, row) if refine else row


def add(cls: type[dist.Distribution], row: Known) -> None:
    """Gives a class that is not NumPyro's a row of its own, for `lookup`."""
    _ADDED[cls] = row


def depends_on_instance(name: str) -> bool:
    """Is what is known of a class read from what its instances hold?"""
    return name in _PER_INSTANCE_ROWS


def is_listed(fn: dist.Distribution) -> bool:
    """Are `fn` and all distributions inside it NumPyro's own classes, as they are in the table?"""
    inside = jax.tree.leaves(vars(fn), is_leaf=lambda x: isinstance(x, dist.Distribution))
    return _listed_class(type(fn)) is type(fn) and all(is_listed(x) for x in inside if isinstance(x, dist.Distribution))


def is_discrete(fn: dist.Distribution) -> bool:
    """Whether the draws of `fn` are integers: `lookup(fn).discrete`."""
    return lookup(fn).discrete


def drawn(rng_key: jax.Array, fn: dist.Distribution) -> jax.Array:
    """A draw, of discrete distributions of an integer type: NumPyro's geometrics draw whole floats."""
    value = jnp.asarray(fn(rng_key=rng_key))
    return value.astype(int) if jnp.issubdtype(value.dtype, jnp.inexact) and is_discrete(fn) else value


def _listed_class(cls: type) -> type[dist.Distribution] | None:
    """The nearest ancestor of `cls` that has a row and is NumPyro's own, not a namesake."""
    for ancestor in cls.__mro__:
        name = ancestor.__name__
        if name in TABLE and getattr(dist, name) is ancestor and ancestor is not dist.Distribution:
            return ancestor
    return None


def _unlisted(fn: dist.Distribution) -> Known:
    try:
        discrete = bool(fn.support.is_discrete)
        fixed = isinstance(_element(fn.support), constraints.ParameterFreeConstraint)
    except (AttributeError, NotImplementedError):  # a class of one's own without a support
        discrete, fixed = False, False
    univariate = not discrete and not fn.event_shape
    return Known(
        "implicit" if univariate else None,
        discrete=discrete,
        enumerable=discrete and bool(fn.has_enumerate_support),
        moving_support=() if fixed or discrete else tuple(fn.arg_constraints),
        implicit=dict.fromkeys(fn.arg_constraints, _generic_route(fn)) if univariate else {},
        reserved="autovi does not know its class, and can only try its density on a few values" if univariate else None,
        note=f"{type(fn).__name__} is not a distribution that autovi knows",
    )


def _generic_route(fn: dist.Distribution) -> str:
    return "quadrature" if type(fn).cdf is dist.Distribution.cdf else "cdf"


def _wrapped(fn: Any, row: Known) -> Known:
    return lookup(fn.base_dist)


def _folded(fn: dist.FoldedDistribution, row: Known) -> Known:
    base = lookup(fn.base_dist)
    row = replace(base, pathwise=base.pathwise and "implicit", implicit={"base_dist": "analytic"})
    return _without_own(row)


def _without_own(row: Known) -> Known:
    """For a distribution that is made of another: the family and the density are the other's alone."""
    return replace(row, own_family=None, density=None, relaxed_density=None)


def _sine_skewed(fn: dist.SineSkewed, row: Known) -> Known:
    """The ends of uniform angles are those of the circle."""
    uniform = isinstance(strip(fn.base_dist), dist.Uniform)
    return replace(row, implicit={**row.implicit, "base_dist": None}) if uniform else row


def _independent(fn: dist.Independent, row: Known) -> Known:
    element = lookup(fn.base_dist)
    return replace(element, enumerable=element.enumerable and fn.reinterpreted_batch_ndims == 0)


def _transformed(fn: dist.TransformedDistribution, row: Known) -> Known:
    base = lookup(fn.base_dist)
    moving = base.moving_support + (("transforms",) if _transforms_move_support(fn) else ())
    return _without_own(replace(base, enumerable=False, moving_support=moving))


def _transforms_move_support(fn: dist.TransformedDistribution) -> bool:
    """Whether a parameter of a transform may move the edge of the support.

    A bijection from the whole real space has no edge to move; once a transform has left the whole space, any
    later one with parameters may. A Python number among them is a constant.
    """
    whole = _is_whole_space(fn.base_dist.support)
    for transform in fn.transforms:
        dtypes = [getattr(leaf, "dtype", int) for leaf in jax.tree.leaves(transform)]
        if not whole and any(jnp.issubdtype(dtype, jnp.inexact) for dtype in dtypes):
            return True
        # The default codomain of an affine transform is the real line, whatever goes in: only ever lose the
        # whole space along the chain, never regain it.
        whole = whole and _is_whole_space(transform.codomain)
    return False


def _truncated(fn: Any, row: Known) -> Known:
    if not isinstance(fn.base_dist, dist.StudentT):
        return row
    return replace(row, pathwise="implicit", implicit=dict.fromkeys(("base_dist", *row.moving_support), "analytic"))


def _copula(fn: dist.GaussianCopula, row: Known) -> Known:
    marginal = lookup(fn.marginal_dist)
    row = replace(row, moving_support=marginal.moving_support)
    if marginal.periodic:
        return replace(row, pathwise=None, note="its angles are cut where their distribution functions begin")
    if marginal.not_pathwise:
        return replace(row, pathwise=None, note="a value of its marginal has a probability of its own")
    if marginal.pathwise is None:
        return row
    implicit = {"marginal_dist": "analytic"}
    return replace(row, pathwise="implicit", implicit=implicit, reserved=marginal.reserved, note="")


def _mixture(components: Iterable[dist.Distribution]) -> Known:
    components = list(components)
    rows = [lookup(component) for component in components]
    common = Known(
        None,
        discrete=all(row.discrete for row in rows),
        moving_support=_union(row.moving_support for row in rows),
        note="the component is a discrete choice: enumerate it, or use the score function for the weights",
    )
    if not all(row.pathwise and _is_factorized(c) for row, c in zip(rows, components, strict=True)):
        return common
    if any(row.not_pathwise for row in rows):
        return replace(common, note="a value of a component has a probability of its own")
    route = "triangular" if components[0].event_shape else "analytic"
    return replace(
        common,
        pathwise="implicit",
        periodic=any(row.periodic for row in rows),
        implicit={"mixing_distribution": route, "components": route},
        reserved="the implicit gradient of a mixture explodes as its components draw apart",
        note="",
    )


def _is_factorized(fn: dist.Distribution) -> bool:
    """Are the coordinates of `fn` independent, each with a distribution function of its own?"""
    return not strip(fn).event_shape


def _gated(fn: dist.HurdleProbs, row: Known) -> Known:
    base = lookup(fn.base_dist)
    if base.discrete or base.pathwise is None:
        return replace(row, discrete=base.discrete, moving_support=base.moving_support)
    positive = _element(fn.base_dist.support) in (constraints.positive, constraints.nonnegative)
    known = TABLE["HurdleLogNormal"]
    return replace(known, moving_support=base.moving_support, own_family=known.own_family if positive else None)


def _observed_through(fn: Any, row: Known) -> Known:
    """Inflated and censored distributions: a row of their own, with the kind of values of their base."""
    base = lookup(fn.base_dist)
    return replace(row, discrete=base.discrete, enumerable=base.enumerable and not row.observation_only)


# Classes whose row depends on what the instance holds: (instance, row of its class) -> row of the instance.
_PER_INSTANCE_ROWS: dict[str, Callable[[Any, Known], Known]] = {
    "ExpandedDistribution": _wrapped,
    "FoldedDistribution": _folded,
    "GaussianCopula": _copula,
    "HurdleLogits": _gated,
    "HurdleProbs": _gated,
    "Independent": _independent,
    "IntervalCensoredDistribution": _observed_through,
    "LeftCensoredDistribution": _observed_through,
    "LeftTruncatedDistribution": _truncated,
    "MaskedDistribution": _wrapped,
    "MixtureGeneral": lambda fn, row: _mixture(fn.component_distributions),
    "MixtureSameFamily": lambda fn, row: _mixture([fn.component_distribution]),
    "RightCensoredDistribution": _observed_through,
    "RightTruncatedDistribution": _truncated,
    "SineSkewed": _sine_skewed,
    "TransformedDistribution": _transformed,
    "TwoSidedTruncatedDistribution": _truncated,
    "ZeroInflatedLogits": _observed_through,
    "ZeroInflatedProbs": _observed_through,
}


def _union(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in names for name in group))


def _element(support: constraints.Constraint) -> constraints.Constraint:
    """The constraint on one element of a support built with `constraints.independent`."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def _is_whole_space(support: constraints.Constraint) -> bool:
    return _element(support) is constraints.real


def parameters(item: Any) -> list[Any]:
    """The arrays in a distribution, by the names of its attributes: NumPyro's own order is another in each process."""
    if not isinstance(item, dist.Distribution):
        return jax.tree.leaves(item)
    names = sorted(type(item).gather_pytree_data_fields())
    return [leaf for name in names for leaf in parameters(vars(item).get(name))]


@dataclass(frozen=True)
class Made:
    """How a distribution is made of the arrays in it, in the order of `parameters`."""

    structure: Any
    places: tuple[int, ...]  # of each leaf that JAX finds

    @property
    def num_leaves(self) -> int:
        """How many arrays there are."""
        return len(self.places)

    def of(self, arrays: Iterable[Any]) -> Any:
        """The distribution made of these."""
        arrays = list(arrays)
        return jax.tree.unflatten(self.structure, [arrays[place] for place in self.places])


def taken_apart(fn: dist.Distribution) -> tuple[list[Any], Made]:
    """A distribution's arrays, in an order that is the same in every process, and how it is made of them."""
    leaves, structure = jax.tree.flatten(fn)
    order = {id(leaf): place for place, leaf in enumerate(parameters(fn))}
    known = sorted(range(len(leaves)), key=lambda i: order.get(id(leaves[i]), len(order)))
    places = tuple(known.index(i) for i in range(len(leaves)))
    return [leaves[i] for i in known], Made(structure, places)
