"""Biased estimators: their mean is what their papers say it is, to the digits of a quadrature, and not the gradient."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from test_variances import EXACT, TARGET, THREE, gradients, squared

import autovi
from autovi.estimators import ESTIMATORS, Concrete, ReinMax, StraightThrough
from autovi.preparation import Options, prepare

P = np.asarray(THREE, float)
LOGIT = jnp.log(THREE) - jnp.log1p(-THREE)
U = (np.arange(200_000) + 0.5) / 200_000
LOGISTIC = np.log(U) - np.log1p(-U)


def cubed(b):
    return jnp.sum((b - TARGET) ** 3)


def slope_of(power, b):
    return power * (b - np.asarray(TARGET, float)) ** (power - 1)


def concrete_mean(temperature):
    """E f'(s) s (1 - s) / tau, s = sigmoid((l + logistic noise) / tau), by the midpoint rule."""
    s = 1 / (1 + np.exp(-(np.log(P / (1 - P)) + LOGISTIC[:, None]) / temperature))
    return (slope_of(2, s) * s * (1 - s) / temperature).mean(0)


def straight_mean(power):
    return P * (1 - P) * (P * slope_of(power, 1) + (1 - P) * slope_of(power, 0))


def reinmax_mean(power):
    return P * (1 - P) * (slope_of(power, 1) + slope_of(power, 0)) / 2


def sigmoid_slope(z, temperature):
    s = 1 / (1 + np.exp(-z / temperature))
    return s * (1 - s) / temperature


def form_mean(form, temperature, eta=1.0):
    """The same with the conditional means of the two other forms, by the midpoint rule."""
    total = 0
    for b, weight in ((0, 1 - P), (1, P)):
        m = (P + b) / 2
        inside = U[:, None] * m + 1 - m if b else U[:, None] * (1 - m)
        start = np.log(m / (1 - m))
        mean = sigmoid_slope(start + np.log(inside) - np.log1p(-inside), temperature).mean(0)
        free = sigmoid_slope(start + LOGISTIC[:, None], temperature).mean(0)
        first = 2 * mean if form == "rao" else 2 * m * (1 - m) + eta * (mean - free)
        total = total + weight * slope_of(2, b) * (first - P * (1 - P) / 2)
    return total


