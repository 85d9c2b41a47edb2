"""Sticking the landing: unbiased against exact gradients, no noise at the exact posterior, antithetic pairs, refusals
where the part of the gradient that it leaves out would count."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import assert_unbiased, batched, flat

import autovi
from autovi.distributions.noise import from_noise
from autovi.estimators import Sticking
from autovi.objectives import Iwae
from autovi.preparation import Options, prepare

Y = np.array([1.2, -0.3, 0.8], np.float32)
PRIOR, NOISE = 1.5, 0.5
FAMILIES = ("normal", "full_rank", "sinh_arcsinh", "structured")
IN_PLATE = ("normal", "full_rank", "sinh_arcsinh")


def model(y):
    """A normal posterior over (level, slope): log p is a quadratic form."""
    level = numpyro.sample("level", dist.Normal(0.0, PRIOR))
    slope = numpyro.sample("slope", dist.Normal(0.0, PRIOR))
    numpyro.sample("y", dist.Normal(level + slope * jnp.array([-1.0, 0.0, 2.0]), NOISE).to_event(1), obs=y)


def posterior():
    """Mean and covariance of (level, slope)."""
    X = np.stack([np.ones(3), [-1.0, 0.0, 2.0]], 1)
    covariance = np.linalg.inv(X.T @ X / NOISE**2 + np.eye(2) / PRIOR**2)
    return covariance @ X.T @ Y / NOISE**2, covariance


def prepared(family, estimator, num_particles=2):
    options = Options(families={"*": family}, estimators={"*": estimator}, num_particles=num_particles)
    engine, inputs = prepare(model, {"y": Y}, options)
    own = engine.estimator_params()

    def gradient(guide, key):
        loss = lambda guide: engine.estimate({"guide": guide, "param": {}}, own, inputs.traced(), key)[0]  # noqa: E731
        return jax.grad(loss)(guide)

    return engine, inputs, gradient


def moved(params):
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(3)
    return jax.tree.unflatten(tree, [x + 0.3 * jnp.asarray(rng.normal(size=x.shape), x.dtype) for x in leaves])


def exact_loss(q_of, guide):
    """-E_q[log p - log q] by quadrature over the noise of the one block."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    noise = jnp.stack(jnp.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    weights = jnp.outer(weights, weights).ravel() / (2 * np.pi)
    mean, covariance = posterior()
    value, log_q = jax.vmap(lambda eps: q_of(guide, eps))(noise)
    target = dist.MultivariateNormal(jnp.asarray(mean), jnp.asarray(covariance))
    return -jnp.sum(weights * (target.log_prob(value) - log_q))


@pytest.mark.parametrize("family", FAMILIES)
def test_unbiased(family):
    """Against the exact gradient, and `explicit` beside it."""
    engine, _, gradient = prepared(family, "sticking", num_particles=3)
    params = moved(engine.program.init(jax.random.key(0), {}, jnp.array([0.3, -0.4]))["guide"])
    (block,) = engine.program.plan.blocks
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
        layout = engine.program.blocks.layout(block)
        q_of = lambda guide, eps: from_noise(block.family.member(guide[block.name], layout), eps)  # noqa: E731
        exact = flat(jax.grad(lambda p: exact_loss(q_of, p))(wide))
    assert_unbiased(batched(gradient), (params,), exact)
    _, _, plain = prepared(family, "explicit", num_particles=2)
    assert_unbiased(batched(plain), (params,), exact)


@pytest.mark.parametrize("family", ["full_rank", "structured"])
def test_with_the_whole_score_it_is_the_whole_derivative_and_with_a_part_of_it_unbiased(family):
    share = 0.6
    engine, _, gradient = prepared(family, Sticking(score=1.0), num_particles=3)
    params = moved(engine.program.init(jax.random.key(0), {}, jnp.array([0.3, -0.4]))["guide"])
    (block,) = engine.program.plan.blocks
    layout, mean, covariance = engine.program.blocks.layout(block), *posterior()
    target = dist.MultivariateNormal(jnp.asarray(mean, jnp.float32), jnp.asarray(covariance, jnp.float32))
    key = jax.random.key(4)
    noise = engine.program.noise(key, 3)[block.name]

    def whole(guide):
        value, log_q = jax.vmap(lambda eps: from_noise(block.family.member(guide[block.name], layout), eps))(noise)
        return jnp.mean(log_q - target.log_prob(value))

    np.testing.assert_allclose(flat(gradient(params, key)), flat(jax.grad(whole)(params)), rtol=1e-3, atol=2e-3)
    _, _, without = prepared(family, "sticking", num_particles=3)
    _, _, partly = prepared(family, Sticking(score=share), num_particles=3)
    between = (1 - share) * flat(without(params, key)) + share * flat(gradient(params, key))
    np.testing.assert_allclose(flat(partly(params, key)), between, rtol=1e-3, atol=2e-3)
    assert np.abs(flat(without(params, key)) - flat(gradient(params, key))).max() > 0.05


