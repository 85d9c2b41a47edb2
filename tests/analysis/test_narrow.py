"""What is the same for all elements, evaluated once: the program's values where a site has one value in all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from autovi.analysis.narrow import evaluate_narrow
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


@pytest.mark.parametrize("model", [rows, planes, along_an_axis, turned, sorted_first])
def test_terms_and_their_gradient_are_those_of_the_whole(model):
    graph = trace_program(model, None, bind(model, {}, ()))[0].graph
    others = {v: jnp.full(v.aval.shape, 0.3, v.aval.dtype) for n, v in graph.inputs.items() if n != KEY}
    others[graph.inputs[KEY]] = jax.random.key(0)
    wanted = {o: v for o, v in graph.outputs.items() if o.startswith("p:") and v not in graph.constants}
    means = jax.random.normal(jax.random.key(1), graph.inputs["node:means"].aval.shape)

    def narrow(known):
        return evaluate_narrow(graph, wanted.values(), known.__contains__, known.__getitem__)

    def whole(known):
        return graph.evaluate(wanted.values(), known.__contains__, known.__getitem__)

    def both(evaluate, size):
        def at(means, k):
            known = {**others, graph.inputs["node:means"]: means, graph.inputs["node:z"]: jnp.full(size, k)}
            made = evaluate(known)
            return {o: jnp.broadcast_to(made[v], v.aval.shape) for o, v in wanted.items()}

        found, back = jax.vjp(lambda means: jax.vmap(lambda k: at(means, k))(jnp.arange(K)), means)
        weights = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), found)
        return found, back(weights)

    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(same, both(narrow, 1), both(whole, N))


def test_one_row_is_looked_up_for_all():
    graph = trace_program(rows, None, bind(rows, {}, ()))[0].graph
    inputs, wanted = graph.inputs, graph.outputs["p:z"]
    known = {v: jnp.zeros(v.aval.shape, v.aval.dtype) for n, v in inputs.items() if n != KEY}
    known |= {inputs[KEY]: jax.random.key(0), inputs["node:z"]: jnp.zeros(1, int)}
    made = evaluate_narrow(graph, [wanted], known.__contains__, known.__getitem__)
    assert wanted.aval.shape == (N,) and made[wanted].shape == (1,)
