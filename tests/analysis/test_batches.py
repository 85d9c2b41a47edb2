"""Batches whose rows meet are refused, and those that only look so are not."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=40).astype(np.float32)


def model_of(mean):
    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        with numpyro.plate("rows", len(y), subsample_size=8) as index:
            numpyro.sample("y", dist.Normal(mean(jnp.asarray(x)[index], w, index, jnp.asarray(y)), 1.0), obs=y[index])

    return model


MEET = {
    "centred": lambda x, w, index, y: (x - x.mean(0)) @ w,
    "scaled": lambda x, w, index, y: x @ w / jnp.linalg.norm(x @ w),
    "ranked": lambda x, w, index, y: jnp.argsort(jnp.argsort(x[:, 0])) * w[0],
    "the row before": lambda x, w, index, y: w[0] * jnp.concatenate([jnp.zeros(1), y[index][:-1]]),
    "the row after": lambda x, w, index, y: w[0] * jnp.roll(y[index], -1),
    "attention": lambda x, w, index, y: jax.nn.softmax(x @ x.T) @ x @ w,
}
FACTOR = {
    "linear": lambda x, w, index, y: x @ w,
    "centred by all data": lambda x, w, index, y: (x - X.mean(0)) @ w,
    "mapped": lambda x, w, index, y: jax.lax.map(lambda row: row @ w, x),
    "a table": lambda x, w, index, y: jnp.asarray(X)[index, 0] * w[0],
    "a network": lambda x, w, index, y: jnp.tanh(x @ jnp.ones((3, 4)) * w[0]) @ jnp.ones(4),
    "sorted within a row": lambda x, w, index, y: jnp.sort(x, axis=1) @ w,
    "scanned": lambda x, w, index, y: jax.lax.scan(lambda c, row: (c, row @ w), 0.0, x)[1],
    "scanned with a state of its own": lambda x, w, index, y: jax.lax.scan(
        lambda c, column: (c + column, None), jnp.zeros(8), x.T
    )[0],
}


@pytest.mark.parametrize("case", MEET)
def test_rows_that_meet(case):
    with pytest.raises(ValueError, match="site 'y': its density for one row of the subsampled plate 'rows'"):
        autovi.plan(model_of(MEET[case]), {"x": X, "y": Y})


@pytest.mark.parametrize("case", FACTOR)
def test_rows_that_do_not(case):
    assert autovi.plan(model_of(FACTOR[case]), {"x": X, "y": Y})["w"].family == "full_rank"


def whole(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", 40):
        x, y = numpyro.subsample(jnp.asarray(x), 1), numpyro.subsample(jnp.asarray(y), 0)
        numpyro.sample("y", dist.Normal(w * (x[:, 0] - x[:, 0].mean()), 1.0), obs=y)


def test_batch_size():
    assert autovi.plan(whole, {"x": X, "y": Y})["w"].family == "full_rank"
    with pytest.raises(ValueError, match=r"'y'.*'rows'.*other rows.*before the fit, or fit without subsampling"):
        autovi.plan(whole, {"x": X, "y": Y}, batch_size=8)


def encoded(normalized):
    def guide(x, y):
        weights = numpyro.param("weights", jnp.ones(3))
        with numpyro.plate("rows", 40, subsample_size=8) as index:
            batch = jnp.asarray(x)[index]
            batch = batch - batch.mean(0) if normalized else batch
            numpyro.sample("z", dist.Normal(batch @ weights, 1.0))

    def model(x, y):
        with numpyro.plate("rows", 40, subsample_size=8) as index:
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y[index])

    return lambda: autovi.plan(model, {"x": X, "y": Y}, guide=guide)


def test_an_encoder():
    encoded(False)()
    with pytest.raises(ValueError, match="site 'z': its density for one row"):
        encoded(True)()


def local(y):
    with numpyro.plate("rows", 40, subsample_size=8) as index:
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y[index])


def test_a_guide_that_forgets_the_plate():
    """One vector would stand for all batches."""

    def guide(y):
        numpyro.sample("z", dist.Normal(numpyro.param("loc", jnp.zeros(8)), 0.7))

    with pytest.raises(ValueError, match="site 'z' is drawn outside of the subsampled plate 'rows'"):
        autovi.fit(local, {"y": Y}, guide=guide, num_steps=10, progress_bar=False)
