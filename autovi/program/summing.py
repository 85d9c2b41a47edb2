"""The groups of sites that are summed out of the model: their tables, evaluated on slices of the program, and sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from autovi.elimination.closed import Closed
from autovi.elimination.eliminate import eliminated
from autovi.elimination.factors import Factor
from autovi.elimination.group import Group, Together
from autovi.elimination.placed import Placed
from autovi.elimination.semirings import Largest, Sampled, Semiring, Summed
from autovi.elimination.sweeps import Sweep, slices
from autovi.model.execution import site_key
from autovi.program.branches import BUDGET
from autovi.program.program import Program
from autovi.program.world import Narrow, World


@dataclass(frozen=True)
class Particle:
    """A particle as closed forms see it: `elimination.closed.Seen`."""

    world: World

    def has(self, output: str) -> bool:
        """Does the graph have this output?"""
        return self.world.has(output)

    def outputs(self, names: Iterable[str]) -> dict[str, Any]:
        """Outputs of the graph, by name."""
        return self.world.outputs(names)

    def shape(self, site: str) -> tuple[int, ...]:
        """The shape of a site."""
        return tuple(self.world.program.traced.graph.inputs[f"node:{site}"].aval.shape)

    def terms(self, names: Iterable[str], values: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Cost terms with some sites, or their values some steps before, set to other values."""
        inputs = self.world.program.traced.graph.inputs
        variables = {v: inputs[f"node:{v}"] for v in values}
        return self.world.changed({var: jnp.asarray(values[v], var.aval.dtype) for v, var in variables.items()}).terms(
            names
        )


def log_sums(program: Program, world: World, group: Together, lanes: int) -> list[Factor]:
    """log sum over all configurations of a group, of one particle, by axes of elements; scaled. `lanes` particles are
    side by side."""
    if isinstance(group, Closed):
        return group.log_sums(Particle(world))
    return log_sums_of_tables(program, world, _by_tables(group), lanes)


def _by_tables(group: Together) -> Group:
    assert isinstance(group, Group)
    return group


def log_sums_of_tables(
    program: Program,
    world: World,
    group: Group,
    lanes: int,
    semiring: Semiring | None = None,
    more: Mapping[str, jax.Array] | None = None,
) -> list[Factor]:
    """The same of a group of sites of finite support.

    `more` is added to the log weight of each value of a site `[K, *elements]`.
    """
    factors = tables(program, world, group, lanes)
    for site, table in (more or {}).items():
        factors += slices(site, table, group.elements_of(site), group.split)
    found = eliminated(group.network, factors, Summed() if semiring is None else semiring, lanes)
    return [f._replace(table=group.scale * f.table) for f in found]


def tables(program: Program, world: World, group: Group, lanes: int) -> list[Factor]:
    """The group's terms at every combination of the values of the variables that each depends on, without the scale."""
    if group.sweeps:
        swept = [f for sweep in group.sweeps for f in sweep.factors(_swept(program, world, sweep, lanes, group.scale))]
        return [f if group.scale == 1.0 else f._replace(table=f.table / group.scale) for f in swept]
    together: dict[tuple[str, ...], list[str]] = {}
    for term, placed in group.terms.items():
        together.setdefault(placed.variables, []).append(term)
    found: list[Factor] = []
    for variables, names in together.items():
        # The first steps see the time before the first one, where others see steps before.
        early = max(group.network.lag_of(v) for v in variables)
        steps = [*range(early), early] if early else [None]
        *firsts, rest = [_evaluated(program, world, group, variables, sorted(names), lanes, step) for step in steps]
        for name in sorted(names):
            shape, placed = program.structure.shapes[name], group.terms[name]
            factor = _factor(rest[name], name, placed, shape, group.scale)
            heads = [_factor(first[name], name, placed, shape, group.scale) for first in firsts]
            time = group.network.time_of(variables) if heads else ""
            backward = any(group.network.variables[v] in group.network.backward for v in variables)
            heads = [f.at(time, -1 - step if backward else step) for step, f in enumerate(heads)]
            found.append(factor._replace(first=tuple(f.table for f in heads)))
    return found


