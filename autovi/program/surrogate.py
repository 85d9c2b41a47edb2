"""Cost terms + draws + estimators -> a loss whose gradient is the estimate, and the objective's value."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autovi.analysis.costs import Aligned, from_then_on, to_site
from autovi.analysis.structure import Sinces
from autovi.elimination.group import Together
from autovi.estimators.base import Cost, Density
from autovi.plan.plan import Block
from autovi.program.branches import branches_of
from autovi.program.nodes import density_of
from autovi.program.program import Program, Shared
from autovi.program.reading import read, read_outputs
from autovi.program.summing import log_sums
from autovi.program.world import World

stop = jax.lax.stop_gradient


class Estimate(NamedTuple):
    """The objective's estimate of one step in nats, and each cost term's mean over the particles, in the order of the
    program's `term_names`; where terms were integrated together, the mean of what took their place."""

    elbo: jax.Array
    terms: jax.Array


class Term(NamedTuple):
    """A cost term as the other sites see it: replaced by an integral where a site integrates it.

    `sources` are the terms it stands for, `by` the node that integrated them (None: nothing did, or they were summed
    out of the model), `onto` which of its dimensions each dimension of a source is (None: they are the source's).
    """

    value: jax.Array
    sources: tuple[str, ...]
    by: str | None = None
    onto: Mapping[str, Aligned] | None = None


def estimate(
    program: Program,
    params: Mapping[str, Any],
    estimator_params: Mapping[str, Any],
    arrays: Mapping[str, Any],
    rng_key: jax.Array,
    num_particles: int,
    indices: Mapping[str, Any],
    noise: Mapping[str, Any] | None = None,
) -> tuple[jax.Array, Estimate]:
    """A scalar whose gradient in `params` is an estimate of minus the objective's, and in `estimator_params` trains
    those. Of tables, both hold the rows of the elements in `indices`. `noise` is `program.noise` of the key, where that
    is drawn already."""
    also = read_outputs(program)
    noise = program.noise(rng_key, num_particles) if noise is None else noise
    step = Step(program, params, arrays, indices, rng_key, num_particles, also=also, in_step=True, noise=noise)
    if program.doubly:  # evaluated again, with what the weights say
        doubly = [b.name for b in program.plan.blocks if b.estimator.doubly]
        through = {n: stop(step.of_weights(program.objective.through, n)) for n in doubly}
        step = Step(
            program,
            params,
            arrays,
            indices,
            rng_key,
            num_particles,
            also=also,
            through=through,
            in_step=True,
            noise=noise,
        )
    surrogate, losses = jnp.mean(step.extra), jnp.zeros(())
    for block in program.plan.blocks:
        if block.estimator.has_surrogate:
            extra, loss = step.surrogate(block, estimator_params.get(block.name, ()))
            surrogate, losses = surrogate + extra, losses + loss
    if program.objective.local_costs:
        surrogate = surrogate + step.averaged()
    value = step.objective
    loss = -(value + surrogate - stop(surrogate)) + losses - stop(losses)
    return loss, Estimate(stop(value), stop(jnp.mean(step.sums, axis=1))[step.places])


