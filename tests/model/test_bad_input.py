"""Data and models that cannot be right: said before any optimization, with the site and what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

import autovi

Y = np.array([0.5, -0.2, 1.0, 0.3])
DATA = {"y": Y}


def fit(model, data=None, num_steps=100, **options):
    return autovi.fit(model, data, num_steps=num_steps, num_draws=10, progress_bar=False, **options)


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def normal(y):
    mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("n", 4):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=jnp.asarray(y))


def of_scalars(y, scale):
    mu = numpyro.sample("mu", dist.Normal())
    numpyro.sample("y", dist.Normal(mu, scale), obs=y)


def test_the_model_is_a_function():
    with pytest.raises(TypeError, match="model: expected a NumPyro model function, got Predictive"):
        fit(type("Predictive", (), {})(), DATA)


# --- observations and supports -------------------------------------------------------------------------------------

GOOD = {
    "bernoulli": [0, 1, 1],
    "poisson": [0, 3, 2],
    "beta": [0.5, 0.1, 0.9],
    "gamma": [0.5, 1.5, 2.0],
    "categorical": [0, 2, 1],
    "binomial": [0, 5, 1],
}
BAD = {
    "bernoulli": [0, 2, 1],
    "poisson": [0, -1, 2],
    "beta": [0.5, 1.5, 0.9],
    "gamma": [0.5, -1.5, 2.0],
    "categorical": [0, 3, 1],
    "binomial": [0, 6, 1],
}


def likelihoods(bernoulli, poisson, beta, gamma, categorical, binomial):
    x = numpyro.sample("x", dist.Normal())
    with numpyro.plate("n", 3):
        numpyro.sample("bernoulli", dist.Bernoulli(logits=x), obs=bernoulli)
        numpyro.sample("poisson", dist.Poisson(jnp.exp(x)), obs=poisson)
        numpyro.sample("beta", dist.Beta(jnp.exp(x), 1.0), obs=beta)
        numpyro.sample("gamma", dist.Gamma(1.0, jnp.exp(x)), obs=gamma)
        numpyro.sample("categorical", dist.Categorical(logits=x * jnp.arange(3.0)), obs=categorical)
        numpyro.sample("binomial", dist.Binomial(5, logits=x), obs=binomial)


@pytest.mark.slow
def test_observations_inside_their_support():
    assert fit(likelihoods, GOOD).status == "max_steps"


@pytest.mark.parametrize("site", BAD)
def test_observations_outside_their_support(site):
    with pytest.raises(ValueError, match=f"site '{site}': observations lie outside the support of .*; check the data"):
        fit(likelihoods, GOOD | {site: BAD[site]})


@pytest.mark.slow
def test_observations_outside_their_support_while_a_jump_is_looked_for():
    def model(y):
        x = numpyro.sample("x", dist.Normal())
        with numpyro.plate("n", 3):
            numpyro.sample("y", dist.Poisson(jnp.where(x > 0, jnp.exp(x), 1.0)), obs=y)

    with pytest.raises(ValueError, match="site 'y': observations lie outside the support of Poisson"):
        fit(model, {"y": BAD["poisson"]})


def test_what_is_masked_may_lie_anywhere():
    def model(bernoulli, poisson, gamma, seen):
        x = numpyro.sample("x", dist.Normal())
        with numpyro.plate("n", 3):
            numpyro.sample("bernoulli", dist.Bernoulli(logits=x), obs=bernoulli, obs_mask=seen)
            with handlers.mask(mask=seen):
                numpyro.sample("poisson", dist.Poisson(jnp.exp(x)), obs=poisson)
                numpyro.sample("gamma", dist.Gamma(1.0, jnp.exp(x)), obs=gamma)

    bad = {name: BAD[name] for name in ("bernoulli", "poisson", "gamma")}
    result = fit(model, bad | {"seen": np.array([True, False, True])})
    assert result.status == "max_steps" and result.skipped_steps == 0
    assert np.isfinite(result.losses).all() and finite(result.params)
    with pytest.raises(ValueError, match="site 'bernoulli_observed': observations lie outside"):
        fit(model, bad | {"seen": np.ones(3, bool)})
    with pytest.raises(ValueError, match=r"data\['gamma'\] has 1 NaN"):
        fit(model, bad | {"gamma": [0.5, np.nan, 2.0], "seen": np.array([True, False, True])})


@pytest.mark.slow
def test_a_latent_support_that_another_site_moves():
    def model(y):
        theta = numpyro.sample("theta", dist.LogNormal())
        z = numpyro.sample("z", dist.Uniform(0.0, theta))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)

    result = fit(model, {"y": 0.5})
    assert result.status == "max_steps" and result.skipped_steps == 0 and finite(result.params)
    draws = result.sample(50)
    assert ((draws["z"] >= 0) & (draws["z"] <= draws["theta"])).all()


def below(y):
    theta = numpyro.sample("theta", dist.LogNormal())
    with numpyro.plate("n", 3):
        numpyro.sample("y", dist.Uniform(0.0, theta), obs=y)


def test_a_likelihood_whose_support_moves_is_never_silently_wrong():
    # A guide over all positive theta gives weight to theta < max(y), where the density is zero: its ELBO is -inf.
    result = fit(below, {"y": np.array([0.5, 1.0, 2.0])})
    assert result.status == "failed" and result.skipped_steps > 50
    assert "'y'" in result.message and "minus infinity" in result.message
    assert finite(result.params)


def test_a_likelihood_whose_support_never_holds_the_data():
    with pytest.raises(ValueError, match="site 'y': observations lie outside .* at all 10 starting points tried"):
        fit(below, {"y": np.array([-0.5, 1.0, 2.0])})


# --- densities that are not finite ---------------------------------------------------------------------------------


def test_no_latent_site():
    def model(y):
        numpyro.sample("y", dist.Normal(), obs=y[0])

    with pytest.raises(ValueError, match="model: it has no latent site.*; is every numpyro.sample given obs"):
        fit(model, DATA)
    with pytest.raises(ValueError, match="model: it has no site .* does it return before its first numpyro.sample"):
        fit(lambda: None)


def test_a_density_finite_nowhere_names_the_site():
    def model(limit):
        mu = numpyro.sample("mu", dist.Normal())
        b = numpyro.sample("b", dist.Normal(mu, 1.0))
        numpyro.factor("bad", jnp.log(limit - mu**2))
        numpyro.sample("y", dist.Normal(b, 1.0), obs=0.5)

    with pytest.raises(
        ValueError,
        match=r"site 'bad': .*not finite at any of the 10 starting points.*; where the fit starts the log_factor",
    ):
        fit(model, {"limit": np.array(-1.0)})
    assert fit(model, {"limit": np.array(1e3)}, num_steps=5).status == "max_steps"


@pytest.mark.parametrize("scale", [-1.0, 0.0])
def test_invalid_parameters_are_named(scale):
    with pytest.raises(ValueError, match=f"site 'y': the scale of its Normal is {scale:g}; expected positive"):
        fit(of_scalars, {"y": 1.0, "scale": scale})


def test_a_term_that_becomes_nan_fails_the_fit_and_is_named():
    def model():
        x = numpyro.sample("x", dist.Normal(3.0, 0.5))
        numpyro.factor("root", jnp.sqrt(1.0 - x))

    result = fit(model)
    assert result.status == "failed"
    assert "steps had a non-finite ELBO or gradient" in result.message and "'root'" in result.message
    assert finite(result.params) and finite(result.sample(10))


@pytest.mark.slow
def test_a_gradient_that_becomes_nan_fails_the_fit_and_is_named():
    def model():
        x = numpyro.sample("x", dist.Normal(3.0, 0.5))
        # The value is finite everywhere; the gradient of the branch not taken is 0 times infinity.
        numpyro.factor("root", jnp.where(x < 1.0, jnp.sqrt(jnp.maximum(1.0 - x, 0.0)), 0.0))

    result = fit(model)
    assert result.status == "failed" and "'x'" in result.message
    assert finite(result.params)


# --- shapes --------------------------------------------------------------------------------------------------------


def column_against_row(y):
    mu = numpyro.sample("mu", dist.Normal(jnp.zeros((4, 1)), 1.0).to_event(2))
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def column_in_a_plate(y):
    mu = numpyro.sample("mu", dist.Normal(jnp.zeros(4), 1.0).to_event(1))
    with numpyro.plate("n", 4):
        numpyro.sample("y", dist.Normal(mu[:, None], 1.0), obs=y)


def data_as_column(y):
    mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("n", 4):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y[:, None])


def plate_of_wrong_size(y):
    mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("n", 5):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def batch_unlike_its_plate(y):
    mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("n", 5):
        numpyro.sample("y", dist.Normal(mu * jnp.ones(4), 1.0), obs=y)


def without_plate(y):
    mu = numpyro.sample("mu", dist.Normal().expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def of_other_length(y):
    numpyro.sample("mu", dist.Normal())
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3)), obs=y)


def not_indexed(y):
    mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("n", 4, subsample_size=2):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (column_against_row, r"site 'y': its value has shape \(4,\), its distribution \(4, 1\)"),
        (column_in_a_plate, r"site 'y': its value has shape \(4,\), its distribution \(4, 4\)"),
        (data_as_column, r"site 'y': its value has shape \(4, 1\), its distribution \(4,\)"),
        (plate_of_wrong_size, r"site 'y': its value has shape \(4,\), its distribution \(5,\) .*'n': 5"),
        (batch_unlike_its_plate, r"'mu'.*shapes=\[\(5,\), \(4,\)\]"),
        (without_plate, r"site 'y': its value has shape \(4,\), its distribution \(3,\)"),
        (of_other_length, r"site 'y': its value has shape \(4,\), its distribution \(3,\)"),
        (not_indexed, r"site 'y': its value has shape \(4,\), its distribution \(2,\) .*'n': 2"),
    ],
)
def test_shapes_that_a_plate_would_explain(model, said):
    with pytest.raises(ValueError, match=f"{said}.*numpyro.plate"):
        autovi.plan(model, DATA)


@pytest.mark.parametrize(
    "mean", [lambda b, x: b * x, lambda b, x: b * jnp.ones(5) + x], ids=["a site's shapes", "an operation's shapes"]
)
def test_arguments_of_unequal_lengths_are_named_where_shapes_do_not_fit(mean):
    def model(x, y):
        b = numpyro.sample("b", dist.Normal())
        with numpyro.plate("n", len(x)):
            numpyro.sample("y", dist.Normal(mean(b, x), 1.0), obs=y)

    with pytest.raises(ValueError, match=r"\. The data: 'x' has 4 rows, 'y' has 5\n  File"):
        autovi.plan(model, {"x": Y, "y": np.ones(5)})


def test_one_number_may_stand_for_all_elements():
    def model(y):
        mu = numpyro.sample("mu", dist.Normal())
        with numpyro.plate("n", 4):
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    for y in (0.0, np.float32(0.0), np.zeros(1), np.zeros(4)):
        autovi.plan(model, {"y": y})


# --- what the model itself does ------------------------------------------------------------------------------------


def branches(y):
    mu = numpyro.sample("mu", dist.Normal())
    numpyro.sample("y", dist.Normal(mu if mu > 0 else 0.0, 1.0), obs=y[0])


def counts(y):
    k = numpyro.sample("k", dist.Poisson(3.0))
    numpyro.sample("y", dist.Normal(sum(range(int(k))), 1.0), obs=y[0])


def leaves_jax(y):
    mu = numpyro.sample("mu", dist.Normal())
    numpyro.sample("y", dist.Normal(np.exp(mu), 1.0), obs=y[0])


@pytest.mark.parametrize("model", [branches, counts, leaves_jax])
def test_python_control_flow_on_a_latent(model):
    with pytest.raises(ValueError, match=r"concrete value of `\w+` \(a latent site.*; write .*j(np|ax.lax)\."):
        autovi.plan(model, DATA)


class Broken(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "expected"),
    [(Broken("boom"), Broken), (KeyError("boom"), KeyError), (ValueError("boom"), ValueError)],
)
def test_what_the_model_raises_is_kept_and_the_place_told(error, expected):
    def model(y):
        numpyro.sample("mu", dist.Normal())
        raise error

    with pytest.raises(expected, match="boom"):
        autovi.plan(model, DATA)
    with pytest.raises(expected, match="last .*site reached was 'mu'"):
        autovi.plan(model, DATA)


def test_a_name_used_twice():
    def model():
        numpyro.sample("mu", dist.Normal())
        numpyro.sample("mu", dist.Normal())

    with pytest.raises(ValueError, match="site 'mu': it appears twice"):
        autovi.plan(model)
