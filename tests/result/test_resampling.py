"""Corrected draws: right where draws of q are wrong by a known amount, when they are taken, and what is said of it."""

from dataclasses import replace

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import autovi
from autovi.result import resampling
from autovi.result import weighed as weighed_module
from autovi.result.evidence import Evidence
from autovi.result.resampling import Densities, Unusable, advice, choose, doubt, systematic
from autovi.run.drawing import DENSITIES, VALUES, draws, keys_of

# --- choosing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_each_is_chosen_floor_or_ceil_of_its_expected_times(count):
    rng = np.random.default_rng(0)
    weights = rng.exponential(size=300) ** 2
    expected = count * weights / weights.sum()
    for _ in range(50):
        times = np.bincount(systematic(weights, count, rng), minlength=300)
        assert times.sum() == count
        assert (times >= np.floor(expected - 1e-9)).all() and (times <= np.ceil(expected + 1e-9)).all()


def test_what_weighs_nothing_is_never_chosen_and_the_order_is_random():
    rng = np.random.default_rng(1)
    weights = np.where(np.arange(1000) % 2 == 0, 1.0, 0.0)
    chosen = systematic(weights, 500, rng)
    assert sorted(chosen) == list(range(0, 1000, 2))  # each once: none repeats
    assert abs(np.corrcoef(chosen, np.arange(500))[0, 1]) < 0.3  # 6 standard errors


def test_on_average_each_is_chosen_by_its_weight():
    rng, weights = np.random.default_rng(2), np.array([1.0, 2.0, 3.0, 14.0])
    times = sum(np.bincount(systematic(weights, 3, rng), minlength=4) for _ in range(4000))
    # Of a share that is not whole, a Bernoulli for each of 4,000.
    np.testing.assert_allclose(times / 4000, 3 * weights / 20, atol=5 * 0.5 / 4000**0.5)


def of_weights(log_weights):
    return Densities(log_weights, np.zeros(len(log_weights)), np.zeros(len(log_weights)))


def test_draws_are_weighed_until_they_suffice_or_the_limit_is_reached():
    asked = []

    def weigh(keys):
        n = len(keys.data)
        asked.append(n)
        return of_weights(1.5 * np.random.default_rng(len(asked)).normal(size=n))  # efficiency about 0.11

    chosen = choose(weigh, jax.random.key(0), 100, 0.5, 100_000)
    assert asked == [8000, 8000, 16_000]
    assert chosen.num_proposals == sum(asked) and len(chosen.keys.data) == 100
    assert 2000 <= chosen.weights.efficiency * chosen.num_proposals
    asked.clear()
    assert choose(weigh, jax.random.key(0), 100, 0.5, 9000).num_proposals == 9000 and asked == [8000, 1000]
    asked.clear()
    assert choose(weigh, jax.random.key(0), 1000, 1e-9, 30_000).num_proposals == 30_000


def test_no_proposal_is_weighed_twice():
    seen = []

    def weigh(keys):
        seen.append(keys.data)
        n = len(keys.data)
        return of_weights(3.0 * np.random.default_rng(n).normal(size=n))

    choose(weigh, jax.random.key(3), 10, 1.0, 20_500)
    data = np.concatenate(seen)
    assert len(np.unique(data, axis=0)) == len(data) == 20_500


def test_weights_that_cannot_be_used():
    with pytest.raises(Unusable, match="NaN or infinite"):
        choose(lambda k: of_weights(np.full(len(k.data), np.nan)), jax.random.key(0), 10, 1.0, 4000)
    with pytest.raises(Unusable, match="all weights are zero"):
        choose(lambda k: of_weights(np.full(len(k.data), -np.inf)), jax.random.key(0), 10, 1.0, 4000)


# --- the rule --------------------------------------------------------------------------------------------------------


def evidence_of(log_weights, weighed=None):
    log_weights = np.asarray(log_weights, float)
    n = log_weights.size
    return Evidence(n, n if weighed is None else weighed, lambda k: (log_weights[:k], np.zeros(k)), None, "")


NOISE = np.random.default_rng(5).normal(size=1000)


