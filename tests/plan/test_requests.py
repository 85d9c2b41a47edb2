"""What the user asks for site by site: found, preferred to the rules, and refused where it would be wrong."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.autoguide import AutoNormal

import autovi
from autovi.estimators import Enumerate, Score
from autovi.families import LowRank, Normal

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


def pair(y):
    a = numpyro.sample("a", dist.Bernoulli(0.3))
    b = numpyro.sample("b", dist.Categorical(jnp.ones(3) / 3))
    numpyro.sample("y", dist.Normal(a + 2.0 * b, 1.0), obs=y[0])


# --- overrides -----------------------------------------------------------------------------------------------------


def regression(y):
    beta_0 = numpyro.sample("beta_0", dist.Normal(), infer={"autovi": {"family": "normal", "estimator": "score"}})
    beta_1 = numpyro.sample("beta_1", dist.Normal())
    k = numpyro.sample("k", dist.Bernoulli(0.5), infer={"autovi": {"baseline": "none"}})
    numpyro.sample("y", dist.Normal(beta_0 + beta_1 + k, 1.0).expand([4]).to_event(1), obs=y)


def test_infer_is_read():
    plan = autovi.plan(regression, {"y": Y})
    assert row(plan, "beta_0") == ("normal", "score", "leave_one_out")
    assert row(plan, "beta_1") == ("full_rank", "explicit", None)
    assert row(plan, "k") == ("bernoulli", "score", "none")
    assert "asked for" in plan["beta_0"].why


def test_arguments_win_over_infer():
    plan = autovi.plan(
        regression, {"y": Y}, families={"beta_0": "delta"}, estimators={"beta_0": "explicit", "k": "enumerate"}
    )
    assert row(plan, "beta_0") == ("delta", "explicit", None)
    assert row(plan, "k") == ("bernoulli", "enumerate", None)


@pytest.mark.parametrize("reverse", [False, True])
def test_globs_and_the_exact_name_that_wins(reverse):
    families = {"beta_*": "normal", "beta_1": "low_rank", "*": "delta", "k": "bernoulli"}
    if reverse:
        families = dict(reversed(families.items()))
    plan = autovi.plan(regression, {"y": Y}, families=families)
    assert (plan["beta_0"].family, plan["beta_1"].family, plan["k"].family) == ("normal", "low_rank", "bernoulli")


def test_objects_and_dicts():
    estimators = {"beta_0": Score("moving_average"), "k": {"estimator": "score", "baseline": "moving_average"}}
    plan = autovi.plan(regression, {"y": Y}, families={"beta_1": LowRank(rank=1)}, estimators=estimators)
    assert row(plan, "beta_0") == ("normal", "score", "moving_average")
    assert row(plan, "k") == ("bernoulli", "score", "moving_average")
    assert row(plan, "beta_1") == ("low_rank", "explicit", None)


def test_objects_in_infer():
    def model():
        z = numpyro.sample("z", dist.Normal(), infer={"autovi": {"family": Normal(), "estimator": Score("none")}})
        k = numpyro.sample("k", dist.Bernoulli(0.5), infer={"autovi": {"estimator": Enumerate()}})
        numpyro.sample("y", dist.Normal(z + k, 1.0), obs=0.5)

    plan = autovi.plan(model)
    assert row(plan) == ("normal", "score", "none")
    assert row(plan, "k") == ("bernoulli", "enumerate", None)


def test_an_override_is_an_override_in_the_next_plan_too():
    plans = [autovi.plan(regression, {"y": Y}, estimators=e) for e in (None, {"k": "enumerate"}, None)]
    assert [p["k"].estimator for p in plans] == ["score", "enumerate", "score"]


# --- wrong choices -------------------------------------------------------------------------------------------------


def poisson_model():
    z = numpyro.sample("z", dist.Poisson(3.0))
    numpyro.sample("y", dist.Normal(z * 1.0, 1.0), obs=2.5)


WRONG = {
    "explicit on a Bernoulli": (one_site(dist.Bernoulli(0.5)), {"z": "explicit"}, "discrete.*valid:.*'enumerate'"),
    "implicit on a Normal": (one_site(dist.Normal()), {"z": "implicit"}, "'explicit' is the pathwise.*'explicit'"),
    "enumerate on a Normal": (
        one_site(dist.Normal()),
        {"z": "enumerate"},
        "continuous.*valid: .*'explicit'.*'score'.*'sticking'",
    ),
    "marginalize on a StudentT": (
        one_site(dist.StudentT(3.0)),
        {"z": "marginalize"},
        "continuous.*valid: .*'explicit'.*'score'.*'sticking'",
    ),
    "enumerate on a Poisson": (poisson_model, {"z": "enumerate"}, "not a finite list.*valid: .*'score'"),
    "two summed out": (
        pair,
        {"a": "marginalize", "b": "enumerate"},
        "shares a cost term with 'b'.*'enumerate'.*'score'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_estimator_names_the_site_the_reason_and_what_is_valid(name):
    model, estimators, said = WRONG[name]
    site, wanted = next(iter(estimators.items()))
    data = {"y": Y} if model is pair else None
    with pytest.raises(ValueError, match=f"site '{site}'.*{wanted!r} would be wrong, since .*{said}"):
        autovi.plan(model, data, estimators=estimators)


def test_explicit_on_a_gamma_is_refused():
    with pytest.raises(ValueError, match="site 'z'.*'explicit' would be wrong, since .*'implicit' is the pathwise"):
        autovi.plan(one_site(dist.Gamma(2.0, 1.0)), families={"z": "gamma"}, estimators={"z": "explicit"})


def test_score_on_a_point_is_refused():
    with pytest.raises(ValueError, match="site 'z'.*'score' would be wrong, since its support depends.*'explicit'"):
        autovi.plan(one_site(dist.Normal()), families={"z": "delta"}, estimators={"z": "score"})


def uniform_guide():
    high = numpyro.param("high", 1.0, constraint=dist.constraints.positive)
    numpyro.sample("z", dist.Uniform(0.0, high))


def test_score_where_a_parameter_moves_the_support_is_refused():
    model = one_site(dist.HalfNormal())
    assert row(autovi.plan(model, guide=uniform_guide)) == ("guide", "explicit", None)
    with pytest.raises(
        ValueError, match="site 'z' .Uniform.*'score' would be wrong.*depends on its parameter.*'explicit'"
    ):
        autovi.plan(model, guide=uniform_guide, estimators={"z": "score"})


def test_no_estimator_for_a_jump_where_the_support_moves():
    def model():
        z = numpyro.sample("z", dist.HalfNormal())
        numpyro.sample("y", dist.Normal(jnp.where(z > 0.5, 3.0, 0.0), 1.0), obs=0.5)

    with pytest.raises(
        ValueError, match="site 'z' .Uniform.*no estimator is right.*explicit: .*jumps.*score: .*support"
    ):
        autovi.plan(model, guide=uniform_guide)


def test_a_guide_function_brings_its_own_families():
    guide = AutoNormal(one_site(dist.HalfNormal()))
    with pytest.raises(ValueError, match="families: a guide function brings its own distributions"):
        autovi.plan(one_site(dist.HalfNormal()), guide=uniform_guide, families={"z": "normal"})
    assert autovi.plan(one_site(dist.HalfNormal()), guide=guide).guide == "function"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"families": {"z": Normal}}, "unknown family class Normal; .* or a Family; pass an instance, Normal"),
        ({"families": {"z": dist.Normal}}, "unknown family class Normal; .* or a Family$"),
        ({"estimators": {"z": Score}}, "unknown estimator class Score; .* or an Estimator; pass an instance, Score"),
    ],
)
def test_a_class_in_place_of_an_instance(options, said):
    with pytest.raises(ValueError, match=f"^site 'z': {said}"):
        autovi.plan(one_site(dist.Normal()), **options)


def test_a_site_that_the_plan_lacks():
    with pytest.raises(KeyError, match="no latent site is called 'y'; the latent sites are .'z'."):
        autovi.plan(one_site(dist.Normal()))["y"]
