"""Objectives: the gradient of each against that of the exact bound, and which estimators each admits."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import assert_unbiased, batched, flat

import autovi
from autovi.objectives import OBJECTIVES, Elbo, Iwae, Renyi
from autovi.preparation import Options, prepare
from oracles.base import standard_normal_nodes


def discrete(x):
    z = numpyro.sample("z", dist.Bernoulli(0.3))
    numpyro.sample("x", dist.Normal(2.0 * z, 1.0), obs=x)


def discrete_guide(x):
    numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("a", jnp.array(0.4))))


def bound(log_weights, power):
    """1/b log mean w^b along the last axis; the mean of log w where b is 0."""
    if power == 0:
        return jnp.mean(log_weights, -1)
    return (jax.nn.logsumexp(power * log_weights, -1) - np.log(log_weights.shape[-1])) / power


def exact_discrete(params, power, count=2):
    """Every set of draws in turn."""
    log_q = jnp.stack([jax.nn.log_sigmoid(-params["a"]), jax.nn.log_sigmoid(params["a"])])
    log_p = jnp.log(jnp.array([0.7, 0.3])) - 0.5 * (1.4 - jnp.array([0.0, 2.0])) ** 2 - 0.5 * np.log(2 * np.pi)
    total = 0.0
    for draws in np.ndindex(*(2,) * count):
        weights = jnp.stack([log_p[z] - log_q[z] for z in draws])
        total += jnp.exp(sum(log_q[z] for z in draws)) * bound(weights, power)
    return total


def continuous(x):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("x", dist.Normal(z, 0.7), obs=x)


def continuous_guide(x):
    m, s = numpyro.param("m", jnp.array(0.2)), numpyro.param("s", jnp.array(-0.3))
    numpyro.sample("z", dist.Normal(m, jnp.exp(s)))


def exact_continuous(params, power):
    """Two draws by quadrature in both."""
    nodes, weights = standard_normal_nodes()
    z = params["m"] + jnp.exp(params["s"]) * nodes
    log_q = -0.5 * nodes**2 - params["s"]
    log_w = -0.5 * z**2 - 0.5 * ((1.4 - z) / 0.7) ** 2 - np.log(0.7) - 0.5 * np.log(2 * np.pi) - log_q
    pairs = jnp.stack(jnp.broadcast_arrays(log_w[:, None], log_w[None, :]), -1)
    return weights @ bound(pairs, power) @ weights


DISCRETE = (discrete, discrete_guide, {"a": jnp.array(0.4)}, exact_discrete)
CONTINUOUS = (continuous, continuous_guide, {"m": jnp.array(0.2), "s": jnp.array(-0.3)}, exact_continuous)


VIMCO = {"estimator": "score", "baseline": "none"}
AVERAGE = {"estimator": "score", "baseline": "moving_average"}


@pytest.mark.parametrize(
    ("case", "estimator", "objective", "particles", "power"),
    [
        pytest.param(DISCRETE, VIMCO, "iwae", 2, 1.0, id="vimco"),
        pytest.param(DISCRETE, AVERAGE, "iwae", 2, 1.0, id="vimco with an average"),
        pytest.param(DISCRETE, VIMCO, Iwae(2), 6, 1.0, id="vimco, three pairs"),
        pytest.param(DISCRETE, VIMCO, "renyi", 2, 0.5, id="renyi, score"),
        pytest.param(DISCRETE, VIMCO, Renyi(-1.0), 2, 2.0, id="renyi below 0, score"),
        pytest.param(DISCRETE, VIMCO, Renyi(1.0), 2, 0.0, id="renyi 1, score"),
        pytest.param(CONTINUOUS, "explicit", "iwae", 2, 1.0, id="pathwise"),
        pytest.param(CONTINUOUS, "explicit", Iwae(2), 4, 1.0, id="pathwise, two pairs"),
        pytest.param(CONTINUOUS, "explicit", Renyi(0.3), 2, 0.7, id="renyi, pathwise"),
        pytest.param(CONTINUOUS, "explicit", Renyi(1.5), 2, -0.5, id="renyi above 1, pathwise"),
    ],
)
def test_gradient_of_a_bound_of_weighted_particles(case, estimator, objective, particles, power):
    model, guide, params, exact = case
    options = Options(guide=guide, estimators={"z": estimator}, num_particles=particles, objective=objective)
    engine, inputs = prepare(model, {"x": np.float32(1.4)}, options)
    own = jax.tree.map(lambda b: b + 0.7, engine.estimator_params())

    def gradient(params, key):
        raw = {"guide": {}, "param": params}
        loss = lambda p: engine.estimate(p, own, inputs.traced(), key)  # noqa: E731
        grads, info = jax.grad(loss, has_aux=True)(raw)
        return {"gradient": jax.tree.map(jnp.negative, grads["param"]), "value": info.elbo}

    value, grads = jax.value_and_grad(exact)(params, power)
    assert_unbiased(batched(gradient), (params,), flat({"gradient": grads, "value": value}))


def test_signal_of_vimco():
    """L - L_{-k} by the formula, for weights that a rounding error would show in."""
    log_weights = jnp.array([-3.0, 0.5, -1.2])
    objective = Iwae()
    for k in range(3):
        others = np.delete(np.asarray(log_weights), k)
        without = np.append(others, others.mean())
        expected = 3 * (np.logaddexp.reduce(log_weights) - np.logaddexp.reduce(without))
        assert float(objective.signal(log_weights)[k]) == pytest.approx(float(expected), rel=1e-5)


def test_groups_of_particles_are_bounds_of_their_own():
    log_weights = jnp.array([-3.0, 0.5, -1.2, 2.0, 0.3, 0.1])
    grouped, alone = Iwae(3), Iwae()
    parts = log_weights[:3], log_weights[3:]
    assert float(grouped.value(log_weights)) == pytest.approx(np.mean([alone.value(x) for x in parts]), rel=1e-6)
    for method in ("signal", "through"):
        found, expected = getattr(grouped, method)(log_weights), [getattr(alone, method)(x) for x in parts]
        np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-5)


def test_order_0_is_the_importance_weighted_bound_and_order_1_the_elbo():
    log_weights = jnp.array([-3.0, 0.5, -1.2])
    for method in ("value", "signal", "through"):
        zero, whole = (getattr(objective, method)(log_weights) for objective in (Renyi(0.0), Iwae()))
        np.testing.assert_array_equal(zero, whole)
    assert float(Renyi(1.0).value(log_weights)) == pytest.approx(float(jnp.mean(log_weights)), rel=1e-6)


@pytest.mark.parametrize("power", [1e-4, -1e-4, 1e-6])
def test_near_order_1_no_digits_are_lost(power):
    """mean log w + b/2 var log w + O(b^2), in single precision."""
    log_weights = np.array([97.0, 100.5, 98.8])
    expected = log_weights.mean() + power / 2 * log_weights.var()
    found = Renyi(1.0 - power).value(jnp.asarray(log_weights, jnp.float32))
    assert float(found) == pytest.approx(expected, rel=3e-7)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9, 1.2])
def test_the_bound_of_many_particles_is_the_closed_form_of_two_normals(alpha):
    """log Z + 1/b log int N(z; mu, tau^2)^b N(z; m, s^2)^(1 - b) dz, a Gaussian integral."""
    (mu, tau), (m, s), b = (0.3, 0.8), (0.1, 1.0), 1 - alpha
    z = m + s * jax.random.normal(jax.random.key(0), (400_000,))
    log_weights = 1.5 + dist.Normal(mu, tau).log_prob(z) - dist.Normal(m, s).log_prob(z)
    mixed = (b / tau**2 + (1 - b) / s**2) ** -0.5
    quadratic = b * (1 - b) * (mu - m) ** 2 * mixed**2 / (tau * s) ** 2 / 2
    exact = 1.5 + (np.log(mixed) - b * np.log(tau) - (1 - b) * np.log(s) - quadratic) / b
    assert float(Renyi(alpha).value(log_weights)) == pytest.approx(exact, abs=0.005)


def test_bounds_fall_with_their_order():
    log_weights = jax.random.normal(jax.random.key(1), (50,))
    values = [float(Renyi(alpha).value(log_weights)) for alpha in (-5.0, -0.5, 0.0, 0.5, 0.999, 1.0, 2.0, 30.0)]
    assert values == sorted(values, reverse=True)
    assert np.isfinite(values).all()


def test_weights_of_nothing_count_as_nothing():
    log_weights = jnp.array([-jnp.inf, 0.5, -1.2])
    for objective in (Iwae(), Renyi(0.5)):
        value, slope = jax.value_and_grad(objective.value)(log_weights)
        assert np.isfinite(float(value)) and float(slope[0]) == 0.0 and np.isfinite(slope).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Iwae(1), "num_samples: expected an integer of at least 2"),
        (lambda: Iwae(2.5), "num_samples: expected an integer of at least 2"),
        (lambda: Renyi(float("nan")), "alpha: expected a finite number"),
    ],
)
def test_numbers_that_are_none(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_particles_are_a_multiple_of_a_group():
    with pytest.raises(ValueError, match="num_particles: expected a multiple of 5, which objective 'iwae'.*got 12"):
        prepare(continuous, {"x": 1.4}, Options(num_particles=12, objective=Iwae(5)))
    engine, _ = prepare(continuous, {"x": 1.4}, Options(objective=Iwae(5)))
    assert engine.num_particles == 5
    engine, _ = prepare(discrete, {"x": 1.4}, Options(estimators={"z": VIMCO}, objective=Iwae(3)))
    assert engine.num_particles == 6 or engine.num_particles == 9


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_values(name):
    log_weights = jnp.array([-3.0, 0.5, -1.2])
    exact = {"elbo": np.mean([-3.0, 0.5, -1.2]), "iwae": np.log(np.mean(np.exp([-3.0, 0.5, -1.2])))}
    exact["renyi"] = 2 * np.log(np.mean(np.exp([-1.5, 0.25, -0.6])))
    assert float(OBJECTIVES[name]().value(log_weights)) == pytest.approx(exact[name], rel=1e-6)


def test_estimators_that_a_weighted_mean_does_not_admit():
    for estimator, message in (("enumerate", "one site's values"), ("score", "cost of the site's own")):
        with pytest.raises(ValueError, match=message):
            prepare(
                discrete,
                {"x": 1.4},
                Options(guide=discrete_guide, estimators={"z": estimator}, num_particles=2, objective="iwae"),
            )


def test_too_few_particles():
    with pytest.raises(ValueError, match="too few for objective 'iwae'"):
        prepare(continuous, {"x": 1.4}, Options(num_particles=1, objective="iwae"))


def test_a_fit_by_the_importance_weighted_bound():
    """Its loss is below the negative ELBO of the same family: the bound is tighter."""
    losses = {}
    for objective in (Elbo(), Iwae()):
        fit = autovi.fit(
            continuous,
            {"x": np.float32(1.4)},
            objective=objective,
            num_particles=8,
            num_steps=600,
            progress_bar=False,
        )
        losses[objective.name] = fit.losses[-200:].mean()
    assert losses["iwae"] <= losses["elbo"] + 1e-3


def test_the_signal_of_a_particle_with_all_the_weight_is_finite():
    """L - L_{-k} in double precision, by logarithms: one weight is e^25 times all others."""
    log_weights = np.array([-24.9, -0.16, -38.8, -39.1])
    others = (log_weights.sum() - log_weights) / 3
    replaced = np.where(np.eye(4, dtype=bool), others[:, None], log_weights)
    exact = 4 * (np.logaddexp.reduce(log_weights) - np.logaddexp.reduce(replaced, axis=1))
    found = Iwae().signal(jnp.asarray(log_weights, jnp.float32))
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-6)
