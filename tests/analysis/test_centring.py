"""Which sites could be in partly non-centred coordinates, and why."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

from autovi.analysis.centring import candidates
from autovi.analysis.structure import analyse_structure
from autovi.model.inputs import bind
from autovi.model.log_density import LogDensity
from autovi.model.targets import trace_program

Y = np.linspace(-1.0, 2.0, 8).astype(np.float32)


def schools(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", 8):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, 10.0), obs=y)


def slopes(y):
    """Intercepts around a line, slopes around a common one with a scale that is known, scales around a common one."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    rate = numpyro.sample("rate", dist.Exponential(1.0))
    with numpyro.plate("groups", 8):
        alpha = numpyro.sample("alpha", dist.Normal(a + b * jnp.arange(8.0), 2.0 * rate))
        beta = numpyro.sample("beta", dist.Normal(b, 1.0))
        noise = numpyro.sample("noise", dist.Gamma(2.0, rate))
        numpyro.sample("y", dist.Normal(alpha + beta, noise), obs=y)


def horseshoe(y):
    tau = numpyro.sample("tau", dist.HalfCauchy(1.0))
    local = numpyro.sample("local", dist.HalfCauchy(1.0).expand([8]).to_event(1))
    beta = numpyro.sample("beta", dist.Normal(0.0, tau * local).to_event(1))
    numpyro.sample("y", dist.Normal(beta, 1.0).to_event(1), obs=y)


def walk(y):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))

    def step(before, y):
        x = numpyro.sample("x", dist.Normal(before, scale))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
        return x, None

    scan(step, 0.0, jnp.asarray(y))


def process(y):
    length = numpyro.sample("length", dist.LogNormal(0.0, 1.0))
    height = numpyro.sample("height", dist.HalfNormal(1.0))
    at = jnp.arange(8.0)
    covariance = height**2 * jnp.exp(-0.5 * ((at[:, None] - at) / length) ** 2) + 1e-4 * jnp.eye(8)
    f = numpyro.sample("f", dist.MultivariateNormal(jnp.zeros(8), covariance))
    numpyro.sample("y", dist.Normal(f, 1.0).to_event(1), obs=y)


def regression(y):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(a + b[0] * jnp.arange(8.0) + b[1], noise).to_event(1), obs=y)


def mixture(y):
    """What follows a discrete site would jump with it."""
    centre = numpyro.sample("centre", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    with numpyro.plate("n", 8):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        x = numpyro.sample("x", dist.Normal(centre[z], 1.0))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def bounded(y):
    """A support that is no whole line, and a scale that is a parameter of a distribution without one."""
    a = numpyro.sample("a", dist.Exponential(1.0))
    z = numpyro.sample("z", dist.Beta(a, 2.0).expand([8]).to_event(1))
    numpyro.sample("y", dist.Normal(z, 1.0).to_event(1), obs=y)


def found(model):
    traced, _ = trace_program(model, None, bind(model, {"y": Y}, ()))
    return candidates(traced, analyse_structure(traced))


EXPECTED = {
    schools: {"theta": ("both", "its scale depends on 'tau' and its location on 'mu'")},
    slopes: {
        "alpha": ("both", "its scale depends on 'rate' and its location on 'a' and 'b'"),
        "beta": ("location", "its location depends on 'b'"),
        "noise": ("scale", "its scale depends on 'rate'"),
    },
    horseshoe: {"beta": ("scale", "its scale depends on 'tau' and 'local'")},
    walk: {"x": ("both", "its scale depends on 'scale' and its location on its own earlier values")},
    process: {"f": ("scale", "its scale depends on 'length' and 'height'")},
    regression: {},
    mixture: {},
    bounded: {},
}


@pytest.mark.parametrize("model", EXPECTED)
def test_candidates(model):
    told = {name: (moves.what, moves.sentence) for name, moves in found(model).items()}
    start = "in partly non-centred coordinates, since"
    assert told == {name: (what, f"{start} {why}") for name, (what, why) in EXPECTED[model].items()}


def test_on_which_sites_they_depend():
    moves = found(slopes)["alpha"]
    assert (moves.location, moves.scale) == (("a", "b"), ("rate",))


def test_one_site_that_moves_both():
    def model(y):
        a = numpyro.sample("a", dist.LogNormal(0.0, 1.0))
        x = numpyro.sample("x", dist.Normal(a, a).expand([8]).to_event(1))
        numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)

    assert found(model)["x"].sentence.endswith("since its location and scale depend on 'a'")


def test_a_log_density_has_none():
    target = LogDensity(lambda p: -(p["a"] ** 2), {"a": 0.0})
    traced, _ = trace_program(target, None, bind(target, {}, ()))
    assert candidates(traced, analyse_structure(traced)) == {}
