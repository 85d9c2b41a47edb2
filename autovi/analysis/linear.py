"""Sites that enter the cost by a product with data: `x @ w`, the pre-activations of a layer. Read from the graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jax.extend.core import Literal

from autovi.analysis.dependence import analyse_variable
from autovi.model.graph import Graph

# The same numbers in other places: their squares go the same way.
MOVING = frozenset("broadcast_in_dim reshape squeeze expand_dims copy transpose convert_element_type".split())
ABOVE_SITES = ("distribution:", "draw:", "drawn:", "noise:")


class Linear(NamedTuple):
    """A product with data: the variable that holds it, that of the data, why its rows do not stand for themselves
    (None where they do), and the cost terms that depend on the node otherwise, and on it."""

    product: Any
    data: Any
    mixed: str | None = None
    beside: frozenset[str] = frozenset()
    through: frozenset[str] = frozenset()


def find_linear(graph: Graph, node: Any, varying: Iterable[Any]) -> Linear | str:
    """The one product with data, which does not vary over particles, by which a node enters the cost; else why there
    is none.

    Each cost term depends on the product, or on the node in another way, and never on both. Where it is not `mixed`,
    each element of a term depends on one row of the product only, so that the rows may be drawn each for itself.
    """
    varying, aliases, products, others = set(varying), [node], [], []
    for alias in aliases:  # grows as it is gone through
        for eqn in graph.users(alias):
            # Numbers that stand in several places have no product of their own: its elements have noise in common.
            if eqn.primitive.name in MOVING and eqn.outvars[0].aval.size == alias.aval.size:
                aliases.extend(eqn.outvars)
            elif eqn.primitive.name == "dot_general" and _other(eqn, alias) not in varying:
                products.append((eqn, alias))
            else:
                others.extend(eqn.outvars)
    if len(products) != 1:
        found = "no product with data" if not products else f"{len(products)} products with data, and not one,"
        return f"{found} is made of it"
    ((eqn, alias),) = products
    through, beside = graph.downstream(eqn.outvars), graph.downstream(others)
    reached = [o for o, v in graph.outputs.items() if not isinstance(v, Literal) and v in through]
    terms = [o for o in reached if o.startswith(("p:", "q:", "jacobian:", "standard:"))]
    both = next((o for o in terms if graph.outputs[o] in beside), None)
    if both is not None:
        return f"the term {both!r} depends on it otherwise than by a product with data"
    if any(o.startswith(ABOVE_SITES) for o in reached):
        return "another site is drawn given its product with data"
    aligned = analyse_variable(graph, eqn.outvars[0], terms)
    mixing = next((t for t in terms if any(aligned[t][row] is None for row in _rows(eqn, alias))), None)
    mixed = None if mixing is None else f"the term {mixing!r} mixes the rows of its product with data"
    otherwise = frozenset(o for o, v in graph.outputs.items() if not isinstance(v, Literal) and v in beside)
    return Linear(eqn.outvars[0], _other(eqn, alias), mixed, otherwise, frozenset(terms))


def apart(found: Linear | str, summed: Mapping[str, Iterable[str]]) -> Linear | str:
    """The same; the reason, where a site that is summed out makes one term of some of the product and of others of the
    node. `summed` are the terms of each such site."""
    if isinstance(found, str):
        return found
    for site, terms in summed.items():
        own = set(terms)
        if own & found.beside and own & found.through:  # the logarithm of a sum tells them not apart
            first, second = min(own & found.through), min(own & found.beside)
            return f"{site!r} is summed out of {first!r}, which sees its product with data, and of {second!r}"
    return found


def _other(eqn: Any, operand: Any) -> Any:
    left, right = eqn.invars
    return right if left is operand else left


def _rows(eqn: Any, operand: Any) -> list[int]:
    """The axes of a product that are the data's own."""
    (contracted, batch) = eqn.params["dimension_numbers"]
    left, right = eqn.invars
    free = [v.aval.ndim - len(contracted[k]) - len(batch[k]) for k, v in enumerate((left, right))]
    first = len(batch[0]) + (free[0] if left is operand else 0)
    return list(range(first, first + (free[1] if left is operand else free[0])))
