"""Discrete sites that meet in a cost term are fitted by mean field, and the plan and the fit say so."""

import re

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi

Y = np.array([0.3, 1.9, 2.2, -0.4], np.float32)
ENUMERATED = {"a": "enumerate", "b": "enumerate"}


def two(y):
    a = numpyro.sample("a", dist.Bernoulli(0.4))
    b = numpyro.sample("b", dist.Bernoulli(0.5))
    with numpyro.plate("n", 4):
        numpyro.sample("y", dist.Normal(a + b + 0.0, 1.0), obs=y)


def mixture(y):
    loc = numpyro.sample("loc", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with numpyro.plate("n", 4):
        c = numpyro.sample("c", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(loc[c], 1.0), obs=y)


def summed(y):
    with numpyro.plate("n", 40):
        c = numpyro.sample("c", dist.Bernoulli(0.5))
    numpyro.sample("y", dist.Normal(jnp.sum(c * jnp.sin(1.0 + jnp.arange(40.0))), 1.0).expand([4]).to_event(1), obs=y)


def chain(y):
    state = 0
    for t in range(4):
        state = numpyro.sample(f"s{t}", dist.Bernoulli(jnp.where(state == 1, 0.9, 0.1)))
        numpyro.sample(f"y{t}", dist.Normal(2.0 * state, 1.0), obs=y[t])


def apart(y):
    a = numpyro.sample("a", dist.Bernoulli(0.4))
    b = numpyro.sample("b", dist.Bernoulli(0.5))
    numpyro.sample("y", dist.Normal(a + 0.0, 1.0), obs=y[0])
    numpyro.sample("x", dist.Normal(b + 0.0, 1.0), obs=y[1])


def test_two_in_one_term():
    """Where it is asked for; unasked they are summed out together."""
    assert autovi.plan(two, {"y": Y}).coupled == {}
    plan = autovi.plan(two, {"y": Y}, estimators=ENUMERATED)
    assert plan.coupled == {"a": ["b"], "b": ["a"]}
    assert "mean field, as it meets 'b' in a cost term and q has them independent" in plan["a"].why
    fit = autovi.fit(two, {"y": Y}, estimators=ENUMERATED, progress_bar=False)
    assert fit.status == "mean_field" and "discrete site(s) 'a', 'b': independent in q of what they meet" in fit.message
    assert "may be far off" in fit.message


def test_the_elements_of_one_site():
    plan = autovi.plan(summed, {"y": Y})
    assert plan.coupled == {"c": ["c"]} and "its elements meet in a cost term" in plan["c"].why


def test_a_chain():
    assert set(autovi.plan(chain, {"y": Y}, estimators={"s*": "score"}).coupled) == {"s0", "s1", "s2", "s3"}
    assert autovi.plan(chain, {"y": Y}).coupled == {}


@pytest.mark.parametrize("model", [mixture, apart])
def test_sites_that_are_summed_out_meet_nobody(model):
    plan = autovi.plan(model, {"y": Y})
    assert plan.coupled == {} and "mean field" not in str(plan)


def test_the_last_of_them_that_is_summed_out_leaves_the_others_alone():
    plan = autovi.plan(two, {"y": Y}, estimators={"a": "score"})
    assert plan["b"].estimator == "marginalize" and plan.coupled == {}


def test_steps_that_were_asked_for_say_it_too():
    fit = autovi.fit(two, {"y": Y}, estimators=ENUMERATED, num_steps=20, progress_bar=False)
    assert fit.status == "max_steps" and "20 steps" in fit.message and "mean field" in fit.message


def test_a_combination_that_cannot_be_names_both_sites():
    def spike(y):
        a = numpyro.sample("a", dist.Bernoulli(0.4))
        b = numpyro.sample("b", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Poisson(2.0 * (1 - a) * (1 - b)), obs=3)

    said = r"'a' and 'b' meet: if some of their values together have probability zero.*one Categorical site"
    result = autovi.fit(spike, {"y": Y}, estimators=ENUMERATED, progress_bar=False)
    assert re.search(said, result.message)
    exact = autovi.fit(spike, {"y": Y}, progress_bar=False)
    assert exact.status == "converged" and abs(exact.elbo - np.log(0.6 * 0.5 * 2.0**3 * np.exp(-2.0) / 6)) < 1e-4

    def impossible(y):
        a = numpyro.sample("a", dist.Bernoulli(0.4))
        with numpyro.plate("n", 40):
            b = numpyro.sample("b", dist.Bernoulli(0.5))
            numpyro.sample("y", dist.Poisson(2.0 * a * (1 - b)), obs=3)

    with pytest.raises(ValueError, match=r"site 'y': .*, where " + said):
        autovi.fit(impossible, {"y": Y}, estimators=ENUMERATED, progress_bar=False)
