"""Weights in the place of a value: the program's own at one-hot ones, linear between, refused where it cannot be."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi
from autovi.analysis.onehot import one_hot
from autovi.model.inputs import bind
from autovi.model.targets import trace_program
from autovi.model.traced import KEY
from autovi.preparation import Options, prepare

TABLE = np.array([[0.3, -1.0], [1.5, 0.2], [-0.7, 2.0]])


def terms(graph, node):
    """The cost terms as a function of the node of site z, all other inputs being what they are."""
    others = {v: jnp.full(v.aval.shape, 0.3, v.aval.dtype) for n, v in graph.inputs.items() if n not in ("node:z", KEY)}
    others[graph.inputs[KEY]] = jax.random.key(0)
    known = {**others, graph.inputs["node:z"]: node}
    wanted = {o: v for o, v in graph.outputs.items() if o.startswith("p:") and v not in graph.constants}
    made = graph.evaluate(wanted.values(), known.__contains__, known.__getitem__)
    return {o: np.asarray(made[v]) for o, v in wanted.items()}


def traced_of(model):
    return trace_program(model, None, bind(model, {}, ()))[0]


def rows():
    """A gather, a `where`, a comparison, arithmetic on the integer, a cast, and a density of another site."""
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("n", 2):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.2, 0.5, 0.3])))
        loc = jnp.asarray(TABLE)[z, 0] + jnp.where(z == 1, scale, 0.5) + 0.1 * ((z + 1) % 3)
        x = numpyro.sample("x", dist.Normal(loc * z.astype(float), scale))
        numpyro.sample("v", dist.Normal(jax.nn.one_hot(z, 3) @ jnp.asarray(TABLE)[:, 1], 1.0), obs=x)


def scalar():
    """What mixes elements, loops and jumps: of a single element everything is linear in its weights."""
    z = numpyro.sample("z", dist.DiscreteUniform(2, 4))
    total = jax.lax.fori_loop(0, z, lambda i, x: x + jnp.sin(1.0 * i), 0.0)
    numpyro.sample("x", dist.Normal(jnp.bincount(jnp.array([2, 3, 3, 4]), length=5)[z] + total, 1.0), obs=0.3)


@pytest.mark.parametrize(("model", "values"), [(rows, (0, 1, 2)), (scalar, (2, 3, 4))])
def test_the_programs_own_value_at_one_hot_weights(model, values):
    traced = traced_of(model)
    weighted = one_hot(traced, {"z"})
    shape = traced.graph.inputs["node:z"].aval.shape
    for index in itertools.product(range(3), repeat=int(np.prod(shape))):
        index = np.array(index).reshape(shape)
        own = terms(traced.graph, jnp.asarray(np.asarray(values)[index]))
        found = terms(weighted.graph, jax.nn.one_hot(index, 3))
        assert own.keys() == found.keys() and len(own) >= 2
        for term, value in own.items():
            np.testing.assert_allclose(found[term], value, rtol=1e-6, atol=1e-6)


def test_between_them_what_is_first_made_is_linear():
    def model():
        with numpyro.plate("n", 2):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.2, 0.5, 0.3])))
            numpyro.factor("f", jnp.square(jnp.asarray(TABLE)[z, 0]))

    w = np.array([[0.2, 0.3, 0.5], [0.6, 0.4, 0.0]])
    found = terms(one_hot(traced_of(model), {"z"}).graph, jnp.asarray(w))
    np.testing.assert_allclose(found["p:f"], (w @ TABLE[:, 0]) ** 2, rtol=1e-6)
    np.testing.assert_allclose(found["p:z"], w @ np.log([0.2, 0.5, 0.3]), rtol=1e-6)


def test_an_impossible_value_counts_where_it_has_a_weight():
    def model():
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
        numpyro.factor("f", jnp.array([0.3, -jnp.inf])[z])

    graph = one_hot(traced_of(model), {"z"}).graph
    assert terms(graph, jnp.array([1.0, 0.0]))["p:f"] == pytest.approx(0.3)
    assert terms(graph, jnp.array([0.9, 0.1]))["p:f"] == -np.inf


def test_two_sites_at_once():
    def model():
        a = numpyro.sample("a", dist.Categorical(jnp.array([0.2, 0.5, 0.3])))
        b = numpyro.sample("b", dist.Categorical(jnp.array([0.4, 0.6])))
        numpyro.factor("f", jnp.asarray(TABLE)[a, b])

    graph = one_hot(traced_of(model), {"a", "b"}).graph
    a, b = np.array([0.2, 0.3, 0.5]), np.array([0.1, 0.9])
    known = {graph.inputs["node:a"]: jnp.asarray(a), graph.inputs["node:b"]: jnp.asarray(b)}
    known |= {v: jax.random.key(0) for n, v in graph.inputs.items() if n == KEY}
    out = graph.outputs["p:f"]
    found = graph.evaluate([out], known.__contains__, known.__getitem__)[out]
    assert found == pytest.approx(a @ TABLE @ b, rel=1e-6)


def mixing(what):
    def model():
        with numpyro.plate("n", 3):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.2, 0.5, 0.3])))
        numpyro.factor("f", what(z))

    return model


WRONG = {
    "several of its elements at once": mixing(lambda z: jnp.sin(jnp.sum(z) * 1.0)),
    "at once": mixing(lambda z: jnp.bincount(z, length=3)[0] * 1.0),
    "as a seed": mixing(lambda z: jax.random.normal(jax.random.fold_in(jax.random.key(0), z[0]))),
}


@pytest.mark.parametrize("reason", WRONG)
@pytest.mark.parametrize("name", ["rebar", "reinmax"])
def test_what_is_not_linear_is_refused_with_the_reason(reason, name):
    with pytest.raises(ValueError, match=f"^site 'z': its estimator asks for weights of its values.*{reason}"):
        autovi.plan(WRONG[reason], {}, estimators={"z": name}, allow_bias=True)


def test_numbers_of_an_event_are_refused():
    def model(f):
        z = numpyro.sample("z", dist.Categorical(jnp.array([[0.2, 0.5, 0.3], [0.3, 0.3, 0.4]])).to_event(1))
        f(z)

    def whole(seen=True):
        model(lambda z: numpyro.factor("f", jnp.sum(jnp.asarray(TABLE)[z, 0])))

    options = Options(guide=lambda seen=True: model(lambda z: None), estimators={"z": "rebar"})
    with pytest.raises(ValueError, match="^site 'z': .*its numbers are those of an event, not elements of a plate"):
        prepare(whole, {}, options)


def test_what_is_summed_over_elements_after_it_is_a_number_is_not():
    asked = {"z": "rebar"}
    summed = mixing(lambda z: jnp.sin(jnp.sum(jnp.asarray(TABLE)[z, 0])))
    assert autovi.plan(summed, {}, estimators=asked)["z"].estimator == "rebar"
    assert prepare(summed, None, Options(estimators=asked))[0].program.traced.one_hot == {"z"}


def test_draws_are_values():
    """Posterior draws and the sites made of them are whole, in batches too."""

    def model(y):
        with numpyro.plate("n", 4, subsample_size=2) as i:
            z = numpyro.sample("z", dist.DiscreteUniform(1, 3))
            double = numpyro.deterministic("double", 2 * z)
            numpyro.sample("y", dist.Normal(1.0 * double, 0.5), obs=y[i])

    data = {"y": np.array([2.0, 4.0, 6.0, 4.1])}
    fit = autovi.fit(
        model, data, estimators={"z": "reinmax"}, allow_bias=True, num_steps=600, progress_bar=False, learning_rate=0.1
    )
    draws = fit.sample(200, resample=False)
    assert draws["z"].dtype.kind == "i" and set(np.unique(draws["z"])) <= {1, 2, 3}
    np.testing.assert_array_equal(draws["double"], 2 * draws["z"])
    np.testing.assert_allclose(draws["z"].mean(0), data["y"] / 2, atol=0.35)
