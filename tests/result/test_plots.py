"""Figures show the numbers of the fit, say what they cannot show, and leave pyplot alone."""

import builtins
import sys

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from matplotlib.text import Text
from scipy import stats

import autovi
from autovi.result import export, storage
from autovi.result.diagnostics import GRADIENT_REPEATS, SiteGradient
from autovi.result.plots import forest, gradients, marginals, weights
from autovi.result.plots.selection import Element
from autovi.run.weights import tail_size

GROUPS = ["north", "south", "west"]


def model(y, group, spread):
    """A joint block in a labelled plate, a score site and one that is summed out."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("group", 3):
        a = numpyro.sample("a", dist.StudentT(2.0, mu, spread))
    k = numpyro.sample("k", dist.Categorical(jnp.array([0.3, 0.4, 0.3])))
    c = numpyro.sample("c", dist.Poisson(2.0))
    numpyro.sample("y", dist.Normal(a[group] + k + 0.1 * c, 1.0).to_event(1), obs=y)


def data():
    y = np.random.default_rng(0).normal(size=6)
    spread = xr.DataArray(np.ones(3), dims=["group"], coords={"group": GROUPS})
    return {"y": y, "group": np.arange(6) % 3, "spread": spread}


def quick(model, data=None, **options):
    return autovi.fit(model, data, **{"num_steps": 60, "num_draws": 400, "progress_bar": False, **options})


@pytest.fixture(scope="module")
def fit():
    found = quick(model, data())
    found.progress.lowered += [20, 45]
    return found


@pytest.fixture(scope="module", autouse=True)
def nothing_stays_open():
    before = plt.get_fignums()
    yield
    assert plt.get_fignums() == before


def drawn(figure):
    """The only axes of a figure."""
    (ax,) = figure.axes
    return ax


def lines(ax, gid):
    return [line for line in ax.lines if line.get_gid() == gid]


def said(figure):
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def altered(fit, **values):
    """The fit with other results, as if they had been computed."""
    fields = {name: getattr(fit, name) for name in type(fit).__dataclass_fields__}
    other = autovi.Fit(**fields)
    other.__dict__.update(values)
    return other


# --- the loss --------------------------------------------------------------------------------------------------------


def test_loss_shows_every_step_and_when_the_rate_fell(fit):
    ax = drawn(fit.plot("loss"))
    (steps,) = lines(ax, "losses")
    np.testing.assert_array_equal(steps.get_ydata(), fit.losses)
    np.testing.assert_array_equal(steps.get_xdata(), np.arange(60))
    assert [line.get_xdata()[0] for line in lines(ax, "lowered")] == [20, 45]
    (mean,) = lines(ax, "mean")
    np.testing.assert_allclose(mean.get_ydata(), fit.losses.reshape(6, 10).mean(axis=1), rtol=1e-6)
    (band,) = ax.collections
    sd = fit.losses.reshape(6, 10).std(axis=1)
    assert band.get_datalim(ax.transData).y0 == pytest.approx((mean.get_ydata() - sd).min(), rel=1e-5)
    assert ax.get_ylabel() == "negative ELBO (nats)" and "max_steps, 60 steps" in ax.get_title()


def test_a_start_of_millions_does_not_hide_the_end(fit):
    losses = np.where(np.arange(60) < 5, 1e9, 100.0 + np.sin(np.arange(60)))
    figure = altered(fit, losses=losses).plot("loss")
    low, high = drawn(figure).get_ylim()
    assert 95 < low < 99 and 101 < high < 110
    assert "5 steps above the axis" in said(figure)
    assert figure.axes[0].collections[0].get_datalim(figure.axes[0].transData).y1 < high  # else a stripe


def test_steps_without_a_finite_loss_are_gaps(fit):
    losses = np.where(np.arange(60) % 3 == 0, [np.nan, np.inf] * 30, fit.losses)
    figure = altered(fit, losses=losses).plot("loss")
    (steps,) = lines(drawn(figure), "losses")
    np.testing.assert_array_equal(np.isnan(steps.get_ydata()), np.arange(60) % 3 == 0)
    (mean,) = lines(drawn(figure), "mean")
    assert np.isfinite(mean.get_ydata()).all()
    assert "20 steps without a finite loss" in said(figure)


# --- the weights -----------------------------------------------------------------------------------------------------


def test_weights_show_the_share_of_draws_above_each(fit):
    ax = drawn(fit.plot("weights"))
    (tail,) = lines(ax, "tail")
    log_weights = fit.log_weights.astype(np.float64)
    assert len(tail.get_xdata()) == tail_size(400) == 60
    relative = log_weights - np.log(np.mean(np.exp(log_weights - log_weights.max()))) - log_weights.max()
    np.testing.assert_allclose(tail.get_xdata(), np.sort(relative)[:-61:-1], atol=1e-9)
    np.testing.assert_allclose(tail.get_ydata(), np.arange(1, 61) / 400)
    assert f"k-hat {fit.khat:.2f}" in ax.get_title()


@pytest.mark.parametrize("gid", ["k-hat", "limit"])
def test_the_pareto_line_has_the_shape_of_khat(fit, gid):
    """Beyond the largest weight outside of the tail, shares of draws are those of a Pareto variable of that shape."""
    (line,) = lines(drawn(fit.plot("weights")), gid)
    shape = {"k-hat": fit.khat, "limit": 0.7}[gid]
    log_weights = np.sort(fit.log_weights.astype(np.float64))
    relative = log_weights - log_weights.max() - np.log(np.mean(np.exp(log_weights - log_weights.max())))
    excess = np.exp(line.get_xdata()) - np.exp(relative[-61])
    shares = line.get_ydata() * 400 / 60
    scale = excess[50] * shape / (shares[50] ** -shape - 1)
    np.testing.assert_allclose(shares, stats.genpareto.sf(excess, shape, scale=scale), rtol=1e-6)
    # Half of the tail's draws are beyond where the line says so.
    assert stats.genpareto.sf(np.median(np.exp(relative[-60:])) - np.exp(relative[-61]), shape, scale=scale) == (
        pytest.approx(0.5, rel=1e-6)
    )


@pytest.mark.parametrize(
    ("log_weights", "expected"),
    [
        pytest.param(np.zeros(400), "as far as the draws tell, q is the posterior", id="equal"),
        pytest.param(np.full(400, -np.inf), "all weights are zero", id="zero"),
        pytest.param(np.append(np.zeros(399), np.nan), "1 of the 400 weights are NaN or infinite", id="nan"),
        pytest.param(np.zeros(7), "k-hat needs 30 draws, and there are 7", id="few"),
        pytest.param(np.where(np.arange(400) < 3, 900.0, 0.0), "no tail could be fitted", id="three carry all"),
    ],
)
def test_weights_without_a_tail_are_explained(fit, log_weights, expected):
    densities = fit._own._replace(log_p=log_weights, log_q=np.zeros_like(log_weights))
    odd = altered(fit, _own=densities)
    figure = odd.plot("weights")
    assert expected in said(figure)
    assert not lines(drawn(figure), "k-hat")


@pytest.mark.parametrize(("khat", "verdict"), [(0.1, "usable"), (0.7, "usable"), (0.71, "do not trust")])
def test_khat_is_told_with_what_it_means(khat, verdict):
    assert verdict in weights._told(khat)


# --- the gradients ---------------------------------------------------------------------------------------------------


def test_bars_are_the_ratios_longest_first(fit):
    ax = drawn(fit.plot("gradients"))
    ends = {
        label.get_text(): bar.get_x() + bar.get_width()
        for label, bar in zip(ax.get_yticklabels(), ax.patches, strict=True)
    }
    ratios = {name: g.signal_to_noise for name, g in fit.gradients.items()}
    assert set(ends) == set(ratios) == {"mu", "a", "c"}
    assert min(ratios.values()) > 0
    assert ends == pytest.approx(ratios)
    assert list(ends.values()) == sorted(ends.values(), reverse=True)
    assert ax.get_xscale() == "log" and "sites of one block share its gradient" in said(ax.figure)


def test_ratios_that_have_no_length_are_written_out(fit):
    sites = {"even": (0, np.inf), "usual": (4, 2.0), "hidden": (9, 0.1), "lost": (9, 0.0), "nan": (np.nan, np.nan)}
    odd = altered(fit, gradients={name: SiteGradient(*values) for name, values in sites.items()})
    ax = drawn(odd.plot("gradients"))
    assert [label.get_text() for label in ax.get_yticklabels()] == list(sites)
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    left, right = ax.get_xlim()
    assert ends == pytest.approx([right, 2.0, GRADIENT_REPEATS**-0.5, GRADIENT_REPEATS**-0.5, left])
    beside = [text.get_text().strip() for text in ax.texts]
    assert beside == ["no noise", "sd 2", "sd 3", "sd 3", "gradients not finite"]


def test_of_many_sites_the_lowest_are_shown(fit):
    many = altered(fit, gradients={f"s{i}": SiteGradient(1.0, 1.0 + i) for i in range(30)})
    figure = many.plot("gradients")
    assert [label.get_text() for label in drawn(figure).get_yticklabels()] == [f"s{i}" for i in range(19, -1, -1)]
    assert gradients.MOST == 20 and "the lowest 20 of 30 sites" in said(figure)


# --- the variables ---------------------------------------------------------------------------------------------------


def test_marginals_are_densities_and_probabilities(fit):
    figure = fit.plot("marginals", var_names=["k", "a"])
    k, *a = figure.axes
    assert [ax.get_title() for ax in (k, *a[:3])] == ["k", *(f"a[{g}]" for g in GROUPS)]
    draws = fit.idata["posterior"]
    values, counts = np.unique(draws["k"], return_counts=True)
    assert {b.get_x() + b.get_width() / 2: b.get_height() for b in k.patches} == pytest.approx(
        dict(zip(values.tolist(), counts / 400, strict=True))
    )
    south = draws["a"].sel(group="south").values.ravel().astype(float)
    curve, interval, median = a[1].lines
    grid, height = export.density(south)
    np.testing.assert_allclose(curve.get_xydata(), np.column_stack([grid, height]), rtol=1e-6)
    np.testing.assert_allclose(interval.get_xdata(), np.quantile(south, [0.03, 0.97]))
    assert median.get_xdata()[0] == pytest.approx(np.median(south))


def test_forest_has_a_labelled_row_for_each_scalar(fit):
    ax = drawn(fit.plot_forest())
    assert [label.get_text() for label in ax.get_yticklabels()] == ["mu", *(f"a[{g}]" for g in GROUPS), "k", "c"]
    west = fit.idata["posterior"]["a"].sel(group="west").values
    expected = np.quantile(west, [0.03, 0.25, 0.5, 0.75, 0.97])
    row = [next(x for x in lines(ax, gid) if x.get_ydata()[0] == 3).get_xdata() for gid in ("94 %", "50 %", "median")]
    np.testing.assert_allclose([row[0][0], row[1][0], row[2][0], row[1][1], row[0][1]], expected, rtol=1e-6)
    assert "94 % interval" in ax.get_xlabel()


def test_coords_and_globs_choose(fit):
    ax = drawn(fit.plot_forest("a*", coords={"group": ["west", "north"]}))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a[west]", "a[north]"]
    assert drawn(fit.plot("marginals", var_names="a", coords={"group": "south"})).get_title() == "a[south]"


def test_many_scalars_are_bounded_and_counted(fit):
    """From each variable in turn, so that a large one does not hide the others."""
    large = {"w": np.zeros((1, 5, 1000, 1000), np.int8), "b": np.ones((1, 5, 2)), "s": np.ones((1, 5))}
    figure = altered(fit, idata=export.build({"posterior": large})).plot_forest()
    labels = [label.get_text() for label in drawn(figure).get_yticklabels()]
    assert labels == [*(f"w[0, {i}]" for i in range(37)), "b[0]", "b[1]", "s"]
    assert "40 of 1,000,003 scalars" in said(figure)


def element(draws):
    return Element("x", "x", np.asarray(draws))


@pytest.mark.parametrize(
    ("draws", "expected"),
    [
        ([0.25], "one draw: 0.25"),
        ([0.25, 0.25], "all draws: 0.25"),
        ([np.nan, np.inf], "no finite draw"),
        ([0.0, 1.0, 2.0, np.nan], "1 of 4\ndraws not finite"),
    ],
)
def test_odd_draws_are_explained(draws, expected):
    figure = plt.figure()
    marginals.draw_one(figure.subplots(), element(draws))
    plt.close(figure)
    assert expected in said(figure)


def test_integers_of_a_wide_range_share_bars():
    figure = plt.figure()
    ax = figure.subplots()
    draws = np.random.default_rng(0).poisson(10_000, 4000)
    marginals.draw_one(ax, element(draws))
    plt.close(figure)
    assert len(ax.patches) <= marginals.MOST_BARS + 1
    assert sum(bar.get_height() for bar in ax.patches) == pytest.approx(1.0)
    at = [bar.get_x() + bar.get_width() / 2 for bar in ax.patches]
    mean = np.average(at, weights=[bar.get_height() for bar in ax.patches])
    assert mean == pytest.approx(draws.mean(), abs=3.0)


def test_forest_of_nothing():
    figure = plt.figure()
    forest.draw(figure, [], 0)
    plt.close(figure)
    assert "no draws of a number" in said(figure)


# --- the figure ------------------------------------------------------------------------------------------------------


def test_the_overview_has_four_panels_and_notebooks_show_it(fit):
    figure = fit.plot()
    assert len(figure.subfigs) == 4
    titles = [ax.get_title() for ax in figure.axes]
    assert [t.split(":")[0] for t in titles[:3]] == ["Loss", "Importance weights", "Gradient of one step"]
    assert titles[3:] == ["mu", *(f"a[{g}]" for g in GROUPS), "k", "c"]
    assert figure._repr_png_().startswith(b"\x89PNG\r\n\x1a\n")


def test_axes_of_the_user_are_drawn_in(fit):
    figure, (left, right, last) = plt.subplots(1, 3)
    plt.close(figure)
    assert fit.plot("loss", ax=left) is figure
    assert fit.plot("marginals", var_names="mu", ax=right) is figure
    assert fit.plot_forest("a", ax=last) is figure
    assert left.get_title().startswith("Loss") and right.get_title() == "mu" and len(last.get_yticks()) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "trace"}, r"kind: expected 'overview' or some of \['loss', .*, got 'trace'"),
        ({"kind": ()}, "kind: expected"),
        (
            {"kind": "marginals", "var_names": ["z", "a"]},
            r"var_names: .*globs of \['mu', .*got \['z'\]",
        ),
        ({"kind": "forest", "coords": {"row": 1}}, r"coords: expected dims .*\['group'\], got 'row'"),
        (
            {"kind": "forest", "coords": {"group": "east"}},
            r"coords\['group'\]: .*'west'\], got \['east'\]",
        ),
        ({"kind": "loss", "var_names": "a"}, "'loss' shows no variables"),
        ({"kind": "marginals", "ax": True}, "ax: expected one scalar for one pair of axes, got 6"),
        ({"ax": True}, "ax: expected one kind for one pair of axes, got 'loss', 'weights'"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(fit, options, message):
    if "ax" in options:
        figure = plt.figure()
        options = {**options, "ax": figure.subplots()}
        plt.close(figure)
    with pytest.raises(ValueError, match=message):
        fit.plot(**options)


def test_without_matplotlib_it_says_what_to_install(fit, monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    for name in [n for n in sys.modules if n.startswith("autovi.result.plots.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'autovi\[plots\]'"):
        fit.plot()


# --- odd fits --------------------------------------------------------------------------------------------------------


def coin(y):
    k = numpyro.sample("k", dist.Bernoulli(0.5))
    numpyro.sample("y", dist.Normal(k, 1.0), obs=y)


def test_a_fit_without_steps_says_so():
    figure = quick(coin, {"y": 1.0}).plot()
    figure.draw_without_rendering()
    text = said(figure)
    assert "no step\nnothing to optimize" in text and "no gradient: nothing is trained" in text
    assert "q is the posterior" in text and figure.axes[3].get_title() == "k"


def test_one_step_and_one_draw():
    def single(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal()), 1.0), obs=y)

    fit = quick(single, {"y": 1.0}, num_steps=1, num_draws=1)
    figure = fit.plot()
    figure.draw_without_rendering()
    (step,) = lines(figure.axes[0], "losses")
    assert step.get_xydata().tolist() == [[0.0, float(fit.losses[0])]] and step.get_marker() == "."
    assert "k-hat needs 30 draws" in said(figure) and "one draw" in said(figure)
    assert len(drawn(fit.plot_forest()).get_yticks()) == 1


def test_a_loaded_fit_draws_the_same(fit, tmp_path):
    fit.save(tmp_path / "fit", with_data=True)
    loaded = autovi.load(tmp_path / "fit", model)
    assert loaded.plot()._repr_png_() == fit.plot()._repr_png_()


def test_a_file_from_before_the_steps_were_kept(fit, tmp_path):
    fit.save(tmp_path / "fit", with_data=True)
    arrays, meta = storage.read(str(tmp_path / "fit"))
    del meta["progress"]["lowered"]
    storage.write(tmp_path / "old", arrays, meta)
    old = autovi.load(tmp_path / "old", model)
    assert old.progress.lowered == [] and not lines(drawn(old.plot("loss")), "lowered")
