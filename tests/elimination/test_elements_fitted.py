"""What comes after a fit of sites whose elements meet: draws, probabilities, the most likely configuration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats
from scipy.special import logsumexp

import autovi
from autovi.program import summing
from elimination.evaluate import evaluate_model
from elimination.test_elements import THETA, Y, chain, counted, grid, tree_in_data

PSI = np.array([[0.9, -0.4], [-1.1, 0.7]])
PEOPLE, STEPS = 6, 8
SEEN = np.random.default_rng(3).normal(size=(PEOPLE, STEPS)).astype(np.float32)
NUM_DRAWS = 20_000


def sequences(y, at_once=3):
    """Chains of eight steps in one array, for each element of a subsampled plate."""
    with numpyro.plate("person", PEOPLE, subsample_size=at_once, dim=-2) as i:
        with numpyro.plate("step", STEPS, dim=-1):
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            numpyro.sample("y", dist.Normal(1.3 * z, 1.0), obs=y[i])
        numpyro.factor("pairs", jnp.asarray(PSI)[z[:, :-1], z[:, 1:]].sum(-1, keepdims=True))


CONFIGURATIONS = np.array(list(itertools.product([0, 1], repeat=STEPS)))


def log_weights(y):
    """Of all configurations of one person's steps."""
    z = CONFIGURATIONS
    prior = stats.bernoulli.logpmf(z, 0.4).sum(1) + PSI[z[:, :-1], z[:, 1:]].sum(1)
    return prior + stats.norm.logpdf(y, 1.3 * z, 1.0).sum(1)


@pytest.fixture(scope="module")
def fitted():
    return autovi.fit(sequences, {"y": SEEN}, progress_bar=False)


@pytest.mark.slow
def test_marginals(fitted):
    found = fitted.marginals()["z"]
    assert found.shape == (PEOPLE, STEPS, 2)
    for person, y in enumerate(SEEN):
        weights = np.exp(log_weights(y) - logsumexp(log_weights(y)))
        np.testing.assert_allclose(found[person, :, 1], weights @ CONFIGURATIONS, atol=1e-5)


@pytest.mark.slow
def test_draws_are_joint(fitted):
    """Of each person all configurations are counted, the 40 most likely and the rest: chi-square, p over 1e-7 / 6."""
    draws = np.asarray(fitted.sample(NUM_DRAWS)["z"])
    assert draws.shape == (NUM_DRAWS, PEOPLE, STEPS)
    for person, y in enumerate(SEEN):
        p = np.exp(log_weights(y) - logsumexp(log_weights(y)))
        which = draws[:, person] @ (2 ** np.arange(STEPS)[::-1])
        counts, order = np.bincount(which, minlength=len(p)), np.argsort(-p)
        seen = [*counts[order[:40]], counts[order[40:]].sum()]
        expected = NUM_DRAWS * np.array([*p[order[:40]], p[order[40:]].sum()])
        assert stats.chisquare(seen, expected).pvalue > 1e-7 / PEOPLE


@pytest.mark.slow
def test_most_likely(fitted):
    found = np.asarray(fitted.sample(1, discrete="map")["z"])[0]
    best = [CONFIGURATIONS[np.argmax(log_weights(y))] for y in SEEN]
    np.testing.assert_array_equal(found, best)


@pytest.mark.slow
def test_densities_of_draws(fitted):
    """log p - log q is the evidence, whatever is drawn."""
    evidence = sum(logsumexp(log_weights(y)) for y in SEEN)
    np.testing.assert_allclose(fitted.log_weights, evidence, rtol=1e-5)


def test_in_parts_where_memory_is_short(monkeypatch):
    """The evaluations of a sweep a few at a time."""
    whole = evaluate_model(counted, {"y": Y}, THETA)
    monkeypatch.setattr(summing, "BUDGET", 30)
    parts = evaluate_model(counted, {"y": Y + 0.0}, THETA, num_particles=2)
    assert parts.log_evidence == pytest.approx(whole.log_evidence, abs=1e-5)
    np.testing.assert_allclose(parts.gradient, whole.gradient, atol=1e-5)


# --- what the plan says ---


def why(model, data):
    return autovi.plan(model, data)["z"].why


def of_size(n):
    return lambda y, parent: tree_of(n, y, parent)


def tree_of(n, y, parent):
    with numpyro.plate("n", n):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
    numpyro.factor("edges", jnp.sum(jnp.where(z[parent] == z, 0.1, 0.2)))


def test_a_chain_goes_step_by_step():
    assert "step by step; the largest table has 40 numbers (10 x z 2 x z@1 2)" in why(lambda y: chain(y, 10), {"y": Y})
    assert "element by element; in the order z[" in why(chain, {"y": Y})


def test_a_lattice():
    assert "element by element" in why(grid, {"y": Y})


def test_indices_among_the_data():
    few, many = autovi.plan(of_size(6), data(6)), autovi.plan(of_size(40), data(40))
    assert "64 numbers" in few["z"].why and "an index made of data picks elements" in few["z"].why
    assert many["z"].estimator == "score"
    assert "40 of its elements meet in the term 'p:edges'" in many["z"].why
    assert "an index that picks elements is made of data" in many["z"].why


def data(n):
    return {"y": Y, "parent": np.arange(n) // 2}


def test_too_many_that_all_meet():
    def dense(y):
        with numpyro.plate("n", 60):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.factor("pairs", jnp.sum((z[:, None] == z[None, :]) * 0.1))

    assert "so many of its elements meet that a table would have over 50,000,000 numbers" in why(dense, {"y": Y})


def test_elements_of_a_subsampled_plate():
    def model(y):
        with numpyro.plate("n", 10, subsample_size=5) as i:
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y[i])
        numpyro.factor("pairs", jnp.sum(z[1:] == z[:-1]) * 0.1)

    assert "elements of the subsampled plate 'n' meet in a term" in why(model, {"y": Y})


def test_an_index_among_the_data_is_exact_all_the_same():
    data = {"y": Y, "parent": np.array([0, 0, 1, 1, 2, 0])}
    with jax.enable_x64(True):
        found = evaluate_model(tree_in_data, data, THETA)
    a, b = THETA
    z = np.array(list(itertools.product([0, 1], repeat=6)))
    edges = np.where(z[:, data["parent"]] == z, a, b).sum(1)
    exact = logsumexp(edges + (a * z - np.log1p(np.exp(a))).sum(1))
    assert found.log_evidence == pytest.approx(exact, abs=1e-9)
