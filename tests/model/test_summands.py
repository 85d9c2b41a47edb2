"""What cost terms add up: parts whose entries together are the term."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from autovi.model.inputs import bind
from autovi.model.summands import in_summands
from autovi.model.targets import trace_program

PSI = np.array([[0.3, -1.0], [0.5, 0.2]])


def terms_of(z, w, c):
    """Name -> a factor, and the shapes of its parts."""
    pairs = jnp.asarray(PSI)[z[:-1], z[1:]]
    spin = 2.0 * z - 1.0
    return {
        "sum": (pairs.sum(), [(4,)]),
        "weighted": (-2.0 * jnp.sum(pairs * c[:4], keepdims=True)[0] / w + w**2, [(4,), ()]),
        "two": (pairs.sum() + jnp.sum(jnp.exp(spin)), [(4,), (5,)]),
        "less": (pairs.sum() - 3.0 * spin.sum(), [(4,), (5,)]),
        "loop": (spin[0] * spin[1] + w * spin[1] * spin[2] - spin[3], [(), (), ()]),
        "product": (c[0] * jnp.dot(spin[1:], spin[:-1] * c[:4]), [(4,)]),
        "shaped": (jnp.sum((spin.reshape(5, 1) * c).T, axis=0).reshape(1, 5)[0, :].sum() * w, [(5, 5)]),
        "and a constant": ((3.0 + jnp.exp(spin) - 0.5 * spin).sum(), [(5,), (5,), (5,)]),
        "repeated": (jnp.sum((pairs.reshape(4, 1) - spin[:4, None]) * c), [(4, 5)]),
        "whole numbers": (-w * jnp.abs(jnp.diff(z)).sum() + (z[1:] == z[:-1]).sum() // 2, [(4,), ()]),
        "kept": (jnp.where(w > 100.0, pairs.sum(), jnp.sum(spin)), [(5,), (4,)]),
        "rows": (jnp.sum(spin[:, None] * c, axis=1) * jnp.arange(5.0), [(5, 5)]),
        "no sum": (jnp.exp(pairs.sum()), []),
    }


def model(c):
    w = numpyro.sample("w", dist.Normal())
    with numpyro.plate("n", 5):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
    for name, (value, _) in terms_of(z, w, c).items():
        with numpyro.plate(f"of {name}", 5) if jnp.ndim(value) else handlers.scale(scale=0.7):
            numpyro.factor(name, value)


@pytest.fixture(scope="module")
def evaluated():
    """The traced program, and its outputs at some values."""
    c = np.linspace(-1.0, 1.5, 5).astype(np.float32)
    traced, inputs = trace_program(model, None, bind(model, {"c": c}))
    apart = in_summands(traced, [f"p:{name}" for name in terms_of(jnp.zeros(5, int), 1.0, c)])
    graph = apart.graph
    values = {"node:w": jnp.array(0.8), "node:z": jnp.array([0, 1, 1, 0, 1]), "0['c']": jnp.asarray(c)}
    known = {graph.inputs[n]: x for n, x in values.items() if n in graph.inputs}
    known |= {v: jax.random.key(0) for n, v in graph.inputs.items() if n == "1"}
    names = [o for o in graph.outputs if o.startswith(("p:", "summand:"))]
    made = graph.evaluate([graph.outputs[o] for o in names], known.__contains__, known.__getitem__)
    return apart, {o: np.asarray(made[graph.outputs[o]]) for o in names}


@pytest.mark.parametrize("name", terms_of(jnp.zeros(5, int), 1.0, jnp.zeros(5)))
def test_the_parts_add_up_to_the_term(evaluated, name):
    apart, values = evaluated
    parts = [values[o] for o in apart.summands[f"p:{name}"]]
    shapes = terms_of(jnp.zeros(5, int), 1.0, jnp.zeros(5))[name][1]
    assert [p.shape for p in parts] == shapes
    if parts:
        assert sum(p.sum() for p in parts) == pytest.approx(values[f"p:{name}"].sum(), rel=1e-5)


def test_a_program_without_such_terms_stays_as_it_is(evaluated):
    traced, _ = trace_program(model, None, bind(model, {"c": np.zeros(5, np.float32)}))
    assert in_summands(traced, []) is traced
