"""Indices among the data that lie beyond what they index."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest

import autovi

Y = np.array([0.1, 1.2, 0.3, 0.9])
COUNTED_FROM_1 = np.array([1, 2, 3, 3])


def looking_up(look=lambda a, g: a[g], size=3):
    def model(g, y):
        with numpyro.plate("group", size):
            a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        with numpyro.plate("row", len(y)) as i:
            numpyro.sample("y", dist.Normal(look(a, g[i]), 1.0), obs=y[i])

    return model


@pytest.mark.parametrize("batch_size", [None, {"row": 2}])
def test_an_index_counted_from_one(batch_size):
    said = (
        r"^g: the index 3 at \(2,\) is beyond the 3 elements \(0 to 2\) of 'a'; count from 0, .*"
        r"\n  File .*test_indices.py\", line \d+, in .*\n    def looking_up\(look=lambda a, g: a\[g\]"
    )
    with pytest.raises(ValueError, match=said):
        autovi.plan(looking_up(), {"g": COUNTED_FROM_1, "y": Y}, batch_size=batch_size)
    with pytest.raises(ValueError, match=r"^g: the index 3 at \(2,\)"):
        autovi.prior_predictive(looking_up(), {"g": COUNTED_FROM_1, "y": Y}, num_draws=5)


def test_an_index_too_far_from_the_end():
    with pytest.raises(ValueError, match=r"^g: the index -4 at \(0,\) is beyond the 3 elements"):
        autovi.plan(looking_up(), {"g": np.array([-4, -3, 0, 2]), "y": Y})


def test_more_categories_than_elements():
    codes = pd.Categorical(["x", "y", "z", "x"])
    with pytest.raises(ValueError, match=r"^g: the index 2 at \(2,\) \(of 3 categories\) is beyond the 2 elements"):
        autovi.plan(looking_up(size=2), {"g": pd.Series(codes), "y": Y})


def test_two_axes_at_once():
    def model(g, h):
        with numpyro.plate("group", 3, dim=-2), numpyro.plate("kind", 2, dim=-1):
            a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal((2.0 * a)[g, h], 1.0), obs=Y)

    with pytest.raises(ValueError, match=r"^model: the index 2 at \(1,\) is beyond the 2 elements .*of what it looks"):
        autovi.plan(model, {"g": np.array([0, 1, 2, 0]), "h": np.array([0, 2, 1, 1])})


@pytest.mark.parametrize(
    "look",
    [
        lambda a, g: a[g - 1],
        lambda a, g: a[jnp.clip(g, 0, 2)],
        lambda a, g: a[jnp.where(g > 2, 0, g)],
        lambda a, g: jnp.concatenate([jnp.zeros(1), a])[g],
        lambda a, g: a.at[g].get(mode="fill", fill_value=0.0),
        lambda a, g: a.at[g].get(mode="clip"),
        lambda a, g: a[-g],
    ],
)
@pytest.mark.parametrize("batch_size", [None, {"row": 2}])
def test_indices_of_elements_that_there_are(look, batch_size):
    assert autovi.plan(looking_up(look), {"g": COUNTED_FROM_1, "y": Y}, batch_size=batch_size)["a"].shape == (3,)


def test_latent_indices_are_not_looked_at():
    def model(y):
        k = numpyro.sample("k", dist.Categorical(jnp.ones(4) / 4))
        a = numpyro.sample("a", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        numpyro.sample("y", dist.Normal(a[k], 1.0), obs=y)

    assert autovi.plan(model, {"y": 1.0})["k"].site == "k"


def test_new_data_of_predict():
    def model(g, y=None):
        with numpyro.plate("group", 3):
            a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        with numpyro.plate("row", len(g)):
            numpyro.sample("y", dist.Normal(a[g], 1.0), obs=y)

    fit = autovi.fit(model, {"g": np.array([0, 1, 2, 2]), "y": Y}, num_steps=5, num_draws=10, progress_bar=False)
    assert fit.predict({"g": np.array([2, 0])})["y"].shape == (10, 2)
    with pytest.raises(ValueError, match=r"^g: the index 3 at \(1,\) is beyond the 3 elements"):
        fit.predict({"g": np.array([0, 3])})


def test_an_index_that_is_one_constant_for_all():
    """Of `jnp.full`, an index is a literal of the traced program."""
    autovi.plan(looking_up(lambda a, g: a[jnp.full(4, 2)]), {"g": np.zeros(4, int), "y": Y})
    with pytest.raises(ValueError, match="the index 3 at .* is beyond the 3 elements"):
        autovi.plan(looking_up(lambda a, g: a[jnp.full(4, 3)]), {"g": np.zeros(4, int), "y": Y})
