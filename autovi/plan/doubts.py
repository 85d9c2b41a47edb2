"""What speaks against a pathwise gradient of a site: what was found of the costs in it, or could not be tested."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from autovi.analysis.discontinuities import Discontinuities
from autovi.analysis.slopes import FalseSlopes
from autovi.estimators.base import Facts
from autovi.plan.blocks import Row


@dataclass(frozen=True)
class Doubts:
    """`jumps`: where a cost jumps; `slopes`: where its derivative is not its slope; `aperiodic`: angles in which it is
    not periodic."""

    jumps: Discontinuities = field(default_factory=Discontinuities)
    slopes: FalseSlopes = field(default_factory=FalseSlopes)
    aperiodic: Mapping[str, str] = field(default_factory=dict)

    def jumping(self, asked: Collection[str]) -> dict[str, str]:
        """Site -> why a pathwise gradient would not see a jump. What is not tested counts as one, unless an estimator
        is asked for."""
        return _with_untested(self.jumps, asked, "it does not jump")

    def sloping(self, asked: Collection[str]) -> dict[str, str]:
        """The same of wrong derivatives."""
        return _with_untested(self.slopes, asked, "it is")

    def dared(self, row: Row) -> str:
        """What is said of a pathwise gradient that is asked for where nobody knows whether it is right."""
        untested = [d.untested[row.site] for d in (self.jumps, self.slopes) if row.site in d.untested]
        return f", though {' and '.join(untested)}" if untested and row.estimator.pathwise else ""

    def known(self, site: str, facts: Facts) -> Facts:
        """The facts of a site, with what could not be tested."""
        jumps, slopes = self.jumps.untested.get(site), self.slopes.untested.get(site)
        return replace(facts, jumps=facts.jumps or jumps, slope=facts.slope or slopes)


def _with_untested(found: Discontinuities | FalseSlopes, asked: Collection[str], if_so: str) -> dict[str, str]:
    ask = lambda n: f"; if {if_so}, ask for a pathwise estimator by estimators={{{n!r}: ...}}"  # noqa: E731
    return {**{n: said + ask(n) for n, said in found.untested.items() if n not in asked}, **found.found}
