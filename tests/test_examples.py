"""Every example runs, and what it finds agrees with an exact answer or a long MCMC run."""

import re
from pathlib import Path

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats

from examples import (
    cartpole,
    coal_mining,
    custom_guide,
    digits_vae,
    discrete_vae,
    eight_schools,
    hard_attention,
    lqg,
    mixed_latents,
    newsvendor,
    nile,
    permutations,
)

KHAT = re.compile(r"^k-hat: .* \(.+\)$", re.MULTILINE)
PNG = b"\x89PNG\r\n\x1a\n"


def draws(fit, name: str) -> np.ndarray:
    """Posterior draws of a site with chain and draw as one leading dimension."""
    values = np.asarray(fit.idata["posterior"][name])
    return values.reshape(-1, *values.shape[2:])


def assert_saved(folder: Path, stem: str, names: set[str]) -> None:
    plot = folder / f"{stem}.png"
    assert plot.read_bytes().startswith(PNG)
    assert plot.stat().st_size > 20_000, "empty axes are smaller than this"
    posterior = az.from_netcdf(folder / f"{stem}.nc")["posterior"]
    assert names <= set(posterior.data_vars)


def assert_complete(figure) -> None:
    """Every panel has a title, names of its axes, and says which of its parts is the exact answer."""
    assert len(figure.axes) == 3
    for ax in figure.axes:
        assert ax.get_title() and ax.get_xlabel() and ax.get_ylabel(), ax
    labels = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in figure.axes]
    assert any("data" in label for label in labels[0]) and all("exact" in label for label in labels[1:])


def test_coal_mining_data_is_the_complete_series():
    assert len(coal_mining.COUNTS) == coal_mining.LAST - coal_mining.FIRST + 1 == 112
    assert coal_mining.COUNTS.sum() == 191
    # By decade, counted from the dates of the disasters.
    assert [int(coal_mining.COUNTS[i : i + 10].sum()) for i in range(0, 112, 10)] == [
        31, 33, 35, 26, 10, 13, 5, 7, 16, 11, 3, 1,
    ]  # fmt: skip


def test_exact_switch_posterior_agrees_with_quadrature():
    """Both rates integrated numerically for two years whose ratio is then known without the closed form."""
    exact = coal_mining.exact_switch_posterior()
    rates = np.linspace(1e-4, 8.0, 20_001)

    def log_integral(counts):
        log_f = counts.sum() * np.log(rates) - (len(counts) + 1) * rates
        return log_f.max() + np.log(np.trapezoid(np.exp(log_f - log_f.max()), rates))

    def log_marginal(year):
        n = year - coal_mining.FIRST + 1
        return log_integral(coal_mining.COUNTS[:n]) + log_integral(coal_mining.COUNTS[n:])

    assert sum(exact.values()) == pytest.approx(1.0)
    for year in (1886, 1891, 1896):
        expected = np.exp(log_marginal(year) - log_marginal(1890))
        assert exact[year] / exact[1890] == pytest.approx(expected, rel=1e-4)


def test_exact_rate_densities_agree_with_their_means():
    """They integrate to one, and have the means of the Gamma distributions on either side of the year."""
    rates = np.linspace(0.0, 8.0, 4001)
    means = exact_rate_means()
    for density, mean in zip(coal_mining.exact_rate_densities(rates), means, strict=True):
        assert np.trapezoid(density, rates) == pytest.approx(1.0, abs=1e-4)
        assert np.trapezoid(density * rates, rates) == pytest.approx(mean, rel=1e-4)


def exact_rate_means() -> tuple[float, float]:
    """Given the year, the rates are Gamma(1 + disasters, 1 + years) on either side of it."""
    exact = coal_mining.exact_switch_posterior()
    counts, first = coal_mining.COUNTS, coal_mining.FIRST
    before = [(p, counts[: y - first + 1]) for y, p in exact.items()]
    after = [(p, counts[y - first + 1 :]) for y, p in exact.items()]
    early, late = (sum(p * (1 + c.sum()) / (1 + len(c)) for p, c in part) for part in (before, after))
    return early, late


