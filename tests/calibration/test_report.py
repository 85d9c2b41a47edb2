"""How a calibration is shown: text, HTML, table, figure, ArviZ; and its parts."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from scipy import stats

import autovi
from autovi.calibration.bands import band
from autovi.calibration.outcomes import Outcome, Scores, restored, stored
from autovi.calibration.report import Calibration

NAMES = ("mu", "theta[0]", "theta[1]", "one")
N = 200


def outcome(number, ranks, **more):
    truths = np.array([*ranks[:3], 1.0])
    drawn = Scores(np.array(ranks), np.array([0.5, 0.5, 0.5, 1.0]), np.array([0.3, 0.3, 0.3, 0.0]))
    known = {"fit_status": "converged", "verdict": "good", "seconds": 0.1, "truths": truths}
    return Outcome(number, "fitted", drawn=drawn, **{**known, "plain": drawn, **more})


@pytest.fixture(scope="module")
def calibration():
    """`mu` is right, `theta[0]` too narrow, `theta[1]` biased; ten fits warn, with ranks of 0.5; two are lost."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(N, 3)) * [1.0, 2.0, 1.0] + [0.0, 0.0, -0.5]
    u = np.column_stack([stats.norm.cdf(z), rng.random(N)])
    found = [outcome(i, row) for i, row in enumerate(u)]
    found += [outcome(N + i, [0.5] * 4, verdict="failed", warns=True) for i in range(10)]
    lost = [Outcome(N + 10, "not_finite", "'y' has NaN"), Outcome(N + 11, "raised", "ValueError: no")]
    return Calibration(NAMES, (*found, *lost), N + 12, 0.01, "finished", notes=("z: masked",))


def test_the_text_names_what_was_found(calibration):
    said = " ".join(str(calibration).split())
    assert said.startswith("Calibration: 212 simulations quantity bias 50 % 80 % 90 % 95 % p verdict mu ")
    assert "'theta[0]' is too narrow (sds about 0.5" in said and "'theta[1]' is biased high by" in said
    assert "'mu' is" not in said and "(2 of 3 quantities), over 210 simulations" in said
    assert "fits: 200 good, 10 failed" in said
    assert "1 not finite (number 210: 'y' has NaN); 1 the fit raised (number 211: ValueError: no)" in said
    assert "corrected for 9 tests (Holm)" in said and "constant: one: the same" in said and "note: z: masked" in said
    assert max(map(len, str(calibration).splitlines())) <= 100


def test_html_and_table(calibration):
    html = calibration._repr_html_()
    assert html.count("<tr>") == 4 and "too narrow" in html and "biased high" in html
    table = calibration.summary()
    assert list(table.index) == ["mu", "theta[0]", "theta[1]"] and list(table["simulations"]) == [210] * 3
    assert list(table["verdict"]) == ["calibrated", "too_narrow", "biased_high"]
    assert table.loc["theta[0]", "coverage_90"] < 0.7 and table.loc["mu", "p_width"] > 0.01
    assert table.attrs["verdict"].startswith("miscalibrated: ") and "miscalibrated" in repr(table)


def test_as_json_ready_values(calibration):
    found = json.loads(json.dumps(calibration.to_dict()))
    assert found["verdict"] == "miscalibrated" and [o["number"] for o in found["lost"]] == [210, 211]
    assert found["rows"]["theta[0]"]["words"] == ["too_narrow"]


def test_fits_that_do_not_warn_alone(calibration):
    assert len(calibration.trusted.fitted) == N and calibration.trusted.verdicts == {"good": N}
    assert len(calibration.ranks["mu"]) == N + 10 and calibration.trusted.ranks["mu"].shape == (N,)
    assert calibration.trusted.verdict.word == "miscalibrated"


