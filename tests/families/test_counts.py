"""Counts without a bound: the family that a prior gets, densities behind gates, the sampler of positive Poissons."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import autovi
from autovi.distributions.densities import log_density
from autovi.distributions.gates import HurdlePoissonLogits
from autovi.preparation import Options, prepare


def model_of(prior):
    def model(y):
        z = numpyro.sample("z", prior)
        numpyro.sample("y", dist.Normal(z, 10.0), obs=y)

    return model


@pytest.mark.parametrize(
    ("prior", "family"),
    [
        (dist.Poisson(4.0), "poisson"),
        (dist.Geometric(0.2), "negative_binomial"),
        (dist.NegativeBinomial2(4.0, 1.0), "negative_binomial"),
        (dist.GammaPoisson(4.0, 1.0), "negative_binomial"),
        (dist.ZeroInflatedPoisson(0.3, 4.0), "zero_inflated_poisson"),
        (dist.ZeroInflatedDistribution(dist.NegativeBinomial2(4.0, 1.0), gate_logits=0.3), "zero_inflated_poisson"),
        (dist.HurdlePoisson(0.3, 4.0), "hurdle_poisson"),
    ],
)
def test_the_family_follows_the_prior(prior, family):
    choice = autovi.plan(model_of(prior), {"y": 7.0})["z"]
    assert (choice.family, choice.estimator) == (family, "score")
    with pytest.raises(ValueError, match="its support is real, not the non-negative integers"):
        autovi.plan(model_of(dist.Normal(0.0, 1.0)), {"y": 7.0}, families={"z": family})


def test_the_gate_of_a_family_may_be_enumerated():
    model, options = model_of(dist.ZeroInflatedPoisson(0.3, 4.0)), {"estimators": {"z": "enumerate_gate"}}
    assert autovi.plan(model, {"y": 7.0}, **options)["z"].family == "zero_inflated_poisson"


POSITIVE = {
    "gamma": dist.HurdleGamma(0.3, 2.0, 1.0),
    "log-normal": dist.HurdleLogNormal(0.3, 0.0, 1.0),
    "another": dist.HurdleDistribution(dist.Weibull(1.0, 2.0), gate_logits=0.3),
}


@pytest.mark.parametrize("name", POSITIVE)
def test_a_positive_site_with_zeros_of_its_own_has_a_gate(name):
    model = model_of(POSITIVE[name])
    choice = autovi.plan(model, {"y": 7.0})["z"]
    assert (choice.family, choice.estimator) == ("hurdle_gamma", "enumerate_gate")
    with pytest.raises(ValueError, match="site 'z'.*one of its values has a probability of its own.*'hurdle_gamma'"):
        autovi.plan(model, {"y": 7.0}, families={"z": "gamma"})


def test_others_have_no_gate_or_no_family():
    with pytest.raises(ValueError, match="site 'z'.*its prior gives zero no probability of its own"):
        autovi.plan(model_of(dist.Gamma(2.0, 1.0)), {"y": 7.0}, families={"z": "hurdle_gamma"})
    with pytest.raises(ValueError, match="site 'z'.*valid: none"):
        autovi.plan(model_of(dist.HurdleDistribution(dist.Normal(0.0, 1.0), gate=0.3)), {"y": 7.0})


def test_numbers_of_an_event_are_scored():
    """One cost for all of them: the gate of each cannot be gone through by itself."""

    def model(y):
        z = numpyro.sample("z", dist.HurdleGamma(0.3, 2.0, jnp.ones(3)).to_event(1))
        numpyro.sample("y", dist.Normal(z.sum(), 1.0), obs=y)

    assert autovi.plan(model, {"y": 7.0})["z"].estimator == "score"
    with pytest.raises(ValueError, match="site 'z'.*those of an event share one; put the site in a plate"):
        autovi.plan(model, {"y": 7.0}, estimators={"z": "enumerate_gate"})


@pytest.mark.slow
def test_a_fit_behind_a_hurdle_comes_near_the_evidence():
    """Three rains of which some are none: the evidence, and the probability that each is none, by quadrature."""

    def model(y):
        with numpyro.plate("n", 3):
            z = numpyro.sample("z", dist.HurdleGamma(0.4, 2.0, 1.0))
            numpyro.sample("y", dist.Normal(z, 0.5), obs=y)

    seen = np.array([0.2, 1.0, 3.0])
    z = np.linspace(0.0, 30.0, 60_001)[:, None]
    none = 0.4 * stats.norm(0, 0.5).pdf(seen)
    some = 0.6 * np.sum(stats.gamma(2.0).pdf(z) * stats.norm(z, 0.5).pdf(seen), 0) * 30.0 / 60_000
    fit = autovi.fit(model, {"y": seen}, num_steps=1500, progress_bar=False)
    evidence = np.log(none + some).sum()
    assert evidence - 0.1 < fit.elbo < evidence + 5 * fit.elbo_se
    draws = fit.sample(4000, resample=False)["z"]
    np.testing.assert_allclose((draws == 0).mean(0), none / (none + some), atol=0.04)


@pytest.mark.parametrize("value", [0.0, 0.7, 40.0])
def test_densities_of_positive_numbers_behind_gates(value):
    fns = [
        (dist.HurdleGamma(0.3, 2.0, 1.5), stats.gamma(2.0, scale=1 / 1.5)),
        (dist.HurdleLogNormal(0.3, 0.2, 0.7), stats.lognorm(0.7, scale=np.exp(0.2))),
        (dist.HurdleLogits(dist.Gamma(2.0, 1.5), jnp.log(3.0 / 7)), stats.gamma(2.0, scale=1 / 1.5)),
    ]
    for fn, behind in fns:
        expected = np.log(0.3) if value == 0 else np.log(0.7) + behind.logpdf(value)
        np.testing.assert_allclose(log_density(fn, value), expected, rtol=2e-6)


@pytest.mark.parametrize("estimator", ["score", "enumerate_gate"])
def test_a_fit_comes_near_the_evidence(estimator):
    """By summation the best Poisson is .42 nat below it, the best Poisson with zeros of its own .0005."""
    counts = np.arange(60)
    prior = 0.6 * stats.poisson(6.0).pmf(counts) + 0.4 * (counts == 0)
    evidence = np.log(np.sum(prior * stats.norm(counts, 10.0).pdf(7.0)))
    model = model_of(dist.ZeroInflatedPoisson(0.4, 6.0))
    options = {"estimators": {"z": estimator}, "num_steps": 1500, "progress_bar": False}
    fit = autovi.fit(model, {"y": 7.0}, **options)
    assert evidence - 0.05 < fit.elbo < evidence + 0.05


@pytest.mark.parametrize("estimator", ["score", "measure_valued"])
def test_geometrics_of_a_guide_are_whole_numbers(estimator):
    """NumPyro's draw floats, which the model would take for values in between. The gradient by summation is 2.391."""

    def model():
        z = numpyro.sample("z", dist.Poisson(3.0))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=2.0)

    at = {"logit": jnp.array(-0.5)}
    guide = lambda: numpyro.sample("z", dist.Geometric(logits=numpyro.param("logit", at["logit"])))  # noqa: E731
    engine, inputs = prepare(model, None, Options(guide=guide, estimators={"z": estimator}, num_particles=2))
    own = engine.estimator_params()
    grad = jax.grad(lambda p, key: engine.estimate({"guide": {}, "param": p}, own, inputs.traced(), key)[0])
    found = -np.asarray(jax.jit(jax.vmap(lambda k: grad(at, k)["logit"]))(jax.random.split(jax.random.key(0), 20_000)))
    assert abs(found.mean() - 2.3914) < 5 * found.std() / len(found) ** 0.5