@pytest.mark.slow
def test_coal_mining(tmp_path, capsys):
    fit = coal_mining.main(tmp_path, num_draws=4000, progress_bar=False)

    years, occurrences = np.unique(draws(fit, "switch"), return_counts=True)
    exact = coal_mining.exact_switch_posterior()
    found = dict(zip(years.tolist(), occurrences / occurrences.sum(), strict=True))
    assert set(found) <= set(exact)
    assert 1889 <= max(found, key=found.get) <= 1892
    # 4,000 exact draws over about ten likely years are themselves 0.02 away on average.
    assert 0.5 * sum(abs(found.get(year, 0.0) - p) for year, p in exact.items()) < 0.06
    early, late = exact_rate_means()
    assert draws(fit, "early").mean() == pytest.approx(early, rel=0.02)
    assert draws(fit, "late").mean() == pytest.approx(late, rel=0.02)

    assert_saved(tmp_path, "coal_mining", {"switch", "early", "late"})
    assert_complete(coal_mining.figure(fit))
    assert list(fit.idata["observed_data"]["disasters"].coords["year"].values) == list(range(1851, 1963))
    printed = capsys.readouterr().out
    assert "switch" in printed and "The last year of the higher rate" in printed and KHAT.search(printed)


@pytest.mark.slow
def test_nile(tmp_path, capsys):
    """Means of both standard deviations within 3 %: q is normal in their logarithms. Levels given these are exact."""
    fit = nile.main(tmp_path, progress_bar=False)
    wander, noise, p = nile.exact_grid()
    assert draws(fit, "wander").mean() == pytest.approx(wander @ p.sum(1), rel=0.03)
    assert draws(fit, "noise").mean() == pytest.approx(noise @ p.sum(0), rel=0.03)
    # 4,000 draws, each within 60 of the level: a standard error of one.
    np.testing.assert_allclose(draws(fit, "level").mean(0), nile.exact_level(), rtol=0, atol=6.0)
    assert_saved(tmp_path, "nile", {"wander", "noise", "before", "level"})
    assert_complete(nile.figure(fit))
    assert KHAT.search(capsys.readouterr().out)


def test_the_exact_eight_schools_agree_with_brute_force():
    """The joint density on a grid of `mu` and `tau`; given both, the effect of a school is normal."""
    exact = eight_schools.Exact()
    mu, tau = np.linspace(-25.0, 35.0, 601), np.arange(0.01, 80.0, 0.04)
    y, se = eight_schools.EFFECTS, eight_schools.STANDARD_ERRORS
    log_p = stats.norm.logpdf(mu, 0, 5)[:, None] + stats.halfcauchy.logpdf(tau, scale=5.0)
    for effect, error in zip(y, se, strict=True):
        log_p = log_p + stats.norm.logpdf(effect, mu[:, None], np.hypot(tau, error))
    p = np.exp(log_p - log_p.max())
    p /= p.sum()

    assert exact.weight @ exact.mu_mean == pytest.approx(mu @ p.sum(axis=1), abs=1e-3)
    np.testing.assert_allclose(exact.mu_density(mu), p.sum(axis=1) / 0.1, atol=2e-4)
    np.testing.assert_allclose(np.interp(tau, exact.tau, exact.tau_density()), p.sum(axis=0) / 0.04, atol=2e-3)
    school = 0
    low, middle, high = exact.theta_quantiles(school, [0.03, 0.5, 0.97])
    weight = tau**2 / (tau**2 + se[school] ** 2)
    mean, sd = weight * y[school] + (1 - weight) * mu[:, None], np.sqrt(weight) * se[school]
    below = [(p * stats.norm.cdf(theta, mean, sd)).sum() for theta in (low, middle, high)]
    np.testing.assert_allclose(below, [0.03, 0.5, 0.97], atol=1e-3)


