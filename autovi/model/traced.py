"""The user's functions as a value: their sites, and a graph in which every value chosen from outside is an input.

The one trace serves the plan (what is there, what depends on what), the fingerprint, and the program that is compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from autovi.distributions.coordinates import Coordinates
from autovi.distributions.registry import Made
from autovi.model.chains import Chains
from autovi.model.fingerprint import Fingerprint, fingerprint, has_custom_derivatives
from autovi.model.graph import Graph
from autovi.model.places import Place
from autovi.model.sites import Site, Sites


@dataclass(frozen=True)
class Param:
    """A parameter site: the names of its leaves' inputs, how they make the value, and its constraint."""

    leaves: tuple[str, ...]
    made: Any
    constraint: Any


@dataclass(frozen=True, eq=False)
class Traced:
    """Sites of model and guide function, and their graph.

    Inputs of the graph: the data by path, `KEY`, "node:z" for the value of every node (unconstrained for continuous
    sites of a model without a guide function), "precision:z" and "datum:z" for the pseudo-data of a `noncentred` site,
    "plate:N" for the indices of subsampled plates, "param:w..." for the leaves of parameter sites.

    Outputs: "p:z" and "q:z", the weighted log densities of the sites of model and guide; "jacobian:z", what the
    change of variables adds to p:z; "standard:z", which is p:z from the node of a `noncentred` site; "location:z" and
    "spread:z", the parameters of a site's `coordinates`; "value:z", "likelihood:y", "inside:y", "init:w...",
    "observed:y"; "mask:z" and "prior:z" of masked sites, the latter a draw without the mask; "given:z:rate" and so on,
    what closed forms are made of (`model/given.py`); "distribution:z:i", the
    leaves of a node's distribution in the guide function, with "scale:z" and "weight:z" (its mask); "part:i#p:y", what
    a term may jump through. A distribution that holds functions of parameters (a flow's network) cannot be taken apart:
    it is drawn from inside the graph, from the key "noise:z": "draw:z:i" are the leaves of the draw, "drawn:z" its
    density, "density:z" that of the node's value. Sites of `chains` are drawn there too: see `model/chains.py`.
    """

    sites: Sites
    guide_sites: Sites | None
    graph: Graph
    starts: Graph  # where parameter sites start: the same graph, or one traced before all their shapes were known
    scales: Mapping[str, float]  # plate scale of every latent site
    distributions: Mapping[str, Made]  # node of a guide function -> how its distribution is made of its leaves
    sealed: Mapping[str, Any]  # node whose distribution cannot leave the graph -> how its draw is made of its leaves
    params: Mapping[str, Param]
    relaxed: frozenset[str] = frozenset()  # discrete sites that take values in between
    classes: tuple[Any, ...] = ()  # distributions of the user's own
    entropy: bool = True  # -log q of the nodes is part of the cost
    places: Mapping[str, Place] = field(default_factory=dict)  # the line of the user's that makes each site
    noncentred: frozenset[str] = frozenset()  # sites whose nodes are in partly non-centred coordinates
    # Site that could be in such -> its coordinates, the names of outputs in the place of arrays.
    coordinates: Mapping[str, Coordinates] = field(default_factory=dict)
    one_hot: frozenset[str] = frozenset()  # sites that take weights of their values, in a last dimension of "node:z"
    chains: Chains = field(default_factory=dict)  # sites of a scan that depend on their own earlier draws
    # Sites of scans whose steps stand side by side -> how many steps back their values are felt ("node:x@1", ...).
    lags: Mapping[str, int] = field(default_factory=dict)
    backward: frozenset[str] = frozenset()  # those of them whose scan runs backward, so that the step before is t + 1
    # What scans carry as variables of their own, in the form of sites, with inputs "node:c" and terms "p:c": see
    # `model/states.py`.
    states: Mapping[str, Site] = field(default_factory=dict)
    # Cost terms -> the outputs, "summand:i#p:y", whose entries they add up; none of a term that is no sum.
    summands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    imaged: frozenset[str] = frozenset()  # those of them that are in the coordinates of what the model makes of them

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """A digest of all that the functions compute: equal for functions that compute the same."""
        jaxprs, complete = self._jaxprs()
        # Field by field: what a cached property has added says nothing of the program.
        sites = [vars(s)[f.name] for s in (self.sites, self.guide_sites) if s is not None for f in fields(Sites)]
        return fingerprint(jaxprs, sites, self.classes, not complete)

    @cached_property
    def of_transformation(self) -> bool:
        """Do the functions close over values that a transformation of JAX's, in which they are traced, will have?"""
        return any(isinstance(c, jax.core.Tracer) for c in self.graph.constants.values())

    def _jaxprs(self) -> tuple[list[Any], bool]:
        """The traced program; also its derivatives, where functions with derivatives of their own are in it.

        The second is False where such a derivative cannot be traced, since something else has none.
        """
        jaxprs: list[Any] = [self.graph.closed]
        for order in (1, 2):  # estimators take second derivatives, and a rule may have one of its own
            if not has_custom_derivatives(jaxprs[-1]):
                break
            try:
                jaxprs.append(self._derivative(order))
            except Exception:  # of whatever kind: the fit will meet it if it takes that derivative
                return jaxprs, len(jaxprs) > 1
        return jaxprs, True

    def _derivative(self, order: int) -> Any:
        """A derivative of all densities, which shows what functions with derivatives of their own do."""
        graph = self.graph
        variables = list(graph.inputs.values())
        moved = [i for i, v in enumerate(variables) if jnp.issubdtype(v.aval.dtype, jnp.floating)]
        wanted = [v for n, v in graph.outputs.items() if n.startswith(("p:", "q:")) and not isinstance(v, Literal)]

        def total(floats: list[jax.Array], others: dict[int, jax.Array]) -> jax.Array:
            known = dict(zip(variables, [others.get(i) for i in range(len(variables))], strict=True))
            known |= {variables[i]: x for i, x in zip(moved, floats, strict=True)}
            made = graph.evaluate(wanted, known.__contains__, known.__getitem__)
            return jnp.asarray(sum(jnp.sum(made[v]) for v in wanted), float)

        def slope(floats: list[jax.Array], others: dict[int, jax.Array]) -> jax.Array:
            return jnp.asarray(sum(jnp.sum(g) for g in jax.tree.leaves(jax.grad(total)(floats, others))), float)

        shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in variables]
        others = {i: x for i, x in enumerate(shapes) if i not in moved}
        return jax.make_jaxpr(jax.grad(total if order == 1 else slope))([shapes[i] for i in moved], others)

    def pseudo_data(self, given: Mapping[str, Any]) -> dict[Any, jax.Array]:
        """The values of the inputs "precision:z" and "datum:z", from those `given` by these names, else those at which
        nodes are unconstrained values."""
        inputs = self.graph.inputs
        shaped = lambda v, x: jnp.broadcast_to(jnp.asarray(x, v.aval.dtype), v.aval.shape)  # noqa: E731
        plain = {name: x for site in sorted(self.noncentred) for name, x in self.plain(site).items()}
        return {inputs[name]: shaped(inputs[name], given.get(name, x)) for name, x in plain.items()}

    @property
    def unlinked(self) -> frozenset[str]:
        """The sites whose scans are maps over their steps."""
        return frozenset(self.lags) - self.states.keys()

    @property
    def in_parts(self) -> frozenset[str]:
        """The terms that were taken apart."""
        return frozenset(self.summands)

    @property
    def direct(self) -> frozenset[str]:
        """The non-centred sites whose coordinates are those of their own distributions."""
        return self.noncentred - self.imaged

    def plain(self, site: str) -> dict[str, float]:
        """The same inputs of one site, at which its node is the unconstrained value."""
        return dict(zip(pseudo_inputs(site), (self.coordinates[site].plain, 0.0), strict=True))


KEY = "1"  # the second argument of the traced function


def pseudo_inputs(site: str) -> tuple[str, str]:
    """The names of the inputs for a site's `PseudoData`, in their order, of the shape of its node. The
    constants of a state have them by the same names."""
    return f"precision:{site}", f"datum:{site}"


def data_input(path: str) -> str:
    """The name of a data array's input."""
    return f"0[{path!r}]"


def weighted(term: jax.Array, scale: Any, mask: Any) -> jax.Array:
    """`scale * term` where `mask` is on, else 0."""
    term = term if isinstance(scale, float) and scale == 1.0 else scale * term
    return term if mask is None else jnp.where(mask, term, 0.0)