@pytest.mark.parametrize("family", ["full_rank", "sinh_arcsinh", "structured"])
def test_no_noise_at_the_exact_posterior(family):
    """Every gradient is zero there but for rounding, where those of `explicit` are of the size of one and more."""
    engine, _, gradient = prepared(family, "sticking", num_particles=1)
    (block,) = engine.program.plan.blocks
    mean, covariance = (jnp.asarray(x, jnp.float32) for x in posterior())
    factor = jnp.linalg.cholesky(covariance)
    layout = engine.program.blocks.layout(block)
    guide = {block.name: block.family.from_normal(mean, factor, layout)}
    keys = jax.random.split(jax.random.key(1), 200)
    spread = lambda of: np.abs(np.stack([flat(g) for g in _each(of, guide, keys)]))  # noqa: E731
    assert spread(gradient).max() < 1e-4
    _, _, plain = prepared(family, "explicit", num_particles=1)
    assert spread(plain).max() > 1.0


def _each(gradient, guide, keys):
    found = jax.jit(jax.vmap(lambda key: gradient(guide, key)))(keys)
    return [jax.tree.map(lambda x, i=i: x[i], found) for i in range(len(keys))]


@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_noise_comes_in_antithetic_pairs(count):
    noise = np.asarray(Sticking().noise(jax.random.key(0), count, (3, 2)))
    assert noise.shape == (count, 3, 2)
    half = count // 2
    np.testing.assert_array_equal(noise[-half:] if half else noise[:0], -noise[:half])
    assert len(np.unique(np.abs(noise))) == (count + 1) // 2 * 6


def grouped(y):
    with numpyro.plate("group", 3, subsample_size=2) as index:
        effect = numpyro.sample("effect", dist.Normal(0.0, PRIOR).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(effect.sum(-1), NOISE), obs=jnp.asarray(y)[index])


@pytest.mark.parametrize("family", IN_PLATE)
def test_in_a_subsampled_plate(family):
    """The mean of the gradients is that of `explicit`, which the conformance suite holds to exact ones."""
    means = []
    for estimator in ("sticking", "explicit"):
        options = Options(families={"effect": family}, estimators={"effect": estimator}, num_particles=2)
        engine, inputs = prepare(grouped, {"y": Y}, options)
        params = moved(engine.program.init(jax.random.key(0), {}, jnp.linspace(-0.5, 0.5, 6))["guide"])
        own = engine.estimator_params()

        def gradient(guide, key, engine=engine, own=own, inputs=inputs):
            loss = lambda g: engine.estimate({"guide": g, "param": {}}, own, inputs.traced(), key)[0]  # noqa: E731
            return jax.grad(loss)(guide)

        found = jax.jit(jax.vmap(lambda key, params=params: gradient(params, key)))(
            jax.random.split(jax.random.key(7), 20_000)
        )
        draws = np.concatenate([np.asarray(x).reshape(20_000, -1) for x in jax.tree.leaves(found)], axis=1)
        means.append((draws.mean(0), draws.std(0) / np.sqrt(20_000)))
    (a, a_error), (b, b_error) = means
    assert np.linalg.norm(b_error) < 0.02 * np.linalg.norm(b)
    assert (np.abs(a - b) / (np.hypot(a_error, b_error) + 1e-5)).max() < 5.5


def test_sixteen_particles_where_nobody_says():
    assert autovi.plan(model, {"y": Y}, guide="full_rank", estimators={"*": "sticking"}).num_particles == 16


def test_its_abbreviation_is_a_name_of_it():
    short, whole = (autovi.plan(model, {"y": Y}, estimators={"*": name}) for name in ("stl", "sticking"))
    assert short.to_dict() == whole.to_dict() and short["level"].estimator == "sticking"


def test_refused_where_the_score_counts():
    with pytest.raises(
        ValueError, match="'sticking' would be wrong, since the part of the gradient that it leaves out"
    ):
        prepare(model, {"y": Y}, Options(estimators={"*": "sticking"}, objective=Iwae()))


def test_refused_where_the_family_is_no_map_of_noise():
    with pytest.raises(ValueError, match="'sticking' would be wrong, since its distribution admits"):
        autovi.plan(model, {"y": Y}, families={"*": "low_rank"}, estimators={"*": "sticking"})
