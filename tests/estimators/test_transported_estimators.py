"""RSVI and G-REP as estimators: where they are taken and refused, their baselines, and the correction in the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import assert_unbiased, batched, flat
from scipy.special import gammaln

import autovi
from autovi.estimators import RSVI, GRep
from autovi.preparation import Options, prepare
from oracles.base import declare, expected_gamma, expected_normal, gamma_moments


def one_site(fn):
    def model():
        z = numpyro.sample("z", fn)
        numpyro.sample("y", dist.Normal(jnp.sum(z) * 1.0, 1.0), obs=0.5)

    return model


@pytest.mark.parametrize(
    "fn", [dist.Gamma(2.0, 1.0), dist.Beta(2.0, 1.0), dist.Dirichlet(jnp.ones(3))], ids=lambda fn: type(fn).__name__
)
@pytest.mark.parametrize("name", ["rsvi", "g_rep"])
def test_taken_where_asked_for(fn, name):
    choice = autovi.plan(one_site(fn), estimators={"z": name})["z"]
    assert (choice.estimator, choice.baseline) == (name, "leave_one_out")
    own = autovi.plan(one_site(fn), estimators={"z": name})["z"].family
    assert autovi.plan(one_site(fn), families={"z": own})["z"].estimator == "implicit"


def gamma_guide():
    a = numpyro.param("a", jnp.full(3, 2.0), constraint=dist.constraints.positive)
    numpyro.sample("z", dist.Gamma(a, 1.0).to_event(1).mask(True))


def test_taken_in_a_guide_function_through_wrappers():
    model = one_site(dist.Gamma(jnp.ones(3), 1.0).to_event(1))
    assert autovi.plan(model, guide=gamma_guide, estimators={"z": "g_rep"})["z"].estimator == "g_rep"


def jump():
    z = numpyro.sample("z", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.Normal(jnp.where(z > 1.0, 3.0, 0.0), 1.0), obs=0.5)


def chi2_guide():
    numpyro.sample("z", dist.Chi2(numpyro.param("df", 3.0, constraint=dist.constraints.positive)))


@pytest.mark.parametrize("name", ["rsvi", "g_rep"])
@pytest.mark.parametrize(
    ("model", "guide", "said"),
    [
        (one_site(dist.Normal()), None, "it is for Gamma, Beta, Dirichlet only; valid: .*'explicit'"),
        (one_site(dist.Bernoulli(0.5)), None, "its values are discrete"),
        (jump, None, "the cost jumps in it .*; valid: .*'score'"),
        (one_site(dist.HalfNormal()), chi2_guide, "it is for Gamma, Beta, Dirichlet only; valid: .*'implicit'"),
    ],
    ids=["Normal", "Bernoulli", "jump", "Chi2"],
)
def test_refused_where_wrong(model, guide, said, name):
    options = {} if guide is None else {"guide": guide}
    with pytest.raises(ValueError, match=f"site 'z'.*'{name}' would be wrong, since {said}"):
        autovi.plan(model, estimators={"z": name}, **options)


@pytest.mark.parametrize("augmentation", [0, -1, 1.5, True])
def test_an_augmentation_below_one_is_refused(augmentation):
    with pytest.raises(ValueError, match="site 'z': estimator 'rsvi' does not take.*augmentation"):
        asked = {"z": {"estimator": "rsvi", "augmentation": augmentation}}
        autovi.plan(one_site(dist.Gamma(2.0, 1.0)), estimators=asked)


def test_a_baseline_needs_its_particles():
    with pytest.raises(ValueError, match="num_particles: 1 is too few for site 'z'.*leave_one_out"):
        autovi.plan(one_site(dist.Gamma(2.0, 1.0)), estimators={"z": "rsvi"}, num_particles=1)
    with pytest.raises(ValueError, match="baseline: unknown name 'median'"):
        GRep("median")


POINT = {"log_a": jnp.log(0.7), "log_b": jnp.log(0.4)}
SEEN = np.array([0.4, 3.0])


def model_of_two(y):
    z = numpyro.sample("z", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.Normal(z, 0.7).expand([2]).to_event(1), obs=y)


def guide_of_two(y):
    p = declare(POINT)
    numpyro.sample("z", dist.Gamma(jnp.exp(p["log_a"]), jnp.exp(p["log_b"])))


def elbo_of_two(p):
    a, b = jnp.exp(p["log_a"]), jnp.exp(p["log_b"])
    mean_log, mean = gamma_moments(a, b)
    likelihood = expected_normal(SEEN, mean, 0.7, a / b**2).sum()
    return likelihood + expected_gamma(2.0, 1.0, mean_log, mean) - expected_gamma(a, b, mean_log, mean)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [RSVI("moving_average", augmentation=1), GRep("none")], ids=lambda e: e.name)
def test_the_correction_is_in_the_loss(estimator):
    """With a square of z in the cost and a shape of 0.7 it is a large part of the gradient. The baselines that the
    conformance suite does not use, one of which has seen past costs."""
    options = Options(guide=guide_of_two, estimators={"z": estimator}, num_particles=1)
    engine, inputs = prepare(model_of_two, {"y": SEEN}, options)
    own = jax.tree.map(lambda b: b - 3.0, engine.estimator_params())
    assert len(jax.tree.leaves(own)) == (estimator.baseline == "moving_average")

    def gradient(params, key):
        loss = lambda p: engine.estimate({"guide": {}, "param": p}, own, inputs.traced(), key)[0]  # noqa: E731
        return jax.tree.map(jnp.negative, jax.grad(loss)(params))

    assert_unbiased(batched(gradient), (POINT,), flat(jax.grad(elbo_of_two)(POINT)))


@pytest.mark.slow
def test_a_fit_finds_the_conjugate_posterior():
    """Gamma(2, 1) and the counts 3, 5, 2, 4: the posterior is Gamma(16, 5), where the ELBO is the evidence."""

    def model(y):
        rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
        with numpyro.plate("n", 4):
            numpyro.sample("y", dist.Poisson(rate), obs=y)

    y = np.array([3, 5, 2, 4])
    fit = autovi.fit(model, {"y": y}, estimators={"rate": "rsvi"}, num_steps=2000, progress_bar=False)
    evidence = gammaln(16) - gammaln(2) - 16 * np.log(5) - gammaln(y + 1).sum()
    assert fit.elbo == pytest.approx(evidence, abs=0.01)
