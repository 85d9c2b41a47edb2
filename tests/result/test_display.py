"""A fit as text and as HTML, what a summary leaves out, and what completion shows."""

import importlib.util
import pickle
import re
import shutil
from dataclasses import replace
from html import escape
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi
from autovi.numbers import number
from autovi.plan.display import plan_text
from autovi.result import display
from autovi.result.constants import constant_elements
from autovi.result.display import fit_html, fit_text, verdict
from autovi.result.graph import model_graph
from autovi.run.weights import weights_of

ROOT = Path(__file__).resolve().parents[2]


def model(y):
    corr = numpyro.sample("L", dist.LKJCholesky(3, 2.0))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0).expand([3]).to_event(1))
    numpyro.deterministic("corr", corr @ corr.T)
    tril = numpyro.deterministic("tril", scale[:, None] * corr)
    numpyro.deterministic("grid", jnp.arange(2.0))
    numpyro.deterministic("large", scale > 50.0)
    on = numpyro.sample("on", dist.Bernoulli(0.5))
    numpyro.deterministic("twice", 2.0 * on)
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.MultivariateNormal(9.0 * on, scale_tril=tril), obs=y)


Y = 9.0 + np.random.default_rng(0).normal(size=(20, 3))


@pytest.fixture(scope="module")
def fit():
    return autovi.fit(model, {"y": Y}, num_steps=60, num_draws=200, progress_bar=False)


def said(fit):
    """The first lines of the fit, those before the plan, without their breaks."""
    return re.sub(r"\s+", " ", fit_text(fit, 80).split("\nPlan:")[0])


# --- print(fit) ------------------------------------------------------------------------------------------------------


def test_a_fit_prints_how_it_ended_how_good_it_is_and_its_plan(fit, monkeypatch):
    lines = fit_text(fit, 80).splitlines()
    assert lines[:2] == [
        f"Fit: max_steps, 60 steps in {fit.seconds.fitting:.1f} s",
        "    ran the 60 steps asked for; whether they suffice was not tested",
    ]
    value, se = re.fullmatch(r"ELBO: (-[\d.,]+) ± ([\d.,]+) nats", lines[2]).groups()
    assert float(value) == pytest.approx(fit.elbo, abs=fit.elbo_se)
    assert float(se) == pytest.approx(fit.elbo_se, rel=0.06)
    assert lines[3].startswith("k-hat: ") and lines[3].endswith(f"({verdict(fit.khat)})")
    assert lines[4].startswith("efficiency: ") and lines[5].startswith(f"verdict: {fit.verdict.word}: ")
    assert "\n".join(lines).endswith("\n" + plan_text(fit.plan, 80))
    for width in (40, 80, 120):
        assert max(map(len, fit_text(fit, width).splitlines())) <= width
    monkeypatch.setenv("COLUMNS", "100")
    assert str(fit) == repr(fit) == fit_text(fit, 100)


def test_the_verdicts_are_those_of_the_docs():
    rows = re.findall(r"^\| (.*?) \| (.*?) \|$", (ROOT / "docs" / "results.md").read_text(), re.MULTILINE)
    table = dict(rows[rows.index(("k-hat", "Read it as")) + 1 :][:5])
    cases = {"below 0.5": 0.2, "0.5 to 0.7": 0.6, "0.7 to 1": 0.9, "above 1, inf": 1.2, "nan": np.nan}
    assert list(table) == list(cases)
    for row, khat in cases.items():
        assert verdict(khat) in table[row].replace("*", ""), row
    assert verdict(np.inf) == verdict(1.2) and verdict(0.7) == verdict(0.6) and verdict(-3.0) == verdict(0.2)


