"""Proposals wider than q: their density, and what draws corrected by them are worth."""

from typing import Any

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats
from scipy.special import logsumexp

import autovi
from autovi.result.evidence import Evidence
from autovi.result.resampling import Chosen, is_better, wants_wider
from autovi.run.drawing import EVERY, Keys, draws_of, sequence_of_keys
from autovi.run.weights import Weights
from autovi.run.widening import can_widen, of_noise, widths

FREE = {"families": {"*": "normal"}, "estimators": {"*": "sticking"}, "progress_bar": False}


def heavy() -> None:
    """Of three degrees of freedom: a variance of 3, and tails that no normal has."""
    numpyro.sample("t", dist.StudentT(3.0, 0.0, 1.0))


def mixture(x: jax.Array) -> None:
    loc = numpyro.sample("loc", dist.StudentT(3.0, 0.0, 1.0))
    with numpyro.plate("rows", len(x)):
        c = numpyro.sample("c", dist.Bernoulli(0.3))
        numpyro.sample("x", dist.Normal(loc + 2.0 * c, 10.0), obs=x)


def fitted(model: Any, data: Any = None, **options: Any) -> autovi.Fit:
    return autovi.fit(model, data, **{"num_steps": 1500, **FREE, **options})


@pytest.fixture(scope="module")
def tails() -> autovi.Fit:
    return fitted(heavy)


def test_widths_overlap_in_any_dimension():
    for size in (1, 8, 500):
        factors = widths(size)
        assert factors[0] == 1.0 and np.all(np.diff(factors) > 0)
        # Neighbours' log lengths are 1.2 of their standard deviations apart.
        np.testing.assert_allclose(np.diff(np.log(factors)) * np.sqrt(2 * size), 1.2, rtol=1e-6)


def test_the_density_of_wider_draws_is_that_of_the_mixture():
    def model() -> None:
        with numpyro.plate("three", 3):
            numpyro.sample("z", dist.Normal(1.0, 2.0))

    fit = fitted(model, num_steps=300)
    keys = sequence_of_keys(jax.random.key(1), 0, 8000)
    own, wide = (
        draws_of(fit.engine, fit.raw_params, fit.arrays, keys._replace(widened=w), EVERY) for w in (False, True)
    )
    np.testing.assert_array_equal(own.log_proposal, own.log_q)
    loc, scale = fit.params["z.loc"], np.exp(fit.params["z.log_scale"])
    by_width = [stats.norm(loc, scale * s).logpdf(wide.values["z"]).sum(axis=1) for s in widths(3)]
    np.testing.assert_allclose(wide.log_q, by_width[0], atol=1e-3)
    np.testing.assert_allclose(wide.log_proposal, logsumexp(by_width, axis=0) - np.log(4), atol=1e-3)
    # Under the mixture the mean of q / m is one, and the variance is the mean of those of its widths.
    ratio = np.exp(wide.log_q - wide.log_proposal)
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / ratio.size**0.5 < 0.1
    z = (wide.values["z"] - loc) / scale
    np.testing.assert_allclose(np.square(z).mean(), np.square(widths(3)).mean(), rtol=0.1)  # 6 standard errors


def test_tails_that_a_normal_lacks_come_back(tails):
    """What q's own draws take for equal weights: the word was `good`, and the outer quantiles were a third short."""
    assert tails.efficiency > 0.95 and tails.khat > 0.7
    assert tails.chosen is tails.wider and "wider than q" in tails.drawn
    assert tails.wider.divergence > 0.1
    assert tails.verdict.word == "usable" and "wider" in tails.verdict.sentence
    n, right = 4000, stats.t(3)
    t = tails.sample(n)["t"]
    for share in (0.01, 0.05, 0.5, 0.95, 0.99):
        # Their proposals stand for at least twice as many independent draws.
        assert abs((t < right.ppf(share)).mean() - share) < 5 * (share * (1 - share) / n) ** 0.5
    plain = tails.sample(n, resample=False)["t"]
    assert (np.abs(plain) > right.ppf(0.99)).mean() < 0.002


def test_without_being_asked_the_same():
    fit = autovi.fit(heavy, progress_bar=False)
    assert fit.plan.blocks[0].estimator.name == "explicit" and fit.chosen is fit.wider
    np.testing.assert_allclose(np.quantile(fit.sample(4000)["t"], [0.05, 0.95]), stats.t(3).ppf([0.05, 0.95]), atol=0.3)