@pytest.mark.parametrize(
    ("log_weights", "resample", "said"),
    [
        pytest.param(0.8 * NOISE, True, "corrected by importance weights (efficiency 0.5", id="helps"),
        pytest.param(
            0.1 * NOISE, True, "corrected by importance weights (efficiency 0.99", id="off by a tenth of a sd"
        ),
        pytest.param(0.02 * NOISE, False, "all but equal (efficiency 1.00)", id="close"),
        pytest.param(0.0 * NOISE, False, "equal to rounding, so there is nothing to correct", id="exact"),
        pytest.param(4 * NOISE, False, "k-hat of", id="hopeless"),
        pytest.param(np.append(NOISE, np.nan), False, "NaN or infinite, so weights would correct nothing", id="nan"),
        pytest.param(NOISE[:20], False, "fewer than 30 draws", id="few"),
        pytest.param(np.where(NOISE > 0, 0.0, -2.0), True, "corrected by importance weights", id="tied"),
        pytest.param(np.where(NOISE > 0, 0.0, -0.02), False, "all but equal", id="tied and close"),
    ],
)
def test_when_draws_are_corrected(log_weights, resample, said):
    found = advice(evidence_of(log_weights), 1000, 100, False)
    assert found.resample is resample and said in found.why


def test_they_are_not_where_it_would_take_long_or_the_weights_are_of_other_data():
    def unused(k):
        pytest.fail("draws are weighed")

    dear = Evidence(1000, 1000, unused, None, "")
    assert "takes long; resample=True" in advice(dear, 1000, 10_000_000, False).why
    assert "fitted on batches" in advice(dear, 1000, 10, True).why
    assert "takes long" in advice(evidence_of(0.8 * NOISE, weighed=60), 1000, 100, False).why


# --- a fit -----------------------------------------------------------------------------------------------------------

Y = np.array([4.0, 2.0, 5.0])
RIGHT = stats.gamma(11.5, scale=1 / 3.5)  # of a Gamma(0.5, 0.5) prior and three counts


def skewed(y):
    """A Gamma posterior, which on the log scale no normal is."""
    rate = numpyro.sample("rate", dist.Gamma(0.5, 0.5))
    numpyro.deterministic("double", 2 * rate)
    with numpyro.plate("n", len(y)):
        numpyro.sample("y", dist.Poisson(rate), obs=y)


def as_if(fit, loc, scale):
    """The fit with another normal."""
    ((block, leaves),) = fit.raw_params["guide"].items()
    params = {name: np.full(np.shape(v), loc if name == "loc" else np.log(scale)) for name, v in leaves.items()}
    return replace(fit, state=fit.state._replace(average={"guide": {block: params}, "param": {}}))


@pytest.fixture(scope="module")
def off():
    """A normal of log(rate) that is 1.6 times as wide as it should be."""
    fit = autovi.fit(skewed, {"y": Y}, families={"rate": "normal"}, num_steps=50, init="prior", progress_bar=False)
    return as_if(fit, np.log(11.5 / 3.5) - 0.05, 0.48)


def test_corrected_draws_are_right_where_those_of_q_are_wrong_by_a_known_amount(off):
    assert off.khat < 0.7 and 0.5 < off.efficiency < 0.95
    n = 4000
    mean, sd = RIGHT.mean(), RIGHT.std()
    plain = off.sample(n, rng_key=1, resample=False)["rate"]
    q = stats.lognorm(s=0.48, scale=11.5 / 3.5 * np.exp(-0.05))
    assert plain.mean() == pytest.approx(q.mean(), abs=5 * q.std() / n**0.5)
    assert (q.mean() - mean) / sd > 0.2 and q.std() / sd > 1.8  # what is to be corrected
    for resample in (None, True):
        draws = off.sample(n, rng_key=1, resample=resample)["rate"]
        # Their proposals stand for four times as many independent draws.
        assert draws.mean() == pytest.approx(mean, abs=5 * sd / n**0.5)
        assert draws.std() == pytest.approx(sd, rel=5 * (1.5 / n) ** 0.5)  # kurtosis of a Gamma(11.5): 3.5
        assert stats.kstest(draws, RIGHT.cdf).statistic < 2.7 / n**0.5  # false alarm below 1e-6


