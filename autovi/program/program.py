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

from autovi.analysis.counted import counted, counted_by_data, counts_of, masked_sites
from autovi.model.execution import site_key
from autovi.model.graph import Graph, Values, like_traced
from autovi.model.traced import KEY, data_input, pseudo_inputs
from autovi.plan.plan import Block
from autovi.program.elements import Elements, elements_of
from autovi.program.nodes import Node
from autovi.program.reading import read_layout
from autovi.program.rows import gather, gather_rows
from autovi.program.wiring import Wiring
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
    distributions: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Program(Wiring):
    """A wired program that can be evaluated."""

    @cached_property
    def elements(self) -> Elements | None:
        """The elements of a plate that an objective without local costs takes one by one."""
        return None if self.objective.local_costs else elements_of(self)

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
        return {**params, "guide": guide, "constants": self.seen_constants(params.get("constants", {}), indices)}

    def seen_constants(self, constants: Mapping[str, Any], indices: Mapping[str, Any]) -> dict[str, Any]:
        """The constants as a step sees them: how centred the sites of its elements are."""
        pseudo_data = {c: n for n in self.traced.noncentred for c in pseudo_inputs(n) if c in constants}
        rows = {c: gather(self.sites.samples[n], constants[c], indices) for c, n in pseudo_data.items()}
        return {**constants, **rows}

    def seen_estimators(self, params: Mapping[str, Any], indices: Mapping[str, Any]) -> dict[str, Any]:
        """The estimators' own parameters, or their optimizers' states, as a step sees them: of `Rows` those of its
        elements."""
        return {
            n: tree if self.is_flat(n) else gather_rows(self.node_site(n), tree, indices) for n, tree in params.items()
        }

    def estimator_params(self, rng_key: jax.Array) -> dict[str, Any]:
        """The estimators' own parameters before the first step."""
        blocks = [b for b in self.plan.blocks if b.estimator.has_surrogate]
        return {b.name: b.estimator.init(site_key(rng_key, b.name), read_layout(self, b)) for b in blocks}

    def constrained(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Parameter sites on their own scale."""
        return {n: jax.tree.map(biject_to(self.traced.params[n].constraint), v) for n, v in params["param"].items()}

    def constants(self) -> dict[str, jax.Array | dict[str, jax.Array]]:
        """Constants that change nothing: the identity before blocks that have a map, sites in their own coordinates."""
        found: dict[str, Any] = {b.name: self.blocks.identity(b) for b in self.plan.blocks if b.map}
        inputs = self.traced.graph.inputs
        return found | {
            c: jnp.full(self.sites.samples[n].full(inputs[c].aval.shape), x, inputs[c].aval.dtype)
            for n in sorted(self.traced.noncentred)
            for c, x in self.traced.plain(n).items()
        }

    def named(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters as a user sees them: "block.parameter" for the engine's families, those of parameter sites by
        name, constrained. Of a normal behind a fixed map, those of the normal before it; of other families the map is
        shown beside them, as "block.map.loc" and "block.map.scale_tril"."""
        constants = params.get("constants", {})
        shown = {
            b: self.blocks.shown(self.plan.block(b), leaves, constants.get(b)) if self.own else leaves
            for b, leaves in params["guide"].items()
        }
        flat = {f"{b}.{k}": np.asarray(v) for b, leaves in shown.items() for k, v in leaves.items()}
        return {**flat, **jax.tree.map(np.asarray, self.constrained(params))}

    def shared(
        self, params: Mapping[str, Any], arrays: Mapping[str, Any], indices: Mapping[str, Any], wanted: Iterable[str]
    ) -> Shared:
        """What all particles have in common, on the way to the `wanted` outputs."""
        graph = self.traced.graph
        values = self.known(params, arrays, indices)
        values |= {name: array for name, array in arrays.items() if name in self._settled}
        values |= graph.evaluate(self._frontier(tuple(wanted)), values.__contains__, values.__getitem__)
        values |= counted(self.traced, self.varying, values)
        values |= {counts_of(n): jnp.zeros(self.sites.samples[n].batch_shape, bool) for n in self.plan.ancestral}
        distributions = self.blocks.distributions(params["guide"], params.get("constants", {})) if self.own else {}
        return Shared(values, distributions)

    @cached_property
    def _settled(self) -> frozenset[str]:
        """The names of counting elements of sites in scans that follow from the data alone."""
        if self.sites.subsampled or self.traced.params:
            return frozenset()
        return frozenset(counts_of(n) for n in masked_sites(self.traced) if self.sites.samples[n].from_scan)

    def settled(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The data, with what follows from them alone and takes long: which elements count in a scan, for which its
        steps are gone through. Called once for many steps or draws."""
        if not self._settled:
            return dict(arrays)
        found = counted_by_data(self.traced, arrays)
        return {**arrays, **{name: array for name, array in found.items() if name in self._settled}}

    def known(self, params: Mapping[str, Any], arrays: Mapping[str, Any], indices: Mapping[str, Any]) -> Values:
        """The values of the graph's inputs that are no draws."""
        graph = self.traced.graph
        values = _data(graph, arrays) | self.traced.pseudo_data(params.get("constants", {}))
        values |= {graph.inputs[f"plate:{n}"]: i for n, i in indices.items() if f"plate:{n}" in graph.inputs}
        for name, tree in self.constrained(params).items():
            variables = [graph.inputs[n] for n in self.traced.params[name].leaves]
            values |= dict(zip(variables, jax.tree.leaves(tree), strict=True))
        return values

    def particle(
        self,
        shared: Shared,
        rng_key: jax.Array,
        noise: Mapping[str, Any],
        forced: Mapping[str, Any] | None = None,
        through: Any = None,
        in_step: bool = False,
    ) -> World:
        """One particle: every node drawn from its noise, those apart that are `forced` to a value. The gradient through
        the draws of nodes in `through` is multiplied by what it has for them; `in_step` products
        with data are drawn in the place of nodes whose estimator asks for that, and terms are in closed form where the
        objective wants that."""
        key = self.traced.graph.inputs[KEY]
        values = {**shared.values, key: like_traced(rng_key, key)}
        return World(self, values, shared.distributions, noise, through=through, in_step=in_step).draw(forced or {})

    def noise(self, rng_key: jax.Array, num_particles: int) -> dict[str, Any]:
        """The noise of every node, of all particles together."""
        return {b.name: self._noise(b, site_key(rng_key, b.name), num_particles) for b in self.plan.blocks}

    def _noise(self, block: Block, rng_key: jax.Array, num_particles: int) -> Any:
        if self.own:
            shape = self.blocks.draw_shape(block)
        else:
            shape = self.node_site(block.name).shape
        return block.estimator.noise(rng_key, num_particles, shape)

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
        world = self.particle(shared, rng_key, noise, forced)
        values, likelihoods = self.read_values(world), self.read_likelihoods(world)
        values |= self.from_vectors({n: node.draw.value for n, node in world.nodes.items()})
        return Run(world.nodes, world.terms(self.term_names), values, likelihoods)

    def read_values(self, world: World) -> dict[str, Any]:
        """The values of all sites of a particle, those apart that stand in a vector of `places`."""
        return _by_site(world.outputs([o for o in self.outputs_for(["value"]) if self.place_of(o) is None]))

    def read_likelihoods(self, world: World) -> dict[str, jax.Array]:
        """The log likelihoods of the observed sites, unscaled."""
        return _by_site(world.outputs(self.outputs_for(["likelihood"])))

    def from_vectors(self, vectors: Mapping[str, Any]) -> dict[str, Any]:
        """The values of the sites that stand in a block's vector, from these, which may have axes in front."""
        places = {o: place for o in self.outputs_for(["value"]) if (place := self.place_of(o)) is not None}
        return {o.split(":", 1)[1]: vectors[block][..., at] for o, (block, at) in places.items()}

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


def _by_site(outputs: Mapping[str, Any]) -> dict[str, Any]:
    return {n.split(":", 1)[1]: v for n, v in outputs.items()}


def _zeros(graph: Graph) -> Values:
    """Something for every node, plate and parameter."""
    return {v: jnp.zeros(v.aval.shape, v.aval.dtype) for n, v in graph.inputs.items() if ":" in n}


def _data(graph: Graph, arrays: Mapping[str, Any]) -> Values:
    there = graph.inputs
    return {there[data_input(path)]: jnp.asarray(a) for path, a in arrays.items() if data_input(path) in there}
