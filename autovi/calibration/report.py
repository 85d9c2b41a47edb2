"""What a calibration gives back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from autovi.calibration import figure
from autovi.calibration.display import calibration_html, calibration_text, facts
from autovi.calibration.outcomes import Outcome
from autovi.calibration.rows import Row, Verdict, rows_of, verdict_of
from autovi.calibration.simulating import Simulation
from autovi.result import export


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of true values among posterior draws, over simulated data, and what they say of the posteriors.

    Attributes:
        quantities: the names of what was ranked, elements of arrays one by one.
        outcomes: what came of each simulation that was made, in order.
        num_simulations: how many were asked for.
        level: the chance that right posteriors are called miscalibrated, over all quantities and tests together.
        status: "finished", or "stopped" (Ctrl-C).
        of: "draws" as a user gets them, or those of q as it is ("plain").
    """

    quantities: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    num_simulations: int
    level: float
    status: str
    of: str = "draws"
    notes: tuple[str, ...] = ()
    simulate: Callable[[int], Simulation] | None = field(default=None, repr=False)
    rebuild: Callable[[Any, Any], Any] | None = field(default=None, repr=False)

    @cached_property
    def fitted(self) -> tuple[Outcome, ...]:
        """The simulations that have ranks."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "fitted")

    @cached_property
    def lost(self) -> tuple[Outcome, ...]:
        """The simulations that have none; `status` and `message` of each say why."""
        return tuple(outcome for outcome in self.outcomes if outcome.status != "fitted")

    @property
    def plain(self) -> Calibration:
        """The same calibration of plain draws of q, where draws were resampled by importance."""
        return replace(self, of="plain")

    @property
    def trusted(self) -> Calibration:
        """The same of those fits alone whose verdict does not warn. A verdict depends on the data, and not on the
        truth, so that ranks of right posteriors are uniform over these as well."""
        kept = tuple(o for o in self.outcomes if o.status == "fitted" and not o.warns)
        return replace(self, outcomes=kept, num_simulations=len(kept))

    @cached_property
    def ranks(self) -> dict[str, np.ndarray]:
        """Quantity -> its fractional ranks in (0, 1), `(num_fitted,)`, uniform where posteriors are right; NaN where it
        was not known."""
        return self._by_name(self._stacked("ranks"))

    @cached_property
    def truths(self) -> dict[str, np.ndarray]:
        """Quantity -> its true values, `(num_fitted,)`."""
        return self._by_name(self._stacked("truths"))

    @cached_property
    def means(self) -> dict[str, np.ndarray]:
        """Quantity -> its posterior means, `(num_fitted,)`."""
        return self._by_name(self._stacked("means"))

    @cached_property
    def sds(self) -> dict[str, np.ndarray]:
        """Quantity -> its posterior standard deviations, `(num_fitted,)`."""
        return self._by_name(self._stacked("sds"))

    @cached_property
    def _rows(self) -> tuple[tuple[Row, ...], tuple[str, ...]]:
        ranks, truths, means, sds = (self._stacked(name) for name in ("ranks", "truths", "means", "sds"))
        return rows_of(self.quantities, ranks, truths, means, sds, self.level)

    @property
    def rows(self) -> tuple[Row, ...]:
        """A row for each quantity that varies."""
        return self._rows[0]

    @property
    def fixed(self) -> tuple[str, ...]:
        """The quantities that are the same in all draws and truths, of which ranks say nothing."""
        return self._rows[1]

    def __getitem__(self, quantity: str) -> Row:
        for row in self.rows:
            if row.quantity == quantity:
                return row
        raise KeyError(f"no quantity is called {quantity!r}; they are {[row.quantity for row in self.rows]}")

    @cached_property
    def verdict(self) -> Verdict:
        """What to think of the posteriors, in a word and a sentence."""
        return verdict_of(self.rows, self.level)

    @property
    def verdicts(self) -> dict[str, int]:
        """Word of a fit's verdict -> how many fits have it, the most frequent first."""
        return dict(Counter(o.verdict for o in self.outcomes if o.verdict).most_common())

    def summary(self) -> Any:
        """A `pandas.DataFrame` with a row for each quantity: bias in posterior sds with its error, coverage of central
        intervals, the corrected p-values of the three tests, and words. What is known of all is below it, and in its
        `attrs`."""
        import pandas as pd

        from autovi.result.table import with_facts

        records = [
            {
                "simulations": row.count,
                "bias": row.bias.mean,
                "bias_se": row.bias.se,
                **{f"coverage_{round(100 * c.level)}": c.share for c in row.coverage},
                "p_location": row.location,
                "p_width": row.width,
                "p_shape": row.shape,
                "verdict": " and ".join(row.words),
            }
            for row in self.rows
        ]
        table = pd.DataFrame(records, index=[row.quantity for row in self.rows])
        return with_facts(table.round(4), facts(self))

    def simulation(self, number: int) -> tuple[dict[str, np.ndarray], Any]:
        """The true values by site and the data of a simulation, made again: to look at, or to fit.

        Raises:
            IndexError: no simulation of this number was made.
            RuntimeError: the calibration was pickled, which leaves the models behind.

        Example:
            >>> truth, data = calibration.simulation(calibration.lost[0].number)
            >>> fit = autovi.fit(model, data)
        """
        if self.simulate is None or self.rebuild is None:
            raise RuntimeError("simulation: the model that makes the data did not come along; call calibrate again")
        if number not in {outcome.number for outcome in self.outcomes}:
            count = f"{len(self.outcomes):,}"
            raise IndexError(f"simulation: expected the number of one of the {count} that were made, got {number!r}")
        made = self.simulate(int(number))
        return made.truth, self.rebuild(made.inputs, made.inputs.arrays)

    def to_arviz(self) -> Any:
        """An InferenceData (ArviZ 0.x) or DataTree (ArviZ 1.x) with the group `prior_sbc`, which `plot_ecdf_pit` of
        ArviZ 1.x reads: fractional ranks with dims `(chain, draw)`, a draw being a simulation."""
        attrs = {"verdict": str(self.verdict), "num_simulations": self.num_simulations, "status": self.status}
        return export.build({"prior_sbc": {name: ranks[None] for name, ranks in self.ranks.items()}}, attrs=attrs)

    def plot(self, quantities: str | Sequence[str] | None = None, probability: float = 0.95) -> Any:
        """How far the distribution of ranks is from uniform, with the band in which it stays with this probability, a
        panel for each quantity; those that were found first. An arch above the middle line says that posteriors lie
        above the truth (below: below), an S that goes up first that they are too narrow.

        Args:
            quantities: names or globs; None: the first twelve.
            probability: of the band, of each panel by itself.

        Returns:
            A matplotlib `Figure`.

        Raises:
            ImportError: matplotlib is missing, with what to install.
            ValueError: an unknown quantity.
        """
        return figure.plot(self, quantities, probability)

    def to_dict(self) -> dict[str, Any]:
        """The calibration as JSON-ready values, without ranks."""
        own = {name: getattr(self, name) for name in ("num_simulations", "level", "status", "of", "verdicts")}
        lost = [{"number": o.number, "status": o.status, "message": o.message} for o in self.lost]
        rows = {row.quantity: {"words": list(row.words), "bias": row.bias.mean, "p": row.p_value} for row in self.rows}
        return {"verdict": self.verdict.word, "sentence": self.verdict.sentence, **own, "lost": lost, "rows": rows}

    def _stacked(self, name: str) -> np.ndarray:
        kind = "drawn" if self.of == "draws" else "plain"
        found: list[Any] = [o.truths if name == "truths" else getattr(getattr(o, kind), name) for o in self.fitted]
        return np.stack(found) if found else np.zeros((0, len(self.quantities)))

    def _by_name(self, array: np.ndarray) -> dict[str, np.ndarray]:
        return {name: array[:, i] for i, name in enumerate(self.quantities)}

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: all but the functions that make data, which hold the user's models."""
        return {**vars(self), "simulate": None, "rebuild": None}

    def __str__(self) -> str:
        return calibration_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return calibration_html(self)
