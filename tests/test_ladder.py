"""A fit without settings: which rung it ends at, and that it is right there."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from scipy import integrate, stats

import autovi
from autovi.climbing import Candidate, _is_better
from autovi.ladder.mode import Modes, Status
from autovi.ladder.programs import Few, few_of
from autovi.ladder.search import _highest_converged

QUIET = {"progress_bar": False}


def names(fit):
    return [rung.name for rung in fit.rungs]


# --- a regression on raw years --------------------------------------------------------------------------------------

YEAR = np.arange(1990.0, 2020.0)
Y = 3.0 + 0.2 * (YEAR - 2000.0) + np.sin(YEAR)


def regression(year, y):
    level = numpyro.sample("level", dist.Normal(0.0, 1000.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 10.0))
    numpyro.sample("y", dist.Normal(level + slope * year, 1.0), obs=y)


DESIGN = np.stack([np.ones_like(YEAR), YEAR], axis=1)
COVARIANCE = np.linalg.inv(DESIGN.T @ DESIGN + np.diag([1e-6, 1e-2]))
MEAN = COVARIANCE @ DESIGN.T @ Y
SD = np.sqrt(np.diag(COVARIANCE))


@pytest.fixture(scope="module")
def raw():
    return autovi.fit(regression, {"year": YEAR, "y": Y}, **QUIET)


def test_a_normal_posterior_in_raw_units_needs_no_steps(raw):
    assert names(raw) == ["mode", "curvature", "laplace"] and raw.losses.size == 0
    assert raw.status == "converged" and raw.verdict.word == "good"
    draws = raw.sample(20_000)
    # What float32 holds of years around 2000: the mean to a few hundredths of a standard deviation.
    for name, mean, sd in zip(("level", "slope"), MEAN, SD, strict=True):
        assert abs(draws[name].mean() - mean) < 0.06 * sd
        assert draws[name].std() == pytest.approx(sd, rel=0.04)
    left = Y @ Y - Y @ DESIGN @ MEAN
    log_det = -np.linalg.slogdet(COVARIANCE)[1] - np.log(1e-6 * 1e-2)
    assert raw.elbo == pytest.approx(-15 * np.log(2 * np.pi) - 0.5 * (left + log_det), abs=0.05)


def test_the_parameters_are_those_of_the_normal_before_its_map(raw):
    assert (np.abs(raw.params["joint.loc"] - MEAN) < 0.06 * SD).all()
    np.testing.assert_allclose(np.exp(raw.params["joint.log_diagonal"][0]), SD[0], rtol=0.03)
    assert set(raw.params) == {"joint.loc", "joint.log_diagonal", "joint.lower"}


def test_the_same_key_gives_the_same_bits(raw):
    again = autovi.fit(regression, {"year": YEAR, "y": Y}, **QUIET)
    other = autovi.fit(regression, {"year": YEAR, "y": Y}, rng_key=1, **QUIET)
    np.testing.assert_array_equal(again.sample(50)["slope"], raw.sample(50)["slope"])
    assert not np.array_equal(other.sample(50)["slope"], raw.sample(50)["slope"])


def test_to_a_file_and_on(raw, tmp_path):
    raw.save(tmp_path / "fit", with_data=True)
    loaded = autovi.load(tmp_path / "fit", regression)
    np.testing.assert_array_equal(loaded.sample(20)["level"], raw.sample(20)["level"])
    assert names(loaded) == names(raw) and str(loaded.plan) == str(raw.plan)
    on = loaded.resume(100)
    assert on.losses.size == 100 and on.verdict.word in ("good", "usable")


@pytest.mark.parametrize(
    "asked",
    [
        {"num_steps": 30},
        {"learning_rate": 0.01, "num_steps": 30},
        {"optimizer": optax.adam(0.01), "num_steps": 30},
        {"guide": "mean_field", "num_steps": 30},
        {"families": {"slope": "normal"}, "num_steps": 30},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_who_asks_for_steps_gets_them_from_the_mode(asked):
    fit = autovi.fit(regression, {"year": YEAR, "y": Y}, **asked, **QUIET)
    assert names(fit) == ["mode", "curvature"] and fit.losses.size == 30


def test_init_starts_where_it_says():
    fit = autovi.fit(regression, {"year": YEAR, "y": Y}, init={"level": 5.0}, num_steps=1, **QUIET)
    assert fit.rungs == () and fit.plan.rungs == ("none, since init= says where to start",)


def test_where_the_ladder_cannot_be_climbed_the_plan_says_why():
    def model(y):
        scale = numpyro.param("scale", 1.0, constraint=dist.constraints.positive)
        mu = numpyro.sample("mu", dist.Normal(0.0, scale))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    fit = autovi.fit(model, {"y": 1.0}, num_steps=10, **QUIET)
    said = "none, since the parameters 'scale' are found with q, by stochastic gradients"
    assert fit.plan.rungs == (said,) and said in str(fit.plan).replace("\n", " ")


def test_a_density_that_takes_long_is_not_searched_for_modes(monkeypatch):
    monkeypatch.setattr("autovi.ladder.programs.SEARCH_NUMBERS", 1_000)
    fit = autovi.fit(regression, {"year": YEAR[:20], "y": Y[:20]}, num_steps=5, **QUIET)
    assert fit.plan.rungs == ("none, since a search for modes would take minutes",) and fit.losses.size == 5


# --- a hierarchy ----------------------------------------------------------------------------------------------------

EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0, 3.0, -9.0])
ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0, 8.0, 12.0])


def hierarchy(effect):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.LogNormal(0.0, 3.0))
    with numpyro.plate("group", 10):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("effect", dist.Normal(theta, ERROR), obs=effect)


def log_joint(mu, log_tau):
    """The effects integrated out, on the scale of log tau."""
    sd = np.sqrt(ERROR**2 + np.exp(2 * log_tau))
    prior = stats.norm.logpdf(mu, 0, 5) + stats.norm.logpdf(log_tau, 0, 3)
    return prior + stats.norm.logpdf(EFFECT, mu, sd).sum()


def test_a_hierarchy_goes_to_the_guide_by_structure():
    fit = autovi.fit(hierarchy, {"effect": EFFECT}, **QUIET)
    assert names(fit) == ["mode", "curvature", "scales", "matching", "structured"]
    assert "'theta' given the others" in fit.plan["theta"].why
    grid = lambda f: integrate.dblquad(f, -15, 7, -25, 25, epsabs=1e-12, epsrel=1e-6)[0]  # noqa: E731
    shift = log_joint(0.0, 0.0)
    mass = grid(lambda mu, u: np.exp(log_joint(mu, u) - shift))
    mean = grid(lambda mu, u: mu * np.exp(log_joint(mu, u) - shift)) / mass
    level = grid(lambda mu, u: u * np.exp(log_joint(mu, u) - shift)) / mass
    spread = (grid(lambda mu, u: (u - level) ** 2 * np.exp(log_joint(mu, u) - shift)) / mass) ** 0.5
    assert 0 < np.log(mass) + shift - fit.elbo + 4 * fit.elbo_se
    assert np.log(mass) + shift - fit.elbo < 0.25
    draws = fit.sample(8000)
    assert abs(draws["mu"].mean() - mean) < 0.1 * 4
    assert abs(np.log(draws["tau"]).mean() - level) < 0.15 * spread
    assert np.log(draws["tau"]).std() == pytest.approx(spread, rel=0.15)


def funnel(p, y):
    """The scale of what is seen of it is known by its prior alone; no site is named, so that no structure is found."""
    scale, rest = jnp.exp(p["a"]), p["b"]
    prior = -0.5 * p["a"] ** 2 - 0.5 * jnp.sum((rest / scale) ** 2) - 4 * p["a"]
    return prior - 0.5 * jnp.sum((y - rest[:1]) ** 2)


def test_where_no_structure_is_known_each_coordinate_is_given_the_earlier_ones():
    data = np.array([1.5])
    fit = autovi.fit(autovi.LogDensity(funnel, {"a": 0.0, "b": jnp.zeros(4)}), {"y": data}, **QUIET)
    assert names(fit)[-2:] == ["sinh_arcsinh", "conditional_affine"]
    copula, affine = fit.rungs[-2:]
    assert affine.elbo > copula.elbo + 0.2 and "given the earlier ones" in fit.plan["b"].why
    # With b integrated out: a of a normal prior, and y of variance 1 + exp(2 a).
    log_joint = lambda a: -0.5 * a**2 + stats.norm.logpdf(data[0], 0.0, np.sqrt(1 + np.exp(2 * a)))  # noqa: E731
    grid = np.linspace(-8, 8, 4001)
    density = np.exp(log_joint(grid))
    mean = np.sum(grid * density) / np.sum(density)
    sd = np.sqrt(np.sum((grid - mean) ** 2 * density) / np.sum(density))
    draws = fit.sample(8000)["a"]
    assert abs(draws.mean() - mean) < 0.15 * sd and draws.std() == pytest.approx(sd, rel=0.15)


# --- the rule of growth ---------------------------------------------------------------------------------------------


def test_a_hessian_that_is_not_finite_is_no_curvature():
    def cut(y):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        # 0 with derivatives of 0, of which autodiff makes NaN of the second.
        numpyro.factor("none", 0.0 * jnp.log(jnp.maximum(0.0 * x, jnp.finfo(x.dtype).tiny)))
        numpyro.sample("y", dist.Normal(x, 0.5), obs=y)

    fit = autovi.fit(cut, {"y": 1.0}, **QUIET)
    assert [rung.said for rung in fit.rungs if rung.name == "curvature"] == ["the Hessian is not finite at the mode"]
    # No mass is claimed for a mode whose curvature is not known, and scores alone find the posterior.
    assert "other_modes" not in fit.verdict.numbers and names(fit)[-1] == "matching"
    assert fit.elbo == pytest.approx(stats.norm.logpdf(1.0, 0.0, 1.25**0.5), abs=0.01)


def candidate(elbo, se, few=None, khat=0.0, efficiency=0.9):
    return Candidate(SimpleNamespace(elbo=elbo, elbo_se=se, khat=khat, efficiency=efficiency), few)


@pytest.mark.parametrize(
    ("other", "best", "better"),
    [
        (candidate(-1.0, 0.1), candidate(-2.0, 0.1), True),
        (candidate(-1.8, 0.1), candidate(-2.0, 0.1), False),  # within two standard errors
        (candidate(-3.0, 0.1), candidate(-2.0, 0.1), False),  # a richer family that ended lower
        (candidate(np.nan, np.nan), candidate(-2.0, 0.1), False),
        (candidate(-2.0, 0.1), candidate(np.nan, np.nan), True),
        # Within two standard errors the weights decide, where they are clearly more equal.
        (candidate(-1.95, 0.1, khat=0.5, efficiency=0.25), candidate(-2.0, 0.1, khat=0.7, efficiency=0.12), True),
        (candidate(-2.05, 0.1, khat=0.5, efficiency=0.25), candidate(-2.0, 0.1, khat=0.7, efficiency=0.12), True),
        (candidate(-1.95, 0.1, khat=0.7, efficiency=0.25), candidate(-2.0, 0.1, khat=0.5, efficiency=0.12), False),
        (candidate(-1.95, 0.1, khat=0.5, efficiency=0.16), candidate(-2.0, 0.1, khat=0.7, efficiency=0.12), False),
        (candidate(-2.5, 0.1, khat=0.5, efficiency=0.25), candidate(-2.0, 0.1, khat=0.7, efficiency=0.12), False),
    ],
)
def test_a_richer_family_is_kept_only_if_it_is_better_for_certain(other, best, better):
    assert _is_better(other, best) is better


@pytest.mark.parametrize(
    ("few", "better", "weighed"),
    [
        (Few(-9.0, 0.5, 0.05), True, False),  # certain, by a few draws
        (Few(-2.5, 0.5, 0.05), False, True),  # in doubt its own draws decide
        (Few(-np.inf, 0.0, 0.0), True, False),
    ],
)
def test_where_a_few_draws_leave_doubt_all_are_weighed(few, better, weighed):
    best = candidate(-0.9, 0.1, few)
    assert _is_better(candidate(-1.0, 0.1), best) is better
    assert (best.few is None) is weighed


def test_what_a_few_log_weights_say():
    found = few_of(np.array([0.0, 0.0, -np.inf, -np.inf]))
    assert found.elbo == -np.inf and found.efficiency == pytest.approx(0.5)
    assert few_of(np.array([np.nan, 0.0])).efficiency == 0.0
    found = few_of(np.array([1.0, 3.0], np.float32))
    assert (found.elbo, found.elbo_se) == (2.0, pytest.approx(1.0))


def test_of_each_mode_the_highest_start_that_converged_there():
    # Rounding stopped the highest start of the first mode; none converged at the third, which grows without bound.
    values = np.array([3.0, 5.0, 4.9, 9.0, 4.8, np.nan])
    status = [Status[n] for n in ("CONVERGED", "STALLED", "CONVERGED", "STALLED", "CONVERGED", "NON_FINITE")]
    modes = Modes(np.zeros((6, 1)), values, np.zeros(6), np.zeros(6, int), np.array(status))
    assert _highest_converged(modes, np.array([0, 1, 1, 3, 1, -1])) == [2, 0]


def test_a_site_in_closed_form_is_taken_as_it_is():
    def model(y):
        p = numpyro.sample("p", dist.Beta(1.0, 1.0))
        numpyro.sample("y", dist.Binomial(812, p), obs=y)

    fit = autovi.fit(model, {"y": 232}, **QUIET)
    assert names(fit) == ["exact"] and fit.verdict.word == "good"
    mean, sd = stats.beta(233, 581).stats("mv")[0], stats.beta(233, 581).std()
    draws = fit.sample(4000)["p"]
    assert draws.mean() == pytest.approx(mean, abs=5 * sd / 4000**0.5)
    assert draws.std() == pytest.approx(sd, rel=0.06)


@pytest.mark.parametrize("size", [2, 50])
def test_a_stiff_normal_is_the_first_rungs(size):
    """All correlations 0.999, and a start at the mode, around which a round normal is not far off either."""
    prior = dist.MultivariateNormal(jnp.zeros(size), 0.999 * jnp.ones((size, size)) + 0.001 * jnp.eye(size))

    def model():
        numpyro.sample("x", prior)

    with pytest.warns(UserWarning, match="no observed site"):
        fit = autovi.fit(model, **QUIET)
    assert names(fit) == ["mode", "curvature", "laplace"]
    assert abs(fit.elbo) < 0.01
    np.testing.assert_allclose(fit.sample(4000)["x"].std(0), 1.0, rtol=0.06)


def test_columns_beyond_a_matrix_are_fitted_too():
    def model(y):
        with numpyro.plate("row", 700):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y)

    y = jnp.linspace(-2.0, 2.0, 700)
    fit = autovi.fit(model, {"y": np.asarray(y)}, **QUIET)
    draws = fit.sample(2000)["z"]
    assert fit.status == "converged"
    np.testing.assert_allclose(draws.mean(0), y / 2, atol=0.1)
    np.testing.assert_allclose(draws.std(0), 0.5**0.5, rtol=0.12)


def test_what_infer_asks_for_at_a_site_is_asked_for():
    def model(y):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0), infer={"autovi": {"family": "normal"}})
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(a + b, 1.0), obs=y)

    fit = autovi.fit(model, {"y": 1.2}, **QUIET)
    assert names(fit) == ["mode", "curvature"] and fit.losses.size
    assert [b.family.name for b in fit.engine.program.plan.blocks] == ["normal", "full_rank"]
    draws = fit.sample(4000, resample=False)
    # Mean field between the two: each around 1.2 / 3, with the precision that it has given the other.
    for name in "ab":
        assert draws[name].mean() == pytest.approx(0.4, abs=0.06)
        assert draws[name].std() == pytest.approx(0.5**0.5, rel=0.06)


def test_without_a_joint_block_nothing_is_called_exact():
    seen = np.array([True, False, True])

    def model(y):
        with numpyro.plate("row", 3), numpyro.handlers.mask(mask=seen):
            z = numpyro.sample("z", dist.Normal(5.0, 1.0))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y)

    fit = autovi.fit(model, {"y": np.array([7.0, 0.0, 9.0])}, **QUIET)
    assert "exact" not in names(fit)
    np.testing.assert_allclose(fit.sample(4000)["z"].mean(0), [6.0, 5.0, 7.0], atol=0.1)


def test_where_steps_failed_on_the_way_the_answer_says_so():
    """The gradient of where(z > 0, sqrt(z), 0) is NaN below zero: no step can be made, and Laplace's q is not good."""

    def model(y):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(2 * jnp.where(z > 0, jnp.sqrt(z), 0.0), 1.0).expand([3]).to_event(1), obs=y)

    fit = autovi.fit(model, {"y": np.array([0.9, -0.3, 1.4])}, **QUIET)
    assert fit.status == "failed" and "'z'" in fit.message and "where" in fit.message
    assert fit.verdict.word not in ("good", "usable") and np.isfinite(fit.elbo)
