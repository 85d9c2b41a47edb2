"""How a plan is wired to a traced program: which variables hold which node, what is below it, what terms are made of.

Nothing is evaluated here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np

from autovi.analysis.costs import Aligned, agreed
from autovi.analysis.counted import masked_sites
from autovi.analysis.linear import Linear, apart, find_linear
from autovi.analysis.structure import Sinces
from autovi.families.base import Layout
from autovi.model.chains import draw_output, flow_input, key_input
from autovi.model.traced import KEY
from autovi.plan.plan import Block
from autovi.program.alike import Alike, find_alike
from autovi.program.closed_form import known_priors
from autovi.program.placing import Placing
from autovi.program.rows import row_axes


@dataclass(frozen=True, eq=False)
class Wiring(Placing):
    """A traced model (with a guide function, or with the plan's blocks as its guide), and a plan for it."""

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The nodes in the order in which they are drawn."""
        names = tuple(b.name for b in self.plan.blocks)
        return names if self.guide_sites is None else tuple(n for n in self.guide_sites.samples if n in names)

    def is_below(self, node: str, other: str) -> bool:
        """Is a node drawn from a distribution that depends on the value of another?"""
        if self.own and node in self._parents:
            parents = self._parents[node]
            return other in parents or any(self.is_below(parent, other) for parent in parents)
        return self.structure.below(node, other)

    @cached_property
    def _parents(self) -> dict[str, tuple[str, ...]]:
        return {b.name: b.parents for b in self.plan.blocks}

    def scale(self, node: str) -> float:
        """The plate scale of a node's sites, where it is known before the program runs."""
        return self.traced.scales.get(self.plan.block(node).sites[0], 1.0)

    def keeps_entropy(self, node: str) -> bool:
        """Does log q of the node's draw carry a gradient?"""
        return self.plan.estimator_of(node).pathwise or not self.objective.local_costs

    @cached_property
    def doubly(self) -> bool:
        """Does the objective weight the gradient through some draws by what the particles' weights are?"""
        return not self.objective.local_costs and any(b.estimator.doubly for b in self.plan.blocks)

    @cached_property
    def known_priors(self) -> frozenset[str]:
        """The sites whose prior's term is taken in closed form."""
        return known_priors(self) if "p" in self.objective.closed else frozenset()

    @cached_property
    def node_of(self) -> dict[str, str]:
        """Site -> the block in which it is drawn."""
        return {s: b.name for b in self.plan.blocks for s in b.sites}

    @cached_property
    def linear(self) -> dict[str, Linear]:
        """The products with data of nodes whose estimators make something else of them."""
        graph, found = self.traced.graph, {}
        for block in self.plan.blocks:
            if block.estimator.local:
                (variable,) = self.node_variables(block.name)
                summed = {group.name: tuple(group.terms) for group in self.plan.groups}
                product = apart(find_linear(graph, variable, self.varying), summed)
                if isinstance(product, str):
                    raise ValueError(
                        f"site {block.name!r}: estimator {block.estimator.name!r} is wrong here: {product}"
                    )
                found[block.name] = product
        return found

    def layout(self, block: Block) -> Layout:
        """The array that a block is at full plates: as its family has it, or as the guide function draws it."""
        if block.family is not None:
            return self.blocks.layout(block)
        site = self.node_site(block.name)
        return Layout(site.full(site.batch_shape), site.event_shape, None if site.values is None else len(site.values))

    def downstream(self, node: str) -> Mapping[str, Aligned]:
        """The cost terms below a node, and how their dimensions belong to its own. Those of a flat node, whose elements
        have one density between them, count together."""
        if node not in self._downstream:
            below: dict[str, Aligned] = {}
            if self.own and node not in self.summed:
                for site in self.plan.block(node).sites:
                    for term, aligned in self.structure.downstream[site].items():
                        own = f"q:{node}" if term == f"q:{site}" else term
                        onto: Aligned = () if self.is_flat(node) else aligned
                        below[own] = agreed(below[own], onto) if own in below else onto
                for child in self.below(node):  # a parent is flat
                    below |= dict.fromkeys(self.downstream(child), ())
            else:
                below = dict(self.structure.downstream[node])
            # A site that is summed out has no log q, though the guide function may draw it.
            self._downstream[node] = {t: a for t, a in below.items() if t in self.term_names}
        return self._downstream[node]

    @cached_property
    def _downstream(self) -> dict[str, dict[str, Aligned]]:
        return {}

    def follows(self, node: str) -> Mapping[str, Sinces]:
        """The terms that follow the steps of a scan along a dimension of a node's."""
        return {} if self.is_flat(node) else self.structure.since.get(node, {})

    def affected(self, node: str) -> frozenset[Any]:
        """The variables that may change when a node is forced, those of nodes drawn again below it included."""
        if node not in self._affected:
            variables = [v for n in (node, *self.below(node)) for v in self.node_variables(n)]
            self._affected[node] = frozenset(self.traced.graph.downstream(variables))
        return self._affected[node]

    def below(self, node: str) -> list[str]:
        """The nodes whose distribution depends on a node."""
        return [n for n in self.order if n != node and self.is_below(n, node)]

    @cached_property
    def _affected(self) -> dict[str, frozenset[Any]]:
        return {}

    @cached_property
    def tables(self) -> frozenset[str]:
        """The blocks whose parameters have a row for each element of a subsampled plate."""
        if not self.own:
            return frozenset()
        blocks = [b for b in self.plan.blocks if not b.flat]
        return frozenset(b.name for b in blocks if row_axes(self.node_site(b.name)))

    @cached_property
    def varying(self) -> frozenset[Any]:
        """The variables that differ between particles."""
        graph = self.traced.graph
        return frozenset(graph.downstream(self._of_particle))

    @cached_property
    def _of_particle(self) -> frozenset[Any]:
        """The variables that are given to each particle."""
        inputs = self.traced.graph.inputs
        names = (*self.order, *self.summed, *self.plan.ancestral)
        nodes = [v for n in names for v in self.node_variables(n)]
        return frozenset([*nodes, inputs[KEY], *(inputs[n] for n in self._of_draws)])

    @property
    def _of_draws(self) -> list[str]:
        """The inputs of draws that the graph makes."""
        chained = [of(n) for n in self.traced.chains for of in (key_input, flow_input)]
        return [*(f"noise:{n}" for n in self.traced.sealed), *chained]

    def _frontier(self, wanted: tuple[str, ...]) -> list[Any]:
        """The variables common to all particles that theirs are made of."""
        if wanted not in self._frontiers:
            graph = self.traced.graph
            stops = lambda var: var not in self.varying or var in self._of_particle  # noqa: E731
            _, used = graph.needed([graph.outputs[o] for o in wanted], stops)
            self._frontiers[wanted] = [v for v in used if v not in self.varying]
        return self._frontiers[wanted]

    @cached_property
    def _frontiers(self) -> dict[tuple[str, ...], list[Any]]:
        return {}

    @cached_property
    def term_names(self) -> tuple[str, ...]:
        """All cost terms that the nodes as drawn have."""
        sites = [n for n in self.sites.samples if n not in self.plan.ancestral]
        model = [t for n in sites if (t := f"p:{n}") in self.traced.graph.outputs]
        if not self.traced.entropy:
            return tuple(model)
        if self.guide_sites is None:
            return (*(f"q:{b.name}" for b in self.plan.blocks), *model)
        drawn = [n for n in self.guide_sites.latents if n not in self.plan.marginal]
        return (*(f"q:{n}" for n in drawn), *model)

    def outputs_of(self, term: str) -> list[str]:
        """The outputs of the graph that a cost term is made of."""
        kind, name = term.split(":", 1)
        there = self.traced.graph.outputs
        if kind == "p":
            if name not in self.unconstrained:  # its value is set, and not its node
                return [term]
            standard, jacobian = f"standard:{name}", f"jacobian:{name}"
            return [standard if standard in there else term, *([jacobian] if jacobian in there else [])]
        if name not in self.order:
            return [term]  # a Delta of a guide function
        return [o for o in (f"scale:{name}", f"weight:{name}") if o in there]

    @cached_property
    def cost_outputs(self) -> tuple[str, ...]:
        """The outputs of the graph that the cost terms and the nodes' distributions are made of."""
        terms = [o for term in self.term_names for o in self.outputs_of(term)]
        distributions = [
            f"distribution:{n}:{i}"
            for n, made in self.traced.distributions.items()
            if n in self.order
            for i in range(made.num_leaves)
        ]
        draws = [f"draw:{n}:{i}" for n, made in self.traced.sealed.items() for i in range(made.num_leaves)]
        chained = [draw_output(n) for n in self.traced.chains]
        parts = [o for outputs in self.traced.summands.values() for o in outputs]
        return (*terms, *parts, *distributions, *draws, *chained, *(f"drawn:{n}" for n in self.traced.sealed))

    @cached_property
    def everything(self) -> tuple[str, ...]:
        """The outputs that a posterior draw is made of."""
        return (*self.cost_outputs, *self.outputs_for(["value", "likelihood"]))

    @cached_property
    def integrating(self) -> tuple[str, ...]:
        """The nodes that are integrated."""
        return tuple(b.name for b in self.plan.blocks if b.estimator.integrates)

    def owned(self, node: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The terms that an integrated node has for itself, and those that it shares with other integrated nodes."""
        mine = [t for t in self.term_names if t in self.structure.downstream[node]]
        shared = {t for n in self.integrating if n != node for t in self.structure.downstream[n]}
        return tuple(t for t in mine if t not in shared), tuple(t for t in mine if t in shared)

    @cached_property
    def alike(self) -> list[Alike]:
        """Terms of latent sites that are computed alike. Only where no site needs a cost of its own are they computed
        together: they are not told apart then."""
        if (
            self.known_priors
            or self.integrating
            or self.plan.groups
            or any(b.estimator.has_surrogate for b in self.plan.blocks)
        ):
            return []
        there, masked = self.traced.graph.outputs, masked_sites(self.traced)
        names = [n for n in self.sites.latents if f"p:{n}" in there and n not in masked]
        terms = {f"p:{n}": self.outputs_of(f"p:{n}") for n in names}
        return find_alike(self.traced.graph, terms, self._of_particle)

    def outputs_for(self, prefixes: Iterable[str]) -> tuple[str, ...]:
        """The outputs of the graph that begin so."""
        kinds = tuple(f"{p}:" for p in prefixes)
        return tuple(o for o in self.traced.graph.outputs if o.startswith(kinds))

    def num_values(self, node: str) -> int:
        """How many branches an integrated node has."""
        site = self.sites.samples.get(node) or self.node_site(node)
        assert site.values is not None
        return len(site.values)

    def branch_values(self, node: str) -> np.ndarray:
        """The values to force a node to, one after the other."""
        if self.own or node in self.plan.marginal:
            return np.arange(self.num_values(node))
        return np.asarray(self.node_site(node).values).astype(int)

    def branch_shape(self, node: str) -> tuple[int, ...]:
        """The shape of a value that a node is forced to."""
        return self.sites.samples[node].batch_shape if node in self.plan.marginal else self.node_site(node).shape

    def branch_numbers(self, node: str, names: tuple[str, ...]) -> int:
        """How many numbers one branch computes."""
        graph, affected = self.traced.graph, self.affected(node)
        wanted = [graph.outputs[n] for n in names if n in graph.outputs]
        given = {v for n in (node, *self.below(node)) for v in self.node_variables(n)}
        return graph.numbers(wanted, lambda var: var in given or var not in affected)

    def variable_numbers(self, variables: tuple[str, ...], names: tuple[str, ...]) -> int:
        """How many numbers the terms, and parts of terms, compute at one value of each of these variables."""
        graph = self.traced.graph
        moved = [graph.inputs[f"node:{v}"] for v in variables]
        affected = graph.downstream(moved)
        outputs = [o for n in names for o in (self.outputs_of(n) if n.startswith("p:") else [n])]
        wanted = [graph.outputs[o] for o in outputs]
        return graph.numbers(wanted, lambda var: var in moved or var not in affected)

    def first_value(self, node: str) -> Any:
        """A value of a marginalized site, to stand in until it is integrated."""
        var = self.traced.graph.inputs[f"node:{node}"]
        return jnp.zeros(var.aval.shape, int if node in self.traced.states else var.aval.dtype)
