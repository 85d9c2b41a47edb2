"""Angles whose cost is not periodic: found before the fit, and never given a pathwise gradient."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest

import autovi
from autovi.analysis.periodicity import find_aperiodic
from autovi.analysis.structure import analyse_structure
from autovi.model.inputs import bind
from autovi.model.targets import trace_program

COSTS = {
    "cosine": (lambda z: jnp.cos(z), False),
    "kink at the cut": (lambda z: jnp.abs(z), False),
    "steep but periodic": (lambda z: jnp.exp(20 * jnp.cos(z + 3.0)), False),
    "both coordinates": (lambda z: jnp.sin(z) + jnp.cos(2 * z), False),
    "the angle itself": (lambda z: z, True),
    "half the angle": (lambda z: 0.01 * jnp.sin(z / 2), True),
}


def aperiodic(model, guide=None):
    inputs = bind(model, None)
    traced, inputs = trace_program(model, guide, inputs)
    return find_aperiodic(model, guide, inputs, traced.sites, analyse_structure(traced))


def test_a_cost_that_is_not_periodic_is_found_and_no_other():
    def model():
        for i, (name, (cost, _)) in enumerate(COSTS.items()):
            # Some angles are events of several, of which the last one alone counts.
            shape = (2,) if i % 2 else ()
            angle = numpyro.sample(name, dist.VonMises(jnp.zeros(shape), 1.0).to_event(len(shape)))
            numpyro.factor(f"of {name}", cost(angle[..., -1] if shape else angle))

    found = aperiodic(model)
    assert sorted(found) == sorted(name for name, (_, broken) in COSTS.items() if broken)
    assert all(f"'p:of {name}'" in said for name, said in found.items())


def test_a_guide_of_angles_is_implicit_where_the_cost_is_periodic_and_score_where_not():
    def model(used):
        angle = numpyro.sample("angle", dist.VonMises(0.3, 1.0))
        numpyro.sample("y", dist.Normal(used(angle), 1.0), obs=0.7)

    def guide(used):
        loc, log_concentration = numpyro.param("loc", 0.0), numpyro.param("log_concentration", 0.0)
        numpyro.sample("angle", dist.VonMises(loc, jnp.exp(log_concentration)))

    assert autovi.plan(model, (jnp.cos,), guide=guide)["angle"].estimator == "implicit"
    plain = autovi.plan(model, (lambda angle: angle,), guide=guide)["angle"]
    assert plain.estimator == "score" and "between -pi and pi" in plain.why
    with pytest.raises(ValueError, match="not periodic"):
        autovi.plan(model, (lambda angle: angle,), guide=guide, estimators={"angle": "implicit"})


def test_a_transformed_angle_is_not_trusted():
    def model():
        numpyro.sample("turn", dist.Normal(0.0, 1.0))

    def guide():
        half = dist.transforms.AffineTransform(0.0, 0.5)
        angle = dist.VonMises(0.0, numpyro.param("concentration", 2.0, constraint=dist.constraints.positive))
        numpyro.sample("turn", dist.TransformedDistribution(angle, half))

    assert autovi.plan(model, guide=guide)["turn"].estimator == "score"


def test_a_cost_that_is_infinite_on_one_side_of_the_cut():
    def model():
        angle = numpyro.sample("angle", dist.VonMises(0.3, 1.0))
        numpyro.factor("cost", jnp.where(angle > 3.0, -jnp.inf, jnp.cos(angle)))

    assert "differs by infinitely many nats" in aperiodic(model)["angle"]


def test_models_without_angles_pay_nothing(monkeypatch):
    monkeypatch.setattr("autovi.analysis.periodicity.trial_values", lambda *_: pytest.fail("evaluated"))
    assert aperiodic(lambda: numpyro.sample("x", dist.Normal(0.0, 1.0))) == {}
