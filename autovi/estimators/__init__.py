"""Gradient estimators, one per file. A new estimator is one file and one row of `ESTIMATORS`."""

from autovi.estimators.base import Estimator
from autovi.estimators.enumerate import Enumerate
from autovi.estimators.explicit import Explicit
from autovi.estimators.g_rep import GRep
from autovi.estimators.implicit import Implicit
from autovi.estimators.marginalize import Marginalize
from autovi.estimators.rsvi import RSVI
from autovi.estimators.score import Score
from autovi.estimators.sticking import Sticking

ESTIMATORS: dict[str, type[Estimator]] = {
    "explicit": Explicit,
    "implicit": Implicit,
    "sticking": Sticking,
    "score": Score,
    "rsvi": RSVI,
    "g_rep": GRep,
    "enumerate": Enumerate,
    "marginalize": Marginalize,
}

__all__ = [
    "ESTIMATORS",
    "Enumerate",
    "Estimator",
    "Explicit",
    "GRep",
    "Implicit",
    "Marginalize",
    "RSVI",
    "Score",
    "Sticking",
]


def __dir__() -> list[str]:
    """What is public."""
    return list(__all__)
