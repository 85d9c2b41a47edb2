"""What no estimator may do: follow a constant in the cost, or the order of a plate, or refuse in words of its own.

Every row of the table is asked for at every kind of site. Where it is taken it has the right invariances, and where it
is not the reason is said in one form.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import ONCE

import autovi
from autovi.distributions import PlackettLuce
from autovi.estimators import ESTIMATORS
from autovi.objectives import Expectation

LOGITS = jnp.array([0.3, -0.8])
TARGETS = jnp.array([0.2, 1.4])


def normal(params, targets, constant):
    with numpyro.plate("i", 2):
        z = numpyro.sample("z", dist.Normal(params, 0.7))
        return (z - targets) ** 2 + constant


def jumping(params, targets, constant):
    with numpyro.plate("i", 2):
        z = numpyro.sample("z", dist.Normal(params, 0.7))
        return jnp.where(z > targets, 1.0, 0.0) + constant


def gamma(params, targets, constant):
    with numpyro.plate("i", 2):
        z = numpyro.sample("z", dist.Gamma(2.0 + params, 1.0))
        return (z - targets) ** 2 + constant


def bernoulli(params, targets, constant):
    with numpyro.plate("i", 2):
        z = numpyro.sample("z", dist.Bernoulli(logits=params))
        return (z - targets) ** 2 + constant


def categorical(params, targets, constant):
    with numpyro.plate("i", 2):
        z = numpyro.sample("z", dist.Categorical(logits=params[:, None] * jnp.arange(3.0)))
        return (jnp.array([0.0, 2.0, 0.5])[z] - targets) ** 2 + constant


def poisson(params, targets, constant):
    with numpyro.plate("i", 2):
        z = numpyro.sample("z", dist.Poisson(jnp.exp(params)))
        return (z - targets) ** 2 + constant


def mixture(params, targets, constant):
    with numpyro.plate("i", 2):
        parts = dist.Normal(jnp.array([-1.0, 2.0]), 1.0)
        logits = jnp.stack([params, jnp.zeros(2)], -1)
        z = numpyro.sample("z", dist.MixtureSameFamily(dist.Categorical(logits=logits), parts))
        return (z - targets) ** 2 + constant


def gate(params, targets, constant):
    with numpyro.plate("i", 2):
        z = numpyro.sample("z", dist.ZeroInflatedPoisson(jax.nn.sigmoid(params), 2.0))
        return (z - targets) ** 2 + constant


def order(params, targets, constant):
    z = numpyro.sample("z", PlackettLuce(jnp.append(params, 0.0)))
    return jnp.sum(z * jnp.append(targets, 0.3)) + constant


SITES = (normal, jumping, gamma, bernoulli, categorical, poisson, mixture, gate, order)
# What subtracts nothing, or what costs were in the past: its mean does not follow a constant, its noise does. And one
# for families that are maps of noise, which are not here.
FOLLOWS = {"sticking", "rsvi", "g_rep", "relax", "lax", "muprop", "enumerate_gate"}


def asked_for(site, name):
    return autovi.stochastic_grad(site, estimators={"z": name}, num_samples=4, allow_bias=True)


@functools.cache
def facts_of(site):
    return autovi.stochastic_grad(site).plan(LOGITS, TARGETS, 0.0).facts["z"]


def refusal(site, name):
    """What the estimator says of the site, or the rules of an expected loss of the estimator."""
    estimator = ESTIMATORS[name]()
    return estimator.refuses(facts_of(site)) or Expectation().refuses(estimator)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_refuses_in_the_same_words(name):
    """A clause that follows "would be wrong, since"."""
    said = {site: refusal(site, name) for site in SITES}
    for reason in filter(None, said.values()):
        assert not reason[0].isupper() and not reason.endswith(".") and "\n" not in reason
        assert re.match(r"(its|it|an?|no|the|not|'\w+'|the cost) ", reason), reason
    # No family is a map of noise here, no product with data, and no matrix of a permutation.
    elsewhere = {"marginalize", "sticking", "taylor_cv", "local", "r2g2", "gumbel_sinkhorn", "birkhoff"}
    assert None in said.values() or ESTIMATORS[name].name in elsewhere


@pytest.mark.parametrize(("site", "name"), [(normal, "disarm"), (poisson, "enumerate"), (jumping, "explicit")])
def test_a_refusal_names_the_site_the_estimator_and_what_would_do(site, name):
    said = re.escape(refusal(site, name))
    with pytest.raises(
        ValueError, match=rf"^site 'z' \(\w+\): estimator '{name}' would be wrong, since {said}; valid: \["
    ):
        asked_for(site, name).plan(LOGITS, TARGETS, 0.0)


def estimates(site, name, constant, swapped=False, count=1):
    grad, take = asked_for(site, name), jnp.array([1, 0]) if swapped else jnp.array([0, 1])
    params, targets = LOGITS[take], TARGETS[take]
    state = grad.init(params, targets, constant)
    one = lambda key: grad(params, targets, constant, rng_key=key, estimator_state=state)[0]  # noqa: E731
    return np.asarray(jax.jit(jax.vmap(one), compiler_options=ONCE)(jax.random.split(jax.random.key(4), count)), float)


@pytest.mark.parametrize("name", [n for n, made in ESTIMATORS.items() if made.name == n and n not in FOLLOWS])
def test_a_constant_changes_nothing(name):
    site = next((site for site in SITES if refusal(site, name) is None), None)
    if site is None:
        return  # see the estimators of the test above that are not for these sites
    without, along = estimates(site, name, 0.0, count=20), estimates(site, name, 64.0, count=20)
    # 64 takes six binary digits of the costs.
    np.testing.assert_allclose(along, without, atol=2e-3 * (1 + np.abs(without).max()), rtol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["disarm", "score", "unordered_set", "measure_valued", "arms"])
def test_the_order_of_a_plate_is_the_order_of_its_gradients(name):
    there, back = (estimates(bernoulli, name, 0.0, swapped, 20_000) for swapped in (False, True))
    back = back[:, ::-1]
    error = np.hypot(there.std(0), back.std(0)) / 20_000**0.5
    assert np.all(np.abs(there.mean(0) - back.mean(0)) < 5 * error + 1e-6)
    np.testing.assert_allclose(there.var(0), back.var(0), rtol=0.1, atol=1e-6)
