"""The benchmark of accuracy: its scores against hand-computed ones, what it counts as honest, and a whole small run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.special import logsumexp

from benchmarks.accuracy import __main__ as accuracy
from benchmarks.accuracy import evidence, integrals, large, references, report
from benchmarks.accuracy.processes import apart
from benchmarks.accuracy.scoring import errors, score, wasserstein

MODELS = """
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

def conjugate(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    numpyro.deterministic("twice", 2.0 * mu)
    numpyro.sample("y", dist.Normal(mu, 1.0).expand([3]).to_event(1), obs=y)

MODELS = {"conjugate": (conjugate, lambda: {"y": jnp.array([1.0, 2.0, 3.0])})}
"""
# Of the four observations 0, 1, 2, 3 with unit variance: mean 1.5, sd 0.5.
MEAN, SD = 1.5, 0.5


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models.py").write_text(MODELS)
    mu = MEAN + SD * np.random.default_rng(0).standard_normal(4000)
    references.store(tmp_path, "conjugate", {"mu": mu, "twice": 2 * mu}, {"seed": 0})
    return tmp_path


def reference(heavy_tailed=(), **draws):
    parameters = {n: references.Parameter(d.mean(0), d.std(0, ddof=1), d) for n, d in draws.items()}
    return references.Reference(parameters, heavy_tailed)


def test_wasserstein_of_samples_of_two_sizes():
    # Quantile functions 0, 1 (from 1/2) and 0, 3 (from 2/3): 1 apart for 1/6, 2 apart for 1/3.
    assert wasserstein(np.array([1.0, 0.0]), np.array([3.0, 0.0, 0.0])) == pytest.approx(5 / 6, rel=1e-15)
    x = np.random.default_rng(0).standard_normal(1001)
    assert wasserstein(x, x[::-1] - 2.0) == pytest.approx(2.0, rel=1e-12)


def test_errors_are_in_sds_of_the_reference():
    x = np.random.default_rng(1).standard_normal((500, 2))
    ref = reference(a=3.0 * x, b=x[:, 0])
    found = score({"a": 3.0 * x + np.array([0.0, 1.5]), "b": 2.0 * (x[:, 0] - x[:, 0].mean()) + x[:, 0].mean()}, ref)
    sd = x.std(axis=0, ddof=1)
    assert (found.mean_of, found.log_sd_of) == ("a[1]", "b")
    assert found.mean == pytest.approx(0.5 / sd[1], rel=1e-9)
    assert found.log_sd == pytest.approx(np.log(2.0), rel=1e-9)
    # Twice as wide about the same mean: each quantile moves by its own distance from the mean.
    widened = np.abs(x[:, 0] - x[:, 0].mean()).mean() / sd[0]
    assert pytest.approx((0.0 + 0.5 / sd[1] + widened) / 3, rel=1e-9) == found.W


def test_what_cannot_be_scored():
    x = np.random.default_rng(2).standard_normal(50)
    ref = reference(a=x, b=x)
    with pytest.raises(ValueError, match="got none of b$"):
        score({"a": x}, ref)
    with pytest.raises(ValueError, match=r"b: expected at least two draws of shape \(\), got \(50, 1\)"):
        score({"a": x, "b": x[:, None]}, ref)
    broken = x.copy()
    broken[3] = np.nan
    assert np.isinf(score({"a": x, "b": broken}, ref).W) and errors({"a": x, "b": broken}, ref)["a"].wasserstein == 0


def test_the_sd_of_a_heavy_tailed_parameter_stays_apart():
    x = np.random.default_rng(3).standard_normal(50)
    found = score({"a": 9.0 * x, "b": 2.0 * x}, reference(("a",), a=x, b=x))
    assert (found.log_sd_of, found.log_sd) == ("b", pytest.approx(np.log(2.0)))


def test_references_are_found_and_read_back(folder, monkeypatch):
    monkeypatch.setenv(references.VARIABLE, str(folder))
    assert references.folders([]) == [folder]
    assert references.cases_of(folder, ["conj*"]) == ["conjugate"] and references.cases_of(folder, ["x"]) == []
    stored = references.load(folder, "conjugate").parameters["mu"]
    assert stored.draws.shape == (2000,)
    assert stored.mean == pytest.approx(MEAN, abs=5 * SD / 4000**0.5)
    with pytest.raises(ValueError, match=r"expected a folder with models\.py"):
        references.folders([str(folder / "conjugate")])


def result(W, warned, **others):
    fixed = {"mean": W, "mean_of": "a", "log_sd": W, "log_sd_of": "a", "W": W}
    known = {"dims": 1, "khat": 0.1, "efficiency": None, "elbo": -1.0, "elbo_se": 0.01, "verdict": "converged"}
    unknown = {"rung": None, "evaluations": None, "first_s": 2.0, "second_s": 0.5}
    return {"score": fixed, "plain": fixed, "warned": warned, **known, **unknown, **others}


def test_honesty_and_speed_are_counted():
    fits = {
        "silent": result(0.2, False, first_s=1.0),
        "cried": result(0.07, True),
        "warned": result(0.3, True),
        "not a number": result(float("nan"), False),
        "crashed": {"failed": "Error: x"},
    }
    assert report.honesty(fits) == [
        "W above 0.15 and no warning: 2 (silent, not a number)",
        "a warning and W below 0.08: 1 (cried)",
        "failed: 1 (crashed)",
    ]
    nuts = {"silent": {"seconds": 9.0}, "cried": {"seconds": 2.0}, "crashed": {"seconds": 1.0}}
    first, second = report.speed(fits, nuts)
    assert first.endswith("3.00 times as long (geometric mean of 2), least 1.00 (cried)")
    assert second.endswith("8.49 times as long (geometric mean of 2), least 4.00 (cried)")


def test_what_changed_is_told():
    before = {"same": result(0.05, False), "moved": result(0.05, False), "mended": {"failed": "x"}}
    now = {"same": result(0.055, False), "moved": result(0.2, True, elbo=-2.0, first_s=4.0)}
    now |= {"mended": result(0.1, False), "other": result(0.1, False)}
    assert report.changes(before, now) == [
        "moved: W 0.050 -> 0.200; worst mean 0.050 -> 0.200; worst log sd 0.050 -> 0.200; ELBO -1.00 -> -2.00; "
        "warned False -> True; first 2.00 s -> 4.00 s",
        "mended: failed -> ran",
        "other: new",
    ]


@pytest.mark.slow
def test_a_run_from_the_command_line(folder, capsys):
    arguments = ["--references", str(folder), "--parts", "references", "--output", str(folder / "out")]
    accuracy.main(arguments)
    found = json.loads((folder / "out" / "accuracy.json").read_text())["results"]["references"]["fits"]["conjugate"]
    # 4,000 draws of one parameter: a W of 0.03 on the average, 0.1 is out of reach of chance.
    assert found["dims"] == 1 and found["score"]["W"] < 0.1 and found["first_s"] > found["second_s"] > 0
    # The exact evidence of y = (1, 2, 3): a normal of covariance 1 + I, of determinant 4 and quadratic form 5.
    assert found["elbo"] == pytest.approx(-1.5 * np.log(2 * np.pi) - 0.5 * np.log(4.0) - 2.5, abs=0.02)
    assert "| conjugate | 1 |" in capsys.readouterr().out
    accuracy.main([*arguments, "--cases", "none", "--compare", str(folder / "out" / "accuracy.json")])
    assert capsys.readouterr().out.count("nothing") == 1


@pytest.mark.slow
def test_a_process_that_fails_says_why(folder):
    assert apart("fit", str(folder), "absent", "0") == {"failed": "KeyError: 'absent'"}
    assert apart("fit", str(folder), "conjugate", "0", timeout=0.01) == {"failed": "no answer after 0 s"}


def test_an_integral_and_its_error():
    """A normal density in three dimensions of known integral, from a proposal that is not quite it."""
    scale = jnp.array([1.0, 2.0, 0.5])
    log_density = lambda x: 1.5 - 0.5 * jnp.sum(((x - 1.0) / scale) ** 2)  # noqa: E731
    exact = 1.5 + 1.5 * np.log(2 * np.pi)  # the product of the scales is 1
    value, se = integrals.by_laplace(log_density, jnp.zeros(3), jax.random.key(0), 4000)
    assert 0 < se < 0.02 and abs(value - exact) < 5.5 * se
    value, se = integrals.by_moments(log_density, jnp.full(3, 1.2), jnp.diag(1.2 * scale**2), jax.random.key(0), 4000)
    assert 0 < se < 0.02 and abs(value - exact) < 5.5 * se
    with pytest.raises(ValueError, match="expected an effective sample size of at least 1,000"):
        integrals.by_moments(log_density, jnp.full(3, 30.0), jnp.diag(scale**2), jax.random.key(0), 2000)


@pytest.mark.slow
def test_the_evidence_of_the_trials_by_quadrature_over_two_dimensions():
    data = {name: jnp.asarray(values, jnp.float32) for name, values in evidence.trials_data().items()}
    mean, log_tau = jnp.linspace(-30.0, 30.0, 401), jnp.linspace(-30.0, 30.0, 401)
    spread = jnp.sqrt(data["error"] ** 2 + jnp.exp(2 * log_tau)[:, None])
    given = lambda m: dist.Normal(m, spread).log_prob(data["estimate"]).sum(1)  # noqa: E731
    prior = dist.Normal(0.0, 5.0).log_prob(mean) + dist.Normal(0.0, 5.0).log_prob(log_tau)[:, None]
    terms = jax.vmap(given, out_axes=1)(mean) + prior
    steps = jnp.log(mean[1] - mean[0]) + jnp.log(log_tau[1] - log_tau[0])
    assert float(logsumexp(terms) + steps) == pytest.approx(evidence.trials_evidence(**data).value, abs=2e-3)


def test_the_large_hierarchy_without_its_effects():
    """Its density is that of the rows, whose covariance is sigma^2 I + tau^2 within groups, up to a constant."""
    data = large.simulate(0, 0.5, 1.0, rows=30, groups=5)
    same = (data["group"][:, None] == data["group"]).astype(float)

    def rows(mu, slope, tau, sigma):
        cov = sigma**2 * np.eye(30) + tau**2 * same
        r = data["y"] - mu - slope * data["x"]
        return -0.5 * (r @ np.linalg.solve(cov, r) + np.linalg.slogdet(cov)[1])

    def collapsed(*values):
        globals_ = dict(zip(large.GLOBALS, values, strict=True))
        sites = numpyro.handlers.trace(numpyro.handlers.substitute(large.collapsed, data=globals_))
        traced = sites.get_trace(large.sums_of(**data))
        return sum(float(jnp.sum(traced[n]["fn"].log_prob(traced[n]["value"]))) for n in ("within", "means"))

    points = [(1.0, 0.5, 0.5, 1.0), (0.3, 0.9, 1.4, 0.8), (1.5, -0.2, 0.1, 1.7)]
    gaps = [collapsed(*point) - rows(*point) for point in points]
    np.testing.assert_allclose(gaps, gaps[0], atol=1e-3)
