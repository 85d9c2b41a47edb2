"""Indices among the data that go beyond an axis are warned of, and no others."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi

GROUP = np.array([0, 1, 2, 0, 1, 2])
Y = np.arange(6.0)


def model_of(mean):
    def model(group, y=None):
        with numpyro.plate("group", 3):
            level = numpyro.sample("level", dist.Normal(0.0, 1.0))
        with numpyro.plate("row", len(group)):
            numpyro.sample("y", dist.Normal(mean(level, group), 1.0), obs=y)

    return model


BEYOND = {
    "counted from one": lambda level, group: level[group + 1],
    "too small": lambda level, group: level[group - 4],
    "along one of two axes": lambda level, group: jnp.stack([level, level])[0 * group, group + 1],
    "in a matrix": lambda level, group: jnp.outer(level, level)[group + 1].sum(-1),
    "of floats": lambda level, group: level[(group * 1.5).astype(int)],
}
INSIDE = {
    "from zero": lambda level, group: level[group],
    "negative": lambda level, group: level[group - 3],
    "clipped": lambda level, group: level[jnp.clip(group + 1, 0, 2)],
    "asked for": lambda level, group: jnp.take(level, group + 1, mode="clip"),
    "the rows of a column": lambda level, group: jnp.concatenate([level, level])[group[::-1] + 3],
    "by a latent value": lambda level, group: level[jnp.where(level[0] > 0, 5, 0)] + 0.0 * group,
}


@pytest.mark.parametrize("case", BEYOND)
def test_beyond_the_end(case):
    with pytest.warns(UserWarning, match=r"data: 'group' index axis \d of an array, of length 3, at -?\d"):
        autovi.plan(model_of(BEYOND[case]), {"group": GROUP, "y": Y})


@pytest.mark.parametrize("case", INSIDE)
def test_inside(case):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        autovi.plan(model_of(INSIDE[case]), {"group": GROUP, "y": Y})


def test_new_data():
    fit = autovi.fit(model_of(INSIDE["from zero"]), {"group": GROUP, "y": Y}, num_steps=1, progress_bar=False)
    with pytest.warns(UserWarning, match=r"'group' index axis 0 of an array, of length 3, at 5"):
        fit.predict({"group": np.array([0, 5])})


def test_subsampled_rows_and_keys():
    def model(group, key, y):
        level = numpyro.sample("level", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
        with numpyro.plate("row", 6, subsample_size=4) as i:
            numpyro.sample("y", dist.Normal(level[group[i]] + jax.random.normal(key), 1.0), obs=y[i])

    data = {"group": GROUP, "key": jax.random.key(0), "y": Y}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        autovi.plan(model, data)
    with pytest.warns(UserWarning, match="'group' index axis 0 of an array, of length 3, at 3"):
        autovi.plan(model, {**data, "group": GROUP + 1})