class Step:
    """The particles of one step: drawn, their terms evaluated and integrated."""

    def __init__(
        self,
        program: Program,
        params: Any,
        arrays: Any,
        indices: Mapping[str, Any],
        rng_key: jax.Array,
        num_particles: int,
        forced: Mapping[str, Any] | None = None,
        lanes: int | None = None,
        also: tuple[str, ...] = (),
        through: Mapping[str, jax.Array] | None = None,
        in_step: bool = False,
        noise: Mapping[str, Any] | None = None,
    ):
        """`forced` nodes have a value instead of a draw, `lanes` particles are evaluated side by side, and `also` are
        outputs of the graph to be kept in `outputs`. `through` is what the gradient through each particle's draws of
        a node is multiplied by; `in_step` products with data may be drawn in the place of nodes,
        and terms be in closed form, so that these do not belong to one draw. `noise`: as in `estimate`."""
        self.program, self.num_particles, self.also, self.indices = program, num_particles, also, indices
        self.in_step = in_step
        self.lanes = num_particles if lanes is None else lanes
        self.shared: Shared = program.shared(params, arrays, indices, (*program.cost_outputs, *also))
        self.noise = program.noise(rng_key, num_particles) if noise is None else noise
        self.keys = rng_key[None] if num_particles == 1 else jax.random.split(rng_key, num_particles)
        self._variables: list[Any] = []
        one = lambda key, noise, through: self._particle(key, noise, forced or {}, through)  # noqa: E731
        drawn = self.over_particles(one, self.keys, self.noise, through)
        self.nodes, self.raw, values, self._together, self.extra, self.evaluated, self.outputs = drawn
        self.terms = {n: term._replace(value=values[n]) for n, term in self._layout.items()}

    @cached_property
    def sums(self) -> jax.Array:
        """Each cost term of every particle `[terms, particles]`, integrated terms in place of raw ones. First those on
        their own, and then those that are computed together."""
        values = [t.value for _, t in sorted(self.terms.items())]
        alone = jnp.stack([v if v.ndim == 1 else jnp.sum(v, axis=tuple(range(1, v.ndim))) for v in values])
        return jnp.concatenate([alone, *(jnp.transpose(group) for group in self._together)])

    @property
    def places(self) -> np.ndarray:
        """Where each of the program's cost terms stands in `sums`: in one place those that were integrated together."""
        alone = [term.sources for _, term in sorted(self.terms.items())]
        sources = [*alone, *((name,) for group in self.program.alike for name in group.names)]
        at = {name: place for place, names in enumerate(sources) for name in names}
        return np.array([at[name] for name in self.program.term_names], int)

    @property
    def log_weights(self) -> jax.Array:
        """log p - log q of every particle `[particles]`."""
        return jnp.sum(self.sums, axis=0)

    @cached_property
    def _element_weights(self) -> jax.Array:
        """log p - log q of every particle and element, of a program whose elements are apart."""
        assert self.program.elements is not None
        return self.program.elements.log_weights({n: t.value for n, t in self.terms.items()})

    @property
    def objective(self) -> jax.Array:
        """The objective's value; where elements are apart the sum of theirs, which is a tighter bound."""
        elements, value = self.program.elements, self.program.objective.value
        if elements is None:
            return value(self.log_weights)
        return elements.scale * jnp.sum(jax.vmap(value, in_axes=1)(self._element_weights))

    def of_weights(self, fn: Callable, node: str) -> jax.Array:
        """`fn` of the particles' log weights `[particles]`, with as many dimensions as a node's log q; for each of its
        elements where these are apart."""
        depth = self.nodes[node].log_q.ndim - 1
        if self.program.elements is None:
            return fn(self.log_weights).reshape(-1, *[1] * depth)
        apart = jax.vmap(fn, in_axes=1, out_axes=1)(self._element_weights)
        return self.program.elements.beside(apart, node, depth)

    def over_particles(self, fn: Callable, *args: Any) -> Any:
        """`fn(*args)` for every particle, stacked in front; a single particle needs no vmap."""
        if self.num_particles == 1:
            one = fn(*jax.tree.map(lambda x: x[0], args))
            return jax.tree.map(lambda x: jnp.asarray(x)[None], one)
        return jax.vmap(fn)(*args)

    def _particle(self, key: jax.Array, noise: Any, forced: Mapping[str, Any], through: Any) -> Any:
        world = self.program.particle(self.shared, key, noise, forced, through, self.in_step)
        world.run_effects()
        raw, together = world.all_terms()
        program = self.program
        terms, extra = integrated(program, world, raw, program.integrating, program.plan.groups, self.lanes)
        self._layout = terms
        self._variables = [v for v in world.values if v in self.program.varying]
        evaluated = [world.values[v] for v in self._variables]
        values = {n: t.value for n, t in terms.items()}
        return world.nodes, raw, values, together, extra, evaluated, world.outputs(self.also)

    def surrogate(self, block: Block, own: Any) -> tuple[jax.Array, jax.Array]:
        """What an estimator adds at one block: see `Estimator.surrogate`."""
        program, node = self.program, self.nodes[block.name]
        log_q = density_of(program.traced, block.name)
        density = Density(node.q, lambda value: jax.vmap(log_q)(node.q, value))
        reads = block.estimator.reads
        inputs = read(program, block, self.shared.values, self.outputs, self.indices, node.log_q.shape) if reads else ()
        if not program.objective.local_costs:
            scale = 1.0 if program.elements is None else program.elements.scale
            value = scale * stop(self.of_weights(program.objective.signal, block.name))
            cost = Cost(value, _no_counterfactual, _no_counterfactual, inputs)
            return block.estimator.surrogate(density, node.draw, cost, own)
        follows = program.follows(block.name) if block.estimator.sequential else {}
        value = stop(downstream_cost(program, block.name, self.raw, self.terms, lead=1, follows=follows))
        total = lambda v: self.at(block.name, v, whole=True)  # noqa: E731
        cost = Cost(value, lambda v: self.at(block.name, v), total, inputs)
        return block.estimator.surrogate(density, node.draw, cost, own)

    def averaged(self) -> jax.Array:
        """What makes the gradient of all that is below sites with twins an average over the draws and their twins."""
        twins = {b.name: b.estimator.twins(self.nodes[b.name].draw) for b in self.program.plan.blocks}
        twins = {n: found for n, found in twins.items() if found}
        total = jnp.zeros(())
        for name, values in twins.items():
            drawn = downstream_cost(self.program, name, self.raw, self.terms, lead=1, whole=True)
            total += sum(jnp.mean(self.at(name, value, whole=True, frozen=False) - drawn) for value in values)
        return total / (1 + sum(map(len, twins.values())))

    def at(self, name: str, forced: Any, whole: bool = False, frozen: bool = True) -> jax.Array:
        """The cost of each element with a node forced to another value in every particle; `whole`: of all of them. Its
        gradient is that in the value alone, or, unless `frozen`, that in all else."""

        def one(evaluated: list[Any], noise: Any, nodes: Any, value: Any) -> jax.Array:
            values = {**self.shared.values, **dict(zip(self._variables, evaluated, strict=True))}
            world = World(self.program, values, self.shared.distributions, noise, in_step=self.in_step)
            world.nodes = dict(nodes)
            return counterfactual_cost(self.program, world, name, value, self.lanes, whole, frozen)

        return self.over_particles(one, self.evaluated, self.noise, self.nodes, forced)


