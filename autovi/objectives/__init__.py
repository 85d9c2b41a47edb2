"""Objectives, one per file. A new one is one file and one row of `OBJECTIVES`."""

from autovi.objectives.base import Objective
from autovi.objectives.elbo import Elbo
from autovi.objectives.expectation import Expectation
from autovi.objectives.iwae import Iwae
from autovi.objectives.renyi import Renyi

OBJECTIVES: dict[str, type[Objective]] = {"elbo": Elbo, "iwae": Iwae, "renyi": Renyi}

__all__ = ["OBJECTIVES", "Elbo", "Expectation", "Iwae", "Objective", "Renyi"]


def __dir__() -> list[str]:
    """What is public."""
    return list(__all__)
