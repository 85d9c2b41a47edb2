"""Hierarchies written non-centred by hand: their sites traced in the coordinates of what the model makes of them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from coordinate_checks import alone, check_densities, check_nodes, nodes_of, outputs
from gradient_checks import ONCE

from autovi.analysis.centring import candidates
from autovi.analysis.structure import analyse_structure
from autovi.model.images import images
from autovi.model.inputs import bind
from autovi.model.targets import trace_program

Y = np.array([1.8, 0.8, -0.3, 0.7, -0.1, 0.1, 1.8, 1.2])
GROUP = np.array([0, 0, 1, 2, 2, 1, 0, 2])


def normal(name, *shape):
    return numpyro.sample(name, dist.Normal(0.0, 1.0).expand(shape).to_event(len(shape)))


def observed(loc, y):
    numpyro.sample("y", dist.Normal(loc, 0.5).to_event(1), obs=y)


def schools(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", 8):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("y", dist.Normal(theta, 0.5), obs=y)


def after_the_index(y):
    """The same number multiplies what each observation has of its group."""
    mu, log_tau = numpyro.sample("mu", dist.Normal(0.0, 5.0)), numpyro.sample("log_tau", dist.Normal(0.0, 1.0))
    z = normal("z", 3)
    observed(mu - jnp.exp(log_tau) * z[GROUP] / 2.0, y)


def a_scale_of_any_sign(y):
    scale = numpyro.sample("scale", dist.Normal(0.0, 1.0))
    z = numpyro.sample("z", dist.Normal(jnp.zeros(8), jnp.ones(8)).to_event(1))
    observed(-(scale * z - 1.0) * 2.0, y)


def crossed(y):
    """Each of both images is a shift of the other's sum: only one can have it in its location."""
    scale = numpyro.sample("scale", dist.HalfNormal(jnp.ones(3)).to_event(1))
    z, w = normal("z", 8), normal("w", 8)
    local = numpyro.sample("local", dist.HalfCauchy(jnp.ones(8)).to_event(1))
    b = normal("b", 8)
    observed(scale[0] * z + scale[1] * w + b * local * scale[2], y)


def of_each_other(y):
    """The scale of one is made of another's image."""
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    above = normal("above", 8)
    below = normal("below", 8)
    observed(jnp.exp(0.3 * (scale * above)) * below, y)


MODELS = {
    schools: {"z": (("mu",), ("tau",))},
    after_the_index: {"z": (("mu",), ("log_tau",))},
    a_scale_of_any_sign: {"z": ((), ("scale",))},
    crossed: {"z": (("scale", "w", "local", "b"), ("scale",)), "w": ((), ("scale",)), "b": ((), ("scale", "local"))},
    of_each_other: {"above": ((), ("scale",)), "below": ((), ("scale", "above"))},
}


def twice(y):
    """The value is used besides its image."""
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    z = normal("z", 8)
    observed(tau * z + jnp.sin(z), y)


def known(y):
    z = normal("z", 8)
    observed(3.0 + 2.0 * z, y)


def of_a_vector(y):
    """A product with a matrix is no map of single elements."""
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    z = normal("z", 8)
    observed((tau * jnp.eye(8)) @ z, y)


def with_a_scale_of_its_own(y):
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    z = numpyro.sample("z", dist.Normal(0.0, 2.0).expand([8]).to_event(1))
    observed(tau * z, y)


def masked(y):
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([8]).mask(np.arange(8) < 4).to_event(1))
    observed(tau * z, y)


def discrete(y):
    k = numpyro.sample("k", dist.Bernoulli(0.5))
    z = normal("z", 8)
    observed(jnp.array([1.0, 2.0])[k] * z, y)


def times_a_shift(y):
    """One scale for each of several elements that are copies: not one number."""
    tau = numpyro.sample("tau", dist.HalfNormal(jnp.ones(8)).to_event(1))
    z = normal("z", 3)
    observed(tau * z[GROUP], y)


@pytest.fixture
def double_precision():
    with jax.enable_x64(True):
        yield


def traced(model, imaged=(), y=Y):
    return trace_program(model, None, bind(model, {"y": y}, ()), imaged=imaged)


def found(model):
    graph, _ = traced(model)
    return candidates(graph, analyse_structure(graph))


@pytest.mark.parametrize("model", MODELS)
def test_what_is_found(model):
    assert {n: (m.location, m.scale) for n, m in found(model).items() if m.of_image} == MODELS[model]


@pytest.mark.parametrize("model", [twice, known, of_a_vector, with_a_scale_of_its_own, masked, discrete, times_a_shift])
def test_what_is_not(model):
    assert not found(model)


def test_what_a_plan_says():
    said = found(schools)["z"].sentence
    assert said.endswith("the model takes it times a scale that depends on 'tau' plus what depends on 'mu'")


def test_coefficients_are_those_of_the_image():
    graph, _ = traced(a_scale_of_any_sign)
    image = images(graph)["z"]
    for scale in (1.5, -1.5):
        shift, factor = image.coefficients(lambda _, scale=scale: jnp.asarray(scale))
        # -(s z - 1) 2 = 2 - 2 s z, and of z with the sign of -2 s.
        np.testing.assert_allclose((shift, factor), (2.0 * np.sign(-2 * scale), 2 * abs(scale)), rtol=1e-6)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("model", MODELS)
def test_densities_are_those_of_numpyro_at_the_values_with_the_jacobian(model):
    graph, inputs = traced(model, MODELS[model])
    assert graph.noncentred == graph.imaged == MODELS[model].keys()
    check_densities(model, (Y,), graph, inputs)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("model", MODELS)
def test_the_nodes_of_values_are_found_again(model):
    graph, inputs = traced(model, MODELS[model])
    check_nodes(graph, inputs)


@pytest.mark.parametrize("model", MODELS)
def test_where_nothing_is_given_nodes_are_the_values(model):
    """Values are the same to the last bit, densities to rounding, and there is a Jacobian of zero more."""
    made = {}
    for imaged in ((), MODELS[model]):
        graph, inputs = traced(model, imaged, Y.astype(np.float32))
        nodes = {n: x.astype(np.float32) for n, x in nodes_of(graph).items()}
        run = jax.jit(partial(outputs, alone(graph), inputs.traced(), {"param": {}}), compiler_options=ONCE)
        made[bool(imaged)] = run(nodes)
    for output, value in made[False].items():
        same = {"rtol": 0 if output.startswith("value:") else 1e-6}
        np.testing.assert_allclose(made[True][output], value, **same, err_msg=output)
    for name in MODELS[model]:
        assert not np.any(made[True][f"jacobian:{name}"])


@pytest.mark.usefixtures("double_precision")
def test_a_centred_node_is_the_image_itself():
    """At an infinite precision the density of the data is a function of the node alone, whatever mu and tau are."""
    graph, inputs = traced(schools, ["z"])
    program, nodes = alone(graph), nodes_of(graph)
    constants = {"precision:z": np.full(8, np.inf), "datum:z": np.zeros(8)}
    one, other = (
        outputs(program, inputs.traced(), {"param": {}, "constants": constants}, {**nodes, "mu": mu, "tau": tau})
        for mu, tau in ((0.3, -1.0), (-2.0, 0.7))
    )
    np.testing.assert_allclose(one["value:theta"], nodes["z"], rtol=1e-12)
    np.testing.assert_allclose(one["p:y"], other["p:y"], rtol=1e-12)
    assert np.abs(one["value:z"] - other["value:z"]).min() > 0.1