def test_large_draws_are_not_made_for_a_look(fit, monkeypatch):
    fresh, draws, proposed, wider = replace(fit), fit._own, fit.proposed, fit.wider
    fresh.__dict__["is_light"] = False
    monkeypatch.setattr(type(fit), "_drawn", lambda *a: pytest.fail("draws are made"))
    assert said(fresh).endswith(
        "ELBO: not computed yet (fit.elbo computes it) k-hat: not computed yet (fit.khat computes it) efficiency: not "
        "computed yet (fit.efficiency computes it) verdict: not computed yet (fit.verdict computes it)"
    )
    # Made by now, so that all are quick.
    fresh.__dict__.update(draws=draws, chosen=fit.chosen, proposed=proposed, wider=wider, evidence=fit.evidence)
    assert said(fresh) == said(fit)


def test_a_model_that_has_changed_since_is_said_in_the_line():
    shift = [0.0]

    def moved(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal(0.0, 1.0)) + shift[0], 1.0), obs=y)

    changed = autovi.fit(moved, {"y": 1.0}, num_steps=5, progress_bar=False)
    shift[0] = 1.0
    assert "ELBO: fit.elbo cannot be computed: model: it has changed since the fit" in said(changed)
    assert "model: it has changed since the fit" in fit_html(changed)
    assert max(map(len, fit_text(changed, 80).splitlines())) <= 80


@pytest.mark.parametrize(
    ("elbo", "se", "text"),
    [
        (-1234.5678, 0.0123, "-1,234.568 ± 0.012 nats"),
        (-31.5, np.nan, "-31.5 nats, standard error not known"),
        (-np.inf, np.nan, "minus infinity nats, standard error not known"),
        (-2.0, 0.0, "-2 ± 0 nats"),
    ],
)
def test_what_is_said_of_an_elbo(elbo, se, text):
    assert display._elbo(SimpleNamespace(elbo=elbo, elbo_se=se)) == text


# --- notebooks -------------------------------------------------------------------------------------------------------


def test_html_has_what_the_text_has(fit, monkeypatch):
    monkeypatch.setattr(display, "model_graph", lambda fit: "")
    html = fit._repr_html_()
    assert html == fit_html(fit) and fit.plan._repr_html_() in html and "<details>" not in html
    assert "<strong>Fit: max_steps, 60 steps in" in html and f"({verdict(fit.khat)})</td>" in html
    monkeypatch.setattr(display, "model_graph", lambda fit: "<svg></svg>")
    assert "<details><summary>Model</summary><svg></svg></details>" in fit_html(fit)


@pytest.fixture
def with_graphviz(monkeypatch):
    monkeypatch.setattr("autovi.result.graph.find_spec", lambda name: object())
    monkeypatch.setattr("autovi.result.graph.which", lambda name: "/usr/bin/dot")


def test_the_model_is_drawn_with_its_arguments(fit, with_graphviz, monkeypatch):
    asked = []

    def render(model, args, kwargs):
        asked.append((model, args, {n: np.shape(a) for n, a in kwargs.items()}))
        return SimpleNamespace(pipe=lambda format: b'<?xml version="1.0"?><svg width="9pt"><g/></svg>')

    monkeypatch.setattr(numpyro, "render_model", render)
    assert model_graph(fit) == '<svg style="max-width: 100%; height: auto" width="9pt"><g/></svg>'
    assert asked == [(model, (), {"y": (20, 3)})]


def test_a_model_that_cannot_be_drawn_is_left_out(fit, with_graphviz, monkeypatch):
    def render(*args):
        raise NotImplementedError

    monkeypatch.setattr(numpyro, "render_model", render)
    assert model_graph(fit) == ""
    monkeypatch.setattr("autovi.result.graph.which", lambda name: None)
    monkeypatch.setattr(numpyro, "render_model", lambda *args: pytest.fail("graphviz is not there"))
    assert model_graph(fit) == ""


@pytest.mark.skipif(not (importlib.util.find_spec("graphviz") and shutil.which("dot")), reason="needs graphviz")
def test_graphviz_draws_it(fit):
    assert model_graph(fit).startswith("<svg") and ">scale<" in model_graph(fit)


# --- summary ---------------------------------------------------------------------------------------------------------


