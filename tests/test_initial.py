"""`init=`: shapes, supports and constraints that are not those of what is given."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi

STILL = {"learning_rate": 1e-12, "num_steps": 1, "progress_bar": False}  # the parameters are those of the start


def with_param(constraint=dist.constraints.positive, shape=(2,)):
    def model():
        w = numpyro.param("w", jnp.full(shape, 0.5), constraint=constraint)
        numpyro.sample("x", dist.Normal(w.sum(), 1.0))
        numpyro.sample("y", dist.Normal(w, 1.0).to_event(len(shape)), obs=jnp.full(shape, 0.3))

    return model


@pytest.mark.parametrize("value", [[0.25, 4.0], (0.25, 4.0), np.array([0.25, 4.0])])
def test_a_parameter_site_starts_at_an_array_or_a_list(value):
    assert np.allclose(autovi.fit(with_param(), init={"w": value}, **STILL).params["w"], [0.25, 4.0])


def test_one_number_stands_for_all_elements_of_a_parameter_site():
    assert np.allclose(autovi.fit(with_param(), init={"w": 3.0}, **STILL).params["w"], [3.0, 3.0])


def test_a_parameter_value_of_another_shape_is_refused():
    said = r"init: parameter 'w' has shape \(2,\), got a value of shape \(3,\)"
    with pytest.raises(ValueError, match=said):
        autovi.fit(with_param(), init={"w": np.ones(3)}, **STILL)


@pytest.mark.parametrize("constraint", [dist.constraints.real, dist.constraints.interval(0.0, 10.0)])
def test_a_parameter_keeps_its_value_under_another_constraint(constraint):
    fit = autovi.fit(with_param(), num_steps=100, progress_bar=False)
    again = autovi.fit(with_param(constraint), init=fit, **STILL)
    assert np.allclose(again.params["w"], fit.params["w"], rtol=1e-4)


def test_a_parameter_outside_of_the_new_constraint_starts_as_usual():
    fit = autovi.fit(with_param(), init={"w": 4.0}, **STILL)
    again = autovi.fit(with_param(dist.constraints.interval(0.0, 1.0)), init=fit, **STILL)
    assert np.allclose(again.params["w"], 0.5, rtol=1e-4)


def of_two(a, shapes=((), ())):
    def model():
        first = numpyro.sample("a", a(jnp.zeros(shapes[0])).to_event(len(shapes[0])))
        second = numpyro.sample("b", dist.Normal(jnp.zeros(shapes[1]), 1.0).to_event(len(shapes[1])))
        numpyro.sample("x", dist.Normal(first.sum() + second.sum(), 0.1), obs=3.0)

    return model


def test_a_block_whose_support_is_another_starts_at_the_posterior_mean():
    """On the unconstrained scale the same number would be another value."""
    fit = autovi.fit(of_two(lambda loc: dist.Normal(loc + 2.0, 0.1)), num_steps=500, progress_bar=False)
    again = autovi.fit(of_two(lambda loc: dist.LogNormal(loc, 1.0)), init=fit, num_draws=200, **STILL)
    assert fit.plan["a"].block == again.plan["a"].block == "joint"
    assert abs(again.sample(200)["a"].mean() - fit.sample(200)["a"].mean()) < 0.2


def test_a_block_whose_sites_have_other_shapes_is_another():
    normal = lambda loc: dist.Normal(loc, 1.0)  # noqa: E731
    fit = autovi.fit(of_two(normal, ((2,), (3,))), num_steps=100, progress_bar=False)
    with pytest.raises(ValueError, match="no site of the same name and shape"):
        autovi.fit(of_two(normal, ((3,), (2,))), init=fit, **STILL)
