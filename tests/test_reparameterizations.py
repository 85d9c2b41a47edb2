"""`reparameterizations`: its claims are those of the tables by which a fit chooses, and a fit keeps to them."""

import json

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest

import autovi
from autovi import implicit
from autovi.distributions.registry import depends_on_instance
from autovi.distributions.table import TABLE
from autovi.estimators import ESTIMATORS

PATHWISE = ("explicit", "implicit", "rsvi", "g_rep")
LAWS = {
    "Normal": lambda p: dist.Normal(p, 1.0),
    "Gamma": lambda p: dist.Gamma(jnp.exp(p), 2.0),
    "Beta": lambda p: dist.Beta(jnp.exp(p), 2.0),
    "StudentT": lambda p: dist.StudentT(4.0, p, 1.0),
    "LogNormal": lambda p: dist.LogNormal(p, 1.0),
    "Uniform": lambda p: dist.Uniform(0.0, jnp.exp(p)),
    "MixtureSameFamily": lambda p: dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.array([0.3, 0.7])), dist.Normal(jnp.stack([p, p + 1.0]), 1.0)
    ),
    "BernoulliLogits": lambda p: dist.Bernoulli(logits=p),
    "Poisson": lambda p: dist.Poisson(jnp.exp(p)),
}


@pytest.mark.parametrize("name", LAWS)
def test_a_fit_admits_what_is_listed_and_no_other(name):
    """In a guide function, where the distribution is the site's own."""
    ways = autovi.reparameterizations(LAWS[name](jnp.asarray(0.3)))
    assert ways.distribution == name
    listed = {way.name for way in ways} - {"location_scale"}

    def model():
        z = numpyro.sample("z", LAWS[name](jnp.asarray(0.1)))
        numpyro.factor("cost", -0.1 * z)

    def guide():
        numpyro.sample("z", LAWS[name](numpyro.param("p", jnp.asarray(0.3))))

    for estimator in PATHWISE:
        if estimator in listed:
            assert autovi.plan(model, guide=guide, estimators={"z": estimator})["z"].estimator == estimator
        else:
            with pytest.raises(ValueError, match="site 'z'.*would be wrong"):
                autovi.plan(model, guide=guide, estimators={"z": estimator})
    chosen = autovi.plan(model, guide=guide)["z"].estimator
    unasked = [way.name for way in ways if way.reserved is None and way.name in PATHWISE]
    assert chosen == unasked[0] if unasked else chosen in ways.others
    assert not listed & set(ways.others)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_class_of_the_table(name):
    cls = getattr(dist, name, None) or getattr(autovi.distributions, name)
    if depends_on_instance(name) or not cls.__module__.startswith("numpyro."):
        with pytest.raises(ValueError, match="distribution: .* pass an instance"):
            autovi.reparameterizations(cls)
        return
    ways, row = autovi.reparameterizations(cls), TABLE[name]
    assert bool({way.name for way in ways} & set(PATHWISE)) == (row.pathwise is not None and not row.not_pathwise)
    assert not (row.discrete and ways) and (ways.others or ways or row.observation_only or name == "Distribution")
    for way in ways:
        known = ESTIMATORS.get(way.name)
        assert (way.name == "location_scale") == (known is None)
        assert known is None or "(20" in way.source
    if ways:
        first = ways[0]
        assert {n: r for n, r in first.routes.items() if r != "explicit"} == dict(row.implicit)
        assert first.exact == (not {"quadrature", "triangular"} & set(row.implicit.values()))


@pytest.mark.parametrize("name", ["Normal", "Gamma", "Beta", "StudentT", "LogNormal", "Uniform"])
def test_routes_are_those_of_draws(name):
    fn = LAWS[name](jnp.asarray(0.3))
    ways = autovi.reparameterizations(fn)
    assert ways[0].routes == implicit.routes(fn)
    of_class = autovi.reparameterizations(type(fn))
    assert [(w.name, w.routes) for w in of_class] == [(w.name, w.routes) for w in ways]
    assert (ways.others, ways.note) == (of_class.others, of_class.note)


def test_what_holds_another_is_read_through():
    wrapped = dist.Gamma(jnp.ones(3), 2.0).to_event(1)
    assert autovi.reparameterizations(wrapped)["implicit"].routes == {"concentration": "quadrature", "rate": "explicit"}
    mixture = autovi.reparameterizations(LAWS["MixtureSameFamily"](jnp.zeros(())))
    assert "explodes" in mixture["implicit"].reserved and mixture.others["enumerate_component"] == "unbiased"
    angle = autovi.reparameterizations(dist.VonMises(0.0, 1.0))
    assert "periodic" in angle[0].right_for
    three = autovi.reparameterizations(dist.Categorical(probs=jnp.ones(3) / 3))
    assert not three and "disarm" not in three.others and three.others["enumerate"] == "unbiased"


def test_it_prints_and_is_json():
    ways = autovi.reparameterizations(dist.Gamma(2.0, 1.0))
    told = json.loads(json.dumps(ways.to_dict()))
    assert [way["name"] for way in told["found"]] == ["implicit", "rsvi", "g_rep", "location_scale"]
    text = str(ways)
    assert repr(ways) == text and text.startswith("Gamma\n  - implicit") and "Figurnov" in text
    assert all(len(line) <= 120 for line in text.splitlines())
    assert str(autovi.reparameterizations(dist.Poisson(1.0))).startswith("Poisson: no reparameterization")
    with pytest.raises(KeyError, match="Gamma has no reparameterization 'explicit', but"):
        ways["explicit"]


@pytest.mark.parametrize("wrong", ["Gamma", 3.0, dist.Bernoulli, int])
def test_what_is_no_distribution_is_said(wrong):
    with pytest.raises(TypeError, match="distribution: expected a NumPyro distribution or its class"):
        autovi.reparameterizations(wrong)
