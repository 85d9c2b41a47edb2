"""A masked latent site: a flat prior where something else feels it, and its own prior where nothing does."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer.autoguide import AutoNormal
from scipy import stats
from scipy.special import expit, log_expit, logsumexp

import autovi
from autovi.preparation import Options, prepare

Y = np.array([1.0, -0.5, 2.0, 0.7], np.float32)
ON = np.array([True, False, True, False])


def fit(model, data, **options):
    return autovi.fit(model, data, progress_bar=False, num_steps=options.pop("num_steps", 4000), **options)


def assert_moments(draws, mean, sd, sds=0.12, rtol=0.1):
    draws = np.asarray(draws)
    np.testing.assert_allclose((draws.mean(0) - mean) / sd, 0.0, atol=sds)
    np.testing.assert_allclose(draws.std(0), sd, rtol=rtol)


def partly(y, on):
    """Masked elements with an observation each: flat priors. The precision of the others is 1 + 4."""
    with numpyro.plate("n", len(y)):
        z = numpyro.sample("z", dist.Normal(3.0, 1.0).mask(on))
        numpyro.sample("y", dist.Normal(z, 0.5), obs=y)


EXACT = np.where(ON, (3.0 + 4 * Y) / 5, Y), np.where(ON, 5**-0.5, 0.5)


@pytest.mark.parametrize("guide", ["auto", "mean_field"])
def test_a_partial_mask_is_a_flat_prior(guide):
    result = fit(partly, {"y": Y, "on": ON}, guide=guide)
    assert_moments(result.sample(4000)["z"], *EXACT)
    # The log evidence of a flat element is 0: its likelihood integrates to 1.
    evidence = stats.norm(3.0, 1.25**0.5).logpdf(Y[ON]).sum()
    assert result.elbo == pytest.approx(evidence, abs=6 * result.elbo_se + 0.02)


def test_the_same_under_a_guide_of_numpyro():
    result = fit(partly, {"y": Y, "on": ON}, guide=AutoNormal(partly))
    assert_moments(result.sample(4000)["z"], *EXACT)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_mask_of_handlers_over_the_site_alone(batch_size):
    def model(y, on):
        with numpyro.plate("n", len(y), subsample_size=batch_size) as i:
            with handlers.mask(mask=on[i]):
                z = numpyro.sample("z", dist.Normal(3.0, 1.0))
            numpyro.sample("y", dist.Normal(z, 0.5), obs=y[i])

    result = fit(model, {"y": Y, "on": ON}, num_steps=8000)
    assert_moments(result.sample(4000)["z"], *EXACT, sds=0.15, rtol=0.12)


def test_what_nothing_feels_keeps_its_prior():
    """A mask over latent and observation, a value that `where` or a product leaves out, and what is made of them."""

    def model(y, on):
        with numpyro.plate("n", len(y)):
            with handlers.mask(mask=on):
                a = numpyro.sample("a", dist.Gamma(9.0, 3.0))
                numpyro.sample("y", dist.Normal(a, 0.1), obs=y)
            b = numpyro.sample("b", dist.Normal(jnp.where(on, a, 0.0), 2.0).mask(~on))
            numpyro.sample("x", dist.Normal(jnp.where(on, 0.0, b), 1.0), obs=y)
            c = numpyro.sample("c", dist.Bernoulli(0.9).mask(~on))
            numpyro.sample("w", dist.Normal(c * ~on, 1.0), obs=y)
        numpyro.deterministic("a_off", a[~on])

    result = fit(model, {"y": np.abs(Y), "on": ON})
    draws = result.sample(8000)
    # a: off by its prior; b: on by its prior given a, which the observation fixes; c: on by its prior.
    assert_moments(draws["a"][:, ~ON], 3.0, 1.0)
    np.testing.assert_array_equal(draws["a_off"], draws["a"][:, ~ON])
    assert_moments((draws["b"] - draws["a"])[:, ON], 0.0, 2.0)
    np.testing.assert_allclose(draws["c"][:, ON].mean(0), 0.9, atol=0.02)
    odds = np.log(9.0) + stats.norm(1, 1).logpdf(np.abs(Y)) - stats.norm(0, 1).logpdf(np.abs(Y))
    np.testing.assert_allclose(draws["c"][:, ~ON].mean(0), expit(odds)[~ON], atol=0.03)
    # To first order in the variance of y, by the slope of the prior's log density.
    y = np.abs(Y)[ON]
    assert_moments(draws["a"][:, ON], y + 0.01 * (8 / y - 3), 0.1, sds=0.2)


def test_a_positive_site_has_its_jacobian():
    """A flat prior over the rate of a Poisson: Gamma(k + 1, 1), which its own family holds exactly."""

    def model(k):
        rate = numpyro.sample("rate", dist.Exponential(1.0).mask(False))
        numpyro.sample("k", dist.Poisson(rate), obs=k)

    for families in (None, {"rate": "normal"}):
        draws = fit(model, {"k": 30}, families=families).sample(8000)["rate"]
        assert_moments(draws, 31.0, 31**0.5, sds=0.08)


def discrete(y, on):
    with numpyro.plate("n", len(y)):
        z = numpyro.sample("z", dist.Bernoulli(logits=1.5).mask(on))
        numpyro.sample("y", dist.Normal(1.0 * z, 0.7), obs=y)


@pytest.mark.parametrize("estimator", ["marginalize", "enumerate"])
def test_a_discrete_site_is_summed_and_not_maximized(estimator):
    prior = np.where(ON[:, None], [log_expit(-1.5), log_expit(1.5)], 0.0)
    joint = prior + stats.norm([0.0, 1.0], 0.7).logpdf(Y[:, None])
    result = fit(discrete, {"y": Y, "on": ON}, estimators={"z": estimator})
    assert result.elbo == pytest.approx(logsumexp(joint, axis=1).sum(), abs=2e-3)
    exact = np.exp(joint[:, 1] - logsumexp(joint, axis=1))
    np.testing.assert_allclose(result.sample(8000)["z"].mean(0), exact, atol=0.03)


def test_a_flat_prior_is_tied_to_what_it_moves_with():
    """The mean of three values and the value that is missing, imputed: one joint block."""

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
        z = numpyro.sample("z", dist.Normal(mu, 1.0).expand([3]).mask(False))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=jnp.concatenate([y, z]))

    plan = autovi.plan(model, {"y": Y})
    assert plan["z"].family == plan["mu"].family == "full_rank" and plan["z"].block == plan["mu"].block
    draws = fit(model, {"y": Y}).sample(4000)
    variance = 1 / (len(Y) + 0.01)
    assert_moments(draws["mu"], variance * Y.sum(), variance**0.5)
    assert_moments(draws["z"], variance * Y.sum(), (1 + variance) ** 0.5)


def test_other_masks_are_another_plan():
    assert autovi.plan(partly, {"y": Y, "on": ON})["z"].family == "full_rank"  # every element is observed

    def model(y, on):
        with numpyro.plate("n", len(y)), handlers.mask(mask=on):
            z = numpyro.sample("z", dist.Normal(3.0, 1.0))
            numpyro.sample("y", dist.Normal(z, 0.5), obs=y)

    assert autovi.plan(model, {"y": Y, "on": ON})["z"].family == "normal"
    assert autovi.plan(model, {"y": Y, "on": ~(ON & ~ON)})["z"].family == "full_rank"
    with pytest.raises(ValueError, match="'z'.*full_rank.*not all of its elements count under its mask"):
        autovi.plan(model, {"y": Y, "on": ON}, families={"z": "full_rank"})


def test_a_fit_with_a_masked_site_comes_back(tmp_path):
    result = fit(partly, {"y": Y, "on": ON}, num_steps=100)
    result.save(tmp_path / "fit", with_data=True)
    loaded = autovi.load(tmp_path / "fit", partly)
    np.testing.assert_array_equal(loaded.sample(10, 0)["z"], result.sample(10, 0)["z"])


def imputed(y, seen, x):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    with numpyro.plate("n", len(y)):
        numpyro.sample("y", dist.Normal(slope * x, scale), obs=y, obs_mask=seen)


def regression(n=60):
    rng = np.random.default_rng(4)
    x = rng.normal(size=n).astype(np.float32)
    y = (0.7 * x + 1.3 * rng.normal(size=n)).astype(np.float32)
    return {"y": y, "seen": np.arange(n) % 3 > 0, "x": x}


def test_missing_observations_are_drawn_from_the_model():
    data = regression()
    plan = autovi.plan(imputed, data)
    assert [c.site for c in plan.choices] == ["slope", "scale", "y_unobserved"]
    assert (plan["y_unobserved"].family, plan["y_unobserved"].estimator) == ("exact", "ancestral")
    assert "drawn from the model" in str(plan)
    result = fit(imputed, data)
    draws = result.sample(8000)
    missing = ~data["seen"]
    # Given the other draws, missing values are exactly those of the model; observed ones are what they are.
    standard = (draws["y_unobserved"] - draws["slope"][:, None] * data["x"]) / draws["scale"][:, None]
    assert stats.kstest(np.ravel(standard[:, missing]), "norm").pvalue > 1e-5
    np.testing.assert_array_equal(draws["y"][:, ~missing], np.broadcast_to(data["y"][~missing], (8000, 40)))
    np.testing.assert_array_equal(draws["y"][:, missing], draws["y_unobserved"][:, missing])
    # The rest of the fit is that of the observed rows alone.
    rows = {k: v[data["seen"]] for k, v in data.items()}
    alone = fit(imputed, rows)
    assert result.elbo == pytest.approx(alone.elbo, abs=5 * (result.elbo_se + alone.elbo_se))
    other = alone.sample(8000)
    for name in ("slope", "scale"):
        assert_moments(draws[name], other[name].mean(), other[name].std())


def test_missing_observations_that_drive_something_are_in_the_guide():
    def model(y, seen, x):
        imputed(y, seen, x)
        with numpyro.plate("m", len(y)):
            numpyro.sample("z", dist.Normal(numpyro.deterministic("copy", y), 1.0), obs=x)

    def driven(y, seen, x):
        slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
        with numpyro.plate("n", len(y)):
            full = numpyro.sample("y", dist.Normal(slope * x, 1.0), obs=y, obs_mask=seen)
            numpyro.sample("z", dist.Normal(full, 0.5), obs=2.0 * x)

    data = regression(12)
    assert autovi.plan(model, data)["y_unobserved"].estimator == "ancestral"
    assert autovi.plan(driven, data)["y_unobserved"].estimator == "explicit"
    assert autovi.plan(imputed, data, estimators={"y_unobserved": "score"})["y_unobserved"].estimator == "score"
    draws = fit(driven, data, num_steps=8000).sample(8000)
    missing = ~data["seen"]
    # Exact: y given the slope has precision 1 + 4; what is observed keeps to its own, drawn from the prior.
    slope = draws["slope"][:, None]
    mean = (slope * data["x"] + 4 * 2.0 * data["x"]) / 5
    assert_moments((draws["y_unobserved"] - mean)[:, missing], 0.0, 5**-0.5, sds=0.25, rtol=0.15)
    assert_moments((draws["y_unobserved"] - slope * data["x"])[:, ~missing], 0.0, 1.0)


def test_missing_classes_and_counts():
    def model(c, k, seen):
        p = numpyro.sample("p", dist.Beta(2.0, 2.0))
        with numpyro.plate("n", len(c)):
            numpyro.sample("c", dist.Bernoulli(p), obs=c, obs_mask=seen)
            numpyro.sample("k", dist.Poisson(4.0 * p), obs=k, obs_mask=seen)

    seen = np.array([True] * 6 + [False] * 2)
    data = {"c": np.array([1, 0, 1, 1, 0, 1, 0, 0]), "k": np.array([2, 3, 1, 4, 2, 2, 0, 0]), "seen": seen}
    result = fit(model, data)
    draws = result.sample(20_000)
    p = draws["p"]
    np.testing.assert_allclose(draws["c"][:, 6:].mean(0), p.mean(), atol=0.02)
    np.testing.assert_allclose(draws["k"][:, 6:].mean(0), 4 * p.mean(), atol=0.08)
    np.testing.assert_allclose(draws["k"][:, 6].var(), 4 * p.mean() + 16 * p.var(), rtol=0.06)


def chain(y, on, both):
    def step(before, x):
        seen, value = x
        with handlers.mask(mask=seen):
            z = numpyro.sample("z", dist.Normal(before, 1.0))
        with handlers.mask(mask=seen if both else True):
            numpyro.sample("y", dist.Normal(z, 0.5), obs=value)
        return z, None

    scan(step, 0.0, (on, y))


@pytest.mark.parametrize("both", [True, False])
def test_masked_steps_of_a_scan(both):
    """Padding, where latent and observation are masked at the end; and a step in the middle with a flat prior."""
    on = np.array([True, True, True, True, False, False] if both else [True, False, True, True])
    y = np.concatenate([Y, [9.0, 9.0]]).astype(np.float32)[: len(on)]
    draws = fit(chain, {"y": y, "on": on, "both": both}).sample(4000)["z"][:, :4]
    precision = 4 * np.eye(4)
    for t in range(4):
        if on[t]:
            precision[t, t] += 1
        if on[t] and t:
            precision[t - 1, t - 1] += 1
            precision[t, t - 1] = precision[t - 1, t] = -1
    mean = np.linalg.solve(precision, 4 * y[:4])
    sd = np.diag(precision) ** -0.5 if both else np.diag(np.linalg.inv(precision)) ** 0.5
    assert_moments(draws, mean, sd, sds=0.2, rtol=0.15)


def test_a_family_of_its_own_that_is_made_of_several_numbers():
    def model(on):
        with numpyro.plate("n", 2):
            p = numpyro.sample("p", dist.Dirichlet(2 * jnp.ones(3)).mask(on))
            numpyro.sample("y", dist.Multinomial(60, probs=p), obs=jnp.array([[20, 20, 20], [10, 20, 30]]))

    draws = fit(model, {"on": np.array([True, False])}).sample(8000)["p"]
    exact = [stats.dirichlet([22, 22, 22]), stats.dirichlet([11, 21, 31])]  # the flat one is Dirichlet(1, 1, 1)
    for i, posterior in enumerate(exact):
        assert_moments(draws[:, i], posterior.mean(), posterior.var() ** 0.5)


def test_what_nothing_feels_has_no_part_in_the_bound():
    """A positive latent, masked with its observation: neither log q nor the Jacobian of those rows counts."""

    def model(y, on):
        with numpyro.plate("n", len(y)), handlers.mask(mask=on):
            scale = numpyro.sample("scale", dist.LogNormal(0.3, 0.5))
            numpyro.sample("y", dist.Normal(0.0, scale), obs=y)

    some = fit(model, {"y": Y, "on": ON}, guide="mean_field", num_steps=2000)
    rows = fit(model, {"y": Y[ON], "on": ON[ON]}, guide="mean_field", num_steps=2000)
    assert some.elbo == pytest.approx(rows.elbo, abs=5 * (some.elbo_se + rows.elbo_se))


def test_which_steps_count_is_told_once_for_all_steps_of_a_fit():
    """By the data alone: what goes through the steps of a scan for it is not in the compiled step."""
    data = {"y": np.append(Y, [9.0, 9.0]).astype(np.float32), "on": np.arange(6) < 4, "both": True}
    engine, inputs = prepare(chain, data, Options(guide="mean_field"))
    program, arrays = engine.program, inputs.traced()
    params = engine.initial_params(arrays)

    def loops(arrays):
        shared = lambda arrays: program.shared(params, arrays, {}, program.cost_outputs).values["counts:z"]  # noqa: E731
        return str(jax.make_jaxpr(shared)(arrays)).count("scan["), np.asarray(shared(arrays))

    (many, told), (none, settled) = loops(arrays), loops(program.settled(arrays))
    assert many > none == 0
    np.testing.assert_array_equal(told, np.arange(6) < 4)
    np.testing.assert_array_equal(settled, told)
