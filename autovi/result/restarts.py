"""The restarts of a fit: how each ended, which found the same posterior, and draws of all of them together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import nan
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from autovi.keys import as_key
from autovi.numbers import number, with_error
from autovi.result.resampling import systematic
from autovi.result.stacking import loo_scores, stacked
from autovi.run.checks import check_count
from autovi.run.drawing import LIKELIHOODS, VALUES, kept_per_draw
from autovi.run.starts import agreement
from autovi.run.thresholds import THRESHOLDS

if TYPE_CHECKING:
    from autovi.result.posterior import Posterior

SAME = 1.1  # R-hat of two restarts at one mode, at most: means that differ by two thirds of a standard deviation
FORGOTTEN = 2_000_000  # numbers of draws that a restart does not keep, unless it is the best
WEIGHTS = ("evidence", "stacking")


class Restart(NamedTuple):
    """One of the fits from different starts.

    Attributes:
        status: how it ended.
        verdict: the word of its verdict; empty where it is not known.
        loss: what restarts are compared by, in nats: the mean loss of the last tenth of the steps, or minus the ELBO.
        elbo, elbo_se: its ELBO and the standard error of it, in nats.
        khat: of the weights of its draws.
        log_evidence, log_evidence_se: log of the integral of p(x, z) over the part of the posterior that q is on, in
            nats: by importance weights where their k-hat is below 0.7, else the ELBO, which is below it.
        mode: restarts of the same number found the same posterior; 0 is that of the highest ELBO.
    """

    status: str
    verdict: str
    loss: float
    elbo: float
    elbo_se: float
    khat: float
    log_evidence: float
    log_evidence_se: float
    mode: int


class Restarts(Sequence["Posterior"]):
    """The fits of all restarts that found a start, in their order: `fit.restarts[1]` is the `Fit` of the second.

    What is known of each is in `table`. Of a loaded fit there is the table alone.
    """

    def __init__(self, fits: Sequence[Posterior], losses: Sequence[float], best: int):
        self._fits, self._losses, self.best = tuple(fits), tuple(losses), best

    def __len__(self) -> int:
        return len(self._losses)

    def __iter__(self) -> Iterator[Posterior]:
        return iter(self._of_all("the fits"))

    def __getitem__(self, place: Any) -> Any:
        return self._of_all("the fits")[place]

    def _of_all(self, what: str) -> tuple[Posterior, ...]:
        if not self._fits:
            raise ValueError(
                f"restarts: a file holds their table and not {what}; fit again with num_restarts={len(self)}"
            )
        return self._fits

    @cached_property
    def table(self) -> tuple[Restart, ...]:
        """What is known of each restart. Draws are weighed for it, where they are not yet."""
        fits = self._of_all("what it is made from")
        evidences = [_evidence_of(fit) for fit in fits]
        return tuple(
            Restart(
                fit.status,
                fit.verdict.word,
                loss,
                float(fit.elbo),
                float(fit.elbo_se),
                float(fit.khat),
                *evidence,
                mode,
            )
            for fit, loss, evidence, mode in zip(fits, self._losses, evidences, self._modes, strict=True)
        )

    @cached_property
    def _modes(self) -> list[int]:
        """Each restart's mode: that of the best restart, by the ELBO, whose draws agree with its own."""
        fits = self._of_all("their draws")
        first: list[int] = []  # of each mode
        modes = [0] * len(fits)
        for at in sorted(range(len(fits)), key=lambda at: -np.nan_to_num(fits[at].elbo, nan=-np.inf)):
            agrees = (m for m, one in enumerate(first) if _agree(fits[one].values, fits[at].values))
            modes[at] = next(agrees, len(first))
            if modes[at] == len(first):
                first.append(at)
        return modes

    def weights(self, by: str = "evidence") -> np.ndarray:
        r"""Weights of the restarts `(num_restarts,)`, which sum to one.

        Args:
            by: "evidence": what a posterior of separate modes has at each, its part of
                :math:`\sum_m Z_m`, with :math:`Z_m` the mean evidence of the restarts at mode m, shared by them alike.
                "stacking": what predicts best, by leave-one-out log scores, whatever the modes weigh: better where the
                model is wrong or the restarts do not reach all modes. Yao, Vehtari and Gelman (2022), "Stacking for
                non-mixing Bayesian computations: the curse and blessing of multimodal posteriors".

        Raises:
            ValueError: another word; the model has no observations (stacking); the fit was loaded (stacking).

        Example:
            >>> fit.restarts.weights("stacking")
        """
        if by not in WEIGHTS:
            raise ValueError(f"weights: expected 'evidence' or 'stacking', got {by!r}")
        return self._stacking.copy() if by == "stacking" else self._evidence.copy()

    @cached_property
    def _evidence(self) -> np.ndarray:
        logs = np.array([row.log_evidence for row in self.table])
        logs = np.where(np.isfinite(logs), logs, -np.inf)
        if np.isneginf(logs.max()):
            raise ValueError("weights: of no restart the evidence is finite")
        each = np.exp(logs - logs.max())
        modes = np.array([row.mode for row in self.table])
        # The mean over the restarts of a mode, shared by them alike, leaves each a part of it of 1 / count.
        counts = np.bincount(modes)[modes]
        mass = np.array([each[modes == mode].mean() for mode in modes]) / counts
        return np.asarray(mass / mass.sum())

    @cached_property
    def _stacking(self) -> np.ndarray:
        return stacked(self.log_scores)

    @cached_property
    def log_scores(self) -> np.ndarray:
        """Leave-one-out log scores of each observation by each restart, `(num_restarts, num_observations)` in nats (see
        `weights`)."""
        return np.stack([loo_scores(fit) for fit in self._of_all("their log scores")])

    def sample(
        self, num_draws: int, weights: str | Sequence[float] = "evidence", rng_key: int | jax.Array | None = None
    ) -> dict[str, np.ndarray]:
        """Draws of the mixture of all restarts: name -> `(num_draws, *shape)`, as `Fit.sample` gives them.

        Args:
            num_draws: how many.
            weights: as in `weights`, or one number for each restart.
            rng_key: None: the draws are the same at every call.

        Raises:
            ValueError: weights that are no probabilities; the fit was loaded.
        """
        check_count("num_draws", num_draws)
        fits = self._of_all("their draws")
        shares = self.weights(weights) if isinstance(weights, str) else _checked(weights, len(self))
        key = jax.random.fold_in(fits[self.best].rng_key, 7) if rng_key is None else as_key(rng_key)
        own = np.asarray(jax.random.key_data(jax.random.fold_in(key, len(fits)))).ravel()
        places = systematic(shares, int(num_draws), np.random.default_rng(own))
        drawn: dict[str, np.ndarray] = {}
        for at in np.unique(places):
            where = np.flatnonzero(places == at)
            draws = fits[at].sample(where.size, jax.random.fold_in(key, int(at)))
            for name, values in draws.items():
                whole = drawn.setdefault(name, np.empty((int(num_draws), *values.shape[1:]), values.dtype))
                whole[where] = values
        return drawn

    def __repr__(self) -> str:
        if "table" not in vars(self) and not self._are_light:  # a look takes no minutes
            return f"{len(self)} restarts, whose draws are not weighed yet (`table` weighs them)"
        return text_of(self.table, self.weights(), self.best)

    @property
    def _are_light(self) -> bool:
        return all(fit.is_light for fit in self._fits)

    def saved(self) -> dict[str, Any] | None:
        """What a file holds: the table, where it is known or quickly made."""
        if "table" not in vars(self) and not self._are_light:
            return None
        return {"table": [list(row) for row in self.table], "losses": list(self._losses), "best": self.best}