def test_eight_schools(tmp_path, capsys):
    fit = eight_schools.main(tmp_path, num_draws=4000, progress_bar=False)

    # Long NUTS runs: mu 4.41 (sd 3.31), tau 3.60 (sd 3.20), theta of school A 6.15 and of school E 3.61.
    assert draws(fit, "mu").mean() == pytest.approx(4.41, abs=1.0)
    assert draws(fit, "mu").std() == pytest.approx(3.31, abs=0.7)
    assert draws(fit, "tau").mean() == pytest.approx(3.60, abs=1.2)
    theta = draws(fit, "theta")
    assert theta.shape == (4000, 8)
    assert theta[:, 0].mean() == pytest.approx(6.15, abs=1.2)
    assert theta[:, 4].mean() == pytest.approx(3.61, abs=1.2)

    assert_saved(tmp_path, "eight_schools", {"mu", "tau", "z", "theta"})
    assert_complete(eight_schools.figure(fit))
    assert list(fit.idata["posterior"]["theta"].coords["school"].values) == eight_schools.SCHOOLS
    printed = capsys.readouterr().out
    assert "mu" in printed and KHAT.search(printed)


@pytest.mark.slow
def test_mixed_latents(capsys):
    fit = mixed_latents.main(progress_bar=False)
    assert KHAT.search(capsys.readouterr().out)

    _, truth = mixed_latents.simulate()
    # The best rule for these components, knowing all parameters, is wrong on about 1 % of the points.
    assert mixed_latents.share_recovered(fit, truth) > 0.95
    np.testing.assert_allclose(draws(fit, "means").mean(axis=0), mixed_latents.MEANS, atol=0.35)
    np.testing.assert_allclose(draws(fit, "weights").mean(axis=0), mixed_latents.WEIGHTS, atol=0.12)


@pytest.mark.slow
def test_custom_guide(capsys):
    fit = custom_guide.main(progress_bar=False)
    assert KHAT.search(capsys.readouterr().out)

    mean, covariance = custom_guide.exact_posterior(**custom_guide.simulate())
    sd = np.sqrt(np.diag(covariance))
    found = draws(fit, "coefficients")
    np.testing.assert_allclose(found.mean(axis=0), mean, atol=0.2 * sd.max())
    np.testing.assert_allclose(found.std(axis=0), sd, rtol=0.15)
    exact_correlation = covariance[0, 1] / sd.prod()
    assert np.corrcoef(found.T)[0, 1] == pytest.approx(exact_correlation, abs=0.05)


@pytest.mark.slow
def test_digits_vae(capsys):
    found = digits_vae.main(num_steps=600, progress_bar=False)

    assert list(found) == ["normal", "gamma", "beta", "von Mises"]
    # A code that says nothing leaves each pixel its own frequency: 25.2 nats an image.
    images, _ = digits_vae.digits()
    share = np.clip(images.mean(axis=0), 1e-3, 1 - 1e-3)
    ignorant = float(np.sum(share * np.log(share) + (1 - share) * np.log(1 - share)))
    assert all(elbo > ignorant + 3.0 for elbo in found.values()), (found, ignorant)
    printed = capsys.readouterr().out
    assert printed.count("implicit") == 3 and printed.count("explicit") == 1


@pytest.mark.slow
def test_permutations(capsys):
    assert (permutations.WINS + permutations.WINS.T == permutations.GAMES * (1 - np.eye(7))).all()
    found = permutations.main(progress_bar=False)
    # Corrected draws of which some 300 count: a share is known to 0.03.
    np.testing.assert_allclose(found["places"], found["exact"], atol=0.1)
    ranks = np.arange(1, 8)
    np.testing.assert_allclose(found["places"] @ ranks, found["exact"] @ ranks, atol=0.3)
    assert (found["matches"].argmax(0) == found["order"]).all() and found["matches"].max(0).min() > 0.9
    assert found["ranked"].plan["order"].estimator == "score"
    assert found["matched"].plan["order"].estimator == "relax_permutation"
    assert "matched 6 of 6 wines" in capsys.readouterr().out


@pytest.mark.slow
def test_newsvendor(capsys):
    found = newsvendor.main()
    for name, exact in found["exact"].items():
        assert found["error"][name] < 0.01 * abs(exact)
        assert abs(found["gradient"][name] - exact) < 4.5 * found["error"][name]
    (price, order, profit), (best_price, best_order, best_profit) = found["found"], found["optimum"]
    assert best_profit * 0.998 < profit <= best_profit * 1.0001
    assert price == pytest.approx(best_price, rel=0.02) and order == pytest.approx(best_order, abs=0.75)
    assert "leave_one_out" in capsys.readouterr().out