def test_a_normal_posterior_stays_good():
    def model(y: jax.Array) -> None:
        loc = numpyro.sample("loc", dist.Normal(0.0, 3.0))
        numpyro.sample("y", dist.Normal(loc, 1.0), obs=y)

    for seed in range(3):
        fit = autovi.fit(model, {"y": np.float32(seed)}, rng_key=seed, progress_bar=False)
        assert fit.verdict.word == "good" and not fit.chosen


def test_probabilities_belong_to_the_draws():
    x = np.array([0.5, 1.0, 4.0], np.float32)
    fit = fitted(mixture, {"x": x}, families={"loc": "normal"}, estimators={"loc": "sticking"})
    assert fit.chosen is fit.wider
    loc = fit.draws.values["loc"][:, None]
    odds = 0.3 / 0.7 * np.exp(stats.norm(loc + 2, 10).logpdf(x) - stats.norm(loc, 10).logpdf(x))
    np.testing.assert_allclose(fit.marginals()["c"][:, 1], (odds / (1 + odds)).mean(axis=0), rtol=1e-3)


def test_sites_under_a_mask_are_not_drawn_wider():
    def model(mask: jax.Array) -> None:
        with numpyro.plate("two", 2):
            z = numpyro.sample("z", dist.StudentT(3.0, 0.0, 1.0).mask(mask))
            numpyro.sample("y", dist.Normal(z, 3.0).mask(mask), obs=0.5)

    fit = fitted(model, {"mask": np.array([True, False])}, families=None, estimators=None, guide="mean_field")
    assert not can_widen(fit.engine.full) and fit.wider is None


def test_discrete_sites_in_the_guide_are_drawn_as_they_are():
    def model() -> None:
        k = numpyro.sample("k", dist.Poisson(3.0))
        numpyro.sample("t", dist.StudentT(3.0, 0.1 * k, 1.0))

    fit = autovi.fit(model, num_steps=400, progress_bar=False)
    names = {b.name: b.estimator.of_normal_noise for b in of_noise(fit.engine.full).plan.blocks}
    assert names == {"k": False, "t": True}


# --- the rule --------------------------------------------------------------------------------------------------------


def chosen(khat: float, divergence: float = 0.2, effective: int = 500) -> Chosen:
    log = np.full(effective, -np.log(effective))
    return Chosen(Keys(np.zeros((1, 2), np.uint32), "fry", True), 4000, Weights(log, khat, ""), 0, divergence)


@pytest.mark.parametrize(
    ("wider", "own", "efficiency", "better"),
    [
        (chosen(0.3), None, 0.5, True),  # those of q cannot be used
        (chosen(0.3), chosen(0.6), 0.5, True),
        (chosen(0.3), chosen(0.8), 0.5, True),
        (chosen(0.65), chosen(0.6), 0.5, False),
        (chosen(0.65), chosen(0.8), 0.5, True),
        (chosen(0.75), chosen(0.8), 0.5, False),
        (chosen(0.3, effective=50), None, 0.5, False),
        (chosen(0.3, divergence=0.01), None, 0.99, False),  # q is the posterior, and k-hat is noise
        (chosen(0.3, divergence=0.01), None, 0.9, True),
        (chosen(0.3, divergence=0.2), None, 0.99, True),
    ],
)
def test_which_draws_are_taken(wider, own, efficiency, better):
    assert is_better(wider, own, efficiency) is better


def test_when_wider_ones_are_weighed():
    def evidence(log_weights: np.ndarray, weighed: int = 1000) -> Evidence:
        return Evidence(1000, weighed, lambda k: (log_weights[:k], np.zeros(k)), None, "")  # type: ignore[arg-type]

    noise = np.random.default_rng(5).normal(size=1000)
    heavy, light = evidence(np.where(noise > 0, 2.0, 0.1) * noise), evidence(0.1 * noise)
    assert heavy.khat > 0.5 > light.khat
    assert wants_wider(heavy, None, 1000, 100) and not wants_wider(light, None, 1000, 100)
    assert not wants_wider(heavy, chosen(0.2), 1000, 100) and wants_wider(light, chosen(0.6), 1000, 100)
    assert not wants_wider(heavy, None, 1000, 10_000_000)  # it would take long
    assert not wants_wider(evidence(heavy.log_weights, 500), None, 1000, 100)
    assert not wants_wider(evidence(np.full(1000, np.nan)), None, 1000, 100)
