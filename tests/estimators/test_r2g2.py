"""R2-G2: the mean of the pathwise gradient given the product with data, draw by draw; less noise for it; refusals."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import flat

import autovi
from autovi.estimators import R2G2
from autovi.objectives import Elbo
from autovi.preparation import Options, prepare
from oracles.base import expected_normal

WIDE = np.array([[1.0, 0.5, -0.3, 0.8], [-0.4, 1.1, 0.6, 0.2]], np.float32)
DEFICIENT = np.concatenate([WIDE, WIDE[::-1] + WIDE, 2 * WIDE, 0 * WIDE])  # eight rows of rank two
TALL = np.concatenate([WIDE, np.eye(4, dtype=np.float32)])
LOC = jnp.array([0.6, -0.2, 0.1, -0.5])
TRIANGLE = jnp.tril(jnp.array([[0.5, 0, 0, 0], [0.3, 0.7, 0, 0], [-0.2, 0.1, 0.4, 0], [0.1, -0.4, 0.2, 0.6]]))
SCALES = {"independent": jnp.diag(TRIANGLE), "full": TRIANGLE}


@dataclass(frozen=True)
class Given(R2G2):
    """With its noise given, a row for each particle."""

    points: tuple = ()

    def noise(self, rng_key, num_particles, shape):
        return jnp.asarray(self.points).reshape(num_particles, *shape)


def curved(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.5).expand([4]).to_event(1))
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Normal(jnp.tanh(x @ w), 0.5), obs=y)


def regression(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.5).expand([4]).to_event(1))
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Normal(x @ w, 0.4), obs=y)


def together(x, y=None):
    """The rows have one cost between them."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.5).expand([4]).to_event(1))
    numpyro.factor("y", -jnp.logaddexp(0.0, jnp.sum(jnp.tanh(x @ w) * y)))


def layer(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.5).expand([4, 3]).to_event(2))
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Normal(jnp.sum(jnp.tanh(x @ w), -1), 0.5), obs=y)


def independent(x, y=None):
    loc, scale = numpyro.param("loc", LOC), numpyro.param("scale", SCALES["independent"])
    numpyro.sample("w", dist.Normal(loc, scale).to_event(1))


def full(x, y=None):
    loc, scale = numpyro.param("loc", LOC), numpyro.param("scale", SCALES["full"])
    numpyro.sample("w", dist.MultivariateNormal(loc, scale_tril=jnp.tril(scale)))


GUIDES = {"independent": independent, "full": full}
PARAMS = {kind: {"loc": LOC, "scale": scale} for kind, scale in SCALES.items()}


def responses(x):
    return np.arange(len(x), dtype=np.float32) % 3


def gradient_of(model, x, kind, estimator, particles=1, closed=None):
    """Of the ELBO in the parameters of one of the guides."""
    asked = Options(
        guide=GUIDES[kind], estimators={"w": estimator}, num_particles=particles, objective=Elbo(closed_form=closed)
    )
    engine, inputs = prepare(model, {"x": x, "y": responses(x)}, asked)

    def gradient(params, key):
        loss = lambda p: engine.estimate({"guide": {}, "param": p}, {}, inputs.traced(), key)[0]  # noqa: E731
        return jax.tree.map(jnp.negative, jax.grad(loss)(params))

    return gradient


def seen_part(x, scale, eps):
    """The part of the noise that the product sees, by NumPy's pseudo-inverse."""
    product = np.float64(x) @ (np.diag(scale) if scale.ndim == 1 else np.float64(scale))
    return np.linalg.pinv(product, rcond=1e-5) @ product @ np.float64(eps)


def other_terms(p):
    """E log p(w) - log q(w)."""
    factor = jnp.diag(p["scale"]) if p["scale"].ndim == 1 else jnp.tril(p["scale"])
    prior = expected_normal(p["loc"], 0.0, 1.5, jnp.sum(factor**2, 1)).sum()
    return prior + jnp.log(jnp.diag(factor)).sum()


