"""Local reparameterization: the same mean as without, exact where there is a closed form, less noise, and refusals
wherever the rows of the product do not stand for themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import assert_unbiased, batched, flat

import autovi
from autovi.preparation import Options, prepare
from oracles.base import expected_normal, normal_entropy

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 3)).astype(np.float32)
X[7] = 0.0
Y = (X @ [1.0, -0.5, 0.3] + 0.4 * rng.normal(size=60)).astype(np.float32)
LOC, LOG_SCALE = jnp.array([0.6, -0.2, 0.1]), jnp.array([-1.5, -1.0, -1.2])
OWN = {"loc": LOC, "log_scale": LOG_SCALE}


def regression(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.5).expand([3]).to_event(1))
    with numpyro.plate("row", 60):
        numpyro.sample("y", dist.Normal(x @ w, 0.4), obs=y)


def in_batches(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.5).expand([3]).to_event(1))
    with numpyro.plate("row", 60, subsample_size=20) as at:
        numpyro.sample("y", dist.Normal(x[at] @ w, 0.4), obs=y[at])


def guide(x, y=None):
    loc, log_scale = numpyro.param("loc", LOC), numpyro.param("log_scale", LOG_SCALE)
    numpyro.sample("w", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))


def batch_guide(x, y=None):
    guide(x, y)
    with numpyro.plate("row", 60, subsample_size=20):
        pass


def exact(p):
    scale = jnp.exp(p["log_scale"])
    rows = expected_normal(Y, X @ p["loc"], 0.4, X**2 @ scale**2)
    return expected_normal(p["loc"], 0.0, 1.5, scale**2).sum() + rows.sum() + normal_entropy(scale).sum()


def gradient_of(model, estimator="local", guide=guide, particles=1, **options):
    asked = Options(guide=guide, estimators={"w": estimator}, num_particles=particles, **options)
    engine, inputs = prepare(model, {"x": X, "y": Y}, asked)

    def gradient(params, key):
        loss = lambda p: engine.estimate({"guide": {}, "param": p}, {}, inputs.traced(), key)[0]  # noqa: E731
        return jax.tree.map(jnp.negative, jax.grad(loss)(params))

    return gradient


def test_unbiased_in_batches():
    """Whole data are the conformance suite's."""
    assert_unbiased(batched(gradient_of(in_batches, guide=batch_guide)), (OWN,), flat(jax.grad(exact)(OWN)))


def spread(model, estimator, **options):
    gradient = gradient_of(model, estimator, **options)
    keys = jax.random.split(jax.random.key(2), 4000)
    found = jax.jit(lambda ks: jax.lax.map(lambda k: gradient(OWN, k), ks, batch_size=1000))(keys)
    return {n: np.asarray(g, float) for n, g in found.items()}


def test_the_variance_of_the_location_is_that_of_independent_rows():
    """d/dm of -sum_n (y_n - h_n)^2 / (2 v) is sum_n x_n (y_n - h_n) / v, with var h_n = x_n^2' s^2; the prior's term
    has the noise of w of its own, and q's none."""
    found = spread(regression, "local")
    scale = np.exp(np.asarray(LOG_SCALE))
    rows = (X**2).T @ (X**2 @ scale**2) / 0.4**4
    np.testing.assert_allclose(found["loc"].var(0), rows + scale**2 / 1.5**4, rtol=0.12)
    plain = spread(regression, "explicit")
    together = (X.T @ X / 0.4**2 + np.eye(3) / 1.5**2) ** 2 @ scale**2
    np.testing.assert_allclose(plain["loc"].var(0), together, rtol=0.12)
    assert plain["loc"].var(0).sum() > 10 * found["loc"].var(0).sum()
    assert plain["log_scale"].var(0).sum() > 10 * found["log_scale"].var(0).sum()


def layer(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([3, 4]).to_event(2))
    v = numpyro.sample("v", dist.Normal(0.0, 1.0).expand([4]).to_event(1))
    with numpyro.plate("row", 60):
        numpyro.sample("y", dist.Normal(jnp.tanh(x @ w) @ v, 0.4), obs=y)


def test_a_layer_of_a_network_keeps_the_mean_and_loses_noise():
    means, errors, sizes = [], [], []
    for estimator in ("local", "explicit"):
        asked = {"w": estimator, "v": "explicit"}
        options = Options(guide="mean_field", estimators=asked, num_particles=1)
        engine, inputs = prepare(layer, {"x": X, "y": Y}, options)
        start = engine.program.init(jax.random.key(0), {}, jnp.linspace(-0.7, 0.8, 16))["guide"]
        blocks = [b.name for b in engine.program.plan.blocks]
        assert blocks == (["w", "v"] if estimator == "local" else ["joint"])
        guide_params = jax.tree.map(lambda x: x + 0.3, start)

        def gradient(key, engine=engine, inputs=inputs, guide_params=guide_params, blocks=blocks):
            loss = lambda g: engine.estimate({"guide": g, "param": {}}, {}, inputs.traced(), key)[0]  # noqa: E731
            found = jax.grad(loss)(guide_params)
            parts = [jnp.concatenate([jnp.ravel(found[b][name]) for b in blocks]) for name in ("loc", "log_scale")]
            return jnp.concatenate(parts)

        keys = jax.random.split(jax.random.key(3), 20_000)
        found = np.asarray(jax.jit(lambda ks, g=gradient: jax.lax.map(g, ks, batch_size=2000))(keys), float)
        assert found.shape[1] == 32
        means.append(found.mean(0)), errors.append(found.std(0) / np.sqrt(len(keys)))
        sizes.append(found.var(0).sum())
    assert np.linalg.norm(errors[1]) < 0.03 * np.linalg.norm(means[1])
    assert (np.abs(means[0] - means[1]) / np.hypot(*errors)).max() < 5.5
    assert sizes[0] < sizes[1] / 2