@pytest.mark.parametrize("rate", [1e-3, 0.7, 8.0])
def test_positive_poissons_are_drawn_without_rejection(rate):
    draws = np.asarray(HurdlePoissonLogits(jnp.asarray(rate), jnp.asarray(-30.0)).sample(jax.random.key(0), (100_000,)))
    found = np.bincount(draws, minlength=40)[:40] / len(draws)
    expected = stats.poisson(rate).pmf(np.arange(40)) / -np.expm1(-rate)
    expected[0] = 0.0
    # Dvoretzky, Kiefer and Wolfowitz: wrong once in 1e8.
    assert np.abs(np.cumsum(found - expected)).max() < np.sqrt(np.log(2e8) / (2 * len(draws)))


@pytest.mark.parametrize("count", [0, 1, 7, 1_000_000])
@pytest.mark.parametrize("gate", [1e-6, 0.3, 0.999])
def test_densities_behind_gates(count, gate):
    """In single precision against SciPy's in double, for counts whose factorial has 5 million digits too."""
    rate = max(count, 0.5)
    base = stats.poisson(rate).logpmf(count)
    logits = np.log(gate) - np.log1p(-gate)
    inflated = np.logaddexp(np.log(gate), np.log1p(-gate) + base) if count == 0 else np.log1p(-gate) + base
    behind = np.log(gate) if count == 0 else np.log1p(-gate) + base - np.log(-np.expm1(-rate))
    for fn in (
        dist.ZeroInflatedPoisson(gate, rate),
        dist.ZeroInflatedDistribution(dist.Poisson(rate), gate_logits=logits),
    ):
        np.testing.assert_allclose(log_density(fn, count), inflated, rtol=3e-5, atol=1e-6)
    for fn in (dist.HurdlePoisson(gate, rate), HurdlePoissonLogits(jnp.asarray(rate), jnp.asarray(logits))):
        np.testing.assert_allclose(log_density(fn, count), behind, rtol=3e-5, atol=1e-6)
