"""Sites traced in partly non-centred coordinates: the same model, in other numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from coordinate_checks import alone, check_densities, check_nodes, nodes_of, outputs
from gradient_checks import ONCE
from numpyro.contrib.control_flow import cond, scan

from autovi.model.inputs import bind
from autovi.model.log_density import LogDensity
from autovi.model.targets import trace_program
from autovi.program.centring import coordinates_at

Y = np.array([1.8, 0.8, -0.3, 0.7, -0.1, 0.1, 1.8, 1.2])


def schools(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", 8):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def scaled_and_masked(y):
    """`handlers.scale` weighs the density and not the Jacobian; of the masked elements the likelihood feels all."""
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    with numpyro.plate("n", 8), numpyro.handlers.scale(scale=3.0):
        theta = numpyro.sample("theta", dist.Normal(0.5, tau).mask(np.arange(8) < 5))
        rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0 / tau))
        numpyro.sample("y", dist.Normal(theta, rate), obs=y)


def vectors(y):
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    walk = numpyro.sample("walk", dist.GaussianRandomWalk(scale, 8))
    covariance = scale**2 * jnp.exp(-0.5 * (jnp.arange(8.0)[:, None] - jnp.arange(8.0)) ** 2 / scale) + 0.1 * jnp.eye(8)
    f = numpyro.sample("f", dist.MultivariateNormal(walk, covariance))
    g = numpyro.sample("g", dist.StudentT(5.0, f, scale).to_event(1))
    numpyro.sample("y", dist.Normal(g, 1.0).to_event(1), obs=y)


def in_a_scan(y):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))

    def step(before, y):
        with numpyro.plate("series", 3):
            x = numpyro.sample("x", dist.Normal(before, scale))
            r = numpyro.sample("r", dist.Gamma(2.0, 1.0 / scale))
            v = numpyro.sample("v", dist.MultivariateNormal(x[:, None] * jnp.ones(2), scale * jnp.eye(2)))
            numpyro.sample("y", dist.Normal(x + v.sum(-1), r), obs=y)
        return x, None

    scan(step, jnp.zeros(3), jnp.asarray(y)[:, None] * jnp.ones(3))


def in_a_backward_scan(y):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))

    def step(after, y):
        x = numpyro.sample("x", dist.Normal(after, scale))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
        return x, None

    scan(step, 0.0, jnp.asarray(y), reverse=True)


def in_a_branch(y):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    one = lambda _: numpyro.sample("x", dist.Normal(1.0, scale))  # noqa: E731
    other = lambda _: numpyro.sample("x", dist.Normal(0.0, 2 * scale))  # noqa: E731
    x = cond(jnp.asarray(y[0] > 0), one, other, None)
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y[0])


MODELS = {
    schools: ["theta"],
    scaled_and_masked: ["theta", "rate"],
    vectors: ["walk", "f", "g"],
    in_a_scan: ["x", "r", "v"],
    in_a_backward_scan: ["x"],
    in_a_branch: ["x"],
}


@pytest.fixture
def double_precision():
    with jax.enable_x64(True):
        yield


def traced(model, noncentred=(), y=Y, **more):
    return trace_program(model, None, bind(model, {"y": y}, ()), noncentred=noncentred, **more)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("model", MODELS)
def test_densities_are_those_of_numpyro_at_the_values_with_the_jacobian(model):
    graph, inputs = traced(model, MODELS[model])
    # NumPyro takes the elements of a scan's site in the order in which its steps are executed.
    executed = lambda values: {n: x[::-1] if model is in_a_backward_scan and x.ndim else x for n, x in values.items()}  # noqa: E731
    found = check_densities(model, (Y,), graph, inputs, executed)
    standard = {o for o in found if o.startswith("standard:")}
    assert standard == {f"standard:{n}" for n in MODELS[model] if graph.sites.latents[n].support != "positive"}
    for output in standard:
        np.testing.assert_allclose(found[output], found[output.replace("standard:", "p:")], rtol=1e-9, err_msg=output)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("model", MODELS)
def test_the_nodes_of_values_are_found_again(model):
    """Whatever order the sites depend on one another in, steps of a scan on earlier ones too."""
    graph, inputs = traced(model, MODELS[model])
    check_nodes(graph, inputs)


@pytest.mark.parametrize("model", MODELS)
def test_where_nothing_is_given_sites_are_centred(model):
    """Values are the same to the last bit, densities to rounding."""
    made = {}
    for noncentred in ([], MODELS[model]):
        graph, inputs = traced(model, noncentred, Y.astype(np.float32))
        nodes = {n: x.astype(np.float32) for n, x in nodes_of(graph).items()}
        run = jax.jit(partial(outputs, alone(graph), inputs.traced(), {"param": {}}), compiler_options=ONCE)
        made[bool(noncentred)] = jax.tree.map(np.asarray, run(nodes))
    for output, value in made[False].items():
        if output.startswith("value:"):
            np.testing.assert_array_equal(made[True][output], value, err_msg=output)
    total = lambda found, kinds: sum(np.sum(x, dtype=float) for o, x in found.items() if o.startswith(kinds))  # noqa: E731
    instead = {o.replace("standard:", "p:"): x for o, x in made[True].items() if o.startswith("standard:")}
    expected = total(made[False], ("p:", "jacobian:"))
    assert total(made[True], ("p:", "jacobian:")) == pytest.approx(expected, rel=1e-6)
    assert total({**made[True], **instead}, ("p:", "jacobian:")) == pytest.approx(expected, rel=2e-6)


def test_scales_are_those_of_the_distributions():
    graph, inputs = traced(schools, ["theta"])
    values = {"mu": jnp.zeros(()), "tau": jnp.log(3.0), "theta": jnp.zeros(8)}
    found = coordinates_at(alone(graph), {"param": {}, "constants": {}}, inputs.traced(), values)
    np.testing.assert_allclose(found["theta"].log_scale(), np.log(3.0), rtol=1e-6)


def test_batches_have_the_coordinates_of_their_elements():
    def model(y):
        tau = numpyro.sample("tau", dist.HalfNormal(1.0))
        with numpyro.plate("n", 8, subsample_size=3) as index:
            theta = numpyro.sample("theta", dist.Normal(0.0, tau))
            numpyro.sample("y", dist.Normal(theta, 1.0), obs=jnp.asarray(y)[index])

    graph, inputs = traced(model, ["theta"])
    program, index = alone(graph), jnp.array([6, 0, 3])
    degrees = np.linspace(0.0, 1.0, 8)
    params = program.seen({"guide": {}, "param": {}, "constants": {"precision:theta": degrees}}, {"n": index})
    known = program.known(params, inputs.traced(), {"n": index})
    np.testing.assert_allclose(known[graph.graph.inputs["precision:theta"]], degrees[[6, 0, 3]], rtol=1e-6)
    np.testing.assert_array_equal(known[graph.graph.inputs["datum:theta"]], np.zeros(3))


def bounded(y):
    z = numpyro.sample("z", dist.Beta(2.0, 2.0))
    numpyro.sample("y", dist.Normal(z, 1.0).expand([8]).to_event(1), obs=y)


@pytest.mark.parametrize(
    ("model", "sites", "said"),
    [
        (schools, ["nu"], r"noncentred: no latent site is called 'nu'; the latent sites are \['mu', 'tau', 'theta'\]"),
        (schools, ["y"], "noncentred: no latent site is called 'y'"),
        (bounded, ["z"], "site 'z': it has no partly non-centred coordinates: expected one of .*Normal.*, got Beta"),
    ],
)
def test_sites_that_cannot_be(model, sites, said):
    with pytest.raises(ValueError, match=said):
        traced(model, sites)


def test_guide_functions_and_densities_have_no_such_coordinates():
    inputs = bind(schools, {"y": Y}, ())
    with pytest.raises(ValueError, match="noncentred: expected a model without a guide function"):
        trace_program(schools, schools, inputs, noncentred=["theta"])
    with pytest.raises(ValueError, match="noncentred: a LogDensity does not say"):
        trace_program(LogDensity(lambda p: p["a"], {"a": 0.0}), None, bind(lambda: None, None, ()), noncentred=["a"])
