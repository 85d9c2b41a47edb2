"""What a model makes of a standard site by its own hands, as mu + tau * z: the affine image of z.

A hierarchy that is written non-centred by hand has sites with a known location and scale, whose values the model moves
and scales before it uses them. Where data say much of the image, the values of z, mu and tau are tied to one another as
a product, and no normal follows. From the image its coordinates can be chosen as if the image were the site.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from autovi.distributions.coordinates import Univariate
from autovi.model.graph import Graph
from autovi.model.traced import Traced

# Of these outputs a site's prior and its draws are made; the others are what the model makes of its value.
OWN = ("value:", "p:", "jacobian:", "location:", "spread:", "mask:", "prior:", "inside:")
# They copy elements: one number that multiplies what they make could as well multiply what they are made of.
COPIES = frozenset({"gather", "broadcast_in_dim", "reshape", "squeeze", "transpose", "slice", "expand_dims"})
REPEATS = frozenset({"broadcast_in_dim", "convert_element_type", "reshape"})


@dataclass(frozen=True)
class Image:
    """e = a + b z: `steps` are what makes it of z, each the name of a primitive, the other operand and whether z is its
    first; `shifts` and `factors` are the operands on which a and b depend."""

    steps: tuple[tuple[str, Any, bool], ...]
    shifts: tuple[Any, ...] = field(default=())
    factors: tuple[Any, ...] = field(default=())

    @property
    def operands(self) -> tuple[Any, ...]:
        """All operands that are variables."""
        return tuple(v for _, v, _ in self.steps if not isinstance(v, Literal))

    def coefficients(self, read: Callable[[Any], Any]) -> tuple[jax.Array, jax.Array]:
        """a sign(b) and abs(b), given the values of the operands: of z with the sign of b the image is a + abs(b) z."""
        a, b = jnp.zeros(()), jnp.ones(())
        for name, operand, first in self.steps:
            c = jnp.asarray(operand.val) if isinstance(operand, Literal) else read(operand)
            a, b = STEPS[name](a, b, c, first)
        return a * jnp.sign(b), jnp.abs(b)


# (a, b, the other operand, is z the first one) -> a and b of what a primitive makes of a + b z.
STEPS: dict[str, Callable[..., tuple[jax.Array, jax.Array]]] = {
    "add": lambda a, b, c, first: (a + c, b),
    "sub": lambda a, b, c, first: (a - c, b) if first else (c - a, -b),
    "mul": lambda a, b, c, first: (a * c, b * c),
    "div": lambda a, b, c, first: (a / c, b / c),
    "neg": lambda a, b, c, first: (-a, -b),
}
SHIFTS = ("add", "sub")
_NOTHING = Literal(0.0, jax.core.ShapedArray((), np.float32))  # the other operand of a primitive that has one


def images(traced: Traced) -> dict[str, Image]:
    """The sites of a model without a guide function that are standard by their own distribution, of location 0 and
    scale 1, and that the model uses by one affine image alone, whose location or scale depends on latent sites."""
    graph = traced.graph
    found: dict[str, Image] = {}
    nodes = {n: graph.inputs[f"node:{n}"] for n in traced.sites.latents if f"node:{n}" in graph.inputs}
    for name in traced.sites.latents:
        if name not in nodes or not _is_standard(traced, name):
            continue
        # What makes the image of another site that depends on this one must not depend on that site in its turn.
        later = [o for o in found if graph.downstream([nodes[name]]) & set(found[o].operands)]
        barred = graph.downstream([nodes[name], *(nodes[o] for o in later)])
        image = _image(graph, name, nodes[name], barred)
        latent = graph.downstream([v for n, v in nodes.items() if n != name])
        if image is not None and latent & {*image.shifts, *image.factors}:
            found[name] = image
    return found


def _is_standard(traced: Traced, name: str) -> bool:
    site = traced.sites.latents[name]
    coordinates = traced.coordinates.get(name)
    if not isinstance(coordinates, Univariate) or site.masked or site.support != "real" or name in traced.noncentred:
        return False
    return all(_is_constant(traced.graph, f"{kind}:{name}", of) for kind, of in (("location", 0), ("spread", 1)))


def _is_constant(graph: Graph, output: str, expected: float) -> bool:
    """Does an output repeat one constant?"""
    var = graph.outputs[output]
    while not isinstance(var, Literal) and (eqn := graph.maker(var)) is not None:
        if eqn.primitive.name not in REPEATS:
            return False
        var = eqn.invars[0]
    value = var.val if isinstance(var, Literal) else graph.constants.get(var)
    return value is not None and bool(np.all(np.asarray(value) == expected))


def _image(graph: Graph, name: str, node: Any, barred: Collection[Any]) -> Image | None:
    """The longest chain of affine steps from a node. Where its values are copied, what comes then has to be one number.
    Operands that are `barred` end it."""
    at, copied = node, False
    steps: list[tuple[str, Any, bool]] = []
    shifts: list[Any] = []
    factors: list[Any] = []
    for eqn in _chain(graph, name, node):
        if eqn.primitive.name in COPIES and eqn.invars[0] is at:
            copied = True
        elif eqn.primitive.name in STEPS:
            first = eqn.invars[0] is at
            others = [v for v in eqn.invars if v is not at]
            other = others[0] if others else _NOTHING
            whole = eqn.outvars[0].aval.shape == at.aval.shape
            known = isinstance(other, Literal) or other not in barred
            if len(others) != len(eqn.invars) - 1 or not known or not whole:
                break
            if eqn.primitive.name == "div" and not first:
                break
            if copied and (other := _scalar(graph, other)) is None:
                break
            # What multiplies a sum multiplies what was added too.
            if eqn.primitive.name in SHIFTS or shifts:
                shifts.append(other)
            if eqn.primitive.name not in SHIFTS:
                factors.append(other)
            steps.append((eqn.primitive.name, other, first))
        else:
            break
        at = eqn.outvars[0]
    return Image(tuple(steps), _variables(shifts), _variables(factors)) if steps else None


def _variables(operands: list[Any]) -> tuple[Any, ...]:
    return tuple(v for v in operands if not isinstance(v, Literal))


def _chain(graph: Graph, name: str, node: Any) -> Iterator[Any]:
    """Equation by equation what a node goes through, as long as each has one that follows, until it is a parameter of a
    distribution: that makes a density of it, which may begin with affine steps too."""
    own = {f"{prefix}{name}" for prefix in OWN} | {o for o in graph.outputs if o.endswith(f"#p:{name}")}
    wanted = [v for o, v in graph.outputs.items() if o not in own]
    inputs = set(graph.inputs.values())
    equations, _ = graph.needed(wanted, lambda v: v in inputs or v in graph.constants)
    parameters = [v for o, v in graph.outputs.items() if o.startswith("part:") and o not in own]
    at = node
    while not any(v is at for v in parameters):
        users = [i for i in equations if any(v is at for v in graph.eqns[i].invars)]
        if len(users) != 1 or len(graph.eqns[users[0]].outvars) != 1:
            return
        yield graph.eqns[users[0]]
        (at,) = graph.eqns[users[0]].outvars


def _scalar(graph: Graph, var: Any) -> Any:
    """The number that an array repeats; None of one that may hold several."""
    if var.aval.shape == ():
        return var
    eqn = graph.maker(var)
    repeats = eqn is not None and eqn.primitive.name == "broadcast_in_dim" and eqn.invars[0].aval.shape == ()
    return eqn.invars[0] if repeats and eqn is not None else None