def test_the_draws_of_a_fit_follow_the_same_rule(off):
    fit = replace(off)
    assert fit.resampled and fit.drawn.startswith("1,000 draws resampled by importance from ")
    x = fit.draws.values["rate"]
    assert x.mean() == pytest.approx(RIGHT.mean(), abs=5 * RIGHT.std() / 1000**0.5)
    np.testing.assert_allclose(fit.draws.values["double"], 2 * x, rtol=1e-6)
    assert abs(fit.log_weights.mean() - fit.elbo) < 1e-5  # of q, not of the draws
    stats_group, posterior = fit.idata["sample_stats"], fit.idata["posterior"]
    np.testing.assert_array_equal(posterior["rate"].values[0], x)
    assert (stats_group["log_weight"].values == 0).all()
    np.testing.assert_allclose(
        stats_group["lp"].values[0],
        stats.gamma(0.5, scale=2).logpdf(x) + np.log(x) + stats.poisson.logpmf(Y[:, None], x).sum(0),
        rtol=1e-4,
    )
    assert posterior.attrs["resampled"] == 1 and "resampled by importance" in posterior.attrs["drawn"]
    assert posterior.attrs["efficiency"] == pytest.approx(fit.efficiency)
    assert float(fit.summary(round_to="none")["mean"]["rate"]) == pytest.approx(float(x.mean()), rel=1e-4)
    repeated = len(x) - len(np.unique(x))
    assert f"{repeated:,} of them repeated" in fit.drawn and repeated < 30


def test_a_fit_that_is_too_narrow_to_see_it_is_found_out_by_more_draws():
    """Of two normals with correlation 0.95 the weights of mean field have a tail of the shape 0.95. A thousand draws
    may understate it; of the tens of thousands that are weighed for corrected draws it is known."""

    def model():
        prior = dist.MultivariateNormal(np.zeros(2), np.array([[1.0, 0.95], [0.95, 1.0]]))
        numpyro.sample("x", prior)

    made = autovi.fit(model, guide="mean_field", num_steps=20, init="prior", progress_bar=False)
    ((block, leaves),) = made.raw_params["guide"].items()
    params = {n: np.full(v.shape, 0.0 if n == "loc" else np.log(0.3122), np.float32) for n, v in leaves.items()}
    state = made.state._replace(average={"guide": {block: params}, "param": {}})
    fits = [replace(made, state=state, rng_key=jax.random.key(i)) for i in range(16)]
    fits = [f for f in fits if f.advice.resample][:2]
    assert fits  # a thousand draws did understate it
    assert all(f.proposed.weights.khat >= 0.7 and ", of " in doubt(f.proposed) for f in fits)
    # Proposals wider than q see the whole posterior, and correct what q's own could not.
    for narrow in fits:
        assert narrow.chosen is narrow.wider and "wider than q" in narrow.drawn
        assert narrow.verdict.word == "usable" and not narrow.verdict.warns
        z = narrow.sample(4000)["x"] @ np.linalg.inv(np.linalg.cholesky([[1.0, 0.95], [0.95, 1.0]])).T
        # Their proposals stand for four times as many independent draws.
        np.testing.assert_allclose(np.cov(z.T), np.eye(2), atol=5 * (2 / 4000) ** 0.5)