def test_rows_are_found_by_name(calibration):
    assert calibration["theta[1]"].words == ("biased_high",) and not calibration["theta[1]"].is_calibrated
    with pytest.raises(KeyError, match=r"no quantity is called 'tau'; they are \['mu', 'theta\[0\]', 'theta\[1\]'\]"):
        calibration["tau"]
    made = dataclasses.replace(calibration, simulate=lambda n: None, rebuild=lambda *a: None)
    with pytest.raises(IndexError, match="simulation: expected the number of one of the 212 that were made.*got 212"):
        made.simulation(212)
    copy = pickle.loads(pickle.dumps(made))  # the models stay behind, which pickle could not take
    assert str(copy) == str(made)
    with pytest.raises(RuntimeError, match="simulation: the model that makes the data did not come along"):
        copy.simulation(0)


def test_the_figure_shows_the_difference_from_uniform(calibration):
    figure = calibration.plot()
    panels = {ax.get_title(): ax for ax in figure.axes if ax.get_title()}
    assert list(panels) == ["theta[0]", "theta[1]", "mu"]  # those that were found first
    for name, ax in panels.items():
        line = ax.get_lines()[0]
        away, (band,) = np.asarray(line.get_ydata()), ax.collections
        points = np.asarray(line.get_xdata())
        expected = [np.mean(calibration.ranks[name] <= p) - p for p in points]
        np.testing.assert_allclose(away[1:-1], expected[1:-1], atol=1e-9)
        low, high = band.get_paths()[0].get_extents().intervaly
        assert (away.min() < low or away.max() > high) == (name != "mu")
    assert len([ax for ax in calibration.plot("theta").axes if ax.get_title()]) == 2
    assert [ax.get_title() for ax in calibration.plot(["mu"]).axes] == ["mu"]
    with pytest.raises(ValueError, match=r"quantities: expected names or globs of .*'mu'.*, got \['tau'\]"):
        calibration.plot("tau")


def test_ranks_go_to_arviz(calibration):
    group = calibration.to_arviz()["prior_sbc"]
    assert group["mu"].shape == (1, N + 10) and np.array_equal(
        np.asarray(group["theta[0]"])[0], calibration.ranks["theta[0]"]
    )


def test_arviz_plots_the_ranks(calibration):
    """1.x has a plot for the group; 0.x one of any numbers against a distribution."""
    import arviz as az

    if int(az.__version__.split(".")[0]) >= 1:
        assert az.plot_ecdf_pit(calibration.to_arviz(), backend="matplotlib") is not None
        return
    from arviz.stats import ecdf_utils

    ranks = calibration.ranks["mu"]
    found = band(len(ranks), 0.95)
    # The same band to a number, where binomial quantiles of one probability are no others.
    lower, upper = ecdf_utils.ecdf_confidence_band(len(ranks), found.points, found.points, 0.95, method="optimized")
    np.testing.assert_allclose(found.lower, lower, atol=1.01 / len(ranks))
    np.testing.assert_allclose(found.upper, upper, atol=1.01 / len(ranks))
    points = np.linspace(0.0, 1.0, 50)
    assert az.plot_ecdf(ranks, cdf=stats.uniform.cdf, eval_points=points, difference=True, confidence_bands="pointwise")


def test_outcomes_come_back_from_what_is_stored(calibration):
    outcomes = list(calibration.outcomes[-4:])
    found = restored(*stored(outcomes, len(NAMES)))
    assert [o.status for o in found] == ["fitted", "fitted", "not_finite", "raised"]
    for one, other in zip(found, outcomes, strict=True):
        plain = lambda o: {n: v for n, v in vars(o).items() if n not in ("truths", "drawn", "plain")}  # noqa: E731
        assert plain(one) == plain(other)
        assert (one.drawn is None) == (other.drawn is None)
        if one.drawn is not None:
            np.testing.assert_array_equal(one.truths, other.truths)
            np.testing.assert_array_equal(one.plain.ranks, other.plain.ranks)


def test_public_members_are_documented():
    members = {n: v for n, v in vars(autovi.Calibration).items() if not n.startswith("_")}
    parts = {n: v for n, v in members.items() if callable(v) or hasattr(v, "__get__")}
    assert parts and not [n for n, v in parts.items() if not (v.__doc__ or "").strip()]
