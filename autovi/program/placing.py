"""Which variables of a traced program hold a node's value, and what they are set to when it has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from autovi.analysis.structure import Structure
from autovi.model.graph import Values
from autovi.model.lags import lagged
from autovi.model.sites import Site, Sites
from autovi.model.traced import Traced
from autovi.objectives import Elbo, Objective
from autovi.plan.plan import Plan
from autovi.program.blocks import BlockGuide, site_value


@dataclass(frozen=True, eq=False)
class Placing:
    """A traced model, a plan for it, and where the plan's nodes stand in the model."""

    traced: Traced
    structure: Structure
    plan: Plan
    objective: Objective = Elbo()

    @property
    def sites(self) -> Sites:
        """The model's sites."""
        return self.traced.sites

    @property
    def guide_sites(self) -> Sites | None:
        """The guide function's sites; None where the plan's blocks are the guide."""
        return self.traced.guide_sites

    @cached_property
    def blocks(self) -> BlockGuide:
        """The engine's own guide."""
        return BlockGuide(self.sites, self.plan)

    @property
    def own(self) -> bool:
        """Are the plan's blocks the guide?"""
        return self.guide_sites is None

    @cached_property
    def unconstrained(self) -> frozenset[str]:
        """The sites whose nodes are on the unconstrained scale."""
        return self.blocks.unconstrained() if self.own else frozenset()

    @cached_property
    def summed(self) -> Mapping[str, Site]:
        """The sites that are summed out, and what scans carry as variables beside them."""
        return {**{n: self.sites.samples[n] for n in self.plan.marginal}, **self.traced.states}

    def is_flat(self, node: str) -> bool:
        """Is the node one distribution over the concatenated values of its sites?"""
        return self.own and node not in self.summed and self.plan.block(node).flat

    def node_site(self, node: str) -> Site:
        """The site of a node that is not flat, as it is drawn; the first where several are drawn by element."""
        if self.own and node not in self.plan.marginal:
            return self.sites.samples[self.plan.block(node).sites[0]]
        sites = self.guide_sites if self.guide_sites is not None and node in self.guide_sites.samples else self.sites
        return sites.samples[node]

    def placed(self, node: str, value: Any) -> Values:
        """The variables of the graph that a value of a node sets."""
        graph, sites = self.traced.graph, self.sites
        if node in self.summed or not self.own:
            value = site_value(self.summed, node, value) if node in self.summed else value
            return self.as_inputs({node: value})
        if node in self.traced.one_hot:
            return self.as_inputs({node: value})
        block = self.plan.block(node)
        values = self.blocks.site_values(block, value)
        if node in self.unconstrained or block.flat or block.by_element or sites.samples[node].discrete:
            return self.as_inputs(values)
        return {graph.outputs[f"value:{node}"]: values[node]}

    def as_inputs(self, values: Mapping[str, Any]) -> Values:
        """The variables of the graph that values of sites set, those on the scale of their nodes."""
        out: Values = {}
        for name, value in values.items():
            var = self.traced.graph.inputs[f"node:{name}"]
            if jnp.issubdtype(jnp.result_type(value), jnp.inexact) and not jnp.issubdtype(var.aval.dtype, jnp.inexact):
                raise TypeError(
                    f"site {name!r}: an estimator forced it to a value between those of its support; such an estimator "
                    "says so by `relaxed = True` in its class"
                )
            whole = jnp.broadcast_to(jnp.asarray(value, var.aval.dtype), var.aval.shape)
            out |= {var: whole, **self._steps_before(name, whole)}
        return out

    def _steps_before(self, site: str, value: jax.Array) -> Values:
        """The values of a site some steps before, where steps stand side by side; nothing sees those of none."""
        inputs, most = self.traced.graph.inputs, self.traced.lags.get(site, 0)
        step = -1 if site in self.traced.backward else 1
        return {inputs[f"node:{lagged(site, k)}"]: jnp.roll(value, step * k, axis=0) for k in range(1, most + 1)}

    def narrow_variable(self, name: str, value: jax.Array) -> Values:
        """The same set to one number, held once."""
        var = self.traced.graph.inputs[f"node:{name}"]
        there = site_value(self.summed, self._variables[name], value)
        return {var: jnp.asarray(there, var.aval.dtype).reshape((1,) * len(var.aval.shape))}

    def variable(self, name: str, value: jax.Array) -> Values:
        """One variable of a group, a site that is summed out or its values some steps before, set to one number, or to
        one for each element."""
        var = self.traced.graph.inputs[f"node:{name}"]
        there = site_value(self.summed, self._variables[name], value)
        return {var: jnp.broadcast_to(jnp.asarray(there, var.aval.dtype), var.aval.shape)}

    @cached_property
    def _variables(self) -> dict[str, str]:
        """Sites that are summed out, and their values some steps before -> the site."""
        return {lagged(s, k): s for s in self.summed for k in range(self.traced.lags.get(s, 0) + 1)}

    def node_variables(self, node: str) -> list[Any]:
        """The variables that hold a node's value."""
        inputs = self.traced.graph.inputs
        if self.own and node not in (*self.summed, *self.plan.ancestral):
            block = self.plan.block(node)
            together = block.flat or block.by_element
            if not (together or node in self.unconstrained or self.sites.samples[node].discrete):
                return [self.traced.graph.outputs[f"value:{node}"]]
            return [inputs[f"node:{s}"] for s in block.sites]
        return [inputs[f"node:{lagged(node, k)}"] for k in range(self.traced.lags.get(node, 0) + 1)]

    @cached_property
    def places(self) -> dict[Any, tuple[str, int]]:
        """Variable of a scalar site in a flat block -> the block, and the place in its vector."""
        found: dict[Any, tuple[str, int]] = {}
        for block in self.plan.blocks if self.own else ():
            offset = 0
            for name in block.sites if block.flat else ():
                site = self.sites.samples[name]
                if site.unconstrained_shape == ():
                    found[self.traced.graph.inputs[f"node:{name}"]] = block.name, offset
                offset += site.size
        return found

    def place_of(self, output: str) -> tuple[str, int] | None:
        """Where an output stands in a block's vector; None where it does not."""
        var = self.traced.graph.outputs[output]
        return None if isinstance(var, Literal) else self.places.get(var)

    @cached_property
    def stacks(self) -> dict[Any, tuple[str, int, int]]:
        """Variables that the model makes by stacking scalar sites which stand one after the other in a block's vector
        -> the block, and where they begin and end in it: that part of the vector is what the model makes."""
        graph, found = self.traced.graph, {}
        lifted = {
            eqn.outvars[0]: self.places.get(eqn.invars[0])
            for eqn in graph.eqns
            if eqn.primitive.name in ("broadcast_in_dim", "reshape") and not isinstance(eqn.invars[0], Literal)
        }
        # JAX stacks scalars by one operation, or by lifting each to a vector first.
        stacked: dict[str, Mapping[Any, Any]] = {"stack": self.places, "concatenate": lifted}
        for eqn in graph.eqns if self.places else ():
            parts = stacked.get(eqn.primitive.name)
            if parts is not None and eqn.outvars[0].aval.shape == (len(eqn.invars),):
                places = [None if isinstance(v, Literal) else parts.get(v) for v in eqn.invars]
                if places[0] is not None and places == [(places[0][0], places[0][1] + i) for i in range(len(places))]:
                    block, start = places[0]
                    found[eqn.outvars[0]] = block, start, start + len(places)
        return found
