"""What is known of each NumPyro distribution, one row a class: its gradients, its own family, its fast density.

`TABLE` has one row for every distribution class that NumPyro exports. NumPyro's `has_rsample` is not consulted: it
says which parameters are declared reparametrized, which is neither complete (`Wishart`, `Levy`, `EulerMaruyama`) nor
always meaningful (`ImproperUniform`), and it does not tell explicit from implicit reparametrization.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jax import Array

from autovi.distributions import counts, formulas, gammas, gates
from autovi.distributions.truncated import truncated

Density = Callable[[Any, Array], Array]


@dataclass(frozen=True)
class Known:
    """What is known of one distribution, first of all of the gradients of expectations under it.

    Attributes:
        pathwise: "explicit" if a draw is a differentiable function of parameter-free noise, "implicit" if the
            derivative in some parameter comes from an implicit step, None if a draw has no sound derivative.
        implicit: for each parameter whose derivative is implicit, the way it is taken: one of `ROUTES`. Attributes
            that are distributions themselves are named too. All other parameters are explicit.
        discrete: whether the draws are integers.
        enumerable: whether the support is a finite set of scalars that `enumerate_support` lists.
        moving_support: real parameters that move the support, so that the score function misses a boundary
            term and is invalid for them. Integer parameters carry no gradient and are not listed.
        observation_only: whether it cannot be drawn from: right for observed sites, never for a guide.
        not_pathwise: parameters whose pathwise gradient is missing or biased although `pathwise` holds for
            the others.
        periodic: whether its pathwise gradient is right only for costs that are periodic in its angles.
        reserved: why a pathwise gradient, though right, is taken only when asked for: None if it may be the default.
        note: what else a person should know, one line.
        own_family: the variational family of its kind, if autovi has one: a key of `FAMILIES`.
        density: (distribution, values inside the support) -> log density, as NumPyro's and cheaper; None: NumPyro's.
        relaxed_density: the same for values in between those of a discrete support.
    """

    pathwise: str | None
    discrete: bool = False
    enumerable: bool = False
    moving_support: tuple[str, ...] = ()
    observation_only: bool = False
    not_pathwise: tuple[str, ...] = ()
    implicit: Mapping[str, str | None] = field(default_factory=dict)
    periodic: bool = False
    reserved: str | None = None
    note: str = ""
    own_family: str | None = None
    density: Density | None = None
    relaxed_density: Density | None = None


# How an implicit derivative is taken: in closed form, from a differentiable distribution function, by quadrature of the
# log density, or coordinate by coordinate from the one-dimensional ones.
ROUTES = ("analytic", "cdf", "quadrature", "triangular")


def _explicit(*moving: str, note: str = "", **more: Any) -> Known:
    return Known("explicit", moving_support=moving, note=note, **more)


def _implicit(
    *moving: str,
    missing: tuple[str, ...] = (),
    note: str = "",
    own_family: str | None = None,
    density: Density | None = None,
    **routes: str,
) -> Known:
    known = Known("implicit", moving_support=moving, not_pathwise=missing, note=note, own_family=own_family)
    return replace(known, density=density, implicit=routes)


def _circular(own_family: str | None = None, density: Density | None = None, **routes: str) -> Known:
    return Known("implicit", implicit=routes, periodic=True, own_family=own_family, density=density)


def _finite(note: str = "", **densities: Any) -> Known:
    return Known(None, discrete=True, enumerable=True, note=note, **densities)


def _discrete(note: str = "", **more: Any) -> Known:
    return Known(None, discrete=True, note=note, **more)


def _no_path(note: str) -> Known:
    return Known(None, note=note)


def _observed(note: str) -> Known:
    return Known(None, observation_only=True, note=note)


_HEAVY = "heavy tails: the pathwise gradient of an unbounded cost may have infinite variance"
_COUNTS = "finite but combinatorial support, which is not listed"
_INFINITE = "infinite support"
_TOTAL = "if the total count is concrete and the same throughout"
_GATED = "mixed: an atom at zero and a density; the gate needs enumeration or the score function"
_SINE_BIVARIATE: dict[str, Any] = dict.fromkeys(("phi_concentration", "psi_concentration", "correlation"), "triangular")
_INFLATED: dict[str, Any] = {"own_family": "zero_inflated_poisson", "density": gates.zero_inflated}
_HURDLE: dict[str, Any] = {"own_family": "hurdle_poisson", "density": gates.hurdle}
_CENSORED = "the log density is not that of a draw"
_PER_INSTANCE = "read from the wrapped distribution"

CATEGORICAL = ("CategoricalLogits", "CategoricalProbs")

TABLE: dict[str, Known] = {
    "AsymmetricLaplace": _implicit(asymmetry="analytic"),
    "AsymmetricLaplaceQuantile": _implicit(quantile="analytic"),
    "BernoulliLogits": _finite(density=formulas.bernoulli_logits, relaxed_density=formulas.relaxed_bernoulli_logits),
    "BernoulliProbs": _finite(density=formulas.bernoulli_probs, relaxed_density=formulas.bernoulli_probs),
    "Beta": _implicit(own_family="beta", density=gammas.beta, concentration1="quadrature", concentration0="quadrature"),
    "BetaBinomial": _finite(_TOTAL),
    "BetaNegativeBinomial": _discrete(_INFINITE, own_family="negative_binomial"),
    "BetaProportion": _implicit(own_family="beta", density=gammas.beta, mean="quadrature", concentration="quadrature"),
    "BinomialLogits": _finite(_TOTAL, density=counts.binomial_logits, relaxed_density=counts.binomial_logits),
    "BinomialProbs": _finite(_TOTAL, density=counts.binomial_probs, relaxed_density=counts.binomial_probs),
    "CAR": _explicit(),
    "CategoricalLogits": _finite(density=formulas.categorical_logits),
    "CategoricalProbs": _finite(),
    "Cauchy": _explicit(note=_HEAVY),
    "Chi2": _implicit(own_family="gamma", density=gammas.gamma, df="quadrature"),
    "CirculantNormal": _explicit(),
    "Dagum": _explicit(),
    "Delta": _explicit("v", note="a draw is the parameter itself"),
    "Dirichlet": _implicit(
        own_family="dirichlet", density=gammas.dirichlet, concentration="quadrature", note="normalized gammas"
    ),
    "DirichletMultinomial": _discrete(_COUNTS),
    "DiscreteUniform": _finite("if the bounds are concrete and the same throughout"),
    "Distribution": _no_path("unknown distribution: only what its support tells"),
    "DoublyTruncatedPowerLaw": _explicit("low", "high"),
    "EulerMaruyama": _explicit(),
    "ExpandedDistribution": _no_path(_PER_INSTANCE),
    "Exponential": _explicit(own_family="gamma"),
    "FoldedDistribution": _no_path(_PER_INSTANCE),
    "Gamma": _implicit(own_family="gamma", density=gammas.gamma, concentration="quadrature"),
    "GammaPoisson": _discrete(_INFINITE, own_family="negative_binomial", density=counts.gamma_poisson),
    "GaussianCopula": _no_path(_PER_INSTANCE),
    "GaussianCopulaBeta": _implicit(concentration1="analytic", concentration0="analytic"),
    "GaussianRandomWalk": _explicit(),
    "GaussianStateSpace": _explicit(),
    "GeometricLogits": _discrete(_INFINITE, own_family="negative_binomial"),
    "GeometricProbs": _discrete(_INFINITE, own_family="negative_binomial"),
    "Gompertz": _explicit(),
    "Gumbel": _explicit(),
    "HalfCauchy": _explicit(note=_HEAVY),
    "HalfNormal": _explicit(),
    "HurdleGamma": _implicit(
        missing=("gate",), own_family="hurdle_gamma", density=gates.hurdle, concentration="quadrature", note=_GATED
    ),
    "HurdleLogNormal": _implicit(
        missing=("gate",), own_family="hurdle_gamma", density=gates.hurdle, base_dist="analytic", note=_GATED
    ),
    "HurdleLogits": _discrete("discrete or mixed, as the base is", **_HURDLE),
    "HurdlePoisson": _discrete(_INFINITE, **_HURDLE),
    "HurdleProbs": _discrete("discrete or mixed, as the base is", **_HURDLE),
    "ImproperUniform": _observed("no sampler: may be a prior, never a guide"),
    "Independent": _no_path(_PER_INSTANCE),
    "IntervalCensoredDistribution": _observed(_CENSORED),
    "InverseGamma": _implicit(density=gammas.inverse_gamma, concentration="quadrature"),
    "InverseWishart": _implicit(concentration="triangular"),
    "InverseWishartCholesky": _implicit(concentration="triangular"),
    "Kumaraswamy": _explicit(density=formulas.kumaraswamy),
    "LKJ": _implicit(concentration="triangular"),
    "LKJCholesky": _implicit(concentration="triangular"),
    "Laplace": _explicit(note="the log density has a kink at loc"),
    "LeftCensoredDistribution": _observed(_CENSORED),
    "LeftTruncatedDistribution": _explicit("low", density=truncated),
    "LeftTruncatedGamma": _implicit("low", low="analytic", base_dist="analytic"),
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
    "MultivariateStudentT": _implicit(df="quadrature"),
    "NegativeBinomial2": _discrete(_INFINITE, own_family="negative_binomial", density=counts.gamma_poisson),
    "NegativeBinomialLogits": _discrete(_INFINITE, own_family="negative_binomial"),
    "NegativeBinomialProbs": _discrete(_INFINITE, own_family="negative_binomial", density=counts.gamma_poisson),
    "Normal": _explicit(density=formulas.normal),
    "OrderedLogistic": _finite(),
    "Pareto": _explicit("scale", note=_HEAVY),
    "Poisson": _discrete(_INFINITE, density=counts.poisson, relaxed_density=counts.poisson),
    "ProjectedNormal": _explicit(),
    "RelaxedBernoulliLogits": _explicit(),
    "RightCensoredDistribution": _observed(_CENSORED),
    "RightTruncatedDistribution": _explicit("high", density=truncated),
    "RightTruncatedGamma": _implicit("high", high="analytic", base_dist="analytic"),
    "SineBivariateVonMises": _circular(**_SINE_BIVARIATE),
    "SineSkewed": _circular(skewness="triangular", base_dist="triangular"),
    "SoftLaplace": _explicit(),
    "StudentT": _implicit(df="quadrature", density=formulas.student_t),
    "TransformedDistribution": _no_path(_PER_INSTANCE),
    "TruncatedPolyaGamma": _explicit(note="no parameters"),
    "TwoSidedTruncatedDistribution": _explicit("low", "high", density=truncated),
    "TwoSidedTruncatedGamma": _implicit("low", "high", low="analytic", high="analytic", base_dist="analytic"),
    "Uniform": _explicit("low", "high"),
    "Unit": _observed("a factor: it has no value"),
    "VonMises": _circular(own_family="von_mises", density=formulas.von_mises, concentration="quadrature"),
    "Weibull": _explicit(),
    "Wishart": _implicit(concentration="triangular"),
    "WishartCholesky": _implicit(concentration="triangular"),
    "ZeroInflatedLogits": _discrete(
        "enumerable if the base is", own_family="zero_inflated_poisson", density=gates.zero_inflated
    ),
    "ZeroInflatedPoisson": _discrete(_INFINITE, **_INFLATED),
    "ZeroInflatedProbs": _discrete(
        "enumerable if the base is", own_family="zero_inflated_poisson", density=gates.zero_inflated
    ),
    "ZeroSumNormal": _explicit(),
}

# autovi's own classes.
OWN: dict[str, Known] = {"PlackettLuce": _discrete(_COUNTS), "PlackettLuceMatrix": _discrete(_COUNTS)}


def row_of(name: str) -> Known:
    """The row of a class by its name."""
    return OWN[name] if name in OWN else TABLE[name]
