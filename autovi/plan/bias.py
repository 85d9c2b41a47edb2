"""Biased estimators: taken only where that is allowed, and named wherever their results are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autovi.numbers import how_many
from autovi.plan.grouping import names

ROOM = 100  # columns for the names of sites in a message
TOLD = "biased: its gradient is not that of the objective, so that q ends beside its optimum"


def check_allow_bias(allow_bias: Any) -> None:
    """Raises TypeError unless `allow_bias` is a truth value."""
    if not isinstance(allow_bias, bool):
        raise TypeError(
            f"allow_bias: expected True or False, got {allow_bias!r}; which estimators are wanted is said by "
            "estimators={site: name}"
        )


def not_allowed(site: str, distribution: str, estimator: str, valid: list[str]) -> ValueError:
    """The error where a biased estimator is asked for and bias is not allowed."""
    return ValueError(
        f"site {site!r} ({distribution}): estimator {estimator!r} is biased: its gradient is not that of the "
        f"objective; say allow_bias=True to take it all the same, or take an unbiased one: {valid or 'none'}"
    )


def warning(biased: Mapping[str, str]) -> str:
    """What a fit says of its sites with biased estimators (site -> estimator): empty where there are none."""
    if not biased:
        return ""
    which = names([f"{site!r} ({estimator})" for site, estimator in biased.items()], ROOM)
    return f"biased gradients at {how_many(len(biased), 'site')} {which}: q ends beside the optimum of the objective"
