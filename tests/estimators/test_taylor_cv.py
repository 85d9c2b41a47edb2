"""The quadratic control variate: no noise where the cost is quadratic, far less than without near a posterior, and the
same mean. Its exact gradients are the conformance suite's."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from autovi.estimators import TaylorCV
from autovi.preparation import Options, prepare

Y = np.array([1.2, -0.3, 0.8], np.float32)


def regression(y):
    """A normal posterior: the cost is quadratic."""
    level = numpyro.sample("level", dist.Normal(0.0, 1.5))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.5))
    numpyro.sample("y", dist.Normal(level + slope * jnp.array([-1.0, 0.0, 2.0]), 0.5).to_event(1), obs=y)


rows = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
labels = np.asarray(np.random.default_rng(1).uniform(size=200) < 1 / (1 + np.exp(-rows @ [1.0, -0.5, 0.3, 0.0, 2.0])))


def logistic(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 2.0).expand([5]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=x @ w).to_event(1), obs=y)


def gradients(model, data, family, estimator, guide_of, repeats, particles=2):
    options = Options(families={"*": family}, estimators={"*": estimator}, num_particles=particles)
    engine, inputs = prepare(model, data, options)
    (block,) = engine.program.plan.blocks
    guide = {block.name: guide_of(block.family, engine.program.blocks.layout(block))}
    own = engine.estimator_params()

    def gradient(key):
        loss = lambda g: engine.estimate({"guide": g, "param": {}}, own, inputs.traced(), key)[0]  # noqa: E731
        return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(jax.grad(loss)(guide))])

    keys = jax.random.split(jax.random.key(4), repeats)
    return np.asarray(jax.jit(lambda ks: jax.lax.map(gradient, ks, batch_size=500))(keys), float)


def anywhere(family, layout):
    start = family.init(jnp.array([0.3, -0.4]), layout)
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda x: x + 0.3 * jnp.asarray(rng.normal(size=x.shape), x.dtype), start)


@pytest.mark.parametrize("family", ["normal", "full_rank"])
def test_no_noise_where_the_cost_is_quadratic(family):
    found = gradients(regression, {"y": Y}, family, "taylor_cv", anywhere, 200)
    plain = gradients(regression, {"y": Y}, family, "explicit", anywhere, 5000)
    scale = np.abs(plain.mean(0)).max()
    assert found.std(0).max() < 2e-5 * scale and plain.std(0).max() > 0.01 * scale
    error = plain.std(0) / np.sqrt(len(plain))
    assert (np.abs(found.mean(0) - plain.mean(0)) < 5 * error + 2e-5 * scale).all()


def test_half_of_it_leaves_half_of_the_noise():
    half = gradients(regression, {"y": Y}, "full_rank", TaylorCV(weight=0.5), anywhere, 500)
    none = gradients(regression, {"y": Y}, "full_rank", TaylorCV(weight=0.0), anywhere, 500)
    np.testing.assert_allclose(half.std(0), none.std(0) / 2, rtol=1e-3, atol=1e-4 * none.std())


def near_the_posterior(family, layout):
    """The normal of the curvature at the mode, its mean a tenth of its scale away."""

    def log_p(w):
        logits = rows @ w
        return jnp.sum(jnp.where(labels, jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits))) - w @ w / 8

    w = jnp.zeros(5)
    for _ in range(20):
        w = w - jnp.linalg.solve(jax.hessian(log_p)(w), jax.grad(log_p)(w))
    covariance = jnp.linalg.inv(-jax.hessian(log_p)(w))
    scale = jnp.sqrt(jnp.diag(covariance))
    return family.from_normal(w + 0.1 * scale, jnp.linalg.cholesky(covariance), layout)


@pytest.mark.parametrize("rival", ["explicit", "sticking"])
def test_less_noise_on_a_logistic_regression(rival):
    """Twenty times less than `explicit`, as published; `sticking` has antithetic pairs, and takes out the score."""
    data = {"x": rows, "y": labels}
    found, plain = (gradients(logistic, data, "full_rank", e, near_the_posterior, 3000) for e in ("taylor_cv", rival))
    error = np.hypot(found.std(0), plain.std(0)) / np.sqrt(3000)
    assert (np.abs(found.mean(0) - plain.mean(0)) < 5 * error + 1e-4).all()
    assert np.linalg.norm(error) < 0.25 * np.linalg.norm(plain.mean(0))
    ratio = plain.var(0).sum() / found.var(0).sum()
    assert ratio > (20 if rival == "explicit" else 1), ratio


@pytest.mark.parametrize("family", ["sinh_arcsinh", "low_rank"])
def test_refused_where_the_mean_of_the_model_is_not_known(family):
    with pytest.raises(
        ValueError, match="'taylor_cv' would be wrong, since the mean of its model is known for normals"
    ):
        prepare(regression, {"y": Y}, Options(families={"*": family}, estimators={"*": "taylor_cv"}))


def test_refused_under_weighted_particles():
    with pytest.raises(ValueError, match="'taylor_cv' would be wrong, since the part of the gradient"):
        prepare(regression, {"y": Y}, Options(estimators={"*": "taylor_cv"}, objective="iwae"))


def test_more_numbers_than_it_takes():
    with pytest.raises(ValueError, match="expected at most max_size=3 numbers in a draw, got 5"):
        gradients(logistic, {"x": rows, "y": labels}, "full_rank", TaylorCV(max_size=3), near_the_posterior, 2)
