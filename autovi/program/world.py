"""One particle of a program: its values, evaluated when they are asked for, and again below what is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from autovi.analysis.counted import counts_of, masked_sites
from autovi.analysis.narrow import evaluate_narrow
from autovi.estimators.base import Draw, Estimator
from autovi.model.chains import draw_output, flow_input, key_input
from autovi.model.graph import Values, like_traced
from autovi.model.traced import weighted
from autovi.program.closed_form import entropy_of, expected_prior
from autovi.program.nodes import Conditional, Node, density_of, log_q_of, naming
from autovi.program.wiring import Wiring

stop = jax.lax.stop_gradient


class Narrow(NamedTuple):
    """How outputs are evaluated in a world of few numbers: at which `step`, as of `evaluate_narrow`."""

    step: int | None = None


class World:
    """The values of one particle, over those of another world where there is one.

    `hidden` are the variables of the other world that no longer hold here. In a `frozen` world what comes from the
    other one carries no gradient, so that all gradients flow through what was changed.
    """

    def __init__(
        self,
        program: Wiring,
        values: Values,
        distributions: Mapping[str, Any],
        noise: Mapping[str, Any],
        under: World | None = None,
        hidden: frozenset[Any] = frozenset(),
        frozen: bool = False,
        through: Any = None,
        in_step: bool = False,
    ):
        self.program, self.noise = program, noise
        self.values = dict(values)
        self.distributions = jax.tree.map(stop, dict(distributions)) if frozen else distributions
        self.nodes: dict[str, Node] = dict(under.nodes) if under is not None else {}
        self.under, self.hidden, self.frozen = under, hidden, frozen
        self.through = through
        self.narrow: Narrow | None = None
        self.in_step: bool = in_step or (under is not None and under.in_step)

    # --- values -------------------------------------------------------------------------------------------------------

    def knows(self, var: Any) -> bool:
        """Is the variable evaluated?"""
        return var in self.values or (self.under is not None and var not in self.hidden and self.under.knows(var))

    def read(self, var: Any) -> Any:
        """An evaluated variable, in its own shape."""
        value = self._held(var)
        aval = getattr(var, "aval", None)  # what is kept by a name, as which elements count, has none
        return value if aval is None or jnp.shape(value) == aval.shape else jnp.broadcast_to(value, aval.shape)

    def _held(self, var: Any) -> Any:
        """The same as it is held, in a world of few numbers with size 1 where it is constant."""
        if var in self.values:
            return self.values[var]
        assert self.under is not None
        value = self.under.read(var)
        return stop(value) if self.frozen else value

    def value(self, var: Any) -> Any:
        """A variable, evaluated or not, or a constant of the graph."""
        if not self.knows(var) and (constant := self.program.traced.graph.constants.get(var)) is not None:
            return constant
        return self.read(var)

    def together(self, variables: Sequence[Any]) -> Any:
        """Variables stacked in front; a part of a block's vector where they are one."""
        places = [self.program.places.get(v) for v in variables]
        first = places[0]
        if first is not None and places == [(first[0], first[1] + i) for i in range(len(places))]:
            vector = self.nodes[first[0]].draw.value
            return jax.lax.slice_in_dim(vector, first[1], first[1] + len(places))
        return jnp.stack([self.value(v) for v in variables])

    def outputs(self, names: Iterable[str]) -> dict[str, Any]:
        """Outputs of the graph by name."""
        graph = self.program.traced.graph
        wanted = {name: graph.outputs[name] for name in names}
        if self.narrow is not None:
            made = evaluate_narrow(graph, wanted.values(), self.knows, self._held, self.narrow.step)
        else:
            made = graph.evaluate(wanted.values(), self.knows, self.read)
        self.values.update(made)
        return {n: jnp.asarray(v.val) if isinstance(v, Literal) else self._held(v) for n, v in wanted.items()}

    def run_effects(self) -> None:
        """Prints, callbacks and the like of the model."""
        self.program.traced.graph.run_effects(self.knows, self.read)

    def has(self, output: str) -> bool:
        """Does the graph have this output?"""
        return output in self.program.traced.graph.outputs

    # --- nodes --------------------------------------------------------------------------------------------------------

    def distribution(self, node: str) -> Any:
        """The distribution that a node is drawn from, given what is above it."""
        if node in self.distributions:
            q = self.distributions[node]
            return q.given(self._parents(node)) if isinstance(q, Conditional) else q
        made = self.program.traced.distributions[node]
        leaves = self.outputs([f"distribution:{node}:{i}" for i in range(made.num_leaves)])
        return made.of(leaves.values())

    def _parents(self, node: str) -> jax.Array:
        """The values of a block's parents, one after the other."""
        values = []
        for parent in self.program.plan.block(node).parents:
            value = self.nodes[parent].draw.value
            elsewhere = self.under is not None and self.nodes[parent] is self.under.nodes.get(parent)
            values.append(stop(value) if self.frozen and elsewhere else value)
        return jnp.concatenate(values)

    def draw(self, forced: Mapping[str, Any]) -> World:
        """Draws every node in order, those apart that are `forced` to a value."""
        for node in self.program.order:
            self._set(node, forced.get(node))
        for node in self.program.plan.ancestral:  # something, until `with_priors` draws it
            var = self.program.traced.graph.inputs[f"node:{node}"]
            self.values[var] = jnp.zeros(var.aval.shape, var.aval.dtype)
        for node in self.program.summed:
            self.values.update(self.program.placed(node, forced.get(node, self.program.first_value(node))))
        return self

    def place(self, node: str, value: Any) -> None:
        """Sets a node to a value, those before it having theirs."""
        self._set(node, value)

    def _set(self, node: str, value: Any) -> None:
        estimator = self.program.plan.estimator_of(node)
        if node in self.program.traced.chains:
            self._set_chain(node, value)
            return
        if node in self.program.traced.sealed:
            self._set_sealed(node, value, estimator)
            return
        q = self.distribution(node)
        if value is not None:
            draw = Draw(value if node in self.program.traced.one_hot else jnp.broadcast_to(value, q.shape()))
        else:
            with naming(node):
                draw = estimator.draw(self.noise[node], q)
            if self.through is not None and node in self.through:
                factor = self.through[node]
                draw = draw._replace(value=_scaled(draw.value, factor), log_q=_scaled(draw.log_q, factor))
        self.nodes[node] = Node(q, draw, log_q_of(q, draw, density_of(self.program.traced, node)))
        self.values.update(self.program.placed(node, draw.value))
        if self.in_step and node in self.program.linear:
            self._set_product(node, q, draw, estimator)
        for variable, (block, start, end) in self.program.stacks.items():
            if block == node:
                self.values[variable] = jax.lax.slice_in_dim(draw.value, start, end)

    def _set_product(self, node: str, q: Any, draw: Draw, estimator: Estimator) -> None:
        """Sets the product of a node with data to what the estimator makes of it."""
        product, data = self.program.linear[node][:2]
        graph = self.program.traced.graph
        there = graph.evaluate([data], self.knows, self.read)[data]

        def times(value: Any, squared: bool = False) -> jax.Array:
            known = {**self.program.placed(node, value), data: jnp.square(there) if squared else there}
            return graph.evaluate([product], known.__contains__, known.__getitem__)[product]

        self.values[product] = estimator.product(self.noise[node], q, draw, times)

    def _set_chain(self, node: str, value: Any) -> None:
        """The same for the sites of a chain, whose distributions depend on one another's draws: the graph draws them,
        all at the first of them."""
        chain = self.program.traced.chains[node]
        if value is not None:
            raise TypeError(f"site {node!r}: it is drawn step by step, and cannot be forced to a value")
        if node != next(n for n in self.program.order if n in chain):
            return
        inputs, estimators = self.program.traced.graph.inputs, {n: self.program.plan.estimator_of(n) for n in chain}
        for name, estimator in estimators.items():
            key, flow = inputs[key_input(name)], inputs[flow_input(name)]
            self.values[key] = like_traced(self.noise[name], key)
            self.values[flow] = jnp.asarray(estimator.pathwise, flow.aval.dtype)
        drawn = self.outputs([draw_output(n) for n in chain])
        for name in chain:
            self.values.update(self.program.placed(name, drawn[draw_output(name)]))
        for name in chain:
            q = self.distribution(name)
            with naming(name):
                draw = estimators[name].completed(self.noise[name], q, drawn[draw_output(name)])
            self.nodes[name] = Node(q, draw, log_q_of(q, draw, density_of(self.program.traced, name)))

    def _set_sealed(self, node: str, value: Any, estimator: Estimator) -> None:
        """The same for a node whose distribution cannot leave the graph: the graph draws it."""
        traced = self.program.traced
        if not estimator.own_sampler:
            raise TypeError(
                f"site {node!r}: its distribution holds functions of the parameters, so that only its own sampler can "
                f"draw from it (estimator 'explicit'), got {estimator.name!r}"
            )
        if value is None:
            key = traced.graph.inputs[f"noise:{node}"]
            self.values[key] = like_traced(self.noise[node], key)
            made = traced.sealed[node]
            leaves = self.outputs([f"draw:{node}:{i}" for i in range(made.num_leaves)])
            draw = Draw(*jax.tree.unflatten(made, leaves.values())[:1])
            log_q = self.outputs([f"drawn:{node}"])[f"drawn:{node}"]
            self.values.update(self.program.placed(node, draw.value))
        else:
            draw = Draw(value)
            self.values.update(self.program.placed(node, value))
            log_q = self.outputs([f"density:{node}"])[f"density:{node}"]
        self.nodes[node] = Node((), draw, log_q)

    def forced(self, changes: Mapping[str, Any], frozen: bool = False) -> World:
        """This world with some nodes set to other values. The nodes below them are drawn again, with the same noise."""
        program = self.program
        hidden = frozenset().union(*(program.affected(node) for node in changes))
        world = World(program, {}, self.distributions, self.noise, self, hidden, frozen)
        for node, value in changes.items():
            if node in program.summed:
                world.values.update(program.placed(node, value))
        for node in program.order:
            if node in changes:
                world._set(node, changes[node])
            elif any(program.is_below(node, other) for other in changes):
                world._set(node, None)
        return world

    def counts(self, site: str) -> Any:
        """Which elements of a masked latent site count (`analysis/counted.py`): None where all do."""
        return self.read(counts_of(site)) if self.knows(counts_of(site)) else None

    def with_priors(self) -> World:
        """This world with the elements of masked sites that do not count drawn from their priors."""
        there, graph = self, self.program.traced.graph
        for name in masked_sites(self.program.traced):
            counts = self.counts(name)
            summed_out = name in self.program.plan.marginal and f"unmasked:{name}" in graph.outputs
            if counts is None or summed_out or f"prior:{name}" not in graph.outputs:
                continue  # those that are summed out were drawn so
            prior, value = there.outputs([f"prior:{name}", f"value:{name}"]).values()
            counts = counts.reshape(counts.shape + (1,) * (value.ndim - counts.ndim))
            there = there.changed({graph.outputs[f"value:{name}"]: jnp.where(counts, value, prior).astype(value.dtype)})
        return there

    def changed(self, values: Mapping[Any, Any], narrow: Narrow | None = None) -> World:
        """This world with some variables of the graph set to other values; no node is drawn again. With `narrow`, these
        and what is evaluated have size 1 along dimensions in which they are constant."""
        hidden = frozenset(self.program.traced.graph.downstream(values))
        world = World(self.program, dict(values), self.distributions, self.noise, self, hidden)
        world.nodes, world.narrow = self.nodes, narrow
        return world

    # --- cost terms ---------------------------------------------------------------------------------------------------

    def terms(self, names: Iterable[str]) -> dict[str, jax.Array]:
        """Cost terms by name, scaled and masked."""
        names = list(names)
        wanted = [o for name in names for o in self.program.outputs_of(name)]
        out = self.outputs(wanted)
        return {name: self._term(name, out) for name in names}

    def all_terms(self) -> tuple[dict[str, jax.Array], list[jax.Array]]:
        """The terms on their own by name, and those that are computed together, a vector for each group of them."""
        groups = self.program.alike
        together = [group.evaluate(self.value, self.together) for group in groups]
        known = {name for group in groups for name in group.names}
        return self.terms([name for name in self.program.term_names if name not in known]), together

    def _term(self, term: str, out: Mapping[str, jax.Array]) -> jax.Array:
        kind, name = term.split(":", 1)
        if kind == "p":
            if self.in_step and name in self.program.known_priors:
                return expected_prior(self, self.program.node_of[name], name)
            density, *jacobian = (out[o] for o in self.program.outputs_of(term))
            return density if not jacobian else density + weighted(jacobian[0], 1.0, self.counts(name))
        if name not in self.nodes:
            return out[term]
        log_q = self.nodes[name].log_q
        entropy = entropy_of(self.nodes[name].q) if self.in_step and "q" in self.program.objective.closed else None
        # The gradient of log q at a fixed draw has mean zero: it is noise, unless the draw itself moves or, in a frozen
        # world, what the density depends on.
        if entropy is not None:
            log_q = jnp.broadcast_to(-entropy, log_q.shape)
        elif not (self.frozen or self.program.keeps_entropy(name)):
            log_q = stop(log_q)
        if self.program.is_flat(name):
            return -log_q
        mask = out[f"weight:{name}"] if f"weight:{name}" in out else self.counts(name)
        return weighted(-log_q, out.get(f"scale:{name}", self.program.scale(name)), mask)


def _scaled(x: jax.Array, factor: jax.Array) -> jax.Array:
    """The same with its gradient multiplied; the factor's dimensions are the first of x."""
    factor = factor.reshape(*factor.shape, *[1] * (x.ndim - factor.ndim))
    return stop(x) + factor * (x - stop(x))
