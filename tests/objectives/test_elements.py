"""Weighted bounds of programs whose elements have nothing to do with one another: a bound for each element."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import assert_unbiased, batched, flat

from autovi.objectives import Iwae, Renyi
from autovi.preparation import Options, prepare

X = np.array([1.4, -0.3, 0.8, 2.0], np.float32)


def model(x, size=None, coupled=False):
    shift = numpyro.sample("shift", dist.Normal(0.0, 1.0)) if coupled else 0.0
    with numpyro.plate("row", 4, subsample_size=size) as i:
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("x", dist.Normal(2.0 * z + shift, 1.0), obs=x[i])


def guide(x, size=None, coupled=False):
    if coupled:
        numpyro.sample("shift", dist.Normal(numpyro.param("m", jnp.array(0.1)), 1.0))
    a = numpyro.param("a", jnp.array([0.4, -0.2, 0.1, 0.8]))
    with numpyro.plate("row", 4, subsample_size=size) as i:
        numpyro.sample("z", dist.Bernoulli(logits=a[i]))


def normals(x, size=None):
    with numpyro.plate("row", 4, subsample_size=size) as i:
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(z, 0.7), obs=x[i])


def normal_guide(x, size=None):
    a = numpyro.param("a", jnp.array([0.4, -0.2, 0.1, 0.8]))
    with numpyro.plate("row", 4, subsample_size=size) as i:
        numpyro.sample("z", dist.Normal(a[i], 0.8))


def exact(params, power):
    """The sum over elements of the mean of 1/b log mean w^b over all pairs of draws."""
    log_q = jnp.stack([jax.nn.log_sigmoid(-params["a"]), jax.nn.log_sigmoid(params["a"])])
    log_p = jnp.log(jnp.array([[0.7], [0.3]])) + jax.scipy.stats.norm.logpdf(X - jnp.array([[0.0], [2.0]]))
    total = 0.0
    for one, two in np.ndindex(2, 2):
        weights = jnp.stack([log_p[z] - log_q[z] for z in (one, two)])
        mean = (jax.nn.logsumexp(power * weights, 0) - jnp.log(2.0)) / power
        total += jnp.sum(jnp.exp(log_q[one] + log_q[two]) * mean)
    return total


def exact_normals(params, power):
    nodes = jnp.linspace(-7.0, 7.0, 281)
    share = jax.scipy.stats.norm.pdf(nodes) * (nodes[1] - nodes[0])
    z = params["a"] + 0.8 * nodes[:, None]
    log_w = jax.scipy.stats.norm.logpdf(z) + jax.scipy.stats.norm.logpdf(X, z, 0.7)
    log_w = log_w - jax.scipy.stats.norm.logpdf(nodes[:, None]) + jnp.log(0.8)
    mean = (jnp.logaddexp(power * log_w[:, None], power * log_w[None]) - jnp.log(2.0)) / power
    return jnp.einsum("i,j,ijn->", share, share, mean)


def gradient_of(engine, inputs):
    def gradient(params, key):
        raw = {"guide": {}, "param": params}
        own = engine.estimator_params()
        grads = jax.grad(lambda p: engine.estimate(p, own, inputs.traced(), key)[0])(raw)["param"]
        return jax.tree.map(jnp.negative, grads)

    return gradient


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize(
    ("target", "estimator", "objective", "power"),
    [
        ((model, guide, exact), {"estimator": "score", "baseline": "none"}, Iwae(), 1.0),
        ((model, guide, exact), {"estimator": "score", "baseline": "none"}, Renyi(0.5), 0.5),
        ((normals, normal_guide, exact_normals), "explicit", Iwae(), 1.0),
        ((normals, normal_guide, exact_normals), "dreg", Iwae(), 1.0),
    ],
    ids=["vimco", "renyi", "explicit", "dreg"],
)
def test_the_gradient_is_that_of_the_sum_of_bounds(target, estimator, objective, power, size):
    fn, q, bound = target
    options = Options(guide=q, estimators={"z": estimator}, num_particles=2, objective=objective)
    engine, inputs = prepare(fn, {"x": X, "size": size}, options)
    params = {"a": jnp.array([0.4, -0.2, 0.1, 0.8])}
    assert_unbiased(batched(gradient_of(engine, inputs)), (params,), flat(jax.grad(bound)(params, power)))
    one = lambda key: engine.estimate({"guide": {}, "param": params}, {"z": ()}, inputs.traced(), key)[1].elbo  # noqa: E731
    found = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 20_000)))
    assert abs(found.mean() - bound(params, power)) < 5 * found.std() / 20_000**0.5


SCORED = {"z": {"estimator": "score", "baseline": "none"}}


def test_elements_that_share_a_site_are_weighed_together():
    options = Options(guide=guide, estimators=SCORED, objective=Iwae())
    apart, _ = prepare(model, {"x": X}, options)
    together, _ = prepare(model, {"x": X, "coupled": True}, options)
    assert apart.program.elements is not None and apart.program.elements.plate.name == "row"
    assert together.program.elements is None


def test_elements_that_see_one_another_are_weighed_together():
    def mixing(x):
        with numpyro.plate("row", 4):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.sample("x", dist.Normal(2.0 * jnp.mean(z) + z, 1.0), obs=x)

    options = Options(guide=lambda x: guide(x), estimators=SCORED, objective=Iwae())
    assert prepare(mixing, {"x": X}, options)[0].program.elements is None


@pytest.mark.parametrize("objective", [Iwae(), Renyi(0.5)])
def test_batches_are_refused_where_elements_share_a_site(objective):
    """The mean over batches of log mean w would lie above the evidence as readily as below it."""
    data = {"x": X, "size": 2, "coupled": True}
    with pytest.raises(ValueError, match=f"objective '{objective.name}': plate 'row' is subsampled"):
        prepare(model, data, Options(guide=guide, estimators=SCORED, objective=objective))
    prepare(model, data, Options(guide=guide, estimators=SCORED, objective=Renyi(1.0)))  # a mean of logarithms
    prepare(model, {**data, "coupled": False}, Options(guide=guide, estimators=SCORED, objective=objective))
