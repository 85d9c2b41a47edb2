"""Conjugacy that is found: with the right posterior, and not where the model is not conjugate."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import plate, sample

import autovi
from autovi.analysis.structure import analyse_structure
from autovi.families import FAMILIES
from autovi.model.inputs import bind
from autovi.model.targets import trace_program
from autovi.preparation import conjugate_sites


def found(model, data=None):
    """Site -> the exact posterior, as a distribution."""
    inputs = bind(model, data, ())
    traced, inputs = trace_program(model, None, inputs)
    params = conjugate_sites(model, inputs, traced, analyse_structure(traced))
    own = {n: FAMILIES[traced.sites.latents[n].gradients.own_family]() for n in params}
    return {n: own[n].distribution(p, len(traced.sites.latents[n].event_shape)) for n, p in params.items()}


def observed(fn, y):
    with plate("n", len(y)):
        sample("y", fn, obs=y)


def rate(y):
    observed(dist.Poisson(sample("z", dist.Gamma(2.0, 3.0))), y)


def waiting(y):
    observed(dist.Exponential(sample("z", dist.Exponential(3.0))), y)


def precision(y):
    observed(dist.Normal(1.0, 1 / jnp.sqrt(sample("z", dist.Gamma(2.0, 3.0)))), y)


def trials(k):
    sample("k", dist.Binomial(10, sample("z", dist.Beta(2.0, 3.0))), obs=k)


def shares(k):
    sample("k", dist.Multinomial(10, sample("z", dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])))), obs=k)


def direction(y):
    observed(dist.VonMises(sample("z", dist.VonMises(0.5, 2.0)), 3.0), y)


Y = np.array([1.0, 4.0, 2.0])
ANGLES = np.array([0.2, 2.5, -1.0])
SUM = 2.0 * np.exp(0.5j) + 3.0 * np.exp(1j * ANGLES).sum()

EXACT = {
    "a rate": (rate, {"y": Y}, dist.Gamma(9.0, 6.0)),
    "a waiting time": (waiting, {"y": Y}, dist.Gamma(4.0, 10.0)),
    "a precision": (precision, {"y": Y}, dist.Gamma(3.5, 3.0 + 10 / 2)),
    "a probability": (trials, {"k": 3}, dist.Beta(5.0, 10.0)),
    "shares": (shares, {"k": np.array([5, 3, 2])}, dist.Dirichlet(jnp.array([6.0, 5.0, 5.0]))),
    "a direction": (direction, {"y": ANGLES}, dist.VonMises(np.angle(SUM), np.abs(SUM))),
    "a prior alone": (lambda: sample("z", dist.Chi2(3.0)), None, dist.Gamma(1.5, 0.5)),
}


@pytest.mark.parametrize("name", EXACT)
def test_the_posterior_is_the_one_of_the_textbook(name):
    model, data, right = EXACT[name]
    q = found(model, data)["z"]
    for field in right.arg_constraints:
        np.testing.assert_allclose(getattr(q, field), getattr(right, field), rtol=2e-5, err_msg=field)


def test_every_element_of_a_plate_and_of_a_vector_has_its_own():
    def model(y, k):
        with plate("g", 4):
            r = sample("r", dist.Gamma(jnp.arange(1.0, 5.0), 2.0))
            with plate("n", 3):
                sample("y", dist.Poisson(r), obs=y)
        p = sample("p", dist.Beta(2.0, 3.0).expand([5]).to_event(1))
        sample("k", dist.Binomial(10, p).to_event(1), obs=k)

    y, k = np.arange(12.0).reshape(3, 4), np.arange(5)
    q = found(model, {"y": y, "k": k})
    np.testing.assert_allclose(q["r"].concentration, np.arange(1.0, 5.0) + y.sum(0), rtol=2e-5)
    np.testing.assert_allclose(q["r"].rate, 5.0, rtol=2e-5)
    np.testing.assert_allclose(q["p"].base_dist.concentration1, 2.0 + k, rtol=2e-5)
    np.testing.assert_allclose(q["p"].base_dist.concentration0, 13.0 - k, rtol=2e-5)


def test_large_totals_do_not_hide_it():
    y = np.random.default_rng(74).poisson(1e6, 20)
    q = found(lambda y: observed(dist.Poisson(sample("z", dist.Gamma(2.0, 1e-4))), y), {"y": y})["z"]
    np.testing.assert_allclose(q.mean * (20 + 1e-4), 2.0 + y.sum(), rtol=1e-6)
    np.testing.assert_allclose(q.concentration, 2.0 + y.sum(), rtol=1e-5)
    k = lambda k: sample("k", dist.Binomial(10**6, sample("z", dist.Beta(1, 1))), obs=k)  # noqa: E731
    q = found(k, {"k": 300_000})["z"]
    np.testing.assert_allclose([q.concentration1, q.concentration0], [300_001, 700_001], rtol=1e-5)


def test_scales_and_masks_are_in_it():
    def model(y):
        z = sample("z", dist.Gamma(2.0, 3.0))
        with plate("n", 3), numpyro.handlers.scale(scale=2.0), numpyro.handlers.mask(mask=jnp.array([1, 0, 1]) > 0):
            sample("y", dist.Poisson(z), obs=y)

    q = found(model, {"y": Y})["z"]
    np.testing.assert_allclose([q.concentration, q.rate], [2.0 + 2 * 3.0, 3.0 + 2 * 2.0], rtol=2e-5)


def scale_of_a_normal(y):
    observed(dist.Normal(0.0, sample("z", dist.Gamma(2.0, 1.0))), y)


def another_latent(y):
    observed(dist.Poisson(sample("z", dist.Gamma(sample("a", dist.Gamma(2.0, 1.0)), 1.0))), y)


def elements_that_meet(y):
    with plate("k", 3):
        z = sample("z", dist.Gamma(2.0, 1.0))
    observed(dist.Poisson(z.sum()), y)


def a_mixture(y):
    p = sample("z", dist.Beta(1.0, 1.0))
    with plate("n", 3):
        k = sample("k", dist.Bernoulli(p))
        sample("y", dist.Normal(2.0 * k, 1.0), obs=y)


def improper(y):
    z = sample("z", dist.Gamma(2.0, 1.0).mask(False))
    numpyro.factor("f", -0.0 * z + 0.0 * y.sum())


def a_bump_far_out(y):
    z = sample("z", dist.Gamma(2.0, 1.0))
    numpyro.factor("f", jnp.where(z > 1e3, -0.01, 0.0) + 0.0 * y.sum())


def small_departure(y):
    z = sample("z", dist.Gamma(2.0, 1.0))
    numpyro.factor("f", 1e-4 * jnp.sin(z))
    observed(dist.Poisson(z), 1e4 * y)


def in_single_precision(y):
    observed(dist.Poisson(sample("z", dist.Gamma(2.0, 1.0)).astype(jnp.float32) * jnp.float32(1.1)), y)


def conjugate_for_some_data(x):
    observed(dist.Bernoulli(sample("z", dist.Beta(2.0, 2.0)) * x), np.array([1, 0, 1]))


@pytest.mark.parametrize(
    "model",
    [
        scale_of_a_normal,
        another_latent,
        elements_that_meet,
        a_mixture,
        improper,
        a_bump_far_out,
        small_departure,
        in_single_precision,
    ],
)
def test_it_is_not_found_where_it_is_not_there_or_not_clear(model):
    assert found(model, {"y": Y}) == {}


def test_it_has_to_hold_for_other_data_of_the_same_shapes_too():
    assert found(conjugate_for_some_data, {"x": np.ones(3)}) == {}
    assert set(found(lambda: conjugate_for_some_data(jnp.ones(3)))) == {"z"}  # a constant of the program is no data


def test_parameters_come_back_from_their_natural_form():
    for name, value in {"gamma": 0.7, "beta": 0.3, "dirichlet": [0.2, 0.3, 0.5], "von_mises": 0.4}.items():
        family = FAMILIES[name]()
        right = {"gamma": dist.Gamma(3.0, 2.0), "beta": dist.Beta(3.0, 2.0), "von_mises": dist.VonMises(-2.0, 3.0)}
        right["dirichlet"] = dist.Dirichlet(jnp.array([3.0, 2.0, 0.5]))
        natural = {"gamma": [2.0, 2.0], "beta": [2.0, 1.0], "dirichlet": [2.0, 1.0, -0.5]}
        natural["von_mises"] = [3.0 * np.cos(-2.0), 3.0 * np.sin(-2.0)]
        q = family.distribution(family.from_natural(jnp.asarray(natural[name])), 1 if name == "dirichlet" else 0)
        x = jnp.asarray(value)
        np.testing.assert_allclose(q.log_prob(x), right[name].log_prob(x), rtol=1e-5)
        shift = q.log_prob(x) - (family.statistics(x) * jnp.asarray(natural[name])).sum(-1)
        other = x[::-1] if name == "dirichlet" else x * 1.5
        np.testing.assert_allclose(
            q.log_prob(other) - (family.statistics(other) * jnp.asarray(natural[name])).sum(-1), shift, rtol=1e-4
        )
    with pytest.raises(NotImplementedError, match="'normal' has no sufficient statistics"):
        FAMILIES["normal"]().statistics(jnp.zeros(3))


def test_no_time_is_spent_where_nothing_could_be_found(monkeypatch):
    monkeypatch.setattr("autovi.analysis.conjugacy._evaluated", lambda *a: pytest.fail("evaluated"))
    assert found(another_latent, {"y": Y}) == {}
    plan = autovi.plan(another_latent, {"y": Y})
    assert plan["z"].family == plan["a"].family == "full_rank"
