"""Cost terms + draws + estimators -> a loss whose gradient is the estimate, and the ELBO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from autovi.analysis.costs import Aligned, to_site
from autovi.analysis.structure import Structure
from autovi.distributions.densities import log_density
from autovi.estimators.base import Branches, Cost, Density
from autovi.model.execution import site_key
from autovi.model.sites import Plate
from autovi.objective.program import Program, Run
from autovi.plan.plan import Block

stop = jax.lax.stop_gradient


class Estimate(NamedTuple):
    """The ELBO's estimate of one step in nats, and each cost term's mean over the particles, sorted by name."""

    elbo: jax.Array
    terms: dict[str, jax.Array]


class Term(NamedTuple):
    """A cost term `[particles, ...]` as the other sites see it: replaced by an integral where a site integrates it.

    `sources` are the terms it stands for, `by` the node that integrated them, `owned` how its dimensions belong to that
    node's (None: they are those of the one source).
    """

    value: jax.Array
    sources: tuple[str, ...]
    by: str | None = None
    owned: Aligned | None = None


def estimate(
    program: Program,
    structure: Structure,
    params: Mapping[str, Any],
    estimator_params: Mapping[str, Any],
    arrays: Mapping[str, Any],
    rng_key: jax.Array,
    num_particles: int,
    indices: Mapping[str, Any] | None = None,
) -> tuple[jax.Array, Estimate]:
    """A scalar whose gradient in `params` is an estimate of that of -ELBO, and in `estimator_params` trains those."""
    if indices is None:
        indices = draw_indices(site_key(rng_key, "autovi:plates"), program.sites.subsampled)
    keys = rng_key[None] if num_particles == 1 else jax.random.split(rng_key, num_particles)
    step = Step(program, structure, params, arrays, indices, keys)
    main, terms, surrogate = step.terms()
    losses = jnp.zeros(())
    for block in program.plan.blocks:
        if block.estimator.has_surrogate:
            own = estimator_params.get(block.name, ())
            own = own if block.family is None else program.blocks.gather(block, own, indices)
            extra, loss = _site_surrogate(step, block, main, terms, own)
            surrogate, losses = surrogate + extra, losses + loss
    means = {name: jnp.sum(terms[name].value) / num_particles for name in sorted(terms)}
    elbo = jnp.sum(jnp.stack(list(means.values())))
    loss = -(elbo + surrogate - stop(surrogate)) + losses - stop(losses)
    return loss, Estimate(stop(elbo), stop(means))


def draw_indices(rng_key: jax.Array, plates: Mapping[str, Plate]) -> dict[str, jax.Array]:
    """Elements of every subsampled plate for one step, shared by model, guide and particles.

    One element from each of `length` equal stretches of the plate, which start at a random element: no two are the
    same, every element is as likely as any other, and the work does not grow with the plate.
    """
    drawn = {}
    for name, plate in plates.items():
        turn_key, within_key = jax.random.split(site_key(rng_key, name))
        edges = [b * plate.size // plate.length for b in range(plate.length + 1)]
        low, high = jnp.asarray(edges[:-1]), jnp.asarray(edges[1:])
        turn = jax.random.randint(turn_key, (), 0, plate.size)
        drawn[name] = (jax.random.randint(within_key, (plate.length,), low, high) + turn) % plate.size
    return drawn


class Step:
    """What the stages of one estimate share."""

    def __init__(
        self,
        program: Program,
        structure: Structure,
        params: Any,
        arrays: Any,
        indices: Mapping[str, Any],
        keys: jax.Array,
        forced: Mapping[str, Any] | None = None,
    ):
        self.program, self.structure = program, structure
        self.params, self.arrays, self.indices, self.keys = params, arrays, indices, keys
        self.forced = forced or {}

    def terms(self, check: bool = False) -> tuple[Run, dict[str, Term], jax.Array]:
        """The run of every particle, its terms with integrals in place, and what of the surrogate that leaves."""
        main = self.over_particles(lambda key: self.rerun(self.params, {}, key, check))
        return main, *_integrated(self, main)

    def over_particles(self, fn: Callable, *args: Any) -> Any:
        """`fn(key, *args)` for every particle, stacked in front; a single particle needs no vmap."""
        if self.keys.shape[0] == 1:
            one = fn(self.keys[0], *jax.tree.map(lambda x: x[0], args))
            return jax.tree.map(lambda x: jnp.asarray(x)[None], one)
        return jax.vmap(fn)(self.keys, *args)

    def rerun(self, params: Any, forced: Mapping[str, Any], key: jax.Array, check: bool = False) -> Run:
        """One particle again, with some blocks forced to other values."""
        return self.program.run(params, self.arrays, key, self.indices, {**self.forced, **forced}, check)

    def branches(self, node: str) -> Branches:
        """Everything downstream of a node at each of its values."""
        aligned = self.structure.downstream[node]
        marginal = node in self.program.plan.marginal
        shape = self.program.sites.samples[node].batch_shape if marginal else self._node_shape(node)

        def branch(key: jax.Array, value: jax.Array) -> Any:
            run = self.rerun(self.params, {node: jnp.full(shape, value)}, key)
            log_q = None if marginal else run.nodes[node].log_q
            return log_q, {t: run.terms[t] for t in aligned if t in run.terms}, run.masks.get(node)

        values = jnp.asarray(self.program.branch_values(node))
        particles = lambda value: self.over_particles(lambda key: branch(key, value))  # noqa: E731
        log_q, terms, mask = jax.vmap(particles)(values)
        return Branches(log_q, terms, aligned, self._scale(node), None if mask is None else mask[0])

    def _node_shape(self, node: str) -> tuple[int, ...]:
        sites = self.program.guide_sites if self.program.guide is not None else self.program.sites
        assert sites is not None
        return sites.samples[node].shape

    def _scale(self, node: str) -> float:
        site = self.program.sites.samples.get(node)
        scale = 1.0
        for plate in site.plates if site is not None else ():
            scale *= plate.size / plate.length
        return scale


def _integrated(step: Step, main: Run) -> tuple[dict[str, Term], jax.Array]:
    """The terms, those downstream of an integrated site replaced, and the surrogate of terms that two of them share."""
    terms = {name: Term(value, (name,)) for name, value in main.terms.items()}
    plan, surrogate = step.program.plan, jnp.zeros(())
    nodes = [b.name for b in [*plan.blocks, *plan.marginal.values()] if b.estimator.integrates]
    owners = {t: [n for n in nodes if t in step.structure.downstream[n]] for t in terms}
    for node in nodes:
        branches, estimator = step.branches(node), plan.estimator_of(node)
        alone = {t: v for t, v in branches.terms.items() if owners[t] == [node]}
        together = {t: stop(v) for t, v in branches.terms.items() if t not in alone}
        for name, (value, owned) in estimator.integrate(branches._replace(terms=alone)).items() if alone else ():
            if name in alone:
                terms[name] = Term(value, (name,), node, owned)
            else:
                for t in alone:
                    del terms[t]
                terms[f"{name}:{node}"] = Term(value, tuple(alone), node, owned)
        if together:
            shared = estimator.integrate(branches._replace(terms=together))
            surrogate += sum(jnp.sum(value) for value, _ in shared.values()) / step.keys.shape[0]
    return terms, surrogate


def _site_surrogate(
    step: Step, block: Block, main: Run, terms: Mapping[str, Term], own: Any
) -> tuple[jax.Array, jax.Array]:
    """What an estimator adds at one block: see `Estimator.surrogate`."""
    node = main.nodes[block.name]
    density = Density(lambda value: jax.vmap(log_density)(node.q, value))
    # The elements of a flat block have one density between them, so their costs count together.
    aligned = {t: () if block.flat else a for t, a in step.structure.downstream[block.name].items()}
    value = _downstream_cost(step.structure, block.name, aligned, main, terms)

    def at(forced: Any) -> jax.Array:
        def one(key: jax.Array, value: Any) -> dict[str, jax.Array]:
            run = step.rerun(stop(step.params), {block.name: value}, key)
            return {t: run.terms[t] for t in aligned}

        again = step.over_particles(one, forced)
        return jnp.asarray(sum(to_site(v, aligned[t], lead=1) for t, v in again.items()))

    return block.estimator.surrogate(density, node.draw, Cost(stop(value), at), own)


def _downstream_cost(
    structure: Structure, node: str, aligned: Mapping[str, Aligned], main: Run, terms: Mapping[str, Term]
) -> jax.Array:
    """The cost of each element of a node. A term that an integrated site above the node replaced is taken as sampled:
    its branches drew the node again."""
    total = jnp.zeros(())
    for term in terms.values():
        mine = [t for t in term.sources if t in aligned]
        if not mine:
            continue
        if term.by is not None and structure.below(node, term.by):
            total = total + sum(to_site(stop(main.terms[t]), aligned[t], lead=1) for t in mine)
        else:
            onto = aligned[mine[0]] if term.owned is None else _through(structure, aligned, term, mine)
            total = total + to_site(stop(term.value), onto, lead=1)
    return total


def _through(structure: Structure, aligned: Mapping[str, Aligned], term: Term, mine: list[str]) -> Aligned:
    """How a combined term's dimensions, those of the site that integrated it, belong to the node's."""
    assert term.by is not None and term.owned is not None
    owner = structure.downstream[term.by]
    onto = [tuple(owner[t].index(e) if e is not None and e in owner[t] else None for e in aligned[t]) for t in mine]
    return tuple(d[0] if len(set(d)) == 1 else None for d in zip(*onto, strict=True))