def test_the_newsvendors_expected_loss_is_the_sum_over_demands():
    params = {"log_price": np.log(5.0), "log_order": np.log(17.3)}
    k = np.arange(newsvendor.MOST)
    weights = stats.poisson.pmf(k, np.exp(newsvendor.BASE - newsvendor.SLOPE * 5.0))
    profits = 5.0 * np.minimum(17.3, k) - newsvendor.UNIT_COST * 17.3
    assert float(newsvendor.exact_loss(params)) == pytest.approx(-np.sum(weights * profits), rel=1e-4)


@pytest.mark.slow
def test_lqg(capsys):
    found = lqg.main(num_steps=400)
    for estimator in ("explicit", "score"):
        mean, error, _ = found[estimator]
        assert np.linalg.norm(error) < 0.06 * np.linalg.norm(found["exact"])
        assert (np.abs(mean - found["exact"]) < 4.5 * error).all()
    assert found["score"][2] > 5 * found["explicit"][2]
    start, trained, best = found["costs"]
    assert best <= trained < best + 0.02 * (start - best)
    assert "exact gradient" in capsys.readouterr().out


def test_the_controllers_expected_cost_is_that_of_many_runs():
    """The recursion of covariances against simulated runs, written without autovi."""
    rng, n = np.random.default_rng(0), 40_000
    a, b, q, gain = (np.asarray(m) for m in (lqg.A, lqg.B, lqg.Q, lqg.GAIN))
    x, costs = np.tile(np.asarray(lqg.START), (n, 1)), np.zeros(n)
    for _ in range(lqg.STEPS):
        measured = x + lqg.MEASUREMENT * rng.normal(size=(n, 2))
        u = -measured @ gain + lqg.EXPLORATION * rng.normal(size=n)
        costs += np.einsum("ni,ij,nj->n", x, q, x) + lqg.R * u**2
        x = x @ a.T + u[:, None] * b + lqg.PROCESS * rng.normal(size=(n, 2))
    assert float(lqg.exact_loss(lqg.GAIN)) == pytest.approx(costs.mean(), abs=4 * costs.std() / n**0.5)


@pytest.mark.slow
def test_discrete_vae(tmp_path, capsys):
    contenders = ("leave-one-out, 2", "disarm, 2", "rebar, 3")
    found = discrete_vae.main(tmp_path, num_steps=200, kinds=("linear",), contenders=contenders, progress_bar=False)
    assert (tmp_path / "discrete_vae_linear.png").read_bytes().startswith(PNG)
    trained = found["linear"]
    # Sampled codes that the decoder has not learned to use cost far more than pixels that are ignored (25.2 nats).
    assert all(t.losses[:5].mean() > 60.0 and t.elbo > -36.0 for t in trained.values())
    # Two independent draws are noisier than a pair (Dong, Mnih and Tucker, 2020, section 3), far from the optimum by
    # little; of 300 gradients the variance is known to a twentieth.
    variances = [trained[name].variance for name in contenders]
    assert variances[0] > 1.05 * variances[1] > 4 * variances[2]
    assert capsys.readouterr().out.count("linear") == 3


def test_the_bound_of_the_discrete_vae_is_that_of_all_codes():
    """With two codes the evidence is a sum of four terms, and the importance-weighted bound comes close to it."""
    rng = np.random.default_rng(0)
    params = {
        "prior": np.array([0.3, -0.5]),
        "encoder_weights0": rng.normal(size=(64, 2)) / 8,
        "encoder_bias0": np.zeros(2),
        "decoder_weights0": rng.normal(size=(2, 64)) / 4,
        "decoder_bias0": np.zeros(64),
    }
    images = discrete_vae.digits()[:20]
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    log_joint = [
        stats.bernoulli.logpmf(code, 1 / (1 + np.exp(-params["prior"]))).sum()
        + stats.bernoulli.logpmf(images, 1 / (1 + np.exp(-discrete_vae.decoded(params, code)))).sum(-1)
        for code in codes
    ]
    evidence = np.logaddexp.reduce(log_joint).mean()
    assert discrete_vae.elbo(params, images, 20, weighted=500) == pytest.approx(evidence, abs=0.02)
    assert discrete_vae.elbo(params, images, 200) < evidence - 0.05


