"""A Poisson count with a binomial part observed: evidence against sums over the count, draws against exact moments."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.special import gammaln
from numpyro.contrib.control_flow import scan

import autovi
from elimination.at_values import at_values

Y = np.array([3, 0, 7, 2, 5, 1])
ON = np.array([True, True, False, False, True, True])
SEEN = np.array([True, False, True, False, True, True])
COUNTS = np.arange(400)
THETA = {"a": 1.8, "b": -0.4}


def thinned(y, on=True, seen=True, logits=False, size=None, seen_from=None):
    a, b = numpyro.sample("a", dist.Normal(0, 1)), numpyro.sample("b", dist.Normal(0, 1))
    with numpyro.plate("sites", len(y), subsample_size=size) as i:
        with numpyro.handlers.mask(mask=jnp.broadcast_to(jnp.asarray(on), y.shape)[i]):
            count = numpyro.sample("N", dist.Poisson(jnp.exp(a) * (1 + i)))
        if logits:
            part = dist.Binomial(count, logits=jnp.broadcast_to(b, count.shape))
        else:
            part = dist.Binomial(count.astype(float), probs=jax.nn.sigmoid(b))
        with numpyro.handlers.mask(mask=jnp.broadcast_to(jnp.asarray(seen), y.shape)[i]):
            numpyro.sample("y", part, obs=y[i])


def log_terms(theta, y=Y, on=ON, seen=SEEN):
    """The log weight of each count `[sites, counts]`."""
    rate, p = jnp.exp(theta["a"]) * (1 + np.arange(len(y)))[:, None], jax.nn.sigmoid(theta["b"])
    rest = COUNTS - y[:, None]
    prior = COUNTS * jnp.log(rate) - rate - gammaln(COUNTS + 1.0)
    choose = gammaln(COUNTS + 1.0) - gammaln(y[:, None] + 1.0) - gammaln(jnp.maximum(rest, 0) + 1.0)
    part = jnp.where(rest >= 0, choose + y[:, None] * jnp.log(p) + rest * jnp.log1p(-p), -jnp.inf)
    return jnp.where(on[:, None], prior, 0.0) + jnp.where(seen[:, None], part, 0.0)


def exact(theta, on=ON, seen=SEEN):
    """log of the sum over all counts; that of a count that nothing feels is none."""
    sums = jax.scipy.special.logsumexp(log_terms(theta, on=on, seen=seen), axis=1)
    return jnp.sum(jnp.where(on | seen, sums, 0.0))


@pytest.mark.parametrize("logits", [False, True])
def test_evidence_and_gradient(logits):
    """Priors and observations with and without masks; beyond 400 lies less than 1e-20."""
    with jax.enable_x64(True):
        found = at_values(thinned, {"y": Y, "on": ON, "seen": SEEN, "logits": logits}, THETA)
        value, gradient = jax.value_and_grad(exact)({n: jnp.asarray(x) for n, x in THETA.items()})
    assert found.plan["N"].estimator == "marginalize"
    assert "summed out in closed form" in found.plan["N"].why
    assert found.value == pytest.approx(float(value), abs=1e-9)
    for name in THETA:
        assert found.gradient[name] == pytest.approx(float(gradient[name]), abs=1e-8)


def test_elements_of_a_subsampled_plate_stand_for_others():
    with jax.enable_x64(True):
        found = at_values(thinned, {"y": Y, "size": 2}, THETA, {"sites": jnp.array([4, 1])})
        every = log_terms(THETA, on=np.ones(6, bool), seen=np.ones(6, bool))
        sums = np.asarray(jax.scipy.special.logsumexp(every, axis=1))
    assert found.value == pytest.approx(3 * float(sums[4] + sums[1]), abs=1e-4)


def in_scan(y, on, seen):
    """The same counts step by step, beside a chain of states with observations of their own."""
    a, b = numpyro.sample("a", dist.Normal(0, 1)), numpyro.sample("b", dist.Normal(0, 1))

    def step(carry, now):
        t, x = carry
        y, on, seen = now
        with numpyro.handlers.mask(mask=on):
            count = numpyro.sample("N", dist.Poisson(jnp.exp(a) * (1 + t)))
        with numpyro.handlers.mask(mask=seen):
            numpyro.sample("y", dist.Binomial(count, jax.nn.sigmoid(b)), obs=y)
        x = numpyro.sample("x", dist.Bernoulli(0.2 + 0.5 * x))
        numpyro.sample("w", dist.Normal(x + 0.3, 1.0), obs=0.3 + x)  # which says nothing of x
        return (t + 1, x), None

    scan(step, (0, 0), (y, on, seen))


def test_in_a_scan():
    with jax.enable_x64(True):
        found = at_values(in_scan, {"y": Y, "on": ON, "seen": SEEN}, THETA)
        value, gradient = jax.value_and_grad(exact)({n: jnp.asarray(x) for n, x in THETA.items()})
    assert found.plan["N"].estimator == found.plan["x"].estimator == "marginalize"
    assert found.value == pytest.approx(float(value) - 6 * 0.5 * np.log(2 * np.pi), abs=1e-9)
    for name in THETA:
        assert found.gradient[name] == pytest.approx(float(gradient[name]), abs=1e-8)


def missing(y, seen):
    """NumPyro's idiom for observations that are missing: a latent site beside the observed one."""
    a, b = numpyro.sample("a", dist.Normal(0, 1)), numpyro.sample("b", dist.Normal(0, 1))
    with numpyro.plate("sites", len(y)) as i:
        count = numpyro.sample("N", dist.Poisson(jnp.exp(a) * (1 + i)))
        numpyro.sample("y", dist.Binomial(count, jax.nn.sigmoid(b)), obs=y, obs_mask=seen)


