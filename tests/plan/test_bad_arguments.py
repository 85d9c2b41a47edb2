"""Arguments of `fit` that cannot be right: said before any optimization, with their name and what is valid."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer.autoguide import AutoNormal

import autovi
from autovi.families import FAMILIES

DATA = {"y": np.array([0.5, -0.2, 1.0, 0.3])}


def normal(y):
    mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("n", 4):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def without_plates(y):
    mu = numpyro.sample("mu", dist.Normal())
    numpyro.sample("y", dist.Normal(mu, 1.0).expand([4]).to_event(1), obs=y)


def fit(**options):
    return autovi.fit(normal, DATA, num_steps=100, progress_bar=False, **options)


# --- guides --------------------------------------------------------------------------------------------------------


def extra(y):
    numpyro.sample("mu", dist.Normal())
    numpyro.sample("nu", dist.Normal())


def none(y):
    pass


def vector(y):
    numpyro.sample("mu", dist.Normal().expand([3]).to_event(1))


def plated(y):
    with numpyro.plate("n", 4):
        numpyro.sample("mu", dist.Normal())


def observed(y):
    numpyro.sample("mu", dist.Normal())
    numpyro.sample("y", dist.Normal().expand([4]))


def discrete(y):
    numpyro.sample("mu", dist.Poisson(3.0))


def of_others(y):
    nu = numpyro.sample("nu", dist.Normal())
    numpyro.sample("y", dist.Normal(nu, 1.0).expand([4]).to_event(1), obs=y)


def no_argument():
    numpyro.sample("mu", dist.Normal())


@pytest.mark.parametrize(
    ("guide", "error", "said"),
    [
        (extra, ValueError, "guide: its site 'nu' is no site in the model.*'mu'.*is_auxiliary"),
        (none, ValueError, r"guide: it does not draw the model's latent site\(s\) \['mu'\]; add them"),
        (vector, ValueError, r"guide: site 'mu' has shape \(3,\) there and \(\) in the model; a missing plate"),
        (plated, ValueError, r"guide: site 'mu' has shape \(4,\) there and \(\) in the model; a missing plate"),
        (observed, ValueError, "guide: its site 'y' is observed in the model"),
        (discrete, ValueError, r"guide: site 'mu' is drawn from Poisson .* outside the model's support \(real\)"),
        (no_argument, ValueError, "data does not fit the guide: .*'y'"),
        (
            AutoNormal(of_others),
            ValueError,
            "AutoNormal was made for 'of_others'.* its site 'nu' is no site in the model",
        ),
        (3, TypeError, "guide: expected a name, a NumPyro guide function or an AutoGuide, got int"),
        ("meanfield", ValueError, "guide: unknown name 'meanfield'; expected one of .*'mean_field'"),
    ],
)
def test_guides_that_do_not_fit_the_model(guide, error, said):
    with pytest.raises(error, match=said):
        autovi.plan(normal, DATA, guide=guide)


@pytest.mark.parametrize(
    ("prior", "drawn"),
    [
        (dist.HalfNormal(), dist.Normal()),
        (dist.Beta(2.0, 2.0), dist.Normal()),
        (dist.Dirichlet(jnp.ones(3)), dist.Normal(jnp.zeros(3), 1.0).to_event(1)),
        (dist.Categorical(jnp.ones(3) / 3), dist.Categorical(jnp.ones(4) / 4)),
        (dist.Bernoulli(0.5), dist.Poisson(1.0)),
        (dist.Bernoulli(0.5), dist.Beta(1.0, 1.0)),
    ],
)
def test_guides_that_leave_the_support(prior, drawn):
    def model():
        z = numpyro.sample("z", prior)
        numpyro.sample("y", dist.Normal(jnp.sum(z), 1.0), obs=0.5)

    def guide():
        numpyro.sample("z", drawn)

    with pytest.raises(ValueError, match="guide: site 'z' is drawn from .* outside the model's support"):
        autovi.plan(model, guide=guide)


# --- numbers, names and kinds of arguments -------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "10"])
@pytest.mark.parametrize("name", ["num_steps", "max_steps", "num_draws", "num_restarts", "num_particles", "batch_size"])
def test_counts(name, value):
    with pytest.raises(ValueError, match=f"{name}.*: expected an integer of at least 1.*, got {value!r}"):
        autovi.fit(normal, DATA, **{name: value}, progress_bar=False)


def test_objectives():
    with pytest.raises(ValueError, match="objective: unknown name 'elbow'; expected one of .*'elbo'"):
        fit(objective="elbow")


def test_counts_are_checked_although_they_equal_one_that_is_right():
    autovi.plan(normal, DATA, num_particles=1)
    for value in (True, 1.0):
        with pytest.raises(ValueError, match="num_particles: expected an integer"):
            autovi.plan(normal, DATA, num_particles=value)


@pytest.mark.parametrize(
    ("batch_size", "said"),
    [
        ({"m": 2}, r"no plate is called 'm'; the plates are \['n'\]"),
        ({"n": 9}, r"9 is more than plate 'n' has elements \(4\)"),
        (9, r"9 is more than plate 'n' has elements \(4\)"),
        ({"n": 0}, "expected an integer of at least 1, got 0"),
    ],
)
def test_batch_sizes(batch_size, said):
    with pytest.raises(ValueError, match=f"batch_size.*: {said}"):
        autovi.plan(normal, DATA, batch_size=batch_size)


def test_a_batch_size_needs_a_plate():
    with pytest.raises(ValueError, match="batch_size: which plate is to be subsampled"):
        autovi.plan(without_plates, DATA, batch_size=2)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        (
            {"families": {"mu": "gaussian"}},
            ValueError,
            "site 'mu': unknown family 'gaussian'; expected one of .*'normal'",
        ),
        ({"families": {"mu": FAMILIES["normal"]}}, ValueError, "site 'mu': unknown family .*expected one of"),
        (
            {"families": {"mu": "gamma"}},
            ValueError,
            "site 'mu'.*'gamma' does not fit.*real, not positive; valid: .'normal'",
        ),
        ({"families": {"mu": "bernoulli"}}, ValueError, "site 'mu'.*'bernoulli' does not fit.*valid: .'normal'"),
        ({"families": {"nu": "normal"}}, ValueError, r"families: no latent site matches 'nu'; .* are \['mu'\]"),
        ({"families": {"nu*": "normal"}}, ValueError, r"families: no latent site matches 'nu\*'; .* are \['mu'\]"),
        ({"families": {"y": "normal"}}, ValueError, r"families: no latent site matches 'y'; .* are \['mu'\]"),
        ({"families": "normal"}, TypeError, "families: expected a dict .* got 'normal'; for all sites"),
        ({"estimators": "score"}, TypeError, "estimators: expected a dict .* got 'score'; for all sites"),
        ({"estimators": ["score"]}, TypeError, "estimators: expected a dict"),
        ({"estimators": {1: "score"}}, TypeError, "estimators: expected a dict"),
        ({"estimators": {"nu": "score"}}, ValueError, r"estimators: no latent site matches 'nu'; .* are \['mu'\]"),
        ({"estimators": {"mu": "reinforce"}}, ValueError, "site 'mu': unknown estimator 'reinforce'; .*'score'"),
        ({"estimators": {"mu": None}}, ValueError, "site 'mu': unknown estimator None; expected one of"),
        (
            {"estimators": {"mu": {"baseline": "nn"}}},
            ValueError,
            "site 'mu'.*baseline: unknown name 'nn'; .*'leave_one_out'",
        ),
        (
            {"estimators": {"mu": {"estimator": "explicit", "baseline": "none"}}},
            ValueError,
            "site 'mu': estimator 'explicit' does not take .*baseline",
        ),
    ],
)
def test_names_and_kinds_of_overrides(options, error, said):
    with pytest.raises(error, match=said):
        autovi.plan(normal, DATA, **options)


@pytest.mark.parametrize(
    ("said_of_it", "said"),
    [
        ({"familly": "normal"}, "unknown keys .'familly'.; valid: family, estimator, baseline"),
        ({"family": "gaussian"}, "unknown family 'gaussian'"),
        ({"estimator": "reinforce"}, "unknown estimator 'reinforce'"),
        ({"baseline": "nn"}, "baseline: unknown name 'nn'"),
    ],
)
def test_names_in_infer(said_of_it, said):
    def model():
        mu = numpyro.sample("mu", dist.Normal(), infer={"autovi": said_of_it})
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=0.5)

    with pytest.raises(ValueError, match=f"site 'mu': .*{said}"):
        autovi.plan(model)


@pytest.mark.parametrize("rng_key", ["a", 1.5, None, True, np.array([1, 2]), np.arange(3), 2**40])
def test_keys(rng_key):
    with pytest.raises(ValueError, match="rng_key: expected an integer"):
        fit(rng_key=rng_key)


@pytest.mark.parametrize("optimizer", ["adam", 0.01, optax.adam, (1, 2)])
def test_optimizers(optimizer):
    with pytest.raises(TypeError, match="optimizer: expected an optax.GradientTransformation, got"):
        fit(optimizer=optimizer)
