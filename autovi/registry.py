"""How the draws of each NumPyro distribution may be differentiated, as a table of autovi's own.

`GRADIENTS` has one row for every distribution class that NumPyro exports; `lookup` reads it for an instance,
through wrappers, transforms, mixtures and subclasses. NumPyro's `has_rsample` is not consulted: it says which
parameters are declared reparametrized, which is neither complete (`Wishart`, `Levy`, `EulerMaruyama`) nor
always meaningful (`ImproperUniform`), and it does not tell explicit from implicit reparametrization.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints


@dataclass(frozen=True)
class Gradients:
    """What is known of the gradients of an expectation under one distribution.

    Attributes:
        pathwise: "explicit" if a draw is a differentiable function of parameter-free noise, "implicit" if its
            derivative comes from an implicit step (the gamma family), None if a draw has no sound derivative.
        discrete: whether the draws are integers.
        enumerable: whether the support is a finite set of scalars that `enumerate_support` lists.
        moving_support: real parameters that move the support, so that the score function misses a boundary
            term and is invalid for them. Integer parameters carry no gradient and are not listed.
        observation_only: whether it cannot be drawn from: right for observed sites, never for a guide.
        not_pathwise: parameters whose pathwise gradient is missing or biased although `pathwise` holds for
            the others. Attributes that are distributions themselves are named too: "mixing_distribution".
        note: what else a person should know, one line.
    """

    pathwise: str | None
    discrete: bool = False
    enumerable: bool = False
    moving_support: tuple[str, ...] = ()
    observation_only: bool = False
    not_pathwise: tuple[str, ...] = ()
    note: str = ""


def _explicit(*moving: str, missing: tuple[str, ...] = (), note: str = "") -> Gradients:
    return Gradients("explicit", moving_support=moving, not_pathwise=missing, note=note)


def _implicit(*moving: str, note: str = "") -> Gradients:
    return Gradients("implicit", moving_support=moving, note=note)


def _finite(note: str = "") -> Gradients:
    return Gradients(None, discrete=True, enumerable=True, note=note)


def _discrete(note: str = "") -> Gradients:
    return Gradients(None, discrete=True, note=note)


def _no_path(note: str) -> Gradients:
    return Gradients(None, note=note)


def _observed(note: str) -> Gradients:
    return Gradients(None, observation_only=True, note=note)


_GAMMA_RATIO = "a ratio of gammas: two noises, so noisier than the gradient of the marginal"
_HEAVY = "heavy tails: the pathwise gradient of an unbounded cost may have infinite variance"
_COUNTS = "finite but combinatorial support, which is not listed"
_INFINITE = "infinite support"
_GATED = "mixed: an atom at zero and a density; the gate needs enumeration or the score function"
_PERIODIC = "drawn by rejection; the gradient of a location holds for periodic costs only"
_SINE_BIVARIATE = ("phi_concentration", "psi_concentration", "correlation")
_BISECTED = "drawn by bisection, which is slow"
_CENSORED = "the log density is not that of a draw"
_PER_INSTANCE = "read from the wrapped distribution"

GRADIENTS: dict[str, Gradients] = {
    "AsymmetricLaplace": _explicit(),
    "AsymmetricLaplaceQuantile": _explicit(),
    "BernoulliLogits": _finite(),
    "BernoulliProbs": _finite(),
    "Beta": _implicit(note=_GAMMA_RATIO),
    "BetaBinomial": _finite("if the total count is concrete and the same throughout"),
    "BetaNegativeBinomial": _discrete(_INFINITE),
    "BetaProportion": _implicit(note=_GAMMA_RATIO),
    "BinomialLogits": _finite("if the total count is concrete and the same throughout"),
    "BinomialProbs": _finite("if the total count is concrete and the same throughout"),
    "CAR": _explicit(),
    "CategoricalLogits": _finite(),
    "CategoricalProbs": _finite(),
    "Cauchy": _explicit(note=_HEAVY),
    "Chi2": _implicit(),
    "CirculantNormal": _explicit(),
    "Dagum": _explicit(),
    "Delta": _explicit("v", note="a draw is the parameter itself"),
    "Dirichlet": _implicit(),
    "DirichletMultinomial": _discrete(_COUNTS),
    "DiscreteUniform": _finite("if the bounds are concrete and the same throughout"),
    "Distribution": _no_path("unknown distribution: only what its support tells"),
    "DoublyTruncatedPowerLaw": _explicit("low", "high"),
    "EulerMaruyama": _explicit(),
    "ExpandedDistribution": _no_path(_PER_INSTANCE),
    "Exponential": _explicit(),
    "FoldedDistribution": _no_path(_PER_INSTANCE),
    "Gamma": _implicit(),
    "GammaPoisson": _discrete(_INFINITE),
    "GaussianCopula": _no_path("explicit where the marginal has an explicit inverse distribution function"),
    "GaussianCopulaBeta": _no_path("a draw inverts the incomplete beta function, which JAX cannot"),
    "GaussianRandomWalk": _explicit(),
    "GaussianStateSpace": _explicit(),
    "GeometricLogits": _discrete(_INFINITE),
    "GeometricProbs": _discrete(_INFINITE),
    "Gompertz": _explicit(),
    "Gumbel": _explicit(),
    "HalfCauchy": _explicit(note=_HEAVY),
    "HalfNormal": _explicit(),
    "HurdleGamma": _no_path(_GATED),
    "HurdleLogNormal": _no_path(_GATED),
    "HurdleLogits": _discrete("discrete or mixed, as the base is"),
    "HurdlePoisson": _discrete(_INFINITE),
    "HurdleProbs": _discrete("discrete or mixed, as the base is"),
    "ImproperUniform": _observed("no sampler: may be a prior, never a guide"),
    "Independent": _no_path(_PER_INSTANCE),
    "IntervalCensoredDistribution": _observed(_CENSORED),
    "InverseGamma": _implicit(),
    "InverseWishart": _implicit(),
    "InverseWishartCholesky": _implicit(),
    "Kumaraswamy": _explicit(),
    "LKJ": _implicit(),
    "LKJCholesky": _implicit(),
    "Laplace": _explicit(note="the log density has a kink at loc"),
    "LeftCensoredDistribution": _observed(_CENSORED),
    "LeftTruncatedDistribution": _explicit("low"),
    "LeftTruncatedGamma": _implicit("low", note=_BISECTED),
    "Levy": _explicit(note=_HEAVY + "; loc moves the support, but the density vanishes at its edge"),
    "LogNormal": _explicit(),
    "LogUniform": _explicit("low", "high"),
    "Logistic": _explicit(),
    "LowRankMultivariateNormal": _explicit(),
    "LowerTruncatedPowerLaw": _explicit("low"),
    "MaskedDistribution": _no_path(_PER_INSTANCE),
    "MatrixNormal": _explicit(),
    "MixtureGeneral": _no_path(_PER_INSTANCE),
    "MixtureSameFamily": _no_path(_PER_INSTANCE),
    "MultinomialLogits": _discrete(_COUNTS),
    "MultinomialProbs": _discrete(_COUNTS),
    "MultivariateNormal": _explicit(),
    "MultivariateStudentT": _implicit(),
    "NegativeBinomial2": _discrete(_INFINITE),
    "NegativeBinomialLogits": _discrete(_INFINITE),
    "NegativeBinomialProbs": _discrete(_INFINITE),
    "Normal": _explicit(),
    "OrderedLogistic": _finite(),
    "Pareto": _explicit("scale", note=_HEAVY),
    "Poisson": _discrete(_INFINITE),
    "ProjectedNormal": _explicit(),
    "RelaxedBernoulliLogits": _explicit(),
    "RightCensoredDistribution": _observed(_CENSORED),
    "RightTruncatedDistribution": _explicit("high"),
    "RightTruncatedGamma": _implicit("high", note=_BISECTED),
    "SineBivariateVonMises": _explicit(missing=_SINE_BIVARIATE, note=_PERIODIC),
    "SineSkewed": _no_path("a random sign flip, whose probability holds the skewness"),
    "SoftLaplace": _explicit(),
    "StudentT": _implicit(note="the gradient of df goes through a gamma draw: noisier than the marginal one"),
    "TransformedDistribution": _no_path(_PER_INSTANCE),
    "TruncatedPolyaGamma": _explicit(note="no parameters"),
    "TwoSidedTruncatedDistribution": _explicit("low", "high"),
    "TwoSidedTruncatedGamma": _implicit("low", "high", note=_BISECTED),
    "Uniform": _explicit("low", "high"),
    "Unit": _observed("a factor: it has no value"),
    "VonMises": _explicit(missing=("concentration",), note=_PERIODIC),
    "Weibull": _explicit(),
    "Wishart": _implicit(),
    "WishartCholesky": _implicit(),
    "ZeroInflatedLogits": _discrete("enumerable if the base is"),
    "ZeroInflatedPoisson": _discrete(_INFINITE),
    "ZeroInflatedProbs": _discrete("enumerable if the base is"),
    "ZeroSumNormal": _explicit(),
}

_WRAPPERS = (dist.ExpandedDistribution, dist.Independent, dist.MaskedDistribution)


def strip(fn: dist.Distribution) -> dist.Distribution:
    """The distribution inside any `ExpandedDistribution`, `Independent` and `MaskedDistribution`."""
    while isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
    return fn


def lookup(fn: dist.Distribution) -> Gradients:
    """What is known of the gradients of `fn`: its row of `GRADIENTS`, read for this instance.

    Wrappers, transforms, truncations, mixtures and gates are read through to what they wrap. A subclass of a
    listed class has that class's row unless it overrides `sample`. Any other class is unknown: no pathwise
    gradient, and every parameter moves the support unless the support is a constant.

    Example:
        >>> lookup(dist.Uniform(0.0, 1.0).expand([3]).to_event(1)).moving_support
        ('low', 'high')
    """
    listed = _listed_class(type(fn))
    if listed is None or type(fn).sample is not listed.sample:
        return _unlisted(fn)
    row, refine = GRADIENTS[listed.__name__], _PER_INSTANCE_ROWS.get(listed.__name__)
    return refine(fn, row) if refine else row


def is_listed(fn: dist.Distribution) -> bool:
    """Are `fn` and all distributions inside it NumPyro's own classes, as they are in the table?"""
    inside = jax.tree.leaves(vars(fn), is_leaf=lambda x: isinstance(x, dist.Distribution))
    return _listed_class(type(fn)) is type(fn) and all(is_listed(x) for x in inside if isinstance(x, dist.Distribution))