@pytest.mark.slow
def test_readme_example(capsys):
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text()
    code = readme.split("```python\n", 1)[1].split("```", 1)[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    namespace: dict = {}
    exec(compile(code, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("switch", "early", "late")) and KHAT.search(printed)
    expected = sum(year * p for year, p in coal_mining.exact_switch_posterior().items())
    assert draws(namespace["fit"], "switch").mean() == pytest.approx(expected, abs=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pushes", "forces"])
def test_cartpole(kind, tmp_path, capsys):
    # 10 N on 1.1 kg for 0.02 s, as the reference implementation moves them.
    np.testing.assert_allclose(cartpole.moved(np.zeros(4), 10.0), [0.0, 0.19512, 0.0, -0.29268], atol=1e-5)
    curves = cartpole.main(tmp_path, kind, num_updates=200, num_seeds=1, horizon=40)
    for name, (curve,) in curves.items():
        # Actions at random stand for about 20 steps.
        assert curve.returns[:6].mean() < 34, name
        # Without a baseline one episode an update may lead astray where forces are free.
        assert curve.returns[-40:].mean() > 36 or (kind, name) == ("forces", "REINFORCE"), name
    assert (tmp_path / f"cartpole_{kind}.png").read_bytes().startswith(PNG)
    assert capsys.readouterr().out.count(" -  ") == 3  # a return of 195 is out of reach


@pytest.mark.slow
def test_hard_attention(tmp_path, capsys):
    found = hard_attention.main(tmp_path, num_updates=450, num_seeds=1, contenders=("enumerate",), num_draws=10)
    share = {name: float(one.accuracies.mean()) for name, one in found.items()}
    # Of 500 digits a share is known to 0.022.
    assert share["enumerate"] > 0.3 + max(share["random"], share["middle"]), share
    # The window follows the digit.
    _, held_out = hard_attention.digits()
    places = hard_attention.look(found["enumerate"].params[0], held_out.images, "likeliest")
    assert np.bincount(places).max() < 0.5 * len(held_out.labels)
    assert (tmp_path / "hard_attention.png").read_bytes().startswith(PNG)
    assert "enumerate" in capsys.readouterr().out


@pytest.mark.slow
def test_the_gradient_of_hard_attention_is_that_of_the_sum_over_all_places():
    """The expected loss of two images, written without autovi."""
    data, _ = hard_attention.digits()
    batch = hard_attention.Digits(*(x[:2] for x in data))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape), hard_attention.initial_params())

    def expected(params):
        total = 0.0
        for image, label in zip(batch.images, batch.labels, strict=True):
            canvas = image.reshape(16, 16)
            blocks = jnp.stack([canvas[i : i + 4, j : j + 4].mean() for i in range(0, 16, 4) for j in range(0, 16, 4)])
            q = jax.nn.softmax(hard_attention.network(params["place"], blocks))
            for k, (i, j) in enumerate(hard_attention.CORNERS):
                log_p = jax.nn.log_softmax(
                    hard_attention.network(params["digit"], canvas[i : i + 6, j : j + 6].ravel())
                )
                total -= q[k] * log_p[label] / 2
        return total

    exact = np.asarray(ravel_pytree(jax.jit(jax.grad(expected))(params)["place"])[0])
    variances = []
    for name in ("score, no baseline", "score, leave-one-out", "enumerate"):
        drawn = hard_attention.gradients(hard_attention.CONTENDERS[name], params, batch, 2000)
        along = drawn @ exact / (exact @ exact)
        error = along.std() / len(along) ** 0.5
        assert error < 0.05 and abs(along.mean() - 1) < 4.5 * error + 1e-5, (name, along.mean(), error)
        variances.append(drawn.var(axis=0).sum())
    # Of 2000 draws a variance is known to some hundredths; the last is that of rounding.
    assert variances[0] > 1.5 * variances[1] > 1e6 * variances[2], variances
    np.testing.assert_allclose(drawn[0], exact, atol=1e-5 * np.abs(exact).max(), rtol=1e-4)