CASES = {
    "straight_through": (StraightThrough(), squared(TARGET), straight_mean(2)),
    "straight_through, cubic": (StraightThrough(), cubed, straight_mean(3)),
    "concrete": (Concrete(), squared(TARGET), concrete_mean(0.5)),
    "concrete, hot": (Concrete(2.0), squared(TARGET), concrete_mean(2.0)),
    "reinmax, cubic": (ReinMax(), cubed, reinmax_mean(3)),
    "reinmax, rao": (ReinMax("rao", 0.5), squared(TARGET), form_mean("rao", 0.5)),
    "reinmax, cv": (ReinMax("cv", 0.7, eta=0.5), squared(TARGET), form_mean("cv", 0.7, 0.5)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_mean_is_that_of_the_formula(name):
    estimator, cost, expected = CASES[name]
    found = gradients(LOGIT, cost, estimator, repeats=40_000)
    error = found.std(0) / len(found) ** 0.5
    assert (error < 0.05 * np.abs(expected).max()).all()
    assert (np.abs(found.mean(0) - expected) < 5 * error + 1e-5).all(), (found.mean(0), expected)
    exact = _exact(cost)
    assert np.abs(expected - exact).max() > 5e-4  # it is biased


def _exact(cost):
    """p (1 - p) (f(1) - f(0)) of each number, whose costs add up."""
    at = jnp.eye(3)
    return P * (1 - P) * np.array([float(cost(at[i]) - cost(jnp.zeros(3))) for i in range(3)])


def test_the_published_figures():
    """Of the RELAX authors' tests: the means at p = (.3, .5, .8), the gradient being (.126, -.025, -.128)."""
    np.testing.assert_allclose(_exact(squared(TARGET)), EXACT, atol=1e-6)
    np.testing.assert_allclose(straight_mean(2), [0.043, -0.025, -0.032], atol=1.1e-3)
    np.testing.assert_allclose(concrete_mean(0.5), [0.088, -0.022, -0.090], atol=8e-4)


@pytest.mark.parametrize(
    ("estimator", "slope"),
    [(StraightThrough(), lambda b: P * (1 - P)), (ReinMax(), lambda b: np.abs(b - P) / 2)],
    ids=["straight_through", "reinmax"],
)
def test_each_draw_has_the_gradient_of_the_formula(estimator, slope):
    """Without Monte Carlo: the estimate at every one of the eight draws."""
    found = gradients(LOGIT, cubed, estimator, repeats=2_000)
    draws = np.stack(np.meshgrid(*[[0.0, 1.0]] * 3), -1).reshape(-1, 3)
    expected = np.array([slope_of(3, b) * slope(b) for b in draws])
    apart = np.abs(found[:, None] - expected).max(-1)  # by estimate and draw
    assert (apart.min(1) < 2e-5).all() and (apart.min(0) < 2e-5).all()


def test_reinmax_is_right_where_the_cost_is_quadratic():
    found = gradients(LOGIT, squared(TARGET), ReinMax(), repeats=40_000)
    np.testing.assert_allclose(found.mean(0), EXACT, atol=5 * found.std(0).max() / len(found) ** 0.5)


def test_the_other_forms_have_less_noise_when_hot():
    noise = lambda *form: gradients(LOGIT, squared(TARGET), ReinMax(*form), repeats=20_000).var(0).sum()  # noqa: E731
    assert noise("rao", 2.0) < 0.7 * noise()


def test_a_lower_temperature_has_less_bias_and_more_noise():
    hot, cold = (gradients(LOGIT, squared(TARGET), Concrete(t), repeats=40_000) for t in (1.0, 0.2))
    assert np.abs(cold.mean(0) - EXACT).max() < 0.6 * np.abs(hot.mean(0) - EXACT).max()
    assert cold.var(0).sum() > 2 * hot.var(0).sum()


def test_the_gradient_flows_through_the_draws_below():
    """a ~ Bernoulli(l), b ~ Bernoulli(-0.4 + 1.5 a), cost 2 b + a: straight through both that is
    E p (1 - p) (1 + 3 s (1 - s)), s the probability of b given a."""

    def guide():
        logit, slope = numpyro.param("logit", 0.3), numpyro.param("slope", 1.5)
        a = numpyro.sample("a", dist.Bernoulli(logits=logit))
        numpyro.sample("b", dist.Bernoulli(logits=-0.4 + slope * a))

    def model():
        a = numpyro.sample("a", dist.Bernoulli(logits=0.3))
        b = numpyro.sample("b", dist.Bernoulli(logits=-0.4 + 1.5 * a))
        numpyro.factor("cost", 2.0 * b + a)

    asked = dict.fromkeys("ab", "straight_through")
    engine, inputs = prepare(model, None, Options(guide=guide, estimators=asked, num_particles=1, allow_bias=True))
    params = {"logit": jnp.asarray(0.3), "slope": jnp.asarray(1.5)}
    grad = jax.grad(lambda p, key: engine.estimate({"guide": {}, "param": p}, {}, inputs.traced(), key)[0])
    keys = jax.random.split(jax.random.key(3), 20_000)
    found = jax.jit(lambda ks: jax.lax.map(lambda key: grad(params, key), ks, batch_size=1000))(keys)
    p, s = 1 / (1 + np.exp(-0.3)), 1 / (1 + np.exp(0.4 - 1.5 * np.array([0.0, 1.0])))
    flows = s * (1 - s)
    expected = {"logit": p * (1 - p) * (1 + 3 * ((1 - p) * flows[0] + p * flows[1])), "slope": 2 * p * flows[1]}
    for name, value in expected.items():
        own = -np.asarray(found[name], float)
        assert abs(own.mean() - value) < 5 * own.std() / len(own) ** 0.5 + 1e-5, name
        assert own.std() / len(own) ** 0.5 < 0.02 * value


def shifts(y):
    with numpyro.plate("rows", 3):
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        numpyro.sample("y", dist.Normal(2.0 * z, 1.0), obs=y)


DATA = {"y": np.array([1.3, 1.2, 0.6])}


@pytest.mark.parametrize("name", ["concrete", "straight_through", "reinmax"])
def test_values_and_elbo_are_those_of_the_distribution(name):
    """Draws, also those behind the losses, are zeros and ones: the ELBO is that of q."""
    fit = autovi.fit(shifts, DATA, estimators={"z": name}, allow_bias=True, num_steps=1500, progress_bar=False)
    z = fit.sample(2000, resample=False)["z"]
    assert set(np.unique(z)) == {0.0, 1.0}
    q = fit.engine.full
    log_odds = np.log(0.4 / 0.6) + 0.5 * (DATA["y"] ** 2 - (DATA["y"] - 2) ** 2)
    posterior = 1 / (1 + np.exp(-log_odds))
    assert q.plan.biased == {"z": name}
    np.testing.assert_allclose(z.mean(0), posterior, atol=0.2)  # biased, and not off beyond that
    log_prior_odds, p = np.log(0.4 / 0.6), z.mean(0)
    likelihood = -0.5 * np.log(2 * np.pi) - 0.5 * (DATA["y"][:, None] - np.array([0.0, 2.0])) ** 2
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    elbo = (p * (log_prior_odds + likelihood[:, 1]) + (1 - p) * likelihood[:, 0] + np.log(0.6) + entropy).sum()
    assert fit.elbo == pytest.approx(elbo, abs=0.05)
    assert -fit.losses[-500:].mean() == pytest.approx(elbo, abs=0.1)


def test_a_schedule_of_temperatures():
    """The function of the step is asked at the number of steps that were made, also by a fit that goes on."""
    schedule = optax.piecewise_constant_schedule(2.0, {3: 0.25})
    at = lambda step: gradients(LOGIT, squared(TARGET), Concrete(schedule), 1, 40_000, {"b": {"step": step}})  # noqa: E731
    for step, temperature in ((0.0, 2.0), (5.0, 0.5)):
        found = at(step)
        expected = concrete_mean(temperature)
        assert (np.abs(found.mean(0) - expected) < 5 * found.std(0) / len(found) ** 0.5 + 1e-5).all()
    asked = {"z": {"estimator": "concrete", "temperature": schedule}}
    fit = autovi.fit(shifts, DATA, estimators=asked, allow_bias=True, num_steps=7, progress_bar=False)
    assert fit.state.estimators["z"]["step"] == 7
    assert fit.resume(4, progress_bar=False).state.estimators["z"]["step"] == 11


def test_a_schedule_is_no_part_of_a_file(tmp_path):
    estimator = Concrete(optax.constant_schedule(0.5))
    fit = autovi.fit(shifts, DATA, estimators={"z": estimator}, allow_bias=True, num_steps=5, progress_bar=False)
    fit.save(tmp_path / "fit", with_data=True)
    with pytest.raises(ValueError, match="'concrete', of a class or with a function that a file cannot hold; pass an"):
        autovi.load(tmp_path / "fit", shifts)
    again = autovi.load(tmp_path / "fit", shifts, estimators={"z": estimator})
    assert again.state.estimators["z"]["step"] == 5
    plain = autovi.fit(shifts, DATA, estimators={"z": "reinmax"}, allow_bias=True, num_steps=5, progress_bar=False)
    plain.save(tmp_path / "plain", with_data=True)
    assert autovi.load(tmp_path / "plain", shifts).plan.biased == {"z": "reinmax"}


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="^form: unknown name 'rau'"):
        ReinMax("rau")
    with pytest.raises(ValueError, match="^temperature, num_samples: expected a positive number"):
        ReinMax("rao", 0.0)
    with pytest.raises(ValueError, match="^temperature: expected a positive number or a function of the step, got 0"):
        Concrete(0.0)


ELSEWHERE = {
    "gumbel_softmax": "test_gumbel_softmax.py",
    "gumbel_sinkhorn": "test_permutations.py",
    "birkhoff": "test_permutations.py",
    "spsa": "test_spsa.py",
}


def test_every_biased_estimator_has_its_mean_tested():
    """Here or in a file of its own, in the place of the oracles, where estimators are held to the exact gradient."""
    here = {e.name for e, *_ in CASES.values()}
    assert {kind.name for kind in ESTIMATORS.values() if kind.biased} == here | set(ELSEWHERE)
    for name, file in ELSEWHERE.items():
        source = (Path(__file__).parent / file).read_text()
        assert ESTIMATORS[name].__name__ in source and "def test_the_mean" in source
