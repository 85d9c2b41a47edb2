"""Which latent sites bound the support of an observed one."""

from __future__ import annotations

from jax.extend.core import Literal

from autovi.model.graph import Graph


def bounded_by(graph: Graph, site: str) -> list[str]:
    """The nodes, and the parameters, on which it depends whether the data of a site lie in its support.

    Read from the program, not from the class: a truncated normal has bounds that may be constants. Observations that
    depend on a latent themselves are none of this.
    """
    return [n for n in _above(graph, f"inside:{site}") if n not in _above(graph, f"observed:{site}")]


def _above(graph: Graph, output: str) -> list[str]:
    if isinstance(graph.outputs.get(output), Literal | None):  # a constant, or no such site
        return []
    inputs = {name: var for name, var in graph.inputs.items() if name.startswith(("node:", "param:"))}
    found = [name for name, var in inputs.items() if graph.outputs[output] in graph.downstream([var])]
    return list(dict.fromkeys(name.split(":", 1)[1] for name in found))
