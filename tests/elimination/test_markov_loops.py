"""Loops over `numpyro.contrib.funsor.markov`, as NumPyro's own models are written, are the plain loops. Where funsor is
not installed there are no such models."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi
from autovi.model.inputs import bind
from autovi.model.targets import trace_program

funsor = pytest.importorskip("numpyro.contrib.funsor", exc_type=ImportError)

DATA = {"y": np.array([[-2.0, 1.8], [-1.8, 2.2], [2.2, 1.9], [1.9, -2.2]], np.float32)}
LENGTHS = np.array([4, 3])


def plain(steps, history=1):
    return steps


def step(t, y, rows, z, w):
    with numpyro.handlers.mask(mask=t < LENGTHS):
        new = numpyro.sample(f"z_{t}", dist.Categorical(rows[z, w]), infer={"enumerate": "parallel"})
        numpyro.sample(f"y_{t}", dist.Normal(4.0 * new - 2.0, 1.0), obs=y)
    return new, z


def first_order(y, loop=plain):
    rows = jnp.stack([numpyro.sample("rows", dist.Dirichlet(jnp.ones(2)).expand([2]).to_event(1))] * 2, 1)
    z = w = 0
    with numpyro.plate("sequence", 2, dim=-1):
        for t in loop(range(len(y))):
            z, w = step(t, y[t], rows, z, w)


def second_order(y, loop=plain):
    rows = numpyro.sample("rows", dist.Dirichlet(jnp.ones(2)).expand([2, 2]).to_event(2))
    z = w = 0
    with numpyro.plate("sequence", 2, dim=-1):
        for t in loop(range(len(y)), history=2):
            z, w = step(t, y[t], rows, z, w)


def in_contexts(y, loop=plain):
    """Each step in a context, and what a step does in a decorated function."""
    rows = jnp.stack([numpyro.sample("rows", dist.Dirichlet(jnp.ones(2)).expand([2]).to_event(1))] * 2, 1)
    z = w = 0
    of_step, context = (step, None) if loop is plain else (loop(step), loop())
    with numpyro.plate("sequence", 2, dim=-1):
        for t in range(len(y)):
            if context is None:
                z, w = of_step(t, y[t], rows, z, w)
            else:
                with context:
                    z, w = of_step(t, y[t], rows, z, w)


@pytest.mark.parametrize("model", [first_order, second_order, in_contexts], ids=lambda f: f.__name__)
def test_a_markov_loop_is_the_plain_loop(model):
    looped = funsor.config_enumerate(lambda y: model(y, funsor.markov))
    of = lambda fn: trace_program(fn, None, bind(fn, DATA))[0]  # noqa: E731
    assert of(looped).fingerprint.key == of(model).fingerprint.key
    plan = autovi.plan(looped, DATA)
    assert {plan[f"z_{t}"].estimator for t in range(4)} == {"marginalize"}
    assert plan["z_0"].why == autovi.plan(model, DATA)["z_0"].why