def test_draws_and_elbo_of_a_fit_are_those_of_whole_draws():
    """k-hat and the ELBO come from draws at which all terms belong together."""
    fits = {
        name: autovi.fit(
            regression,
            {"x": X, "y": Y},
            guide="mean_field",
            estimators={"w": name},
            num_steps=800,
            progress_bar=False,
        )
        for name in ("local", "explicit")
    }
    assert fits["local"].plan["w"].estimator == "local"
    assert fits["local"].elbo == pytest.approx(fits["explicit"].elbo, abs=0.3)
    means = [fit.sample(2000)["w"].mean(0) for fit in fits.values()]
    np.testing.assert_allclose(*means, atol=0.05)


def mixes_rows(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.5).expand([3]).to_event(1))
    h = x @ w
    numpyro.sample("y", dist.Normal(h - h.mean(), 0.4).to_event(1), obs=y)


def one_number(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.5).expand([3]).to_event(1))
    numpyro.factor("all", -jnp.sum((x @ w - y) ** 2))


def otherwise_too(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.5).expand([3]).to_event(1))
    with numpyro.plate("row", 60):
        numpyro.sample("y", dist.Normal(x @ w + w[0], 0.4), obs=y)


def twice(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.5).expand([3]).to_event(1))
    with numpyro.plate("row", 60):
        numpyro.sample("y", dist.Normal(x @ w + x**2 @ w, 0.4), obs=y)


def with_a_latent(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.5).expand([3]).to_event(1))
    factor = numpyro.sample("factor", dist.Normal(0.0, 1.5))
    with numpyro.plate("row", 60):
        numpyro.sample("y", dist.Normal((x * factor) @ w, 0.4), obs=y)


def in_two_columns(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.5).expand([3]).to_event(1))
    h = x @ jnp.broadcast_to(w[:, None], (3, 2))
    with numpyro.plate("row", 60):
        numpyro.sample("y", dist.Normal(h[:, 0] * h[:, 1], 0.4), obs=y)


def as_all_weights(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.5))
    with numpyro.plate("row", 60):
        numpyro.sample("y", dist.Normal(x @ jnp.broadcast_to(w, (3,)), 0.4), obs=y)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (in_two_columns, "no product with data is made of it"),
        (as_all_weights, "no product with data is made of it"),
        (mixes_rows, "the term 'p:y' mixes the rows of its product with data"),
        (one_number, "the term 'p:all' mixes the rows"),
        (otherwise_too, "the term 'p:y' depends on it otherwise than by a product with data"),
        (twice, "2 products with data, and not one, is made of it"),
        (with_a_latent, "no product with data is made of it"),
    ],
)
def test_refused_with_the_reason(model, message):
    with pytest.raises(ValueError, match=f"'local' would be wrong, since {message}"):
        prepare(model, {"x": X, "y": Y}, Options(guide="mean_field", estimators={"w": "local"}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"families": {"w": "full_rank"}}, "its numbers are no independent normals"),
        ({"objective": "iwae", "guide": "mean_field"}, "it is right for each term by itself"),
    ],
)
def test_refused_where_draws_must_belong_together(options, message):
    with pytest.raises(ValueError, match=f"'local' would be wrong, since {message}"):
        prepare(regression, {"x": X, "y": Y}, Options(estimators={"w": "local"}, **options))


def switched(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.5).expand([3]).to_event(1))
    z = numpyro.sample("z", dist.Bernoulli(logits=w[0]))
    with numpyro.plate("row", 60):
        numpyro.sample("y", dist.Normal(x @ w + z, 0.4), obs=y)


@pytest.mark.parametrize("name", ["local", "r2g2"])
def test_a_site_that_is_summed_out_of_terms_of_both_kinds_is_an_error(name):
    """The logarithm of its sum is a function of the product and of the rest together."""
    options = Options(guide="mean_field", estimators={"w": name}, num_particles=1)
    engine, inputs = prepare(switched, {"x": X, "y": Y}, options)
    assert "z" in engine.program.plan.marginal
    params = {"guide": engine.program.init(jax.random.key(0), {}, jnp.zeros(3))["guide"], "param": {}}
    message = (
        f"site 'w': estimator '{name}' is wrong here: 'z' is summed out of 'p:y', which sees its product with data"
    )
    with pytest.raises(ValueError, match=message):
        engine.estimate(params, {}, inputs.traced(), jax.random.key(0))
    apart = Options(guide="mean_field", estimators={"w": name, "z": "enumerate"}, num_particles=1)
    engine, _ = prepare(switched, {"x": X, "y": Y}, apart)
    assert set(engine.program.linear) == {"w"}
