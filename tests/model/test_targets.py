"""Other things than NumPyro models: a log density of one's own, and an expected loss."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import assert_unbiased, batched, flat

import autovi
from autovi.model.inputs import bind
from autovi.model.loss import Loss
from autovi.objectives import Expectation
from autovi.preparation import Options, prepare

Y = np.array([1.2, 0.7, 1.9, 1.4, 0.3], np.float32)


def log_density(p, y):
    """A normal mean with prior N(0, 2) and unit noise, and two numbers on their own: N(3, 0.5) and N(-1, 2)."""
    mu = -0.5 * jnp.sum((y - p["mu"]) ** 2) - 0.5 * (p["mu"] / 2.0) ** 2
    w = p["layer"]["w"]
    return mu - 0.5 * ((w[0] - 3.0) / 0.5) ** 2 - 0.5 * ((w[1] + 1.0) / 2.0) ** 2


TEMPLATE = {"mu": 0.0, "layer": {"w": np.zeros(2, np.float32)}}


@pytest.fixture(scope="module")
def fit():
    target = autovi.LogDensity(log_density, TEMPLATE)
    return autovi.fit(target, {"y": Y}, num_steps=1500, progress_bar=False)


def test_a_log_density_is_fitted(fit):
    precision = len(Y) + 0.25
    draws = fit.sample(4000)
    assert draws["mu"].mean() == pytest.approx(Y.sum() / precision, abs=0.04)
    assert draws["mu"].std() == pytest.approx(precision**-0.5, rel=0.08)
    np.testing.assert_allclose(draws["layer.w"].mean(0), [3.0, -1.0], atol=0.15)
    np.testing.assert_allclose(draws["layer.w"].std(0), [0.5, 2.0], rtol=0.08)


def test_its_elbo_is_the_log_normalizer(fit):
    """The family holds the posterior, so that the bound is tight."""
    precision = len(Y) + 0.25
    loss = 0.5 * np.sum(Y**2) - 0.5 * Y.sum() ** 2 / precision
    exact = -loss + 1.5 * np.log(2 * np.pi) - 0.5 * np.log(precision) + np.log(0.5) + np.log(2.0)
    assert fit.elbo == pytest.approx(exact, abs=0.02)


def test_its_draws_go_to_arviz(fit):
    assert fit.idata["posterior"]["layer.w"].shape == (1, 1000, 2)
    assert fit.khat < 0.7


def test_prediction_is_refused_in_words(fit):
    with pytest.raises(TypeError, match="LogDensity does not say how its data come about"):
        fit.predict({"y": Y})


@pytest.mark.parametrize(
    ("function", "template", "message"),
    [
        (lambda p, y: p, np.zeros(2, np.float32), "expected a floating scalar, got shape \\(2,\\)"),
        (lambda p, y: p["n"], {"n": 3}, "template leaf 'n' is of type int"),
    ],
)
def test_what_is_no_log_density_is_refused(function, template, message):
    with pytest.raises((TypeError, ValueError), match=message):
        autovi.fit(autovi.LogDensity(function, template), {"y": Y}, progress_bar=False)


def test_data_must_fit_its_function():
    with pytest.raises(ValueError, match="missing a required argument: 'y'"):
        autovi.fit(autovi.LogDensity(log_density, TEMPLATE), {"x": Y}, progress_bar=False)


def test_a_jump_in_it_is_seen():
    """Nothing is known of how the density is made: a jump takes the score function."""
    jumping = lambda p: jnp.where(p["x"] > 0.3, -1.0, 0.0) - 0.5 * p["x"] ** 2  # noqa: E731
    plan = autovi.plan(autovi.LogDensity(jumping, {"x": 0.0}))
    assert plan["x"].estimator == "score" and "jumps" in plan["x"].why


# --- an expected loss ------------------------------------------------------------------------------------------------


def loss(params, target):
    """b ~ Bernoulli(s(a)), x ~ N(m + b, e^s), and (x - target)^2 + b."""
    b = numpyro.sample("b", dist.Bernoulli(logits=params["a"]))
    x = numpyro.sample("x", dist.Normal(params["m"] + b, jnp.exp(params["s"])))
    return (x - target) ** 2 + b


def exact_loss(params, target):
    p = jax.nn.sigmoid(params["a"])
    away = lambda b: (params["m"] + b - target) ** 2 + jnp.exp(2 * params["s"]) + b  # noqa: E731
    return (1 - p) * away(0.0) + p * away(1.0)


@pytest.mark.parametrize("estimators", [{"b": "enumerate"}, {"b": "score"}, {"b": "score", "x": "score"}])
def test_the_gradient_of_an_expected_loss(estimators):
    params = {"a": jnp.array(0.4), "m": jnp.array(-0.3), "s": jnp.array(-0.2)}
    options = Options(objective=Expectation(), estimators=estimators, num_particles=2)
    engine, inputs = prepare(Loss(loss), bind(loss, {"params": params, "target": np.float32(1.1)}), options)
    nothing = {"guide": {}, "param": {}}

    def gradient(params, key):
        own = {f"params['{n}']": x for n, x in params.items()}
        step = lambda own: engine.estimate(nothing, {}, inputs.traced() | own, key)[0]  # noqa: E731
        return {n: jax.grad(step)(own)[f"params['{n}']"] for n in params}

    assert_unbiased(batched(gradient), (params,), flat(jax.grad(exact_loss)(params, 1.1)))


def test_a_site_of_an_expected_loss_cannot_be_summed_out():
    alone = lambda params: numpyro.sample("b", dist.Bernoulli(logits=params)) * 2.0  # noqa: E731
    options = Options(objective=Expectation(), estimators={"b": "marginalize"})
    with pytest.raises(ValueError, match="no posterior to sum it out of"):
        prepare(Loss(alone), {"params": np.float32(0.0)}, options)