def means_of_pairs(terms, params, eps, turned):
    """The gradient of `terms(params, noise)` as the mean of that at two draws, which are not alike."""
    both = [jax.grad(terms)(params, jnp.asarray(e, jnp.float32)) for e in (eps, turned)]
    assert np.linalg.norm(flat(both[0]) - flat(both[1])) > 0.1 * np.linalg.norm(flat(both[0]))
    return jax.tree.map(lambda a, b: (a + b) / 2, *both)


@pytest.mark.parametrize(
    ("model", "x", "kind"),
    [(curved, DEFICIENT, "full"), (together, WIDE, "independent")],
    ids=["deficient", "together"],
)
def test_it_is_the_mean_over_all_draws_of_the_same_product(model, x, kind):
    """The gradient is linear in the part of the noise that the product does not see, so that its mean is that of the
    draw and of the one with this part turned round; the terms that do not see the product are in closed form here. Both
    draws have the same law: unbiased, and with no more variance than `explicit`."""
    params, eps = PARAMS[kind], np.array([0.7, -1.2, 0.4, 1.5])
    y = responses(x)

    def terms(p, noise):
        h = x @ (p["loc"] + (p["scale"] * noise if p["scale"].ndim == 1 else jnp.tril(p["scale"]) @ noise))
        if model is curved:
            return -2 * jnp.sum((y - jnp.tanh(h)) ** 2)
        return -jnp.logaddexp(0.0, jnp.sum(jnp.tanh(h) * y))

    sampled = means_of_pairs(terms, params, eps, 2 * seen_part(x, params["scale"], eps) - eps)
    wanted = jax.tree.map(jnp.add, sampled, jax.grad(other_terms)(params))
    found = gradient_of(model, x, kind, Given(points=tuple(eps)), closed="kl")(params, jax.random.key(0))
    np.testing.assert_allclose(flat(found), flat(wanted), rtol=2e-4, atol=2e-5)


def test_the_same_of_a_layer_with_the_guide_of_autovi():
    eps = np.random.default_rng(1).normal(size=(4, 3))
    given = {"w": Given(points=tuple(map(tuple, eps)))}
    asked = Options(guide="mean_field", estimators=given, num_particles=1, objective=Elbo(closed_form="kl"))
    engine, inputs = prepare(layer, {"x": WIDE, "y": responses(WIDE)}, asked)
    params = engine.program.init(jax.random.key(0), {}, jnp.linspace(-0.7, 0.8, 12))["guide"]
    params = {"w": {"loc": params["w"]["loc"] + 0.3, "log_scale": params["w"]["log_scale"] + 1.3}}

    def terms(p, noise):
        h = WIDE @ (p["w"]["loc"].reshape(4, 3) + jnp.exp(p["w"]["log_scale"]).reshape(4, 3) * noise)
        return -2 * jnp.sum((responses(WIDE) - jnp.sum(jnp.tanh(h), -1)) ** 2)

    scale = np.exp(np.asarray(params["w"]["log_scale"])).reshape(4, 3)
    seen = np.stack([seen_part(WIDE, s, e) for s, e in zip(scale.T, eps.T, strict=True)], 1)

    def other(p):
        return other_terms({"loc": jnp.ravel(p["w"]["loc"]), "scale": jnp.exp(jnp.ravel(p["w"]["log_scale"]))})

    wanted = jax.tree.map(jnp.add, means_of_pairs(terms, params, eps, 2 * seen - eps), jax.grad(other)(params))
    loss = lambda g: engine.estimate({"guide": g, "param": {}}, {}, inputs.traced(), jax.random.key(0))[0]  # noqa: E731
    np.testing.assert_allclose(-flat(jax.grad(loss)(params)), flat(wanted), rtol=2e-4, atol=2e-5)


