"""One row looked up for all elements: the program's own values where a site is the same in all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from autovi.analysis.one_index import lookups_of_one
from autovi.model.inputs import bind
from autovi.model.targets import trace_program
from autovi.model.traced import KEY

N, K = 5, 3
X = np.linspace(-1.0, 2.0, N).astype(np.float32)


def rows():
    means = numpyro.sample("means", dist.Normal(0.0, 1.0).expand([K]).to_event(1))
    with numpyro.plate("n", N):
        z = numpyro.sample("z", dist.Categorical(jnp.full(K, 1 / K)))
        numpyro.sample("x", dist.Normal(means[z], 1.0), obs=X)


def planes():
    """The looked-up axis in the middle, between two that are kept."""
    means = numpyro.sample("means", dist.Normal(0.0, 1.0).expand([2, K, 4]).to_event(3))
    with numpyro.plate("n", N):
        z = numpyro.sample("z", dist.Categorical(jnp.full(K, 1 / K)))
        numpyro.factor("f", jnp.sin(means[:, z + 0, :]).sum((0, 2)) * X)


def along_an_axis():
    """Every element has a row of its own, and looks up an entry of it, inside of a function under `jit`."""
    means = numpyro.sample("means", dist.Normal(0.0, 1.0).expand([N, K]).to_event(2))
    with numpyro.plate("n", N):
        z = numpyro.sample("z", dist.Categorical(jnp.full(K, 1 / K)))
        numpyro.factor("f", jnp.take_along_axis(means, z[:, None], 1)[:, 0] * X)


def turned():
    """The same, of rows that are columns."""
    means = numpyro.sample("means", dist.Normal(0.0, 1.0).expand([K, N]).to_event(2))
    with numpyro.plate("n", N):
        z = numpyro.sample("z", dist.Categorical(jnp.full(K, 1 / K)))
        numpyro.factor("f", jnp.take_along_axis(means, z[None], 0)[0] * X)


def sorted_first():
    """An index that depends on the data too, beside one that does not."""
    means = numpyro.sample("means", dist.Normal(0.0, 1.0).expand([K, 2]).to_event(2))
    with numpyro.plate("n", N):
        z = numpyro.sample("z", dist.Categorical(jnp.full(K, 1 / K)))
        other = jnp.asarray([0, 1, 1, 0, 1])
        numpyro.factor("f", (means[z, other] + means[(z + other) % K, 0]) * X)


def cost(model):
    """(cost terms as a function of `means` and z, the equations to be replaced)"""
    graph = trace_program(model, None, bind(model, {}, ()))[0].graph
    instead = lookups_of_one(graph, [graph.inputs["node:z"]])
    others = {v: jnp.full(v.aval.shape, 0.3, v.aval.dtype) for n, v in graph.inputs.items() if n != KEY}
    others[graph.inputs[KEY]] = jax.random.key(0)
    wanted = {o: v for o, v in graph.outputs.items() if o.startswith("p:") and v not in graph.constants}

    def of(means, z, instead):
        known = {**others, graph.inputs["node:means"]: means, graph.inputs["node:z"]: z}
        made = graph.evaluate(wanted.values(), known.__contains__, known.__getitem__, instead)
        return {o: made[v] for o, v in wanted.items()}

    return of, instead, graph.inputs["node:means"].aval.shape


@pytest.mark.parametrize(
    ("model", "replaced"), [(rows, 2), (planes, 2), (along_an_axis, 2), (turned, 2), (sorted_first, 1)]
)
def test_terms_and_their_gradient_are_those_of_the_gather(model, replaced):
    of, instead, shape = cost(model)
    assert len(instead) == replaced  # the entry of the probabilities among them
    means = jax.random.normal(jax.random.key(1), shape)

    def both(instead):
        def every(means):
            return jax.vmap(lambda k: of(means, jnp.full(N, k), instead))(jnp.arange(K))

        found, back = jax.vjp(every, means)
        weights = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), found)
        return found, back(weights)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), both(instead), both({}))
