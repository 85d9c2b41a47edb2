"""Objectives: the gradient of each against that of the exact bound, and which estimators each admits."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import assert_unbiased, batched, flat

import autovi
from autovi.objectives import OBJECTIVES, Elbo, Iwae
from autovi.preparation import Options, prepare
from oracles.base import standard_normal_nodes


def discrete(x):
    z = numpyro.sample("z", dist.Bernoulli(0.3))
    numpyro.sample("x", dist.Normal(2.0 * z, 1.0), obs=x)


def discrete_guide(x):
    numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("a", jnp.array(0.4))))


def exact_discrete(params, count=2):
    """Every set of draws in turn."""
    log_q = jnp.stack([jax.nn.log_sigmoid(-params["a"]), jax.nn.log_sigmoid(params["a"])])
    log_p = jnp.log(jnp.array([0.7, 0.3])) - 0.5 * (1.4 - jnp.array([0.0, 2.0])) ** 2 - 0.5 * np.log(2 * np.pi)
    total = 0.0
    for draws in np.ndindex(*(2,) * count):
        weights = jnp.stack([log_p[z] - log_q[z] for z in draws])
        total += jnp.exp(sum(log_q[z] for z in draws)) * (jax.nn.logsumexp(weights) - np.log(count))
    return total


def continuous(x):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("x", dist.Normal(z, 0.7), obs=x)


def continuous_guide(x):
    m, s = numpyro.param("m", jnp.array(0.2)), numpyro.param("s", jnp.array(-0.3))
    numpyro.sample("z", dist.Normal(m, jnp.exp(s)))


def exact_continuous(params):
    """Two draws by quadrature in both."""
    nodes, weights = standard_normal_nodes()
    z = params["m"] + jnp.exp(params["s"]) * nodes
    log_q = -0.5 * nodes**2 - params["s"]
    log_w = -0.5 * z**2 - 0.5 * ((1.4 - z) / 0.7) ** 2 - np.log(0.7) - 0.5 * np.log(2 * np.pi) - log_q
    return weights @ (jnp.logaddexp(log_w[:, None], log_w[None, :]) - np.log(2)) @ weights


DISCRETE = (discrete, discrete_guide, {"a": jnp.array(0.4)}, exact_discrete)
CONTINUOUS = (continuous, continuous_guide, {"m": jnp.array(0.2), "s": jnp.array(-0.3)}, exact_continuous)


@pytest.mark.parametrize(
    ("case", "estimator"),
    [
        pytest.param(DISCRETE, {"estimator": "score", "baseline": "none"}, id="vimco"),
        pytest.param(DISCRETE, {"estimator": "score", "baseline": "moving_average"}, id="vimco with an average"),
        pytest.param(CONTINUOUS, "explicit", id="pathwise"),
    ],
)
def test_gradient_of_the_importance_weighted_bound(case, estimator):
    model, guide, params, exact = case
    options = Options(guide=guide, estimators={"z": estimator}, num_particles=2, objective="iwae")
    engine, inputs = prepare(model, {"x": np.float32(1.4)}, options)
    own = jax.tree.map(lambda b: b + 0.7, engine.estimator_params())

    def gradient(params, key):
        raw = {"guide": {}, "param": params}
        loss = lambda p: engine.estimate(p, own, inputs.traced(), key)  # noqa: E731
        grads, info = jax.grad(loss, has_aux=True)(raw)
        return {"gradient": jax.tree.map(jnp.negative, grads["param"]), "value": info.elbo}

    value, grads = jax.value_and_grad(exact)(params)
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


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_values(name):
    log_weights = jnp.array([-3.0, 0.5, -1.2])
    exact = {"elbo": np.mean([-3.0, 0.5, -1.2]), "iwae": np.log(np.mean(np.exp([-3.0, 0.5, -1.2])))}
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
