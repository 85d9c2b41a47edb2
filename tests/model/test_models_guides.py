"""Guides that users write and NumPyro's AutoGuides: terms that add up, and fits with known answers."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from model_checks import check_terms
from numpyro import handlers
from numpyro.infer import autoguide

import autovi

Y = np.array([0.5, -1.2, 2.0, 0.3], np.float32)


def model(y):
    m = numpyro.sample("m", dist.Normal(0.0, 2.0))
    s = numpyro.sample("s", dist.LogNormal(0.0, 0.5))
    with numpyro.plate("n", 4):
        numpyro.sample("y", dist.Normal(m, s), obs=y)


def with_discrete(y):
    m = numpyro.sample("m", dist.Normal(0.0, 2.0))
    z = numpyro.sample("z", dist.Bernoulli(0.3))
    with numpyro.plate("n", 4):
        numpyro.sample("y", dist.Normal(m + z, 1.0), obs=y)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        autoguide.AutoNormal,
        autoguide.AutoMultivariateNormal,
        autoguide.AutoLowRankMultivariateNormal,
        autoguide.AutoDelta,
        autoguide.AutoIAFNormal,
    ],
)
def test_terms_of_autoguides(kind):
    # A flow's inverse, which the sum by hand needs, is exact to a few digits less.
    check_terms(model, {"y": Y}, guide=kind(model), rtol=1e-4 if kind is autoguide.AutoIAFNormal else 2e-5)


def discrete_part(y):
    numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("logit", 0.3)))


def delta_and_normal(y):
    numpyro.sample("m", dist.Normal(numpyro.param("loc", 0.1), jnp.exp(numpyro.param("log_scale", -1.0))))
    numpyro.sample("s", dist.Delta(numpyro.param("point", 1.2, constraint=dist.constraints.positive)))


def through_an_auxiliary(y):
    """m = exp(-1) u + 0.2 for a standard normal u: a Delta carries the Jacobian."""
    u = numpyro.sample("u", dist.Normal(numpyro.param("loc", 0.1), 1.0), infer={"is_auxiliary": True})
    numpyro.sample("m", dist.Delta(jnp.exp(-1.0) * u + 0.2, log_density=1.0))
    numpyro.sample("s", dist.LogNormal(numpyro.param("log_s", 0.1) + 0.3 * u, 0.4))


def folded(y):
    """NumPyro's folded log density takes no intermediates, though its sampler gives them."""
    numpyro.sample("m", dist.Normal(numpyro.param("loc", 0.1), 0.5))
    base = dist.Normal(numpyro.param("log_s", 0.1) * jnp.ones(1), 0.4)
    numpyro.sample("s", dist.FoldedDistribution(base).to_event(1).mask(True))


def of_vector(y):
    """`model` with s a vector of one element, as `folded` has it."""
    m = numpyro.sample("m", dist.Normal(0.0, 2.0))
    s = numpyro.sample("s", dist.LogNormal(jnp.zeros(1), 0.5).to_event(1))
    with numpyro.plate("n", 4):
        numpyro.sample("y", dist.Normal(m, s[0]), obs=y)


@pytest.mark.parametrize("guide", [delta_and_normal, through_an_auxiliary])
def test_terms_of_guide_functions(guide):
    check_terms(model, {"y": Y}, guide=guide)


def test_terms_of_a_folded_guide():
    check_terms(of_vector, {"y": Y}, guide=folded)


@pytest.mark.slow
def test_a_truncated_guide_far_in_the_tail_of_its_base():
    """Where the kept mass is e^-8 NumPyro's sampler gives some infinite draws; the target is in the family."""

    def target():
        numpyro.sample("z", dist.TruncatedDistribution(dist.Laplace(-8.0, 1.0), low=0.0))

    def guide():
        scale = numpyro.param("scale", 2.0, constraint=dist.constraints.positive)
        numpyro.sample("z", dist.TruncatedDistribution(dist.Laplace(-8.0, scale), low=0.0))

    fit = autovi.fit(target, guide=guide, num_steps=1000, num_particles=64, progress_bar=False)
    assert "non-finite" not in fit.message
    assert fit.plan["z"].estimator == "explicit"
    np.testing.assert_allclose(fit.params["scale"], 1.0, atol=0.05)


def test_point_estimate_beside_a_normal():
    """Delta at s: the ELBO's maximum over (loc, scale, point) solves two equations, iterated here."""
    s, mean, var = 1.0, 0.0, 1.0
    grid = np.linspace(0.3, 4.0, 20_001)
    for _ in range(200):
        var = 1 / (1 / 4 + 4 / s**2)
        mean = var * Y.sum() / s**2
        squares = ((Y - mean) ** 2).sum() + 4 * var
        log_prior = -np.log(grid) - 0.5 * (np.log(grid) / 0.5) ** 2
        s = grid[np.argmax(log_prior - 4 * np.log(grid) - squares / (2 * grid**2))]
    fit = autovi.fit(model, {"y": Y}, guide=delta_and_normal, num_steps=3000, num_particles=16, progress_bar=False)
    np.testing.assert_allclose(fit.params["point"], s, rtol=0.02)
    np.testing.assert_allclose(fit.params["loc"], mean, atol=0.03)
    np.testing.assert_allclose(np.exp(fit.params["log_scale"]), np.sqrt(var), rtol=0.03)


@pytest.mark.slow
def test_autoguide_beside_a_discrete_part():
    """AutoNormal for m and a guide function for z. Mean field by coordinate ascent.

    In a function of both: NumPyro's AutoGuideList enumerates the discrete sites of its own model, for which it needs
    another package.
    """
    continuous = autoguide.AutoNormal(handlers.block(with_discrete, hide=["z"]))

    def guide(y):
        continuous(y)
        discrete_part(y)

    fit = autovi.fit(with_discrete, {"y": Y}, guide=guide, num_steps=3000, num_particles=16, progress_bar=False)
    assert fit.plan["z"].estimator == "enumerate"
    precision = 4 + 1 / 4
    r = 0.3
    for _ in range(500):
        mean = (Y.sum() - 4 * r) / precision
        r = 1 / (1 + np.exp(-(np.log(0.3 / 0.7) + (Y - mean).sum() - 2.0)))
    draws = fit.sample(20_000)
    np.testing.assert_allclose(draws["z"].mean(), r, atol=0.02)
    np.testing.assert_allclose(draws["m"].mean(), mean, atol=0.03)
    np.testing.assert_allclose(draws["m"].std(), precision**-0.5, rtol=0.04)


def test_site_left_out_of_the_guide_is_summed_out():
    """z leaves, and the terms are those of one of its values."""

    def without_z(y):
        numpyro.sample("m", dist.Normal(numpyro.param("loc", 0.2), 0.5))

    engine = check_terms(with_discrete, {"y": Y}, guide=without_z)
    assert engine.program.plan["z"].estimator == "marginalize"


def test_list_of_autoguides():
    guide = autoguide.AutoGuideList(model)
    guide.append(autoguide.AutoNormal(handlers.block(model, hide=["s"])))
    guide.append(autoguide.AutoDelta(handlers.block(model, hide=["m"])))
    check_terms(model, {"y": Y}, guide=guide)
