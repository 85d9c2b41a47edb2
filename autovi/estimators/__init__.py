"""Gradient estimators, one per file. A new estimator is one file and one row of `ESTIMATORS`."""

from autovi.estimators.arm import Arm
from autovi.estimators.arms import Arms
from autovi.estimators.base import Estimator
from autovi.estimators.birkhoff import Birkhoff
from autovi.estimators.carms import Carms
from autovi.estimators.concrete import Concrete
from autovi.estimators.disarm import Disarm
from autovi.estimators.disarm_tree import DisarmTree
from autovi.estimators.double_cv import DoubleCV
from autovi.estimators.dreg import Dreg
from autovi.estimators.enumerate import Enumerate
from autovi.estimators.enumerate_component import EnumerateComponent
from autovi.estimators.enumerate_gate import EnumerateGate
from autovi.estimators.explicit import Explicit
from autovi.estimators.g_rep import GRep
from autovi.estimators.gumbel_sinkhorn import GumbelSinkhorn
from autovi.estimators.gumbel_softmax import GumbelSoftmax
from autovi.estimators.implicit import Implicit
from autovi.estimators.lax import Lax
from autovi.estimators.local import Local
from autovi.estimators.marginalize import Marginalize
from autovi.estimators.measure_valued import MeasureValued
from autovi.estimators.muprop import MuProp
from autovi.estimators.r2g2 import R2G2
from autovi.estimators.rebar import Rebar
from autovi.estimators.reinmax import ReinMax
from autovi.estimators.relax import Relax
from autovi.estimators.relax_permutation import RelaxPermutation
from autovi.estimators.rodeo import Rodeo
from autovi.estimators.rsvi import RSVI
from autovi.estimators.score import Score
from autovi.estimators.spsa import SPSA
from autovi.estimators.sticking import Sticking
from autovi.estimators.straight_through import StraightThrough
from autovi.estimators.taylor_cv import TaylorCV
from autovi.estimators.unordered_set import UnorderedSet

ESTIMATORS: dict[str, type[Estimator]] = {
    "explicit": Explicit,
    "implicit": Implicit,
    "sticking": Sticking,
    "stl": Sticking,  # its abbreviation; a plan says "sticking"
    "dreg": Dreg,
    "taylor_cv": TaylorCV,
    "local": Local,
    "r2g2": R2G2,
    "score": Score,
    "arm": Arm,
    "disarm": Disarm,
    "arms": Arms,
    "carms": Carms,
    "disarm_tree": DisarmTree,
    "unordered_set": UnorderedSet,
    "muprop": MuProp,
    "double_cv": DoubleCV,
    "rodeo": Rodeo,
    "rebar": Rebar,
    "relax": Relax,
    "lax": Lax,
    "relax_permutation": RelaxPermutation,
    "gumbel_sinkhorn": GumbelSinkhorn,
    "birkhoff": Birkhoff,
    "concrete": Concrete,
    "gumbel_softmax": GumbelSoftmax,
    "straight_through": StraightThrough,
    "reinmax": ReinMax,
    "measure_valued": MeasureValued,
    "spsa": SPSA,
    "rsvi": RSVI,
    "g_rep": GRep,
    "enumerate": Enumerate,
    "enumerate_component": EnumerateComponent,
    "enumerate_gate": EnumerateGate,
    "marginalize": Marginalize,
}

__all__ = [
    "ESTIMATORS",
    "Arm",
    "Arms",
    "Concrete",
    "Birkhoff",
    "Carms",
    "Disarm",
    "DisarmTree",
    "DoubleCV",
    "Dreg",
    "Enumerate",
    "EnumerateComponent",
    "EnumerateGate",
    "Estimator",
    "Explicit",
    "GRep",
    "GumbelSinkhorn",
    "GumbelSoftmax",
    "Implicit",
    "Local",
    "Lax",
    "Marginalize",
    "MeasureValued",
    "MuProp",
    "R2G2",
    "RSVI",
    "SPSA",
    "Rebar",
    "ReinMax",
    "Relax",
    "Rodeo",
    "RelaxPermutation",
    "Score",
    "Sticking",
    "TaylorCV",
    "StraightThrough",
    "UnorderedSet",
]


def __dir__() -> list[str]:
    """What is public."""
    return list(__all__)
