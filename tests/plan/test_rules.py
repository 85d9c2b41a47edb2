"""The rules that give every site its family, estimator and baseline."""

import functools
import json

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

import autovi
from autovi.distributions.registry import lookup
from autovi.distributions.table import TABLE
from autovi.estimators import ESTIMATORS
from autovi.families import FAMILIES, LowRank
from autovi.plan.rules import FULL_RANK_LIMIT

Y = np.array([0.5, -0.2, 1.0, 0.3])


def one_site(fn):
    """A model with one latent site and a smooth cost."""

    def model():
        z = numpyro.sample("z", fn)
        numpyro.sample("y", dist.Normal(jnp.sum(z) * 1.0, 1.0), obs=0.5)

    return model


def row(plan, site="z"):
    choice = plan[site]
    return choice.family, choice.estimator, choice.baseline


# --- what auto gives -----------------------------------------------------------------------------------------------

AUTO = {
    "Normal": (dist.Normal(), "full_rank", "explicit", None),
    "HalfNormal": (dist.HalfNormal(), "full_rank", "explicit", None),
    "Uniform": (dist.Uniform(-1, 1), "full_rank", "explicit", None),
    "StudentT": (dist.StudentT(3.0), "full_rank", "explicit", None),
    "MultivariateNormal": (dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)), "full_rank", "explicit", None),
    "LKJCholesky": (dist.LKJCholesky(3), "full_rank", "explicit", None),
    "ImproperUniform": (dist.ImproperUniform(dist.constraints.positive, (), ()), "full_rank", "explicit", None),
    "Gamma": (dist.Gamma(2.0, 1.0), "full_rank", "explicit", None),
    "Exponential": (dist.Exponential(1.0), "full_rank", "explicit", None),
    "Dirichlet": (dist.Dirichlet(jnp.ones(3)), "dirichlet", "implicit", None),  # their sum is 1 at any value
    "Bernoulli": (dist.Bernoulli(0.5), "exact", "marginalize", None),
    "Categorical": (dist.Categorical(jnp.ones(3) / 3), "exact", "marginalize", None),
    "DiscreteUniform": (dist.DiscreteUniform(3, 9), "exact", "marginalize", None),
    "Binomial": (dist.Binomial(5, 0.5), "exact", "marginalize", None),
    "OrderedLogistic": (dist.OrderedLogistic(0.0, jnp.array([-1.0, 1.0])), "exact", "marginalize", None),
    "Poisson": (dist.Poisson(2.0), "poisson", "score", "leave_one_out"),
    "Geometric": (dist.Geometric(0.5), "negative_binomial", "score", "leave_one_out"),
    "NegativeBinomial": (dist.NegativeBinomial2(2.0, 3.0), "negative_binomial", "score", "leave_one_out"),
    "Bernoulli vector": (dist.Bernoulli(0.5).expand([4]).to_event(1), "bernoulli", "score", "leave_one_out"),
}


@pytest.mark.parametrize("name", AUTO)
def test_what_auto_gives(name):
    fn, *expected = AUTO[name]
    plan = autovi.plan(one_site(fn))
    assert row(plan) == tuple(expected)
    assert plan["z"].why.count(" ") > 6


def test_beta_has_its_own_family_where_it_is_conjugate_and_there_alone():
    def model(conjugate):
        p = numpyro.sample("z", dist.Beta(1.0, 1.0))
        numpyro.sample("y", dist.Bernoulli(p) if conjugate else dist.Normal(p, 1.0), obs=1)

    plan = autovi.plan(model, {"conjugate": True})
    assert row(plan) == ("beta", "implicit", None)
    assert "exact: its posterior is in the family of its prior, found from the structure" in plan["z"].why
    assert row(autovi.plan(model, {"conjugate": False})) == ("full_rank", "explicit", None)
    assert row(autovi.plan(model, {"conjugate": False}, families={"z": "beta"})) == ("beta", "implicit", None)


def test_an_angle_keeps_its_own_family():
    def model():
        z = numpyro.sample("z", dist.VonMises(0.0, 1.0))
        numpyro.sample("y", dist.Normal(jnp.sin(3 * z), 1.0), obs=0.5)

    assert row(autovi.plan(model)) == ("von_mises", "implicit", None)


def test_own_families_are_in_the_table():
    named = {row.own_family for row in TABLE.values()} - {None}
    counts = {"hurdle_gamma", "hurdle_poisson", "negative_binomial", "zero_inflated_poisson"}
    assert named == {"beta", "dirichlet", "gamma", "von_mises"} | counts and named <= set(FAMILIES)