def test_unbiased_exactly_where_the_cost_is_quadratic():
    """The gradient is then a quadratic in the noise, whose mean is that over the points +-2 e_i."""
    points = tuple(map(tuple, np.concatenate([2 * np.eye(4), -2 * np.eye(4)])))
    found = gradient_of(regression, WIDE, "full", Given(points=points), 8)(PARAMS["full"], jax.random.key(0))

    def exact(p):
        variance = jnp.sum((WIDE @ jnp.tril(p["scale"])) ** 2, 1)
        return other_terms(p) + expected_normal(responses(WIDE), WIDE @ p["loc"], 0.4, variance).sum()

    np.testing.assert_allclose(flat(found), flat(jax.grad(exact)(PARAMS["full"])), rtol=2e-4, atol=1e-3)


def draws_of(x, estimator, closed):
    gradient = gradient_of(curved, x, "full", estimator, closed=closed)
    keys = jax.random.split(jax.random.key(2), 2000)
    found = jax.jit(jax.vmap(lambda key: gradient(PARAMS["full"], key)))(keys)
    return {n: np.asarray(g, float) for n, g in found.items()}


def test_less_variance_with_the_same_draws():
    """The gradient in the location does not have the noise in it, but through the product."""
    mean, plain = (draws_of(WIDE, name, "kl") for name in ("r2g2", "explicit"))
    np.testing.assert_allclose(mean["loc"], plain["loc"], rtol=1e-3, atol=1e-3)
    lower = np.tril_indices(4)
    variances = [np.var(found["scale"], 0)[lower] for found in (mean, plain)]
    assert (variances[0] < 0.95 * variances[1]).all()


def test_it_is_explicit_where_the_product_determines_the_noise():
    mean, plain = (draws_of(TALL, name, None) for name in ("r2g2", "explicit"))
    for name in mean:
        size = np.abs(plain[name]).max()
        np.testing.assert_allclose(mean[name], plain[name], rtol=1e-3, atol=1e-5 * size)


def test_data_of_zeros_have_no_gradient():
    found = gradient_of(curved, 0 * WIDE, "full", "r2g2", closed="kl")(PARAMS["full"], jax.random.key(1))
    np.testing.assert_allclose(flat(found), flat(jax.grad(other_terms)(PARAMS["full"])), rtol=1e-5)


def otherwise_too(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.5).expand([4]).to_event(1))
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Normal(x @ w + w[0], 0.4), obs=y)


def twice(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.5).expand([4]).to_event(1))
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Normal(x @ w + x**2 @ w, 0.4), obs=y)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (otherwise_too, {}, "the term 'p:y' depends on it otherwise than by a product with data"),
        (twice, {}, "2 products with data, and not one, is made of it"),
        (regression, {"families": {"w": "low_rank"}}, "the mean of its noise given a product .* is known for normals"),
        (regression, {"families": {"w": "sinh_arcsinh"}}, "the mean of its noise given a product"),
        (regression, {"objective": "iwae"}, "it is right for each term by itself"),
    ],
)
def test_refused_with_the_reason(model, options, message):
    asked = Options(estimators={"w": "r2g2"}, **{"guide": "mean_field"} | options)
    with pytest.raises(ValueError, match=f"'r2g2' would be wrong, since {message}"):
        prepare(model, {"x": WIDE, "y": responses(WIDE)}, asked)


def test_too_many_numbers_are_refused():
    with pytest.raises(ValueError, match="estimator 'r2g2': expected at most max_size=3 numbers in a draw, got 4"):
        gradient_of(curved, WIDE, "full", R2G2(max_size=3))(PARAMS["full"], jax.random.key(0))


def test_a_fit_of_full_covariance():
    options = {"guide": "full_rank", "num_steps": 500, "progress_bar": False}
    data = {"x": WIDE, "y": responses(WIDE)}
    fit = autovi.fit(regression, data, estimators={"w": "r2g2"}, **options)
    assert fit.plan["w"].estimator == "r2g2"
    covariance = 1.5**2 * WIDE @ WIDE.T + 0.4**2 * np.eye(2)
    evidence = dist.MultivariateNormal(np.zeros(2), covariance).log_prob(responses(WIDE))
    assert fit.elbo == pytest.approx(float(evidence), abs=0.05)
