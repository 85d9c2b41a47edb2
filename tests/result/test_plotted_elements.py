"""Which scalars a figure shows: those that could vary."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest

import autovi
from autovi.result.plots.selection import Selection


@pytest.fixture(scope="module")
def fit():
    def model(y):
        factor = numpyro.sample("factor", dist.LKJCholesky(3, 1.0))
        numpyro.deterministic("fixed", jnp.ones(2))
        numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(3), scale_tril=factor), obs=y)

    return autovi.fit(model, {"y": jnp.ones(3)}, num_steps=20, num_draws=50, progress_bar=False)


def labels(selection):
    return [element.label for element in selection.elements(10)]


def test_what_cannot_vary_is_left_out(fit):
    free = ["factor[1, 0]", "factor[1, 1]", "factor[2, 0]", "factor[2, 1]", "factor[2, 2]"]
    assert labels(Selection(fit)) == free and Selection(fit).total == 5
    assert labels(Selection(fit, "factor", {"factor_dim_0": 1})) == free[:2]


def test_what_cannot_vary_is_shown_where_nothing_else_is(fit):
    assert labels(Selection(fit, "fixed")) == ["fixed[0]", "fixed[1]"]
