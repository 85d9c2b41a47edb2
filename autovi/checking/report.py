"""What an audit of gradients found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from autovi.checking.display import check_html, check_text

# The words of a verdict, the gravest first, and what each means.
WORDS = {
    "biased": "the two means differ by more than chance explains",
    "not_finite": "some of its gradients are NaN or infinite",
    "heavy_tails": "a few estimates outweigh all others, so that its mean is not known",
    "not_known": "the comparison is noisier than the gradient is large",
    "unchecked": "no other estimator is right there, to compare with",
    "agrees": "no bias seen, and one of `detectable` times the gradient would have been",
}
KNOWN = 0.5  # of the gradient: a bias of that size has to show, for estimators to agree


@dataclass(frozen=True, eq=False)
class GradientRow:
    """One estimator at one site, for one array of parameters. Gradients are those of the objective, of one step.

    Attributes:
        sites: the sites of the block whose estimator it is.
        parameter: the array.
        estimator: its name, and its baseline where that is not the usual one.
        reference: the estimator that it is compared with; None where no other is right.
        planned: is it the plan's, or one that was asked for besides?
        mean, reference_mean: of the gradient estimates, one number for each of the parameter that was looked at.
        difference, se: mean of the differences of paired estimates, and its standard error.
        z: the largest |difference| in standard errors, with its sign.
        detectable: the bias that would have shown, as a part of the gradient; None without a reference.
        variance, reference_variance: the traces of the covariances of one step's gradient.
        signal_to_noise: |mean| over the root of `variance`.
        seconds: the time of one step's gradient, of all parameters.
        verdict: one of `WORDS`.
        why: what else is to be said of it.
    """

    sites: tuple[str, ...]
    parameter: str
    estimator: str
    reference: str | None
    planned: bool
    mean: np.ndarray
    reference_mean: np.ndarray | None
    difference: np.ndarray | None
    se: np.ndarray | None
    z: float
    detectable: float | None
    variance: float
    reference_variance: float | None
    signal_to_noise: float
    seconds: float
    verdict: str
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON-ready values."""
        listed = lambda v: v.tolist() if isinstance(v, np.ndarray) else list(v) if isinstance(v, tuple) else v  # noqa: E731
        return {name: listed(value) for name, value in vars(self).items()}


@dataclass(frozen=True, eq=False)
class GradientCheck:
    """An audit of gradient estimators: a row for every site, estimator and array of parameters.

    `threshold` is the |z| above which a difference is called a bias: `num_tests` numbers are compared, and one table in
    2,000 would raise a false alarm. `num_samples` gradients of every estimator were taken, each of a step with
    `num_particles` particles. `notes` say what was left out.
    """

    rows: tuple[GradientRow, ...]
    threshold: float
    num_tests: int
    num_samples: int
    num_particles: int
    notes: tuple[str, ...] = ()

    def __getitem__(self, site: str) -> tuple[GradientRow, ...]:
        found = tuple(row for row in self.rows if site in row.sites)
        if not found:
            known = dict.fromkeys(s for row in self.rows for s in row.sites)
            raise KeyError(f"no row is of a site called {site!r}; the sites are {list(known)}")
        return found

    @property
    def verdict(self) -> str:
        """The gravest of the rows' verdicts, one of `autovi.checking.report.WORDS`; "agrees" where there are none."""
        found = {row.verdict for row in self.rows}
        return next((word for word in WORDS if word in found), "agrees")

    @property
    def biased(self) -> tuple[GradientRow, ...]:
        """The rows whose estimator is biased."""
        return tuple(row for row in self.rows if row.verdict == "biased")

    @property
    def variances(self) -> Mapping[tuple[str, ...], Mapping[str, float]]:
        """Sites of a block -> estimator -> the variance of one step's gradient, of all its rows together."""
        return self._totals(lambda row: row.variance)

    @property
    def work(self) -> Mapping[tuple[str, ...], Mapping[str, float]]:
        """Sites of a block -> estimator -> variance times seconds of one step: what a given precision costs."""
        seconds = {(row.sites, row.estimator): row.seconds for row in self.rows}
        return {
            sites: {name: value * seconds[sites, name] for name, value in found.items()}
            for sites, found in self.variances.items()
        }

    def _totals(self, of: Any) -> dict[tuple[str, ...], dict[str, float]]:
        found: dict[tuple[str, ...], dict[str, float]] = {}
        for row in self.rows:
            by_name = found.setdefault(row.sites, {})
            by_name[row.estimator] = by_name.get(row.estimator, 0.0) + of(row)
        return found

    def to_dict(self) -> dict[str, Any]:
        """The audit as JSON-ready values."""
        own = {n: v for n, v in vars(self).items() if n not in ("rows", "notes")}
        return {"verdict": self.verdict, **own, "notes": list(self.notes), "rows": [row.to_dict() for row in self.rows]}

    def __str__(self) -> str:
        return check_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return check_html(self)
