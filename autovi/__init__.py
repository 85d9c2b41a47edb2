"""autovi: variational inference for NumPyro models, with gradient estimators chosen site by site."""

from autovi import distributions, estimators, families, implicit, objectives
from autovi.calibration.calibrate import calibrate
from autovi.calibration.report import Calibration
from autovi.checking.audit import check_gradients
from autovi.checkpoints.journal import Checkpoint
from autovi.claims import reparameterizations
from autovi.comparison.comparing import Comparison, compare
from autovi.fitting import fit, plan
from autovi.loading import load
from autovi.model.log_density import LogDensity
from autovi.plan.plan import Plan
from autovi.prior import prior_predictive
from autovi.result.fit import Fit
from autovi.run.cache import clear_cache
from autovi.run.compilation import use_compilation_cache
from autovi.stochastic import EstimatorState, StochasticGradient, stochastic_grad, stochastic_value_and_grad
from autovi.travel import register
from autovi.versions import show_versions

__version__ = "0.1.0"

register()

__all__ = [
    "Calibration",
    "Checkpoint",
    "Comparison",
    "EstimatorState",
    "Fit",
    "LogDensity",
    "Plan",
    "StochasticGradient",
    "calibrate",
    "check_gradients",
    "clear_cache",
    "compare",
    "distributions",
    "estimators",
    "families",
    "fit",
    "implicit",
    "load",
    "objectives",
    "plan",
    "prior_predictive",
    "reparameterizations",
    "show_versions",
    "stochastic_grad",
    "stochastic_value_and_grad",
    "use_compilation_cache",
]


def __dir__() -> list[str]:
    """What is public: the rooms of the package are not."""
    return [*__all__, "__version__"]
