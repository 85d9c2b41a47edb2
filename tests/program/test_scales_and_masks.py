"""Scales, masks and subsampled plates under the engine's own guide, against exact ELBOs and gradients.

The rules: `handlers.scale` multiplies the model's log densities, never log q nor a log Jacobian; a subsampled plate
multiplies all three; a mask removes an element's log p, and its log q where nothing else feels the element. Scales
and masks enter as data, so that one compiled program serves every case.

The model is a positive global latent and a Bernoulli per element of a plate of 4: r ~ HalfNormal(2), z_i ~ Bern(0.3),
x_i ~ N(r + 1.5 z_i, 1). Its ELBO is a sum over the two values of each z_i and a quadrature over log r.
"""

import functools
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import assert_unbiased, batched, flat
from numpyro import handlers

from autovi.estimators import Enumerate, Marginalize, Score
from autovi.preparation import Options, prepare
from oracles.base import bernoulli_log_pmf, expected_normal, logit, normal_entropy, standard_normal_nodes

X = np.array([0.4, 2.9, 1.7, 3.6], np.float32)
PRIOR = 0.3
ALL = np.ones(4, bool)
SOME = np.array([True, False, True, False])
OTHERS = np.array([True, True, False, False])
GUIDE = {
    "r": {"loc": jnp.array([-0.6]), "log_diagonal": jnp.array([-1.0]), "lower": jnp.zeros((1, 1))},
    "z": {"logits": jnp.array([-0.5, 0.8, 0.3, 1.2])},
}


def data(r=1.0, z=1.0, x=1.0, mask_z=ALL, mask_x=ALL):
    """The observations with a scale for each site and masks for two."""
    scales = {name: np.float32(s) for name, s in (("scale_r", r), ("scale_z", z), ("scale_x", x))}
    return {"x": X, **scales, "mask_z": mask_z, "mask_x": mask_x}


# Around one latent, around the likelihood, around everything; a masked latent that drives an unmasked observation, the
# reverse, both alike, and masks that overlap in part.
SCALES = [data(**dict.fromkeys(sites, s)) for s in (0.1, 10.0) for sites in ("r", "z", "x", "rzx")]
MASKS = [
    data(mask_z=SOME),
    data(mask_x=SOME),
    data(mask_z=SOME, mask_x=SOME),
    data(z=10.0, x=0.1, mask_z=SOME, mask_x=OTHERS),
]


def model(x, scale_r, scale_z, scale_x, mask_z, mask_x, subsample_size):
    with handlers.scale(scale=scale_r):
        r = numpyro.sample("r", dist.HalfNormal(2.0))
    with numpyro.plate("N", 4, subsample_size=subsample_size) as idx:
        with handlers.scale(scale=scale_z), handlers.mask(mask=mask_z[idx]):
            z = numpyro.sample("z", dist.Bernoulli(PRIOR))
        with handlers.scale(scale=scale_x), handlers.mask(mask=mask_x[idx]):
            numpyro.sample("x", dist.Normal(r + 1.5 * z, 1.0), obs=x[idx])


@functools.cache
def engine_of(estimator, subsample_size):
    options = Options(estimators={"z": estimator}, num_particles=2)
    return prepare(model, data() | {"subsample_size": subsample_size}, options)[0]


def arrays_of(case):
    return {name: jnp.asarray(value) for name, value in case.items()}


def params_of(engine):
    return {"guide": {b.name: GUIDE[b.name] for b in engine.program.plan.blocks}, "param": {}}


def exact_elbo(params, case, marginal=False):
    guide = params["guide"]
    scale = jnp.exp(guide["r"]["log_diagonal"][0])
    nodes, weights = standard_normal_nodes()
    r = jnp.exp(guide["r"]["loc"][0] + scale * nodes)
    log_prior_r = np.log(2.0) + expected_normal(r, 0.0, 2.0)
    # The Jacobian of r = exp(u) is u.
    outer = case["scale_r"] * (weights @ log_prior_r) + guide["r"]["loc"][0] + normal_entropy(scale)
    mask_z = case["mask_z"][:, None].astype(float)
    log_p = case["scale_z"] * mask_z * bernoulli_log_pmf(logit(PRIOR))
    means = r[:, None, None] + 1.5 * np.array([0.0, 1.0])
    # Axes: node, element, value.
    log_lik = case["scale_x"] * case["mask_x"][:, None] * expected_normal(X[:, None], means, 1.0)
    counts = (case["mask_z"] | case["mask_x"]).astype(float)
    if marginal:
        return outer + weights @ (counts * jax.nn.logsumexp(log_p + log_lik, axis=-1)).sum(-1)
    log_q = bernoulli_log_pmf(guide["z"]["logits"])
    inner = log_p - counts[:, None] * log_q + jnp.tensordot(weights, log_lik, 1)
    return outer + (jnp.exp(log_q) * inner).sum()


