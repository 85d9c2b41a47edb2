"""The log joint density of a fitted model on NumPyro's unconstrained scale, and the way back from it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.analysis.counted import counted, counts_of
from autovi.model.graph import Values, like_traced
from autovi.model.traced import KEY
from autovi.program.program import Program
from autovi.program.summing import drawn_from
from autovi.program.surrogate import integrated
from autovi.program.world import World

LANES = 4  # points that are evaluated side by side, as of so many chains


class Joint:
    """log p(x, u), u the continuous latent sites of a program on NumPyro's unconstrained scale, each by its name.

    Sites that are summed out of the program are summed out here too; parameter sites have their fitted values, plates
    their full size. autovi's nodes are NumPyro's unconstrained values, but those of sites in partly non-centred
    coordinates; at the coordinates that change nothing (`Traced.plain`) these are too.

    Args:
        program: with plates at full size and without a guide function.
        params: as fitted; only those of parameter sites are looked at.
        arrays: the data.
    """

    def __init__(self, program: Program, params: Mapping[str, Any], arrays: Mapping[str, Any]):
        self.program = program
        own = {n: v for n, v in params["param"].items() if n in program.traced.params}
        variables: list[Any] = []

        def of_data(param: Any, arrays: Any) -> list[Any]:
            found = self._of_data({"param": param}, arrays)
            variables[:] = found
            return list(found.values())

        made = jax.jit(of_data)(own, arrays)
        self._known: Values = dict(zip(variables, made, strict=True))

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """The sites that u holds, in order of execution: all continuous ones that are not summed out."""
        program = self.program
        gone = {*program.plan.marginal, *program.plan.ancestral}
        return tuple(n for n, s in program.sites.latents.items() if not s.discrete and n not in gone)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Site -> the shape of its unconstrained values."""
        inputs = self.program.traced.graph.inputs
        return {n: tuple(inputs[f"node:{n}"].aval.shape) for n in self.sites}

    @cached_property
    def size(self) -> int:
        """How many numbers u is."""
        return int(sum(np.prod(shape, dtype=int) for shape in self.shapes.values()))

    def log_density(self, unconstrained: Mapping[str, Any]) -> jax.Array:
        """log p(x, u), normalized as the model's densities are, with the Jacobian of the change of variables."""
        program, world = self.program, self._at(unconstrained)
        raw = world.terms([t for t in program.term_names if t.startswith("p:")])
        terms, _ = integrated(program, world, raw, (), program.plan.groups, LANES)
        jacobians = world.outputs(self._jacobians)
        return jnp.asarray(sum(jnp.sum(x) for x in (*(t.value for t in terms.values()), *jacobians.values())))

    def values(self, unconstrained: Mapping[str, Any], rng_key: jax.Array) -> dict[str, jax.Array]:
        """All latent and deterministic sites at a point, on their own scale; those that are summed out are drawn from
        their posterior given all else."""
        program, world = self.program, self._at(unconstrained)
        forced: dict[str, jax.Array] = {}
        for group in program.plan.groups:
            forced |= drawn_from(rng_key, program, world, group, LANES)
        there = (world.forced(forced) if forced else world).with_priors()
        found = there.outputs(program.outputs_for(["value"]))
        values = {n.split(":", 1)[1]: v for n, v in found.items()}
        return {n: values[n] for n in (*program.sites.latents, *program.sites.deterministics) if n in values}

    @cached_property
    def _jacobians(self) -> list[str]:
        """Those that are not in the terms: of sites whose own family has their support."""
        there = self.program.traced.graph.outputs
        names = (f"jacobian:{n}" for n in self.sites if n not in self.program.unconstrained)
        return [n for n in names if n in there]

    def _at(self, unconstrained: Mapping[str, Any]) -> World:
        program, values = self.program, dict(self._known)
        key = program.traced.graph.inputs[KEY]
        values[key] = like_traced(jax.random.key(0), key)
        values |= program.as_inputs({n: unconstrained[n] for n in self.sites})
        for name in program.plan.ancestral:
            var = program.traced.graph.inputs[f"node:{name}"]
            values[var] = jnp.zeros(var.aval.shape, var.aval.dtype)
        for name in program.summed:
            values |= program.placed(name, program.first_value(name))
        return World(program, values, {}, {})

    def _of_data(self, params: Mapping[str, Any], arrays: Mapping[str, Any]) -> Values:
        """What depends on data and parameters alone, evaluated once."""
        program, graph = self.program, self.program.traced.graph
        indices = {n: jnp.arange(p.size) for n, p in program.sites.plates.items()}
        values = program.known(params, arrays, indices)
        nodes = frozenset(v for n, v in graph.inputs.items() if n == KEY or n.startswith("node:"))
        varying = frozenset(graph.downstream(nodes))
        wanted = [graph.outputs[o] for o in (*program.cost_outputs, *self._jacobians, *program.outputs_for(["value"]))]
        _, used = graph.needed(wanted, lambda var: var not in varying or var in nodes)
        fixed = [v for v in used if v not in varying]
        values |= graph.evaluate(fixed, values.__contains__, values.__getitem__)
        values |= counted(program.traced, varying, values)
        ancestral = {
            counts_of(n): jnp.zeros(program.sites.samples[n].batch_shape, bool) for n in program.plan.ancestral
        }
        return values | ancestral