def test_what_is_made_of_another_distribution_has_no_family_of_its_own():
    logarithm = dist.TransformedDistribution(dist.Gamma(2.0, 1.0), dist.transforms.ExpTransform().inv)
    for fn in (logarithm, dist.FoldedDistribution(dist.Gamma(2.0, 1.0)), dist.InverseGamma(2.0, 1.0)):
        assert lookup(fn).own_family is None
    assert lookup(dist.Gamma(jnp.ones(3), 1.0).mask(True).to_event(1)).own_family == "gamma"


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (dist.Multinomial(3, jnp.ones(3) / 3), "discrete.*write a guide function"),
        (dist.Categorical(jnp.ones(3) / 3).expand([2]).to_event(1), "numpyro.plate in place of to_event"),
        (dist.ProjectedNormal(jnp.zeros(3)), r"no bijection maps its support \(sphere\).*write a guide function"),
        (dist.Delta(1.0), "numpyro.deterministic"),
    ],
)
def test_what_no_family_fits_is_an_error(fn, said):
    with pytest.raises(ValueError, match=f"site 'z'.*{said}"):
        autovi.plan(one_site(fn))


def test_a_multinomial_is_drawn_by_a_guide_function_with_the_score():
    def guide():
        numpyro.sample(
            "z", dist.Multinomial(3, numpyro.param("p", jnp.ones(3) / 3, constraint=dist.constraints.simplex))
        )

    fn = dist.Multinomial(3, jnp.ones(3) / 3)
    assert row(autovi.plan(one_site(fn), guide=guide)) == ("guide", "score", "leave_one_out")


def normals(sizes):
    def model():
        total = 0.0
        for i, size in enumerate(sizes):
            total += numpyro.sample(f"x{i}", dist.Normal(jnp.zeros(size), 1.0).to_event(1)).sum()
        rate = numpyro.sample("rate", dist.Gamma(jnp.ones(20), 1.0).to_event(1)).sum()
        numpyro.sample("y", dist.Normal(total, rate), obs=0.5)

    return model


def test_joint_while_the_dimension_affords_it():
    plan = autovi.plan(normals([FULL_RANK_LIMIT - 30, 10]))
    for site in ("x0", "x1", "rate"):
        assert row(plan, site) == ("full_rank", "explicit", None) and plan[site].block == "joint"


def test_mean_field_above_the_limit():
    plan = autovi.plan(normals([FULL_RANK_LIMIT - 10, 11]))
    assert row(plan, "x0") == row(plan, "x1") == ("normal", "explicit", None)
    assert str(FULL_RANK_LIMIT) in plan["x0"].why


@pytest.mark.parametrize(
    ("guide", "family"), [("mean_field", "normal"), ("low_rank", "low_rank"), ("full_rank", "full_rank")]
)
def test_a_named_guide_holds_for_every_continuous_site(guide, family):
    plan = autovi.plan(normals([2, 3]), guide=guide)
    assert {c.family for c in plan.choices} == {family}
    assert plan.guide == guide


def test_a_block_does_not_take_the_name_of_a_site():
    def model():
        a = numpyro.sample("joint", dist.Normal())
        b = numpyro.sample("b", dist.Normal())
        numpyro.sample("y", dist.Normal(a + b, 1.0), obs=0.5)

    plan = autovi.plan(model)
    assert plan["joint"].block == plan["b"].block == "joint_"
    plan = autovi.plan(normals([2, 2, 2, 2]), families={"x[01]": LowRank(1), "x[23]": LowRank(2)})
    assert plan["x0"].block == plan["x1"].block != plan["x2"].block == plan["x3"].block


# --- plates, masks, shared terms -----------------------------------------------------------------------------------