@functools.cache
def batch_of(estimator, subsample_size):
    """Gradient and ELBO, the ELBO in units in which it weighs as much as the gradient."""
    engine = engine_of(estimator, subsample_size)

    def gradient(params, arrays, unit, key):
        own = engine.estimator_params()
        # A moving average that has seen past costs, different in every element.
        own = jax.tree.map(lambda b: b - 3.0 + jnp.arange(b.size).reshape(b.shape), own)
        grads, info = jax.grad(lambda p: engine.estimate(p, own, arrays, key), has_aux=True)(params)
        return {"gradient": jax.tree.map(jnp.negative, grads), "elbo": info.elbo * unit}

    return batched(gradient)


def check(estimator, subsample_size, case):
    params = params_of(engine_of(estimator, subsample_size))
    marginal = isinstance(estimator, Marginalize)
    value, grads = jax.value_and_grad(exact_elbo)(params, case, marginal)
    unit = np.linalg.norm(flat(grads)) / abs(float(value))
    exact = flat({"gradient": grads, "elbo": value * unit})
    args = (params, arrays_of(case), jnp.float32(unit))
    assert_unbiased(batch_of(estimator, subsample_size), args, exact)


@pytest.mark.parametrize("subsample_size", [1, 2, 3, 4])
@pytest.mark.parametrize("estimator", [Score(), Enumerate(), Marginalize()], ids=lambda e: e.name)
def test_every_subsample_size(estimator, subsample_size):
    check(estimator, subsample_size, data())


@pytest.mark.parametrize("baseline", ["none", "moving_average"])
def test_every_baseline(baseline):
    for case in (data(), data(r=10.0, z=10.0, x=10.0), data(mask_z=SOME, mask_x=OTHERS)):
        check(Score(baseline), 2, case)


@pytest.mark.parametrize("subsample_size", [2, 4])
@pytest.mark.parametrize("estimator", [Score(), Enumerate(), Marginalize()], ids=lambda e: e.name)
def test_every_scale(estimator, subsample_size):
    for case in SCALES:
        check(estimator, subsample_size, case)


@pytest.mark.parametrize("subsample_size", [2, 4])
@pytest.mark.parametrize("estimator", [Score(), Enumerate(), Marginalize()], ids=lambda e: e.name)
def test_every_mask(estimator, subsample_size):
    for case in MASKS:
        check(estimator, subsample_size, case)


@functools.cache
def values_of(estimator, subsample_size):
    """ELBO and gradient at one key as a function of data and indices."""
    engine = engine_of(estimator, subsample_size)
    params = params_of(engine)
    own = engine.estimator_params()

    def loss(params, arrays, indices):
        return engine.estimate(params, own, arrays, jax.random.key(8), indices if indices else None)

    @jax.jit
    def both(arrays, indices):
        grads, info = jax.grad(loss, has_aux=True)(params, arrays, indices)
        return info.elbo, jax.tree.map(jnp.negative, grads)

    return both


@pytest.mark.parametrize("estimator", [Enumerate(), Marginalize()], ids=lambda e: e.name)
@pytest.mark.parametrize("case", [data(), data(z=0.1, x=10.0), data(mask_x=OTHERS)], ids=["plain", "scaled", "masked"])
def test_average_over_all_index_sets_is_the_full_plate(estimator, case):
    """With the same draw of r: an integrated site leaves no noise, so the identity is exact."""
    arrays = arrays_of(case)
    sets = [values_of(estimator, 2)(arrays, {"N": jnp.asarray(c)}) for c in combinations(range(4), 2)]
    average = np.mean([flat(s) for s in sets], axis=0)
    np.testing.assert_allclose(average, flat(values_of(estimator, 4)(arrays, {})), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("estimator", [Score(), Enumerate()], ids=lambda e: e.name)
def test_estimates_are_linear_in_the_scale(estimator):
    """With the same randomness, ELBO and gradient at scale s are a + s b."""
    low, one, high = (flat(values_of(estimator, 4)(arrays_of(data(s, s, s)), {})) for s in (0.1, 1.0, 10.0))
    np.testing.assert_allclose((high - one) / 9.0, (one - low) / 0.9, rtol=1e-4, atol=1e-4)
