"""Variances against closed forms, and what dependence tracking does to them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi
from autovi.preparation import Options, prepare

REPEATS = 20_000


def sampled_gradients(engine, inputs, params, repeats=REPEATS):
    """Independent gradient estimates of -ELBO `[repeats, parameters]`, for one dict of parameter sites or blocks."""
    own = engine.estimator_params()
    raw = params if "guide" in params else {"guide": {}, "param": params}

    @jax.jit
    def all_gradients(keys):
        grad = jax.grad(lambda p, key: engine.estimate(p, own, inputs.traced(), key)[0])
        return jax.vmap(lambda key: grad(raw, key))(keys)

    leaves = jax.tree.leaves(all_gradients(jax.random.split(jax.random.key(5), repeats)))
    return np.concatenate([np.asarray(x, np.float64).reshape(repeats, -1) for x in leaves], axis=1)


def toy_model():
    b = numpyro.sample("b", dist.Bernoulli(0.5))
    numpyro.factor("loss", -((b - 0.499) ** 2))


def toy_guide():
    numpyro.sample("b", dist.Bernoulli(logits=numpyro.param("logit", jnp.zeros(()))))


@pytest.mark.parametrize(
    ("estimator", "particles", "variance"),
    [
        # One draw: the costs are -f, the score is +-1/2, and f(1) = 0.251001, f(0) = 0.249001.
        ({"estimator": "score", "baseline": "none"}, 1, 0.25 * (0.251001**2 + 0.249001**2) / 2 - 5e-4**2),
        # Two draws: (f1 - f2) (s1 - s2) / 2 is 1e-3 in half of the cases, else 0.
        ("score", 2, 0.5 * 1e-3**2 - 5e-4**2),
        ("enumerate", 1, 0.0),
    ],
)
def test_variance_of_the_toy_problem(estimator, particles, variance):
    """E (b - 0.499)^2 under Bernoulli(1/2), the toy of Tucker et al. (2017): prior and guide agree, so that the ELBO is
    the expectation alone."""
    options = Options(guide=toy_guide, estimators={"b": estimator}, num_particles=particles)
    gradients = sampled_gradients(*prepare(toy_model, None, options), {"logit": jnp.zeros(())})
    spread = 6 * np.sqrt(variance / REPEATS)
    assert gradients.mean() == pytest.approx(5e-4, abs=spread + 1e-8)
    assert gradients.var() == pytest.approx(variance, rel=0.06, abs=1e-14)


def plate_model(y, entangled):
    with numpyro.plate("n", y.shape[0]):
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        mixed = z + 0.0 * z.sum() if entangled else z
        numpyro.sample("y", dist.Normal(mixed, 1.0), obs=y)


def test_costs_of_plate_elements_are_told_apart():
    """With 30 elements, each with a cost of its own, an element's gradient does not see the noise of the 29 others. A
    sum over the plate that changes nothing hides this, and the costs must then be summed: right, but noisy."""
    y = np.linspace(-2.0, 3.0, 30)
    gradients = {}
    for entangled in (False, True):
        options = Options(estimators={"z": "score"}, num_particles=2)
        engine, inputs = prepare(plate_model, {"y": y, "entangled": entangled}, options)
        params = {"guide": {"z": {"logits": jnp.linspace(-1.0, 1.0, 30)}}, "param": {}}
        gradients[entangled] = sampled_gradients(engine, inputs, params)
    local, summed = gradients[False], gradients[True]
    se = np.sqrt(local.var(0) / REPEATS + summed.var(0) / REPEATS)
    assert np.all(np.abs(local.mean(0) - summed.mean(0)) < 5.5 * se)
    assert summed.var(0).sum() > 10 * local.var(0).sum()


def vector_model(y):
    with numpyro.plate("n", 3):
        mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def test_score_of_a_joint_block_sums_the_costs_of_its_elements():
    """The two estimators of one gradient agree: a full-rank normal ties its elements, so their costs count together."""
    data = {"y": np.array([1.0, -0.5, 2.0])}
    lower = jnp.zeros((3, 3)).at[1, 0].set(0.4).at[2, 1].set(-0.3)
    block = {"loc": jnp.array([0.5, 0.2, -0.3]), "log_diagonal": jnp.array([-0.3, 0.1, -0.5]), "lower": lower}
    means, errors = [], []
    for estimator in ("explicit", "score"):
        families = {"mu": autovi.families.FullRank()}
        options = Options(families=families, estimators={"mu": estimator}, num_particles=8)
        engine, inputs = prepare(vector_model, data, options)
        (name,) = (b.name for b in engine.program.plan.blocks)
        gradients = sampled_gradients(engine, inputs, {"guide": {name: block}, "param": {}})
        means.append(gradients.mean(0))
        errors.append(gradients.std(0) / REPEATS**0.5)
    # 5e-3 of the norm is far below any entry that a missing cross term would change.
    tolerance = 5.5 * np.hypot(*errors) + 1e-5
    assert np.linalg.norm(np.hypot(*errors)) < 0.02 * np.linalg.norm(means[0])
    assert np.all(np.abs(means[0] - means[1]) < tolerance)