def is_discrete(fn: dist.Distribution) -> bool:
    """Whether the draws of `fn` are integers: `lookup(fn).discrete`."""
    return lookup(fn).discrete


def _listed_class(cls: type) -> type[dist.Distribution] | None:
    """The nearest ancestor of `cls` that has a row and is NumPyro's own, not a namesake."""
    for ancestor in cls.__mro__:
        name = ancestor.__name__
        if name in GRADIENTS and getattr(dist, name) is ancestor and ancestor is not dist.Distribution:
            return ancestor
    return None


def _unlisted(fn: dist.Distribution) -> Gradients:
    try:
        discrete = bool(fn.support.is_discrete)
        fixed = isinstance(_element(fn.support), constraints.ParameterFreeConstraint)
    except (AttributeError, NotImplementedError):
        discrete, fixed = False, False
    return Gradients(
        None,
        discrete=discrete,
        enumerable=discrete and bool(fn.has_enumerate_support),
        moving_support=() if fixed or discrete else tuple(fn.arg_constraints),
        note=f"{type(fn).__name__} is not a distribution that autovi knows: no pathwise gradient is assumed",
    )


def _wrapped(fn: Any, row: Gradients) -> Gradients:
    return lookup(fn.base_dist)


def _independent(fn: dist.Independent, row: Gradients) -> Gradients:
    element = lookup(fn.base_dist)
    return replace(element, enumerable=element.enumerable and fn.reinterpreted_batch_ndims == 0)


