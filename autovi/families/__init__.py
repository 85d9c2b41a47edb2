"""Variational families, one per file. A new family is one file and one row of `FAMILIES`."""

from autovi.families.base import Family
from autovi.families.bernoulli import Bernoulli
from autovi.families.beta import Beta
from autovi.families.categorical import Categorical
from autovi.families.conditional_affine import ConditionalAffine
from autovi.families.conditional_normal import ConditionalNormal
from autovi.families.delta import Delta
from autovi.families.dirichlet import Dirichlet
from autovi.families.flow import Flow
from autovi.families.full_rank import FullRank
from autovi.families.gamma import Gamma
from autovi.families.geometric import Geometric
from autovi.families.hurdle_gamma import HurdleGamma
from autovi.families.hurdle_poisson import HurdlePoisson
from autovi.families.low_rank import LowRank
from autovi.families.negative_binomial import NegativeBinomial
from autovi.families.normal import Normal
from autovi.families.plackett_luce import PlackettLuce
from autovi.families.plackett_luce_matrix import PlackettLuceMatrix
from autovi.families.poisson import Poisson
from autovi.families.sinh_arcsinh import SinhArcsinh
from autovi.families.stretched import Stretched
from autovi.families.structured import Structured
from autovi.families.von_mises import VonMises
from autovi.families.zero_inflated_poisson import ZeroInflatedPoisson

FAMILIES: dict[str, type[Family]] = {
    "normal": Normal,
    "full_rank": FullRank,
    "low_rank": LowRank,
    "stretched": Stretched,
    "conditional_normal": ConditionalNormal,
    "sinh_arcsinh": SinhArcsinh,
    "structured": Structured,
    "conditional_affine": ConditionalAffine,
    "flow": Flow,
    "delta": Delta,
    "gamma": Gamma,
    "beta": Beta,
    "dirichlet": Dirichlet,
    "von_mises": VonMises,
    "bernoulli": Bernoulli,
    "categorical": Categorical,
    "poisson": Poisson,
    "geometric": Geometric,
    "negative_binomial": NegativeBinomial,
    "zero_inflated_poisson": ZeroInflatedPoisson,
    "hurdle_poisson": HurdlePoisson,
    "hurdle_gamma": HurdleGamma,
    "plackett_luce": PlackettLuce,
    "plackett_luce_matrix": PlackettLuceMatrix,
}

__all__ = [
    "FAMILIES",
    "Bernoulli",
    "Beta",
    "Categorical",
    "ConditionalAffine",
    "ConditionalNormal",
    "Delta",
    "Dirichlet",
    "Family",
    "Flow",
    "FullRank",
    "Gamma",
    "Geometric",
    "HurdleGamma",
    "HurdlePoisson",
    "LowRank",
    "NegativeBinomial",
    "Normal",
    "PlackettLuce",
    "PlackettLuceMatrix",
    "Poisson",
    "SinhArcsinh",
    "Stretched",
    "Structured",
    "VonMises",
    "ZeroInflatedPoisson",
]


def __dir__() -> list[str]:
    """What is public."""
    return list(__all__)