@pytest.mark.slow
def test_missing_observations():
    with jax.enable_x64(True):
        found = at_values(missing, {"y": Y, "seen": SEEN}, THETA)
        value = float(exact({n: jnp.asarray(x) for n, x in THETA.items()}, on=np.ones(6, bool)))
    assert found.value == pytest.approx(value, abs=1e-9)
    fit = autovi.fit(missing, {"y": Y, "seen": SEEN}, progress_bar=False, num_draws=100)
    drawn = fit.sample(500, rng_key=1)
    assert np.all(np.asarray(drawn["y"])[:, SEEN] == Y[SEEN])
    assert np.all(np.asarray(drawn["y_unobserved"]) <= np.asarray(drawn["N"]))


def fixed(y, on, seen):
    """The same without anything in the guide."""
    with numpyro.plate("sites", len(y)) as i:
        with numpyro.handlers.mask(mask=on):
            count = numpyro.sample("N", dist.Poisson(2.0 * (1 + i)))
        with numpyro.handlers.mask(mask=seen):
            numpyro.sample("y", dist.Binomial(count, 0.4), obs=y)


@pytest.mark.slow
def test_draws():
    """Means and variances of 20,000 draws, each within six standard errors, and the most likely counts."""
    theta = {"a": np.log(2.0), "b": np.log(0.4 / 0.6)}
    fit = autovi.fit(fixed, {"y": Y, "on": ON, "seen": SEEN}, progress_bar=False, num_draws=100)
    drawn = np.asarray(fit.sample(20_000, rng_key=3)["N"], float)
    weights = np.asarray(log_terms(theta, on=ON | ~SEEN, seen=SEEN), float)  # what nothing feels has its prior
    p = np.exp(weights - weights.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    mean = p @ COUNTS
    central = COUNTS - mean[:, None]
    variance, fourth = np.sum(p * central**2, 1), np.sum(p * central**4, 1)
    assert np.all(np.abs(drawn.mean(0) - mean) < 6 * np.sqrt(variance / 20_000))
    assert np.all(np.abs(drawn.var(0) - variance) < 6 * np.sqrt((fourth - variance**2) / 20_000))
    assert fit.elbo == pytest.approx(float(exact(theta)), abs=1e-4)
    likely = np.asarray(fit.sample(2, discrete="map")["N"])[0]
    felt = ON | SEEN
    assert weights[np.arange(6), likely][felt] == pytest.approx(weights.max(1)[felt], abs=1e-4)


def twice(y):
    with numpyro.plate("sites", len(y)):
        count = numpyro.sample("N", dist.Poisson(3.0))
        for k in range(2):
            numpyro.sample(f"y{k}", dist.Binomial(count, 0.4), obs=y)


def repeated(y):
    with numpyro.plate("sites", len(y)):
        count = numpyro.sample("N", dist.Poisson(3.0))
        with numpyro.plate("visits", 2, dim=-2):
            numpyro.sample("y", dist.Binomial(count, 0.4), obs=jnp.stack([y, y]))


def scaled(y):
    count = numpyro.sample("N", dist.Poisson(3.0))
    with numpyro.handlers.scale(scale=2.0):
        numpyro.sample("y", dist.Binomial(count, 0.4), obs=y[0])


def doubled(y):
    numpyro.sample("y", dist.Binomial(2 * numpyro.sample("N", dist.Poisson(3.0)), 0.4), obs=y[0])


def felt_twice(y):
    count = numpyro.sample("N", dist.Poisson(3.0))
    numpyro.sample("y", dist.Binomial(count, 1 / (1 + count)), obs=y[0])


def normally(y):
    numpyro.sample("y", dist.Normal(numpyro.sample("N", dist.Poisson(3.0)), 1.0), obs=y[0])


def outside(y):
    count = numpyro.sample("N", dist.Poisson(30.0))
    with numpyro.plate("sites", len(y), subsample_size=2) as i:
        numpyro.sample("y", dist.Binomial(count, 0.4), obs=y[i])


def carried(y):
    def step(before, y):
        count = numpyro.sample("N", dist.Poisson(3.0 + 0.5 * before))
        numpyro.sample("y", dist.Binomial(count, 0.4), obs=y)
        return count, None

    scan(step, 2, y)


REFUSED = {
    carried: "it is drawn in a scan whose later steps depend on it",
    twice: "several terms depend on it ('y0', 'y1')",
    repeated: "each of its elements has several observations in 'y'",
    scaled: "is scaled otherwise than by a subsampled plate",
    doubled: "the total count of 'y' is made of it, and not it alone",
    felt_twice: "'y' depends on it otherwise than by its total count",
    normally: "'y' (Normal), which depends on it, is no observed binomial",
    outside: "the term 'p:y' is in the subsampled plate 'sites'",
}


@pytest.mark.parametrize("model", REFUSED, ids=lambda m: m.__name__)
def test_without_a_closed_form(model):
    """Unasked the count stays in the guide, and asked for it is an error that says why."""
    assert autovi.plan(model, {"y": Y})["N"].estimator != "marginalize"
    with pytest.raises(ValueError, match="site 'N'") as error:
        autovi.plan(model, {"y": Y}, estimators={"N": "marginalize"})
    assert REFUSED[model] in str(error.value)


def test_another_estimator_or_family_that_is_asked_for_is_taken():
    assert autovi.plan(thinned, {"y": Y}, estimators={"N": "score"})["N"].estimator == "score"
    assert autovi.plan(thinned, {"y": Y}, families={"N": "negative_binomial"})["N"].family == "negative_binomial"