def test_a_summary_leaves_constants_out_and_keeps_what_could_vary(fit):
    table = fit.summary()
    lower = [f"{name}[{i}, {j}]" for name in ("L", "tril") for i in range(3) for j in range(i + 1)]
    off = [f"corr[{i}, {j}]" for i in range(3) for j in range(3) if i != j]
    each = [f"{name}[{i}]" for name in ("scale", "large") for i in range(3)]
    # `on` is 1 in every draw, and no scale is above 50: findings, not constants.
    assert set(table.index) == {*lower, *off, *each, "on", "twice"} - {"L[0, 0]"}
    assert float(table["sd"].astype(float)["on"]) == 0.0 == float(table["sd"].astype(float)["large[0]"])
    assert float(table["mean"].astype(float)["L[1, 1]"]) == pytest.approx(
        fit.draws.values["L"][:, 1, 1].mean(), abs=0.01
    )


def test_a_part_of_the_summary_and_other_forms_of_it(fit):
    assert list(fit.summary(var_names=["on", "L"]).index)[:2] == ["on", "L[1, 0]"]
    assert list(fit.summary(var_names=["L"], coords={"L_dim_0": [0, 1]}).index) == ["L[1, 0]", "L[1, 1]"]
    assert list(fit.summary(var_names=["cor"], filter_vars="like").index)[0] == "corr[0, 1]"
    assert len(fit.summary(group="posterior_predictive")) == 60
    assert "grid" in fit.summary(fmt="xarray")


def test_which_elements_are_constant(fit):
    found = constant_elements(fit, fit.draws.values)
    assert set(found) == {"L", "corr", "grid", "tril"}
    # At a scale of infinity these are zero times infinity, which says nothing.
    np.testing.assert_array_equal(found["tril"], np.triu(np.ones((3, 3), bool), 1))
    np.testing.assert_array_equal(found["L"], np.triu(np.ones((3, 3), bool), 1) | (np.arange(9).reshape(3, 3) == 0))
    np.testing.assert_array_equal(found["corr"], np.eye(3, dtype=bool))
    assert found["grid"].all()


def test_a_guide_function_and_a_subsampled_plate():
    """The guide's sites are constrained ones; batches hold two of the rows, the posterior all."""

    def rows(y):
        with numpyro.plate("row", 4, subsample_size=2) as index:
            corr = numpyro.sample("L", dist.LKJCholesky(2, numpyro.param("b", 2.0)))
            numpyro.sample("y", dist.Normal(corr[..., 1, 0], 1.0), obs=y[index])

    def guide(y):
        with numpyro.plate("row", 4, subsample_size=2):
            numpyro.sample("L", dist.LKJCholesky(2, numpyro.param("c", 3.0)))

    options = {"num_steps": 2, "num_draws": 10, "progress_bar": False}
    for chosen in ("auto", guide):
        found = autovi.fit(rows, {"y": np.ones(4)}, guide=chosen, **options)
        assert list(found.summary().index) == [f"L[{i}, 1, {j}]" for i in range(4) for j in range(2)]


def test_a_point_estimate_is_no_constant():
    def point(y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(w.sum(), 1.0), obs=y)

    options = {"families": {"w": "delta"}, "num_steps": 5, "num_draws": 10, "progress_bar": False}
    found = autovi.fit(point, {"y": 1.0}, **options)
    assert list(found.summary().index) == ["w[0]", "w[1]"]


# --- completion ------------------------------------------------------------------------------------------------------


def test_completion_shows_public_names_only(fit):
    assert set(dir(autovi)) == {*autovi.__all__, "__version__"}
    for part in (autovi.families, autovi.estimators, autovi.objectives, autovi.implicit):
        assert dir(part) == sorted(part.__all__)
    shown = set(dir(fit))
    assert {"elbo", "khat", "plan", "sample", "summary", "status", "message", "seconds"} <= shown
    assert not [n for n in shown if n.startswith("_")]
    assert not shown & {"engine", "inputs", "state", "progress", "raw_params", "saved_plan"}
    assert all(getattr(type(fit), n, None).__doc__ for n in shown if hasattr(type(fit), n))