def mixture(y, subsample_size=None):
    loc = numpyro.sample("loc", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    with numpyro.plate("n", 4, subsample_size=subsample_size) as i:
        c = numpyro.sample("c", dist.Bernoulli(0.4))
        u = numpyro.sample("u", dist.Normal())
        numpyro.sample("y", dist.Normal(loc[c] + u, 1.0), obs=y[i])


def test_plated_assignments_are_summed_out():
    plan = autovi.plan(mixture, {"y": Y})
    assert row(plan, "c") == ("exact", "marginalize", None)
    assert row(plan, "u") == row(plan, "loc") == ("full_rank", "explicit", None)
    assert plan["u"].shape == (4,)


def test_sites_in_a_subsampled_plate_are_in_no_joint_block():
    plan = autovi.plan(mixture, {"y": Y, "subsample_size": 2})
    assert row(plan, "u") == ("normal", "explicit", None)
    assert "subsampled" in plan["u"].why and plan["u"].block == "u"
    assert plan["u"].shape == (4,)
    assert row(plan, "loc") == ("full_rank", "explicit", None)
    asked = autovi.plan(mixture, {"y": Y, "subsample_size": 2}, families={"u": "full_rank"})
    assert asked.block("u").by_element and not asked.block("u").flat


def test_batch_size_subsamples_by_number_or_by_name():
    for batch_size in (2, {"n": 2}):
        assert "subsampled" in autovi.plan(mixture, {"y": Y}, batch_size=batch_size)["u"].why


def test_a_sum_over_the_logarithm_of_a_sum_cannot_be_subsampled():
    def model(y):
        c = numpyro.sample("c", dist.Bernoulli(0.4))
        with numpyro.plate("n", 4, subsample_size=2) as i:
            numpyro.sample("y", dist.Normal(c * 1.0, 1.0), obs=y[i])

    assert row(autovi.plan(model, {"y": Y}), "c") == ("bernoulli", "enumerate", None)
    with pytest.raises(ValueError, match="site 'c'.*'marginalize' would be wrong.*subsampled plate 'n'.*'enumerate'"):
        autovi.plan(model, {"y": Y}, estimators={"c": "marginalize"})


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("guide", ["auto", "mean_field", "low_rank", "full_rank"])
def test_a_masked_site_is_in_no_joint_block(guide, masked):
    """A joint block has one log q, from which a mask could not take an element's part: so no other site shares the
    block of a masked one, though both have the same family. Where all elements count, a mask takes nothing."""

    def model(y):
        loc = numpyro.sample("loc", dist.Normal())
        scale = numpyro.sample("scale", dist.HalfNormal())
        with numpyro.plate("n", 4), handlers.mask(mask=jnp.array([True, True, False, True])):
            u = numpyro.sample("u", dist.Normal())
            v = numpyro.sample("v", dist.Normal())
            if masked:
                numpyro.sample("y", dist.Normal(loc + u + v, scale), obs=y)
        if not masked:
            numpyro.sample("y", dist.Normal(loc + u + v, scale).to_event(1), obs=y)

    plan = autovi.plan(model, {"y": Y}, guide=guide)
    if not masked:
        assert len({plan[n].block for n in ("u", "v", "loc", "scale")}) == 1
        return
    assert row(plan, "u") == row(plan, "v") == ("normal", "explicit", None)
    assert [plan[n].block for n in ("u", "v", "loc", "scale")] == ["u", "v", "joint", "joint"]
    assert guide == "mean_field" or ("masked" in plan["u"].why and "masked" in plan["v"].why)


def pair(y):
    a = numpyro.sample("a", dist.Bernoulli(0.3))
    b = numpyro.sample("b", dist.Categorical(jnp.ones(3) / 3))
    numpyro.sample("y", dist.Normal(a + 2.0 * b, 1.0), obs=y[0])


def test_discrete_sites_that_share_a_term_are_summed_out_together():
    plan = autovi.plan(pair, {"y": Y})
    assert row(plan, "a") == row(plan, "b") == ("exact", "marginalize", None)
    assert "together with 'b' (in the order" in plan["a"].why and "the largest table has" in plan["a"].why


def test_one_that_is_to_be_enumerated_keeps_the_other_in_the_guide():
    plan = autovi.plan(pair, {"y": Y}, estimators={"a": "enumerate"})
    assert row(plan, "a") == ("bernoulli", "enumerate", None)
    assert row(plan, "b") == ("categorical", "enumerate", None)
    with pytest.raises(ValueError, match="site 'b'.*it shares a cost term with 'a', which is enumerated"):
        autovi.plan(pair, {"y": Y}, estimators={"a": "enumerate", "b": "marginalize"})


def test_one_of_two_that_share_a_term_may_be_summed_out():
    plan = autovi.plan(pair, {"y": Y}, estimators={"a": "score"})
    assert row(plan, "b") == ("exact", "marginalize", None)


def mixing(count):
    """Elements that are felt together, and not by their sum alone."""

    def model(y):
        with numpyro.plate("n", count):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal((z * jnp.arange(count)).sum() * 1.0, 1.0), obs=y[0])

    return model


def test_few_elements_that_mix_are_summed_out():
    plan = autovi.plan(mixing(4), {"y": Y})
    assert plan["z"].estimator == "marginalize"
    assert "element by element" in plan["z"].why and "16 numbers (z[0] 2 x z[1] 2 x" in plan["z"].why


def test_many_elements_that_mix_go_by_the_score():
    plan = autovi.plan(mixing(40), {"y": Y})
    assert row(plan) == ("bernoulli", "score", "leave_one_out")
    assert "40 of its elements meet in the term 'p:y', and have 1,099,511,627,776 configurations" in plan["z"].why
    with pytest.raises(ValueError, match="site 'z'.*'enumerate' would be wrong.*mixes its elements.*'score'"):
        autovi.plan(mixing(40), {"y": Y}, estimators={"z": "enumerate"})


