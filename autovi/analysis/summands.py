"""What the parts of a cost term depend on: along which dimensions, and element by element."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autovi.analysis.costs import Aligned, unique
from autovi.analysis.dependence import analyse_graph
from autovi.analysis.elementwise import Found, Sets, elements_felt
from autovi.model.graph import Graph
from autovi.model.traced import Traced


@dataclass(frozen=True, eq=False)
class Summands:
    """The terms that were taken apart. `outputs` names the parts of each, `aligned[part][variable]` is as
    `Structure.downstream`, of the variables, nodes and their values some steps before, that a part depends on."""

    graph: Graph
    outputs: Mapping[str, tuple[str, ...]]
    aligned: Mapping[str, Mapping[str, Aligned]]

    def shape(self, output: str) -> tuple[int, ...]:
        """Of a part, or of a term."""
        return self.graph.shape(output)

    def felt(self, sets: Mapping[str, Sets], outputs: Iterable[str]) -> Found:
        """Which elements of variables, in numbered sets, the elements of parts and terms depend on."""
        return elements_felt(self.graph, {f"node:{v}": s for v, s in sets.items()}, outputs)


def analyse_summands(traced: Traced, tracked: Iterable[str], batch: Mapping[str, int]) -> Summands | None:
    """Of a program with summands; None of one without. `batch` has the number of batch dimensions of each variable."""
    if not traced.summands:
        return None
    parts = [o for outputs in traced.summands.values() for o in outputs]
    found = analyse_graph(traced.graph, tracked, parts)
    aligned = {
        o: {v: unique(d.aligned[: batch[v]]) for n, d in by.items() for v in [n.removeprefix("node:")]}
        for o, by in found.items()
    }
    return Summands(traced.graph, traced.summands, aligned)