def _transformed(fn: dist.TransformedDistribution, row: Gradients) -> Gradients:
    base = lookup(fn.base_dist)
    moving = base.moving_support + (("transforms",) if _transforms_move_support(fn) else ())
    return replace(base, enumerable=False, moving_support=moving)


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


def _truncated(fn: Any, row: Gradients) -> Gradients:
    if isinstance(fn.base_dist, dist.StudentT):
        return replace(row, not_pathwise=("df",), note="its distribution function has no derivative in df")
    return row


def _copula(fn: dist.GaussianCopula, row: Gradients) -> Gradients:
    marginal = lookup(fn.marginal_dist)
    pathwise = "explicit" if marginal.pathwise == "explicit" else None
    return replace(row, pathwise=pathwise, moving_support=marginal.moving_support)


def _mixture(components: Iterable[dist.Distribution]) -> Gradients:
    rows = [lookup(component) for component in components]
    paths = [row.pathwise for row in rows]
    pathwise = None if None in paths else "implicit" if "implicit" in paths else "explicit"
    missing = _union([("mixing_distribution",), *(row.not_pathwise for row in rows)])
    return Gradients(
        pathwise,
        discrete=all(row.discrete for row in rows),
        moving_support=_union(row.moving_support for row in rows),
        not_pathwise=missing if pathwise else (),
        note="the component is a discrete choice: enumerate it, or use the score function for the weights",
    )


def _gated(fn: dist.HurdleProbs, row: Gradients) -> Gradients:
    base = lookup(fn.base_dist)
    note = row.note if base.discrete else _GATED
    return replace(row, discrete=base.discrete, moving_support=base.moving_support, note=note)


def _observed_through(fn: Any, row: Gradients) -> Gradients:
    """Inflated and censored distributions: a row of their own, with the kind of values of their base."""
    base = lookup(fn.base_dist)
    return replace(row, discrete=base.discrete, enumerable=base.enumerable and not row.observation_only)


# Classes whose row depends on what the instance holds: (instance, row of its class) -> row of the instance.
_PER_INSTANCE_ROWS: dict[str, Callable[[Any, Gradients], Gradients]] = {
    "ExpandedDistribution": _wrapped,
    "FoldedDistribution": _wrapped,
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
