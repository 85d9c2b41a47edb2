"""Gradient estimators, one per file. A new estimator is one file and one row of `ESTIMATORS`."""

from autovi.estimators.base import Estimator
from autovi.estimators.enumerate import Enumerate
from autovi.estimators.explicit import Explicit
from autovi.estimators.implicit import Implicit
from autovi.estimators.marginalize import Marginalize
from autovi.estimators.score import Score

ESTIMATORS: dict[str, type[Estimator]] = {
    "explicit": Explicit,
    "implicit": Implicit,
    "score": Score,
    "enumerate": Enumerate,
    "marginalize": Marginalize,
}

__all__ = ["ESTIMATORS", "Enumerate", "Estimator", "Explicit", "Implicit", "Marginalize", "Score"]