def test_equal_weights_of_coupled_discrete_sites_get_no_good_word():
    def coupled():
        x = numpyro.sample("x", dist.Bernoulli(0.5))
        y = numpyro.sample("y", dist.Bernoulli(0.5))
        numpyro.factor("same", 2.0 * (x == y))

    asked = {"x": "enumerate", "y": "enumerate"}
    tied = autovi.fit(coupled, estimators=asked, num_steps=5, num_draws=50, progress_bar=False)
    assert tied.plan.coupled
    tied.evidence.__dict__["weights"] = weights_of(np.zeros(50))
    assert "k-hat: not estimated: weights equal to rounding, which says nothing here" in said(tied)
    assert "q is the posterior" not in said(tied)


# --- the verdict -----------------------------------------------------------------------------------------------------


def test_a_fit_shows_all_that_was_found(fit):
    shown = said(fit)
    assert f"efficiency: {number(fit.efficiency, 3)} (the standard deviation of the log weights is" in shown
    for finding in fit.verdict.findings:
        assert f"{finding.word}: {finding.text}" in shown
    assert escape(fit.verdict.sentence) in fit_html(fit)


def test_a_summary_shows_what_is_known_of_the_fit_below_itself(fit, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    table = fit.summary()
    assert list(table.attrs) == ["ELBO", "k-hat", "efficiency", "verdict"]
    lines = str(table).splitlines()
    assert lines[len(table) + 1].startswith("ELBO: ") and lines[-1] in said(fit)
    assert re.sub(r"\s+", " ", str(table)).endswith(f"verdict: {table.attrs['verdict']}")
    assert f"<div>verdict: {escape(table.attrs['verdict'])}</div>" in table._repr_html_()
    # What is made of it is a plain data frame.
    assert "verdict" not in str(table[["mean"]]) and type(table.head()).__name__ == "DataFrame"
    again = pickle.loads(pickle.dumps(table))
    assert str(again) == str(table)
    assert fit.summary(fmt="xarray").attrs["verdict"] == table.attrs["verdict"]


def test_the_message_warns_where_the_verdict_does():
    """Neal's funnel and mean field: the weights speak against it, and the message says what to try."""

    def funnel():
        y = numpyro.sample("y", dist.Normal(0.0, 3.0))
        numpyro.sample("x", dist.Normal(0.0, jnp.exp(y / 2)).expand([10]).to_event(1))

    poor = autovi.fit(funnel, guide="mean_field", num_steps=600, progress_bar=False)
    # Its thousand draws look usable, which the many that are weighed to correct them belie.
    assert poor.khat < 0.8 and poor.verdict.numbers["khat"] > 0.8 and poor.verdict.numbers["num_weighed"] > 10_000
    assert poor.verdict.word == "not_converged" and poor.verdict.warns
    assert poor.message == f"{poor.progress.message}; {poor.verdict.findings[0].text}"
    assert "try fit.resume(), or more steps, or guide='auto'" in poor.message
    assert poor.idata.attrs["verdict"] == str(poor.verdict) and poor.idata.attrs["message"] == poor.message
    dear = replace(poor)
    dear.__dict__["is_light"] = False  # to know it would take long
    assert dear.message == poor.progress.message


def test_a_conjugate_fit_warns_under_no_seed():
    def conjugate(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu, 1.0).expand([4]).to_event(1), obs=y)

    for seed in range(20):
        fit = autovi.fit(conjugate, {"y": np.array([0.5, 1.0, 1.5, 3.0])}, rng_key=seed, progress_bar=False)
        assert fit.status == "converged" and fit.verdict.word == "good" and not fit.verdict.warns, str(fit)
        assert fit.message == fit.progress.message


def test_point_estimates_are_not_called_the_posterior():
    def point(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("w", dist.Normal(0.0, 1.0)), 1.0), obs=y)

    fit = autovi.fit(point, {"y": 1.0}, families={"w": "delta"}, num_steps=50, progress_bar=False)
    assert fit.verdict.word == "point_estimate" and "q is the posterior" not in str(fit.verdict)
