"""What calibration says of each quantity, and of all together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autovi.calibration.coverage import Bias, Coverage, bias, coverages
from autovi.calibration.uniformity import Uniformity, adjusted, detectable, uniformity
from autovi.numbers import how_many, number, with_error

# The words of a row, and what each means; a quantity may have several.
WORDS = {
    "biased_high": "posteriors lie above the truth",
    "biased_low": "posteriors lie below the truth",
    "too_narrow": "posteriors are narrower than their errors: ranks of the truth pile up at both ends",
    "too_wide": "posteriors are wider than their errors: ranks of the truth pile up in the middle",
    "misshapen": "ranks of the truth are not uniform, though neither location nor width says why",
    "calibrated": "no fault was seen",
}
MOST_NAMED = 6  # quantities in a sentence


@dataclass(frozen=True, eq=False)
class Row:
    """One quantity.

    Attributes:
        quantity: its name.
        words: of `WORDS`, what was found.
        count: in how many simulations it has a rank.
        bias: (posterior mean - truth) / posterior sd, averaged.
        coverage: of central intervals.
        tests: what the three tests of its ranks say, before the correction for their number.
        location, width, shape: their p-values, after it.
    """

    quantity: str
    words: tuple[str, ...]
    count: int
    bias: Bias
    coverage: tuple[Coverage, ...]
    tests: Uniformity
    location: float
    width: float
    shape: float

    @property
    def p_value(self) -> float:
        """The least of the three, corrected; NaN where none was made."""
        made = [p for p in (self.location, self.width, self.shape) if p == p]
        return min(made, default=float("nan"))

    @property
    def is_calibrated(self) -> bool:
        """Was no fault seen?"""
        return self.words == ("calibrated",)

    @property
    def said(self) -> str:
        """What was found, with the numbers that say so."""
        return " and ".join(self._said(word) for word in self.words)

    def _said(self, word: str) -> str:
        if word in ("biased_high", "biased_low"):
            value, error = with_error(abs(self.bias.mean), self.bias.se)
            return f"{word.replace('_', ' ')} by {value} ± {error} posterior sds"
        if word in ("too_narrow", "too_wide"):
            return f"{word.replace('_', ' ')} (sds about {number(1 / self.tests.spread)} of what they should be)"
        return word


@dataclass(frozen=True)
class Verdict:
    """What to think of the posteriors: a `word` ("calibrated", "miscalibrated", or "unknown" where there are no ranks),
    and a `sentence` that names the quantities."""

    word: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.word}: {self.sentence}"


def rows_of(
    names: Sequence[str], ranks: np.ndarray, truths: np.ndarray, means: np.ndarray, sds: np.ndarray, level: float
) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The rows, and the quantities that have none since they never vary. Arrays are
    `(num_simulations, num_quantities)`."""
    # Of what is the same in the truth and in all draws, random ranks are uniform whatever the fit.
    fixed = np.all((sds == 0) & (means == truths), axis=0) & (len(truths) > 0)
    known = [i for i in range(len(names)) if not fixed[i]]
    tests = [uniformity(ranks[~np.isnan(ranks[:, i]), i]) for i in known]
    corrected = adjusted(np.array([[t.location, t.width, t.shape] for t in tests]).reshape(-1, 3))
    rows = tuple(
        Row(
            names[i],
            _words(test, p, level),
            test.number,
            bias(truths[:, i], means[:, i], sds[:, i]),
            coverages(ranks[~np.isnan(ranks[:, i]), i]),
            test,
            *map(float, p),
        )
        for i, test, p in zip(known, tests, corrected, strict=True)
    )
    return rows, tuple(names[i] for i in range(len(names)) if fixed[i])


def _words(test: Uniformity, p_values: np.ndarray, level: float) -> tuple[str, ...]:
    location, width, shape = p_values <= level  # NaN is not
    found = []
    if location and test.is_shifted:
        found.append("biased_low" if test.shift > 0 else "biased_high")
    if width:
        found.append("too_narrow" if test.spread > 1 else "too_wide")
    return tuple(found) or (("misshapen",) if shape or location else ("calibrated",))


def verdict_of(rows: Sequence[Row], level: float) -> Verdict:
    """The verdict on all quantities together."""
    count = max((row.count for row in rows), default=0)
    if not count:
        return Verdict("unknown", "no simulation has ranks")
    over, num_tests = f"over {how_many(count, 'simulation')}", 3 * len(rows)
    wrong = sorted((row for row in rows if not row.is_calibrated), key=lambda row: row.p_value)
    if not wrong:
        shift, relative = detectable(count, num_tests, level)
        shown = f"a bias of {number(shift)} posterior sds or sds off by {number(100 * relative)} % would have shown"
        return Verdict(
            "calibrated", f"no fault seen in {how_many(len(rows), 'quantity').replace('ys', 'ies')} {over}; {shown}"
        )
    said = "; ".join(f"{row.quantity!r} is {row.said}" for row in wrong[:MOST_NAMED])
    more = f"; {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
    few = len(wrong) if len(wrong) < len(rows) else "all"
    whole = f" ({few} of {len(rows)} quantities)" if len(rows) > 1 else ""
    return Verdict("miscalibrated", f"{said}{more}{whole}, {over}")
