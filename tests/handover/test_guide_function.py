"""A fitted q as a guide function: its log densities are q's, and `Predictive` takes it."""

import handover.handed_models as m
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.distributions import Normal
from numpyro.infer import Predictive
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import log_density

import autovi


def traced(guide, seed, data):
    return handlers.trace(handlers.seed(guide, seed)).get_trace(**data)


def split(trace):
    """Auxiliary sites, and those of the model."""
    samples = {n: s for n, s in trace.items() if s["type"] == "sample"}
    own = {n: s["value"] for n, s in samples.items() if s["infer"].get("is_auxiliary")}
    return own, {n: s["value"] for n, s in samples.items() if n not in own}


def log_q(guide, data, own):
    return float(log_density(handlers.seed(guide, 0), (), data, own)[0])


def test_log_q_is_that_of_the_fitted_normal():
    """Normal on the unconstrained scale of a positive site, with the Jacobian of exp."""
    data = {"y": m.Y}
    fit = m.quick(m.schools, num_steps=300)
    guide = fit.to_numpyro_guide()
    ((block, _),) = fit.raw_params["guide"].items()
    loc, scale = fit.params[f"{block}.loc"], np.exp(fit.params[f"{block}.log_scale"])
    for seed in range(3):
        own, values = split(traced(guide, seed, data))
        ((name, u),) = own.items()
        assert name == f"{block}_q"
        np.testing.assert_allclose(u, [values["mu"], np.log(values["tau"]), *values["theta"]], rtol=1e-5, atol=1e-5)
        right = Normal(loc, scale).log_prob(u).sum() - np.log(values["tau"])
        assert log_q(guide, data, own) == pytest.approx(float(right), abs=1e-3)


CASES = {
    "structured, partly non-centred": (m.schools, {"guide": "auto", "num_steps": None}),
    "mean field, constrained": (m.constrained, {"num_steps": 400}),
    "flow": (m.normal, {"guide": "flow", "num_steps": 100, "data": None}),
    "low rank": (m.normal, {"guide": "low_rank", "num_steps": 100, "data": None}),
    "summed out": (m.switched, {"guide": "auto", "num_steps": None}),
    "a scan summed out": (m.hidden_markov, {"num_steps": 400}),
    "continuous states of a scan": (m.walk, {"num_steps": 400}),
    "discrete in q": (m.switched, {"num_steps": 400, "estimators": {"on": "score"}}),
    "a parameter": (m.with_parameter, {"num_steps": 200}),
    "a guide function": (m.schools, {"guide": AutoNormal(m.schools), "num_steps": 400}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_weights_and_draws_are_those_of_q(case):
    """log p - log q of 400 draws of the guide function has the mean of the fit's draws, the ELBO, and sites have q's
    means."""
    model, settings = CASES[case]
    fit = m.quick(model, **{"num_draws": 1000, **settings})
    data = {} if settings.get("data", "y") is None else {"y": m.Y}
    guide, count = fit.to_numpyro_guide(), 400
    params = {n: jnp.asarray(fit.params[n]) for n in fit.engine.program.sites.params}

    def one(key):
        trace = handlers.trace(handlers.seed(guide, key)).get_trace(**data)
        own, values = split(trace)
        q = sum(jnp.sum(s["fn"].log_prob(s["value"])) for s in trace.values() if s["type"] == "sample")
        p = log_density(model, (), data, {**params, **values})[0]
        return p - q, values

    weights, values = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), count))
    log_weights = fit.log_weights
    error = float(np.hypot(np.std(weights) / count**0.5, log_weights.std() / len(log_weights) ** 0.5))
    assert float(np.mean(weights)) == pytest.approx(log_weights.mean(), abs=5 * error + 1e-3)
    draws = fit.sample(2000, resample=False)
    for name in fit.engine.program.sites.latents:
        right = np.asarray(draws[name], float)
        apart = np.abs(np.mean(values[name], axis=0) - right.mean(0))
        assert np.all(apart <= 5 * right.std(0) * (1 / count + 1 / 2000) ** 0.5 + 1e-3), name


def test_predictive_takes_it():
    fit = m.quick(m.schools)
    guide = fit.to_numpyro_guide()
    found = Predictive(m.schools, guide=guide, num_samples=7)(jax.random.key(0), y=jnp.asarray(m.Y))
    assert found["y"].shape == (7, 4)
    drawn = Predictive(guide, num_samples=2000)(jax.random.key(0), y=m.Y)
    assert drawn["theta"].shape == (2000, 4) and {"mu", "tau"} <= set(drawn)
    sites = traced(guide, 0, {"y": m.Y})
    assert [frame.name for frame in sites["theta"]["cond_indep_stack"]] == ["school"]
    assert sites["school"]["type"] == "plate"


def test_subsampled_plates_are_whole():
    fit = m.quick(m.in_batches)
    sites = traced(fit.to_numpyro_guide(), 0, {"y": m.Y})
    assert sites["z"]["value"].shape == (4,) and sites["row"]["args"][0] == 4


def test_what_no_guide_function_says():
    with pytest.raises(ValueError, match="site 'z': a mask leaves out elements that nothing else feels"):
        m.quick(m.masked).to_numpyro_guide()


def test_another_model_is_refused():
    shift = 1.0

    def model(y):
        x = numpyro_sample("x", shift)
        numpyro_sample("y", x, y)

    import numpyro
    import numpyro.distributions as dist

    def numpyro_sample(name, mean, obs=None):
        return numpyro.sample(name, dist.Normal(mean, 1.0), obs=obs)

    fit = autovi.fit(model, {"y": m.Y}, guide="mean_field", num_steps=5, num_draws=10, progress_bar=False)
    shift = 2.0
    with pytest.raises(ValueError, match="has changed since the fit"):
        fit.to_numpyro_guide()
