"""autovi: variational inference for NumPyro models, with gradient estimators chosen site by site."""

from autovi import estimators, families, implicit
from autovi.fitting import fit, plan
from autovi.loading import load
from autovi.plan.plan import Plan
from autovi.result.fit import Fit

__version__ = "0.1.0"

__all__ = ["Fit", "Plan", "estimators", "families", "fit", "implicit", "load", "plan"]
