"""Which steps of masked chains count: against what changes when a step's value is changed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.handlers import mask

from autovi.analysis.counted import counted, counts_of
from autovi.model.inputs import bind
from autovi.model.targets import trace_program
from autovi.model.traced import KEY
from autovi.model.unlinked import unlinked_at

T = 6
Y = jnp.linspace(-1.0, 1.0, T)
MASKS = {
    "end": [1, 1, 1, 0, 0, 0],
    "start": [0, 0, 1, 1, 1, 1],
    "middle": [1, 0, 1, 0, 0, 1],
    "all": [0, 0, 0, 0, 0, 0],
}


def walk(on, reverse):
    def step(before, x):
        there, y = x
        with mask(mask=there):
            z = numpyro.sample("z", dist.Normal(before, 1.0))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
        return z, None

    scan(step, 0.0, (on, Y), reverse=reverse)


def two_steps_before(on, reverse):
    def step(before, x):
        there, y = x
        with mask(mask=there):
            z = numpyro.sample("z", dist.Normal(before[0] + 0.5 * before[1], 1.0))
        with mask(mask=there):
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
        return (before[1], z), None

    scan(step, (0.0, 0.0), (on, Y), reverse=reverse)


def by_a_counter(on, reverse):
    """Sequences of unequal length: the mask is made of what is carried."""
    lengths = jnp.array([3, 6]) if on[0] else jnp.array([2, 0])

    def step(carry, y):
        before, t = carry
        with numpyro.plate("sequence", 2), mask(mask=t < lengths):
            z = numpyro.sample("z", dist.Normal(before, 1.0))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
        return (z, t + 1), None

    scan(step, (jnp.zeros(2), 0), jnp.stack([Y, -Y], 1), reverse=reverse)


def kept(on, reverse):
    """What is not there passes the value before on."""

    def step(before, x):
        there, y = x
        with mask(mask=there):
            z = numpyro.sample("z", dist.Normal(before, 1.0))
        z = jnp.where(there, z, before)
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
        return z, None

    scan(step, 0.0, (on, Y), reverse=reverse)


def states(on, reverse):
    """Finite ones, whose steps stand side by side."""

    def step(before, x):
        there, y = x
        with mask(mask=there):
            z = numpyro.sample("z", dist.Bernoulli(0.3 + 0.4 * before))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
        return z, None

    scan(step, 0, (on, Y), reverse=reverse)


def states_kept(on, reverse):
    """The same; what is not there passes the state before on, which is a variable of its own."""

    def step(before, x):
        there, y, seen = x
        with mask(mask=there):
            z = numpyro.sample("z", dist.Bernoulli(0.3 + 0.4 * before))
        z = jnp.where(there, z, before)
        with mask(mask=seen):
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
        return z, None

    scan(step, 0, (on, Y, jnp.arange(T) < T - 2), reverse=reverse)


def graph_of(model, on, reverse):
    of = partial(model, np.asarray(on, bool), reverse)
    return trace_program(of, None, bind(of, {}, ()))[0]


def changing(traced, trials=3):
    """Elements of z of which some value changes a cost term; in its batch shape."""
    graph = traced.graph
    var, costs = graph.inputs["node:z"], {n: v for n, v in graph.outputs.items() if n.startswith("p:")}
    rng = np.random.default_rng(0)

    @jax.jit
    def total(z):
        known = {v: jnp.zeros(v.aval.shape, v.aval.dtype) for n, v in graph.inputs.items() if n != KEY}
        known |= {graph.inputs[KEY]: jax.random.key(0), var: z}
        made = graph.evaluate(costs.values(), lambda v: v in known, known.__getitem__)
        return jnp.stack([jnp.sum(made[v]) if v in made else jnp.sum(graph.constants[v]) for v in costs.values()])

    moved = np.zeros(var.aval.shape, bool)
    for _ in range(trials):
        start = rng.normal(size=var.aval.shape) if jnp.issubdtype(var.aval.dtype, jnp.inexact) else moved * 0
        for place in np.ndindex(*var.aval.shape):
            other = np.array(start)
            other[place] += 1
            pair = (total(jnp.asarray(x, var.aval.dtype)) for x in (start, other))
            moved[place] |= not np.allclose(*pair, rtol=0, atol=1e-4)
    return moved


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("where", MASKS)
@pytest.mark.parametrize("model", [walk, two_steps_before, by_a_counter, kept, states, states_kept])
def test_the_steps_that_count_are_those_that_something_feels(model, where, reverse):
    as_written = graph_of(model, MASKS[where], reverse)
    traced = unlinked_at(as_written, ["z"]) if model in (states, states_kept) else as_written
    counts = counted(traced, traced.graph.downstream(traced.graph.inputs.values()), {})
    np.testing.assert_array_equal(counts[counts_of("z")], changing(as_written))
