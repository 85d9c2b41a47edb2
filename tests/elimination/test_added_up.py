"""Sites of many elements that are felt by their sum: evidence, gradients, probabilities and draws against sums over all
configurations, and over counts where all elements are alike."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from scipy.special import logsumexp
from scipy.stats import binom, norm

import autovi
from autovi.elimination.closed import added_up
from elimination.at_values import at_values

X = np.array([0.4, -1.2, 0.7, 1.5, 0.1])


def total(x):
    """Chances and observations of their own, and a sum that is observed twice."""
    a = numpyro.sample("a", dist.Normal(0, 1))
    with numpyro.plate("n", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(jax.nn.sigmoid(a + x)))
        numpyro.sample("x", dist.Normal(0.5 * z, 1.0), obs=x)
    numpyro.sample("y", dist.Normal(z.sum() - a, 1.0), obs=2.3)
    numpyro.sample("w", dist.Poisson(1.0 + jnp.sum(z)), obs=3)


def groups(x):
    """A sum in each of two groups, of elements with three values."""
    a = numpyro.sample("a", dist.Normal(0, 1))
    with numpyro.plate("group", 2, dim=-1):
        with numpyro.plate("n", 3, dim=-2):
            z = numpyro.sample("z", dist.Categorical(logits=jnp.stack([a * x, 0.3 * x, -x], -1)))
        numpyro.sample("y", dist.Normal(a * z.mean(0), 1.0), obs=jnp.array([0.5, 1.4]))


CASES = {"total": (total, {"x": X}, 2, (5,)), "groups": (groups, {"x": np.resize(X, (3, 2))}, 3, (3, 2))}


@pytest.fixture
def few(monkeypatch):
    """A table is too large from nine configurations on."""
    monkeypatch.setattr(added_up, "MAX_EVALUATED", 8)


@pytest.mark.parametrize("name", CASES)
def test_evidence_and_gradient(name, few):
    model, data, values, shape = CASES[name]
    z = np.array(list(product(range(values), repeat=int(np.prod(shape))))).reshape(-1, *shape)
    with jax.enable_x64(True):

        def exact(a):
            log = jax.vmap(lambda z: log_density(model, (), data, {"a": a, "z": z})[0])(z)
            return jax.nn.logsumexp(log) - dist.Normal(0, 1).log_prob(a)

        value, slope = jax.value_and_grad(exact)(0.7)
        found = at_values(model, data, {"a": 0.7})
    assert "independent given their sum" in found.plan["z"].why
    assert found.value == pytest.approx(float(value), abs=1e-9)
    assert found.gradient["a"] == pytest.approx(float(slope), abs=1e-8)


def alike(n):
    """So many elements alike that their sum is binomial."""
    with numpyro.plate("n", n):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
    numpyro.sample("y", dist.Normal(z.sum(), 2.0), obs=0.4 * n)


@pytest.mark.slow
def test_many_elements():
    """Evidence, probabilities, the most likely sum, and the mean and the pairs of 2,000 draws."""
    n = 300
    fit = autovi.fit(alike, {"n": n}, progress_bar=False, num_draws=50)
    sums = np.arange(n + 1)
    log = binom.logpmf(sums, n, 0.3) + norm.logpdf(0.4 * n, sums, 2.0)
    weights = np.exp(log - logsumexp(log))
    mean = weights @ sums
    assert fit.elbo == pytest.approx(logsumexp(log), abs=1e-3)
    np.testing.assert_allclose(fit.marginals()["z"][:, 1], mean / n, atol=1e-4)
    drawn = np.asarray(fit.sample(2000)["z"], float)
    spread = np.sqrt(weights @ (sums - mean) ** 2)
    assert abs(drawn.sum(1).mean() - mean) < 6 * spread / np.sqrt(2000)
    assert abs(drawn.sum(1).std() / spread - 1) < 6 / np.sqrt(2 * 2000)
    # Two halves of one total: their difference is that of draws without replacement.
    halves = drawn[:, : n // 2].sum(1) - drawn[:, n // 2 :].sum(1)
    exact = np.sqrt(weights @ (sums * (n - sums) / (n - 1)))
    assert abs(halves.mean()) < 6 * exact / np.sqrt(2000) and abs(halves.std() / exact - 1) < 6 / np.sqrt(2 * 2000)
    best = np.asarray(fit.sample(2, discrete="map")["z"])
    pairs = [norm.logpdf(0.4 * n, s, 2.0) + s * np.log(0.3) + (n - s) * np.log(0.7) for s in sums]
    assert best.sum(1).tolist() == [np.argmax(pairs)] * 2