def test_the_same_key_gives_the_same_draws(off):
    first, again, other = (off.sample(200, rng_key=k, resample=True)["rate"] for k in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(replace(off).draws.values["rate"], replace(off).draws.values["rate"])


def test_draws_of_q_are_what_they_were(off):
    key = jax.random.key(9)
    made = draws(off.engine, off.raw_params, off.arrays, key, 1500, (VALUES,))
    np.testing.assert_array_equal(off.sample(1500, rng_key=key, resample=False)["rate"], made.values["rate"])


def test_one_program_serves_every_number_of_draws(off):
    programs = {key for key in off.engine._jitted if key[0] == "draws"}
    for n in (1, 17, 2500):
        off.sample(n)
        off.sample(n, resample=True)
    assert {key for key in off.engine._jitted if key[0] == "draws"} == programs and len(programs) == 1


def test_another_number_of_draws_in_a_table_is_judged_by_the_same_weights(off):
    few = off.to_arviz("posterior", num_draws=20)
    assert few["posterior"].attrs["resampled"] == 1
    assert few["posterior"].attrs["khat"] == off.khat


def test_a_fit_that_is_close_is_left_as_it_is(off):
    close = replace(as_if(off, np.log(11.5 / 3.5) - 0.044, 0.305), num_draws=30)
    assert close.efficiency > 1 - 1 / 30 and not close.resampled and "all but equal" in close.drawn
    assert (close.idata["sample_stats"]["log_weight"].values == close.log_weights).all()
    assert close.draws is close._own
    key = jax.random.fold_in(close.rng_key, 2)
    np.testing.assert_array_equal(close.sample(30)["rate"], close._drawn(keys_of(key, 30), VALUES).values["rate"])


def test_what_was_asked_for_and_cannot_be(off, monkeypatch):
    with pytest.raises(ValueError, match=r"^resample: expected None, True or False, got 'psis'"):
        off.sample(3, resample="psis")
    nan = lambda self, keys, *kinds: self_drawn(self, keys, *kinds)._replace(log_p=np.full(len(keys.data), np.nan))  # noqa: E731
    self_drawn = weighed_module.Weighed._drawn
    fit = replace(off)
    assert fit.advice.resample
    monkeypatch.setattr(weighed_module.Weighed, "_drawn", nan)
    with pytest.raises(ValueError, match=r"^resample: a weight is NaN or infinite; resample=False gives"):
        fit.sample(50, resample=True)
    assert not fit.resampled and fit.drawn == "drawn from q: a weight of its draws is NaN"


def test_the_budget_is_that_of_the_page(off):
    assert resampling.proposals_limit(1000, 100, False) == 100_000
    assert resampling.proposals_limit(50_000, 100, False) == 200_000
    assert resampling.proposals_limit(1000, 10**6, False) == 4000
    assert resampling.proposals_limit(1000, 10**9, True) == 1000
    few = as_if(off, np.log(11.5 / 3.5) - 0.8, 0.48)
    assert 0.04 < few.efficiency < 0.4
    chosen = few._chosen(1000, jax.random.key(0), asked=True)
    assert 4000 / few.efficiency - 1 <= chosen.num_proposals <= 100_000


def test_discrete_sites_that_are_independent_in_q_are_corrected():
    """Two coins that want to be alike, of q's own probabilities 1/2: P(alike) is 1/2, and e^2 / (1 + e^2) is right."""

    def alike():
        x, y = numpyro.sample("x", dist.Bernoulli(0.5)), numpyro.sample("y", dist.Bernoulli(0.5))
        numpyro.factor("same", 1.0 * (x == y))

    fit = autovi.fit(alike, estimators={"x": "enumerate", "y": "enumerate"}, num_steps=50, progress_bar=False)
    assert np.isnan(fit.khat) and "tied" in fit.evidence.khat_why and fit.resampled
    d = fit.sample(4000)
    right = np.e / (1 + np.e)
    assert np.mean(d["x"] == d["y"]) == pytest.approx(right, abs=5 * (right * (1 - right) / 4000) ** 0.5)


def test_sites_that_are_summed_out_are_drawn_given_the_rest():
    """The sign of a shift is summed out: its draws belong to the values that they are chosen with."""

    def shifted(y):
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(m + 2.0 * z, 0.7), obs=y)

    fit = autovi.fit(shifted, {"y": 1.0}, num_steps=400, progress_bar=False)
    d = fit.sample(4000, resample=True)
    spread = (1 + 0.7**2) ** 0.5
    weights = np.array([0.6 * stats.norm.pdf(1.0, 0, spread), 0.4 * stats.norm.pdf(1.0, 2, spread)])
    right = weights[1] / weights.sum()
    means = np.array([1.0, -1.0]) / 1.49
    assert np.mean(d["z"]) == pytest.approx(right, abs=5 * (right * (1 - right) / 4000) ** 0.5)
    for z in (0, 1):
        mine = d["m"][d["z"] == z]
        assert mine.mean() == pytest.approx(means[z], abs=5 * (0.49 / 1.49 / mine.size) ** 0.5)


def test_large_draws_are_corrected_too_holding_only_the_chosen_ones(off, monkeypatch):
    right = off.sample(100, rng_key=1, resample=True)
    from autovi.run import drawing

    for module in (weighed_module, drawing):
        monkeypatch.setattr(module, "DRAWS_BUDGET", 16 * 5)
    large = replace(off)
    assert not large.is_light and large.advice.resample
    made = []
    whole = weighed_module.Weighed._drawn
    monkeypatch.setattr(
        weighed_module.Weighed,
        "_drawn",
        lambda s, k, *kinds: made.append((len(k.data), kinds)) or whole(s, k, *kinds),
    )
    large.engine._jitted.clear()
    found = large.sample(100, rng_key=1, resample=None)
    assert made[-1] == (100, (VALUES,)) and all(kinds == (DENSITIES,) for _, kinds in made[:-1])
    np.testing.assert_allclose(found["rate"], right["rate"], rtol=1e-5)
    large.engine._jitted.clear()