# --- jumps ---------------------------------------------------------------------------------------------------------

USES = {
    "floor": jnp.floor,
    "where": lambda z: jnp.where(z > 0.1, 1.0, -1.0),
    "change point": lambda z: jnp.where(jnp.arange(4) / 4 < z, 0.0, 3.0).sum(),
}


@functools.cache
def jumping(name):
    def model():
        z = numpyro.sample("z", dist.Normal())
        w = numpyro.sample("w", dist.Normal())
        numpyro.sample("y", dist.Normal(USES[name](z) + w, 0.5), obs=0.5)

    return model


@pytest.mark.parametrize("name", USES)
def test_a_cost_that_jumps_goes_by_the_score(name):
    plan = autovi.plan(jumping(name))
    assert row(plan) == ("normal", "score", "leave_one_out")
    assert "'p:y' jumps by" in plan["z"].why and plan["z"].block == "z"
    assert row(plan, "w") == ("full_rank", "explicit", None)


def test_a_pathwise_gradient_through_a_jump_is_refused():
    with pytest.raises(ValueError, match="site 'z'.*'explicit' would be wrong.*jumps.*does not see.*valid: .*'score'"):
        autovi.plan(jumping("floor"), estimators={"z": "explicit"})
    with pytest.raises(ValueError, match="site 'z'.*no estimator is right.*jumps"):
        autovi.plan(jumping("floor"), families={"z": "delta"})


def test_a_kink_is_no_jump():
    def model():
        z = numpyro.sample("z", dist.Normal())
        numpyro.sample("y", dist.Normal(jnp.where(z > 0, z, 0.0), 0.5), obs=0.5)

    assert row(autovi.plan(model)) == ("full_rank", "explicit", None)


# --- particles -----------------------------------------------------------------------------------------------------


def test_particles_suffice_for_the_baseline():
    poisson_model = one_site(dist.Poisson(3.0))
    assert autovi.plan(one_site(dist.Normal())).num_particles >= 1
    assert autovi.plan(poisson_model).num_particles >= 2
    assert autovi.plan(poisson_model, num_particles=np.int64(3)).num_particles == 3
    with pytest.raises(ValueError, match="num_particles: 1 is too few for site 'z'.*leave_one_out.*at least 2"):
        autovi.plan(poisson_model, num_particles=1)
    estimators = {"z": {"baseline": "moving_average"}}
    assert autovi.plan(poisson_model, num_particles=1, estimators=estimators).num_particles == 1


# --- the plan as a value -------------------------------------------------------------------------------------------


def test_the_plan_prints_and_is_json():
    plan = autovi.plan(pair, {"y": Y}, estimators={"a": "enumerate"})
    text = str(plan)
    lines = text.splitlines()
    assert lines[0] == "Plan: 4 particles a step"
    assert lines[1].split() == ["site", "support", "shape", "family", "estimator"]
    assert lines[2].split() == ["a", "boolean", "scalar", "bernoulli", "enumerate"]
    assert all(c.why in " ".join(text.split()) for c in plan.choices)
    assert repr(plan) == text
    stored = json.loads(json.dumps(plan.to_dict()))
    assert [s["site"] for s in stored["sites"]] == ["a", "b"]
    assert stored["sites"][1] | {"why": ""} == {
        "site": "b",
        "distribution": "CategoricalProbs",
        "support": "integer interval",
        "shape": [],
        "family": "categorical",
        "estimator": "enumerate",
        "baseline": None,
        "why": "",
        "block": "b",
    }
    with pytest.raises(KeyError, match="nowhere"):
        plan["nowhere"]


def test_planning_optimizes_nothing_and_takes_every_table_entry():
    def model():
        loc = numpyro.sample("loc", dist.Normal())
        p = numpyro.sample("p", dist.Uniform(0.0, 1.0))
        numpyro.sample("y", dist.Normal(loc + p, 1.0), obs=0.5)

    for name in FAMILIES:
        fits = FAMILIES[name]().refuses
        sites = autovi.fitting.prepare(model, None, autovi.fitting.Options())[0].program.sites.latents
        if fits(sites["loc"]) is None:
            plan = autovi.plan(model, families={"loc": name})
            assert row(plan, "loc")[0] == name and row(plan, "loc")[1] in ESTIMATORS
        else:
            with pytest.raises(ValueError, match=f"site 'loc'.*{name!r} does not fit, since its .*valid: .*'normal'"):
                autovi.plan(model, families={"loc": name})