def restored(saved: Mapping[str, Any] | None) -> Restarts | None:
    """The inverse of `Restarts.saved`."""
    if saved is None:
        return None
    found = Restarts((), saved["losses"], saved["best"])
    found.__dict__["table"] = tuple(Restart(*row) for row in saved["table"])
    return found


def forget_large_draws(fit: Posterior) -> None:
    """Lets go of draws that take more than a few megabytes: they are made again, the same, when asked for."""
    if fit.num_draws * kept_per_draw(fit.engine, (VALUES, LIKELIHOODS)) > FORGOTTEN:
        for name in ("_own", "draws", "values", "densities"):
            vars(fit).pop(name, None)


def _agree(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    number = min(len(next(iter(one.values()))), len(next(iter(other.values())))) if one else 0
    return not one or agreement([{n: x[:number] for n, x in values.items()} for values in (one, other)]).rhat <= SAME


def _evidence_of(fit: Posterior) -> tuple[float, float]:
    """Its log evidence and the standard error of it."""
    logs = np.asarray(fit.log_weights, np.float64)
    if not logs.size or not fit.khat < THRESHOLDS.khat_usable:
        return float(fit.elbo), float(fit.elbo_se)
    relative = np.exp(logs - logs.max())
    mean = relative.mean()
    se = relative.std(ddof=1) / mean / logs.size**0.5 if logs.size > 1 else nan
    return float(logs.max() + np.log(mean)), float(se)


def _checked(weights: Sequence[float], count: int) -> np.ndarray:
    found = np.asarray(weights, np.float64)
    if found.shape != (count,) or not (np.isfinite(found).all() and (found >= 0).all() and found.sum() > 0):
        raise ValueError(f"weights: expected 'evidence', 'stacking' or {count} numbers of 0 or more, got {weights!r}")
    return found / found.sum()


def text_of(table: Sequence[Restart], weights: np.ndarray, best: int) -> str:
    """The table as text; the restart that was kept has a star."""
    rows = [("", "status", "verdict", "ELBO", "k-hat", "mode", "weight")]
    for at, (row, weight) in enumerate(zip(table, weights, strict=True)):
        value, se = with_error(row.elbo, row.elbo_se)
        star = "*" if at == best else " "
        khat = "" if row.khat != row.khat else number(row.khat)
        rows.append((f"{at}{star}", row.status, row.verdict, f"{value} ± {se}", khat, str(row.mode), f"{weight:.3f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    modes = len({row.mode for row in table})
    found = f"{modes} modes" if modes > 1 else "one mode"
    return "\n".join([f"{len(table)} restarts, {found} (* is the one kept; weights by evidence)", *lines])