def _no_counterfactual(value: Any) -> Any:
    raise TypeError("objective: under this one a site has no cost of its own, so it has none at another value")


def integrated(
    program: Program,
    world: World,
    raw: Mapping[str, jax.Array],
    nodes: Collection[str],
    groups: Collection[Together],
    lanes: int,
) -> tuple[dict[str, Term], jax.Array]:
    """The terms of one particle, those downstream of the integrated `nodes` replaced, and of the `groups` of sites that
    are summed out; and the surrogate of terms that two of the nodes share."""
    terms = {name: Term(value, (name,)) for name, value in raw.items()}
    surrogate = jnp.zeros(())
    for group in groups:
        for t in group.terms:
            terms.pop(t, None)
        terms |= summed_out(program, world, group, lanes)
    for node in nodes:
        alone, together = program.owned(node)
        branches = branches_of(program, world, node, (*alone, *together), together, lanes)
        for name, (value, owned) in program.plan.estimator_of(node).integrate(branches).items():
            if name in together:
                surrogate += jnp.sum(value)
            elif name in alone:
                terms[name] = Term(value, (name,), node, None if owned is None else {name: owned})
            else:
                for t in alone:
                    terms.pop(t, None)
                terms[f"{name}:{node}"] = Term(value, alone, node, _onto_owner(program, node, alone))
    return terms, surrogate


def _onto_owner(program: Program, node: str, sources: Collection[str]) -> dict[str, Aligned]:
    """Which of a node's dimensions each dimension of its terms is."""
    owner = program.structure.downstream[node]
    dims = {t: range(len(program.structure.shapes[t])) for t in sources}
    return {t: tuple(owner[t].index(e) if e in owner[t] else None for e in dims[t]) for t in sources}


def summed_out(program: Program, world: World, group: Together, lanes: int) -> dict[str, Term]:
    """The terms in the place of those of a group of sites that are summed out."""
    terms = {}
    for number, factor in enumerate(log_sums(program, world, group, lanes)):
        dims = {t: group.terms[t].dims for t in sorted(factor.sources)}
        onto = {t: tuple(factor.axes.index(d) if d in factor.axes else None for d in dims[t]) for t in dims}
        terms[f"summed:{group.name}:{number}"] = Term(factor.table, tuple(dims), None, onto)
    return terms