def _factor(table: jax.Array, name: str, placed: Placed, shape: tuple[int, ...], scale: float) -> Factor:
    """A term of this shape at all values of its variables, which may have size 1 where it is the same for all
    elements."""
    front = len(placed.variables)
    summed = [front + e for e, axis in enumerate(placed.dims) if axis is None]
    if summed:
        times = prod(shape[d - front] // table.shape[d] for d in summed)  # those that are held once
        table = jnp.sum(table, tuple(summed)) * (1.0 if times == 1 else float(times))
    return Factor(table if scale == 1.0 else table / scale, placed.axes, frozenset({name}))


def _evaluated(
    program: Program,
    world: World,
    group: Group,
    variables: tuple[str, ...],
    names: list[str],
    lanes: int,
    step: int | None,
) -> dict[str, jax.Array]:
    """Terms at all values of some variables, whose dimensions stand in front; `step` as of `evaluate_narrow`."""
    sizes = [group.network.sizes[v] for v in variables]

    def one(*values: jax.Array) -> dict[str, jax.Array]:
        changes: dict[Any, Any] = {}
        for variable, value in zip(variables, values, strict=True):
            changes |= program.narrow_variable(variable, value)
        there = world.changed(changes, Narrow(step))
        found = {name: _term(there, name, term, group.scale) for name, term in there.terms(names).items()}
        ranks = {name: len(program.structure.shapes[name]) for name in names}
        return {name: term.reshape((1,) * (ranks[name] - term.ndim) + term.shape) for name, term in found.items()}

    run = one
    for place in reversed(range(1, len(variables))):
        run = jax.vmap(run, [0 if i == place else None for i in range(len(variables))])
    rest = [jnp.arange(n) for n in sizes[1:]]
    first = lambda value: run(value, *rest)  # noqa: E731
    held = lanes * program.variable_numbers(variables, tuple(names))
    for n in sizes[1:]:
        held *= n
    if held * sizes[0] <= BUDGET:
        return jax.vmap(first)(jnp.arange(sizes[0]))
    # Computed again in the backward pass, so that memory does not grow with the number of values.
    at_once = max(1, BUDGET // max(1, held))
    return jax.lax.map(jax.checkpoint(first), jnp.arange(sizes[0]), batch_size=None if at_once == 1 else at_once)


def _swept(program: Program, world: World, sweep: Sweep, lanes: int, scale: float) -> dict[str, jax.Array]:
    """The parts of a sweep in all its evaluations, which stand in front."""
    variables, names = tuple(sweep.colours), sorted(part.output for part in sweep.parts)

    def one(code: jax.Array) -> dict[str, jax.Array]:
        changes: dict[Any, Any] = {}
        for variable, value in sweep.numbers(code).items():
            changes |= program.variable(variable, value)
        there = world.changed(changes)
        terms = there.terms([n for n in names if n.startswith("p:")])
        parts = there.outputs([n for n in names if n not in terms])
        return {name: _term(there, name, term, scale) for name, term in terms.items()} | parts

    codes = jnp.arange(prod(sweep.shape))
    at_once = max(1, BUDGET // max(1, lanes * program.variable_numbers(variables, tuple(names))))
    if at_once >= len(codes):
        return jax.vmap(one)(codes)
    return jax.lax.map(jax.checkpoint(one), codes, batch_size=None if at_once == 1 else at_once)


def _term(world: World, name: str, term: jax.Array, scale: float) -> jax.Array:
    """A term under the group's scale; of elements that nothing feels, their prior without its mask: its sum is 1, and
    draws are from it."""
    site = name.split(":", 1)[1]
    counts, plain = world.counts(site), f"unmasked:{site}"
    if counts is None or site not in world.program.plan.marginal or not world.has(plain):
        return term
    return jnp.where(counts, term, scale * world.outputs([plain])[plain])


def flat(program: Program, group: Group) -> dict[str, jax.Array]:
    """Nothing to be added to any value of a group's sites."""
    found = {}
    for site in group.summed:
        own = program.summed[site]
        elements = [n for n, d in zip(own.batch_shape, group.dims[site], strict=True) if d is not None]
        found[site] = jnp.zeros([len(own.values or ()), *elements])
    return found


def weights_of(program: Program, world: World, group: Group, lanes: int, semiring: Semiring) -> dict[str, jax.Array]:
    """What the gradient of the sum in each value's log weight is: see `semirings`. `[K, *elements]`, by site."""

    def total(more: Mapping[str, jax.Array]) -> jax.Array:
        found = log_sums_of_tables(program, world, group, lanes, semiring, more)
        return jnp.asarray(sum(jnp.sum(f.table) for f in found)) / group.scale

    return jax.grad(total)(flat(program, group))


def drawn_from(rng_key: jax.Array, program: Program, world: World, group: Together, lanes: int) -> dict[str, jax.Array]:
    """A joint draw of a group's sites given all else, as `program.placed` takes it: indices into finite supports."""
    key = site_key(rng_key, group.name)
    if isinstance(group, Closed):
        return group.drawn(key, Particle(world))
    tables = _by_tables(group)
    return _indices(program, tables, weights_of(program, world, tables, lanes, Sampled(key)))


def most_likely(program: Program, world: World, group: Together, lanes: int) -> dict[str, jax.Array]:
    """The most likely configuration of a group's sites given all else, in the same form."""
    if isinstance(group, Closed):
        return group.most_likely(Particle(world))
    tables = _by_tables(group)
    return _indices(program, tables, weights_of(program, world, tables, lanes, Largest()))


def _indices(program: Program, group: Group, weights: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    return {s: in_shape(program, group, s, jnp.argmax(w, 0)) for s, w in weights.items()}


def log_conditional(program: Program, world: World, there: World, group: Together, lanes: int) -> jax.Array:
    """log p(a group's sites | all else), of the configuration that `there` has, of the particle `world`; of the
    elements that count, as those that nothing feels have no density."""
    joint = sum(jnp.sum(t) for t in there.terms(group.terms).values())
    return jnp.asarray(joint - sum(jnp.sum(f.table) for f in log_sums(program, world, group, lanes)))


def in_shape(program: Program, group: Group, site: str, array: jax.Array) -> jax.Array:
    """Numbers `[*elements]` of a site in its batch shape, with what stands in front of it."""
    shape = program.summed[site].batch_shape
    front = array.ndim - sum(d is not None for d in group.dims[site])
    return array.reshape(*array.shape[:front], *shape)
