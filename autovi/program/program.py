"""Guide and model as one program: parameters, data and noise -> draws and cost terms.

The graph that was traced once is all there is to evaluate. What does not vary over particles is evaluated once; what is
downstream of a node can be evaluated again with another value there (`World.forced`), all noise being the same: that is
what every counterfactual estimator stands on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from numpyro.distributions.transforms import biject_to

from autovi.analysis.costs import Aligned
from autovi.analysis.structure import Structure
from autovi.families.base import Layout
from autovi.model.execution import site_key
from autovi.model.graph import Graph, Values, like_traced
from autovi.model.sites import Site, Sites
from autovi.model.traced import KEY, Traced, data_input
from autovi.objectives import Elbo, Objective
from autovi.plan.plan import Block, Plan
from autovi.program.alike import Alike, find_alike
from autovi.program.blocks import BlockGuide, site_value
from autovi.program.nodes import Node
from autovi.program.rows import gather, row_axes
from autovi.program.world import World


class Run(NamedTuple):
    """One particle. `terms` add up to the ELBO's integrand; `values` are all latent and deterministic values;
    `log_likelihoods` those of the observed sites, unscaled."""

    nodes: dict[str, Node]
    terms: dict[str, jax.Array]
    values: dict[str, Any]
    log_likelihoods: dict[str, jax.Array]


class Shared(NamedTuple):
    """What all particles of a step have in common: values of the graph, and the distributions of the own guide."""

    values: Values
    laws: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Program:
    """A traced model (with a guide function, or with the plan's blocks as its guide) and a plan for it."""

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

    # --- nodes --------------------------------------------------------------------------------------------------------

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The nodes in the order in which they are drawn."""
        blocks = {b.name for b in self.plan.blocks}
        names = blocks if self.guide_sites is None else [n for n in self.guide_sites.samples if n in blocks]
        return tuple(b.name for b in self.plan.blocks) if self.own else tuple(names)

    @cached_property
    def unconstrained(self) -> frozenset[str]:
        """The sites whose nodes are on the unconstrained scale."""
        return self.blocks.unconstrained() if self.own else frozenset()

    def is_flat(self, node: str) -> bool:
        """Is the node one distribution over the concatenated values of its sites?"""
        return self.own and node not in self.plan.marginal and self.plan.block(node).flat

    def keeps_entropy(self, node: str) -> bool:
        """Does log q of the node's draw carry a gradient?"""
        return self.plan.estimator_of(node).pathwise or not self.objective.local_costs

    def node_site(self, node: str) -> Site:
        """The site of a node that is not flat, as it is drawn."""
        sites = self.guide_sites if self.guide_sites is not None and node in self.guide_sites.samples else self.sites
        return sites.samples[node]

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
            below: dict[str, Aligned]
            if self.is_flat(node):
                sites = self.plan.block(node).sites
                below = {t: () for s in sites for t in self.structure.downstream[s] if t != f"q:{s}"}
                below[f"q:{node}"] = ()
            else:
                below = dict(self.structure.downstream[node])
            # A site that is summed out has no log q, though the guide function may draw it.
            self._downstream[node] = {t: a for t, a in below.items() if t in self.term_names}
        return self._downstream[node]

    @cached_property
    def _downstream(self) -> dict[str, dict[str, Aligned]]:
        return {}

    def placed(self, node: str, value: Any) -> Values:
        """The variables of the graph that a value of a node sets."""
        graph, sites = self.traced.graph, self.sites
        if node in self.plan.marginal or not self.own:
            value = site_value(sites, node, value) if node in self.plan.marginal else value
            return self._as_inputs({node: value})
        block = self.plan.block(node)
        values = self.blocks.site_values(block, value)
        if node in self.unconstrained or block.flat or sites.samples[node].discrete:
            return self._as_inputs(values)
        return {graph.outputs[f"value:{node}"]: values[node]}

    def _as_inputs(self, values: Mapping[str, Any]) -> Values:
        out = {}
        for name, value in values.items():
            var = self.traced.graph.inputs[f"node:{name}"]
            if jnp.issubdtype(jnp.result_type(value), jnp.inexact) and not jnp.issubdtype(var.aval.dtype, jnp.inexact):
                raise TypeError(
                    f"site {name!r}: an estimator forced it to a value between those of its support; such an estimator "
                    "says so by `relaxed = True` in its class"
                )
            out[var] = jnp.broadcast_to(jnp.asarray(value, var.aval.dtype), var.aval.shape)
        return out

    def node_variables(self, node: str) -> list[Any]:
        """The variables that hold a node's value."""
        inputs = self.traced.graph.inputs
        if self.own and node not in self.plan.marginal:
            block = self.plan.block(node)
            own_scale = not (block.flat or node in self.unconstrained or self.sites.samples[node].discrete)
            if own_scale:
                return [self.traced.graph.outputs[f"value:{node}"]]
            return [inputs[f"node:{s}"] for s in block.sites]
        return [inputs[f"node:{node}"]]

    def affected(self, node: str) -> frozenset[Any]:
        """The variables that may change when a node is forced, those of nodes drawn again below it included."""
        if node not in self._affected:
            variables = [v for n in (node, *self.below(node)) for v in self.node_variables(n)]
            self._affected[node] = frozenset(self.traced.graph.downstream(variables))
        return self._affected[node]

    def below(self, node: str) -> list[str]:
        """The nodes whose distribution depends on a node."""
        return [n for n in self.order if self.structure.below(n, node)]

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

    # --- parameters ---------------------------------------------------------------------------------------------------

    @property
    def start_size(self) -> int:
        """How many unconstrained numbers a starting point of the engine's own guide has."""
        return self.blocks.size if self.own else 0

    def init(self, rng_key: jax.Array, arrays: Mapping[str, Any], start: jax.Array) -> dict[str, Any]:
        """Parameters around one starting point: those of the blocks, and those of parameter sites as declared."""
        guide = self.blocks.init(start) if self.own else {}
        return {"guide": guide, "param": self._init_param_sites(rng_key, arrays)}

    def start_values(self, start: jax.Array, indices: Mapping[str, Any]) -> dict[str, jax.Array]:
        """The value of every continuous block at a starting point, to force it to."""
        return self.blocks.start_values(start, indices) if self.own else {}

    def _init_param_sites(self, rng_key: jax.Array, arrays: Mapping[str, Any]) -> dict[str, Any]:
        graph = self.traced.starts
        key = graph.inputs[KEY]
        values = _zeros(graph) | _data(graph, arrays) | {key: like_traced(rng_key, key)}
        found = {}
        for name, param in self.traced.params.items():
            outputs = [graph.outputs[leaf.replace("param:", "init:", 1)] for leaf in param.leaves]
            known = graph.evaluate(outputs, values.__contains__, values.__getitem__)
            leaves = [jnp.asarray(v.val) if isinstance(v, Literal) else known[v] for v in outputs]
            # Where later ones start may depend on it.
            values |= {graph.inputs[n]: x for n, x in zip(param.leaves, leaves, strict=True) if n in graph.inputs}
            found[name] = jax.tree.map(biject_to(param.constraint).inv, jax.tree.unflatten(param.made, leaves))
        return found

    def seen(self, params: Mapping[str, Any], indices: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters as a step sees them: of tables the rows of its elements."""
        guide = {
            n: gather(self.node_site(n), leaves, indices) if n in self.tables else leaves
            for n, leaves in params["guide"].items()
        }
        return {**params, "guide": guide}

    def estimator_params(self, rng_key: jax.Array) -> dict[str, Any]:
        """The estimators' own parameters before the first step."""
        blocks = [b for b in self.plan.blocks if b.estimator.has_surrogate]
        return {b.name: b.estimator.init(site_key(rng_key, b.name), self.layout(b)) for b in blocks}

    def constrained(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Parameter sites on their own scale."""
        return {n: jax.tree.map(biject_to(self.traced.params[n].constraint), v) for n, v in params["param"].items()}

    # --- execution ----------------------------------------------------------------------------------------------------

    def shared(
        self, params: Mapping[str, Any], arrays: Mapping[str, Any], indices: Mapping[str, Any], wanted: Iterable[str]
    ) -> Shared:
        """What all particles have in common, on the way to the `wanted` outputs."""
        graph = self.traced.graph
        values = _data(graph, arrays)
        values |= {graph.inputs[f"plate:{n}"]: i for n, i in indices.items() if f"plate:{n}" in graph.inputs}
        for name, tree in self.constrained(params).items():
            variables = [graph.inputs[n] for n in self.traced.params[name].leaves]
            values |= dict(zip(variables, jax.tree.leaves(tree), strict=True))
        values |= graph.evaluate(self._frontier(tuple(wanted)), values.__contains__, values.__getitem__)
        laws = self.blocks.laws(params["guide"], params.get("constants", {})) if self.own else {}
        return Shared(values, laws)

    @cached_property
    def varying(self) -> frozenset[Any]:
        """The variables that differ between particles."""
        graph = self.traced.graph
        return frozenset(graph.downstream(self._of_particle))

    @cached_property
    def _of_particle(self) -> frozenset[Any]:
        """The variables that are given to each particle."""
        inputs = self.traced.graph.inputs
        nodes = [v for n in (*self.order, *self.plan.marginal) for v in self.node_variables(n)]
        return frozenset([*nodes, inputs[KEY], *(inputs[f"noise:{n}"] for n in self.traced.sealed)])

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

    def particle(
        self, shared: Shared, rng_key: jax.Array, noise: Mapping[str, Any], forced: Mapping[str, Any] | None = None
    ) -> World:
        """One particle: every node drawn from its noise, those apart that are `forced` to a value."""
        key = self.traced.graph.inputs[KEY]
        values = {**shared.values, key: like_traced(rng_key, key)}
        return World(self, values, shared.laws, noise).draw(forced or {})

    def noise(self, rng_key: jax.Array, num_particles: int) -> dict[str, Any]:
        """The noise of every node, of all particles together."""
        return {b.name: self._noise(b, site_key(rng_key, b.name), num_particles) for b in self.plan.blocks}

    def _noise(self, block: Block, rng_key: jax.Array, num_particles: int) -> Any:
        if self.own:
            shape = self.blocks.draw_shape(block)
        else:
            shape = self.node_site(block.name).shape
        return block.estimator.noise(rng_key, num_particles, shape)

    @cached_property
    def term_names(self) -> tuple[str, ...]:
        """All cost terms that the nodes as drawn have."""
        model = [t for n in self.sites.samples if (t := f"p:{n}") in self.traced.graph.outputs]
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
            jacobian = f"jacobian:{name}"
            return [term, jacobian] if name in self.unconstrained and jacobian in there else [term]
        if name not in self.order:
            return [term]  # a Delta of a guide function
        return [o for o in (f"scale:{name}", f"weight:{name}", f"mask:{name}") if o in there]

    @cached_property
    def cost_outputs(self) -> tuple[str, ...]:
        """The outputs of the graph that the cost terms and the nodes' distributions are made of."""
        terms = [o for term in self.term_names for o in self.outputs_of(term)]
        masks = [f"mask:{n}" for n in self.plan.marginal if f"mask:{n}" in self.traced.graph.outputs]
        laws = [
            f"law:{n}:{i}" for n, made in self.traced.laws.items() if n in self.order for i in range(made.num_leaves)
        ]
        draws = [f"draw:{n}:{i}" for n, made in self.traced.sealed.items() for i in range(made.num_leaves)]
        return (*terms, *masks, *laws, *draws, *(f"drawn:{n}" for n in self.traced.sealed))

    @cached_property
    def everything(self) -> tuple[str, ...]:
        """The outputs that a posterior draw is made of."""
        return (*self.cost_outputs, *self.outputs_for(["value", "likelihood"]))

    @cached_property
    def integrating(self) -> tuple[str, ...]:
        """The nodes that are integrated."""
        blocks = (*self.plan.blocks, *self.plan.marginal.values())
        return tuple(b.name for b in blocks if b.estimator.integrates)

    def owned(self, node: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The terms that an integrated node has for itself, and those that it shares with other integrated nodes."""
        mine = [t for t in self.term_names if t in self.structure.downstream[node]]
        shared = {t for n in self.integrating if n != node for t in self.structure.downstream[n]}
        return tuple(t for t in mine if t not in shared), tuple(t for t in mine if t in shared)

    @cached_property
    def alike(self) -> list[Alike]:
        """Terms of latent sites that are computed alike. Only where no site needs a cost of its own are they computed
        together: they are not told apart then."""
        if self.integrating or any(b.estimator.has_surrogate for b in self.plan.blocks):
            return []
        terms = {t: self.outputs_of(t) for n in self.sites.latents if (t := f"p:{n}") in self.traced.graph.outputs}
        return find_alike(self.traced.graph, terms, self._of_particle)

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

    def outputs_for(self, prefixes: Iterable[str]) -> tuple[str, ...]:
        """The outputs of the graph that begin so."""
        kinds = tuple(f"{p}:" for p in prefixes)
        return tuple(o for o in self.traced.graph.outputs if o.startswith(kinds))

    def run(
        self,
        params: Mapping[str, Any],
        arrays: Mapping[str, Any],
        rng_key: jax.Array,
        indices: Mapping[str, Any],
        forced: Mapping[str, Any] | None = None,
    ) -> Run:
        """One particle alone, with its values and likelihoods."""
        shared = self.shared(self.seen(params, indices), arrays, indices, self.everything)
        noise = jax.tree.map(lambda x: x[0], self.noise(rng_key, 1))
        return self.read(self.particle(shared, rng_key, noise, forced))

    def read(self, world: World) -> Run:
        """All that a particle has."""
        values = world.outputs(self.outputs_for(["value"]))
        likelihoods = world.outputs(self.outputs_for(["likelihood"]))
        without = lambda out: {n.split(":", 1)[1]: v for n, v in out.items()}  # noqa: E731
        return Run(world.nodes, world.terms(self.term_names), without(values), without(likelihoods))

    def observed_values(self, arrays: Mapping[str, Any]) -> dict[str, jax.Array]:
        """The observed values, whatever the latent ones."""
        graph = self.traced.graph
        values = _zeros(graph) | _data(graph, arrays)
        for name, plate in self.sites.plates.items():
            if f"plate:{name}" in graph.inputs:
                values[graph.inputs[f"plate:{name}"]] = jnp.arange(plate.length)
        values[graph.inputs[KEY]] = like_traced(jax.random.key(0), graph.inputs[KEY])
        world = World(self, values, {}, {})
        return {n.split(":", 1)[1]: v for n, v in world.outputs(self.outputs_for(["observed"])).items()}

    # --- finite supports ----------------------------------------------------------------------------------------------

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

    def first_value(self, node: str) -> Any:
        """A value of a marginalized site, to stand in until it is integrated."""
        return jnp.zeros(self.sites.samples[node].batch_shape, int)


def _zeros(graph: Graph) -> Values:
    """Something for every node, plate and parameter."""
    return {v: jnp.zeros(v.aval.shape, v.aval.dtype) for n, v in graph.inputs.items() if ":" in n}


def _data(graph: Graph, arrays: Mapping[str, Any]) -> Values:
    there = graph.inputs
    return {there[data_input(path)]: jnp.asarray(a) for path, a in arrays.items() if data_input(path) in there}