def counterfactual_cost(
    program: Program, world: World, node: str, value: Any, lanes: int, whole: bool = False, frozen: bool = True
) -> jax.Array:
    """The cost of each element of a node of one particle, with the node forced to `value`; `whole`: that of all of them
    together, in which each term is once."""
    there = world.forced({node: value}, frozen=frozen)
    wanted = program.downstream(node)
    nodes = [
        n
        for n in program.integrating
        if not program.is_below(node, n) and any(t in wanted for t in program.owned(n)[0])
    ]
    groups = [g for g in program.plan.groups if any(t in wanted for t in g.terms)]
    replaced = {t for n in nodes for t in program.owned(n)[0]}.union(*(g.terms for g in groups))
    raw = there.terms([t for t in wanted if t not in replaced])
    terms, _ = integrated(program, there, raw, nodes, groups, lanes)
    cost = downstream_cost(program, node, raw, terms, lead=0, whole=whole)
    sees_draws = frozen and whole and program.plan.estimator_of(node).sees_draws
    return cost + scores_below(program, there, node, raw, terms) if sees_draws else cost


def scores_below(
    program: Program, world: World, node: str, raw: Mapping[str, jax.Array], terms: Mapping[str, Term]
) -> jax.Array:
    """Zero, with the gradient that goes through the draws of what is below a node and has no gradient through its draw:
    log q stop(cost) of each, q as the node's value makes it."""
    total = jnp.zeros(())
    for block in program.plan.blocks:
        if block.name != node and block.estimator.has_surrogate and program.is_below(block.name, node):
            cost = stop(downstream_cost(program, block.name, raw, terms, lead=0))
            drawn = world.nodes[block.name]
            log_q = drawn.draw.log_noise if block.estimator.corrected else drawn.log_q
            total += jnp.sum((log_q - stop(log_q)) * cost)
    return total


def downstream_cost(
    program: Program,
    node: str,
    raw: Mapping[str, jax.Array],
    terms: Mapping[str, Term],
    lead: int,
    whole: bool = False,
    follows: Mapping[str, Sinces] = MappingProxyType({}),
) -> jax.Array:
    """The cost of each element of a node, with `lead` axes in front; `whole`: of all elements together. A term that an
    integrated site above the node replaced is taken as sampled: its branches drew the node again. Of terms that
    `follows` has, which follow the steps of a scan, each element has the part from its own step on."""
    aligned = program.downstream(node)
    placed = to_site if not whole else lambda term, _, lead: jnp.sum(term, tuple(range(lead, jnp.ndim(term))))
    total = jnp.zeros(())
    for term in terms.values():
        mine = [t for t in term.sources if t in aligned]
        if not mine:
            continue
        if term.by is None and term.onto is None and mine[0] in follows:
            total = total + _from_then_on(term.value, aligned[mine[0]], follows[mine[0]], lead)
        elif term.by is not None and program.is_below(node, term.by):
            total = total + sum(placed(raw[t], aligned[t], lead) for t in mine)
        else:
            onto = aligned[mine[0]] if term.onto is None else _through(aligned, term.onto, mine)
            total = total + placed(term.value, onto, lead)
    return total


def _from_then_on(term: jax.Array, aligned: Aligned, since: Sinces, lead: int) -> jax.Array:
    onto = list(aligned)
    for d, step in enumerate(since):
        if onto[d] is None and step is not None and step.axis not in onto:
            term, onto[d] = from_then_on(term, lead + step.axis, step.strict), step.axis
    return to_site(term, tuple(onto), lead)


def _through(aligned: Mapping[str, Aligned], onto: Mapping[str, Aligned], mine: list[str]) -> Aligned:
    """How a combined term's dimensions belong to the node's, from how those of its sources do."""
    through = [tuple(onto[t][e] if e is not None else None for e in aligned[t]) for t in mine]
    return tuple(d[0] if len(set(d)) == 1 else None for d in zip(*through, strict=True))
