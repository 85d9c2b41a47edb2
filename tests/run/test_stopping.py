"""When a fit ends: little left to gain and the loss known, or noise that hides it, or no steps left."""

from itertools import pairwise

import numpy as np
import pytest

from autovi.run.learning_rate import RATES
from autovi.run.outlook import BATCH, Outlook, means, outlooks, robust_line
from autovi.run.stopping import CHUNK, LONGEST, SHORTEST, Progress, is_looked_at
from autovi.run.thresholds import THRESHOLDS

STEPS = SHORTEST * CHUNK


def progress_on(losses, max_steps=None, rates=(1.0,), **options):
    """The progress of a fit that sees these losses chunk by chunk, until it ends or they do."""
    progress = Progress(None, len(losses) if max_steps is None else max_steps, rates, **options)
    for start in range(0, len(losses), CHUNK):
        progress.losses.append(np.asarray(losses[start : start + CHUNK], np.float32))
        progress.step += CHUNK
        if progress.has_ended():
            return progress
    progress.end_at_limit()
    return progress


def autoregressive(rng, size, correlation):
    noise = rng.normal(size=size) * (1 - correlation**2) ** 0.5
    noise[0] /= (1 - correlation**2) ** 0.5
    for i in range(1, size):
        noise[i] += correlation * noise[i - 1]
    return noise


# --- what is expected of a loss --------------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [1.0, 4.0, 1e9])
def test_a_loss_of_one_over_the_root_of_its_steps_is_predicted_exactly(horizon):
    """L(t) = 5 + 30 / sqrt(t), whose batch means are those of the middles to 1e-3."""
    steps = np.arange(4000) + 0.5
    batches = means(5 + 30 / np.sqrt(steps))
    right = 30 / np.sqrt(4000) * (1 - (1 + horizon) ** -0.5)
    for outlook in outlooks(batches, horizon):
        assert float(outlook.gain) == pytest.approx(right, rel=2e-3) and float(outlook.gain_se) < 1e-3 * right


def test_faster_losses_gain_less_than_predicted():
    steps = np.arange(4000) + 0.5
    for loss in (1e3 / steps, 1e5 / steps**2, 5 * np.exp(-steps / 1500)):
        for outlook in outlooks(means(loss), np.inf):
            assert float(outlook.gain) > loss[-1]


def test_at_least_as_many_steps_again_are_looked_at():
    """A fit near its last step has not converged for lack of steps."""
    batches = means(10 - 1e-3 * np.arange(2000.0))
    near, again = (outlooks(batches, horizon)[0] for horizon in (0.01, 1.0))
    assert near == again and float(near.gain) > 0.5


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("window", [0, 1])
def test_standard_errors_are_those_of_flat_losses(window, correlation):
    rng = np.random.default_rng(0)
    noise = np.array([autoregressive(rng, 4000, correlation) for _ in range(300)])
    outlook = outlooks(means(noise), 9.0)[window]
    assert np.median(outlook.gain_se) == pytest.approx(1.4826 * np.median(np.abs(outlook.gain)), rel=0.2)
    assert 0.4 < np.mean(outlook.gain > 0) < 0.6
    part = (0.5, 0.75)[window] * 4000
    exact = ((1 + correlation) / (1 - correlation) / part) ** 0.5
    assert np.median(outlook.loss_se) == pytest.approx(exact, rel=0.2)


def test_heavy_tails_neither_move_the_prediction_nor_hide_in_its_error():
    """Student t with two degrees of freedom: the errors of 500 curves are those that are said, and tell a fall."""
    rng = np.random.default_rng(1)
    noise = rng.standard_t(2.0, (500, 4000))
    flat = outlooks(means(noise), 9.0)[1]
    assert np.median(flat.gain_se) == pytest.approx(np.median(np.abs(flat.gain)) * 1.4826, rel=0.2)
    ratio = flat.gain / flat.gain_se
    assert np.mean(np.abs(ratio) > 3) < 0.03
    plain = means(noise)[:, 20:].std(axis=1) / 60**0.5
    assert np.quantile(flat.loss_se, 0.95) < np.quantile(plain, 0.95)


def test_one_wild_step_does_not_end_a_fit_or_keep_it_from_ending():
    rng = np.random.default_rng(2)
    losses = 100 + 0.05 * rng.normal(size=3000)
    wild = losses.copy()
    wild[[350, 500, 790]] += [1e6, -1e5, 1e8]
    assert progress_on(losses).step == STEPS
    assert (progress_on(wild).status, progress_on(wild).step) == ("converged", STEPS)


def test_a_line_through_points_with_outliers():
    x = np.linspace(0, 1, 16)
    y = 3 - 2 * x + 0.01 * np.random.default_rng(3).normal(size=16)
    slope, slope_se, mean, mean_se = robust_line(x, y)
    assert float(slope) == pytest.approx(np.polyfit(x, y, 1)[0], abs=0.01)
    assert float(slope_se) == pytest.approx(0.01 / np.linalg.norm(x - x.mean()), rel=0.5)
    y[[3, 12]] += [50.0, -80.0]
    moved, moved_se, moved_mean, _ = robust_line(x, y)
    assert float(moved) == pytest.approx(-2, abs=0.1) and float(moved_mean) == pytest.approx(2, abs=0.05)
    assert float(moved_se) > float(slope_se)
    assert [float(v) for v in robust_line(x, np.ones(16))] == pytest.approx([0, 0, 1, 0], abs=1e-12)


def test_quantiles_are_those_of_a_t_distribution():
    """2.75 errors of 14 degrees of freedom: `scipy.stats.t.isf(scipy.stats.norm.sf(2.75), 14)` is 3.25."""
    outlook = Outlook(np.float64(0), np.float64(1), np.float64(0), np.float64(0), 14)
    assert float(outlook.at_most(2.75)) == pytest.approx(3.25, abs=0.1)


# --- how a fit ends --------------------------------------------------------------------------------------------------


def test_a_quiet_loss_ends_at_the_first_look():
    progress = progress_on(50 + 0.1 * np.random.default_rng(4).normal(size=5000))
    assert (progress.status, progress.step) == ("converged", STEPS)
    assert progress.message.startswith("the loss stands still: going on would gain ")
    assert progress.gain_se < 0.05 and progress.loss_se < 0.01


@pytest.mark.parametrize("slope", [0.0, -1e-2])
def test_a_flat_or_rising_loss_stands_still(slope):
    progress = progress_on(5.0 - slope * np.arange(1000.0))
    assert (progress.status, progress.step) == ("converged", STEPS)
    assert "going on would gain nothing" in progress.message


@pytest.mark.parametrize("per_window", [0.5, 0.1])
def test_a_loss_that_falls_has_not_converged(per_window):
    """Also where it falls by hardly more in a window than the noise of a step is."""
    rng = np.random.default_rng(5)
    losses = 10 - per_window / STEPS * np.arange(8 * STEPS) + 0.05 * rng.normal(size=8 * STEPS)
    progress = progress_on(losses)
    assert progress.status == "max_steps" and progress.step == 8 * STEPS
    assert "had not come to a stand after max_steps=6_400: going on would gain" in progress.message
    assert progress.gain > 0.1


def test_a_loss_unknown_to_thousands_of_nats_is_noisy_and_not_converged():
    """The old rule called this converged: no fall beyond two standard errors."""
    rng = np.random.default_rng(6)
    progress = progress_on(1e6 + 3e5 * rng.standard_t(3.0, 60_000), rates=RATES)
    assert progress.status == "noisy" and progress.level == 3 and progress.loss_se > 1000
    assert "hides whether it still falls" in progress.message and "num_particles=" in progress.message
    assert [b - a for a, b in pairwise([0, *progress.lowered, progress.step])] == pytest.approx([LONGEST] * 4, rel=0.6)


def test_noise_that_more_steps_overcome_is_waited_out():
    rng = np.random.default_rng(7)
    progress = progress_on(20 + 2.0 * rng.normal(size=100_000))
    assert progress.status == "converged" and STEPS < progress.step < 50_000


def test_noise_at_the_last_step_is_said():
    """The loss is known to 0.3 nats only, and does not fall as far as one sees."""
    rng = np.random.default_rng(8)
    noisy = progress_on(20 + 10.0 * rng.normal(size=2000))
    assert (noisy.status, noisy.step) == ("noisy", 2000) and noisy.loss_se > THRESHOLDS.nats


def test_what_float32_does_not_hold_is_not_known():
    """A loss of 1e8 nats has steps of 8 in float32: constant, and not known to 0.1 nat."""
    flat = np.full(3000, 1e8)
    progress = progress_on(flat)
    assert progress.status == "noisy" and progress.loss_se == pytest.approx(1e8 * 2**-24, rel=0.01)
    assert "float32" in progress.message and "jax_enable_x64" in progress.message
    assert progress_on(np.full(3000, 1e5)).status == "converged"


def test_few_steps_are_not_judged():
    progress = progress_on(np.ones(STEPS - CHUNK))
    assert progress.status == "max_steps" and progress.gain is None
    assert progress.message == f"the loss had not come to a stand after max_steps={STEPS - CHUNK}"


def test_steps_that_are_not_finite_are_left_out():
    losses = np.full(3000, 7.0)
    losses[::3] = np.nan
    assert progress_on(losses).status == "converged"
    losses[1::3] = np.inf  # two of three
    assert progress_on(losses).gain is None


def test_the_rate_is_lowered_where_little_is_left_at_it():
    """The steps from which on the schedule has a lower rate: the loss never moves."""
    progress, rates = Progress(None, 10_000), []
    while not progress.has_ended():
        rates += progress.schedule(progress.step).rate.tolist()
        progress.losses.append(np.ones(CHUNK, np.float32))
        progress.step += CHUNK
    fell = [step for step in range(1, len(rates)) if rates[step] < rates[step - 1]]
    assert progress.lowered == fell == [800, 1600, 2400]
    assert progress.message.startswith("the loss stands still at the lowest learning rate: ")


def test_a_fall_that_only_many_steps_tell_does_not_end_a_fit_and_may_lower_the_rate():
    """Slow against the noise: the last level asks for more than the others do."""
    rng = np.random.default_rng(9)
    losses = 0.3 * rng.normal(size=STEPS)
    outlook = outlooks(means(losses), 100.0)[1]
    errors = np.linspace(0, 5, 51)
    enough = [bool(outlook.little_left(e)) for e in errors]
    assert enough == sorted(enough, reverse=True)
    assert THRESHOLDS.errors_to_lower < THRESHOLDS.errors_to_stop


def test_looks_are_rare_where_many_steps_were_made():
    looked = [step for step in range(CHUNK, 100_001, CHUNK) if is_looked_at(step)]
    assert looked[:3] == [800, 900, 1000] and len(looked) < 400
    assert max((b - a) / a for a, b in pairwise(looked)) < 0.13


def test_a_next_leg_forgets_what_was_expected():
    progress = progress_on(np.ones(1000))
    assert progress.gain == pytest.approx(0, abs=1e-9)
    after = progress.next_leg(None, 1000)
    assert (after.gain, after.gain_se, after.loss_se, after.status) == (None, None, None, "max_steps")


def test_means_leave_out_the_oldest_steps():
    losses = np.arange(2 * BATCH + 7.0)
    np.testing.assert_array_equal(means(losses), [7 + (BATCH - 1) / 2, 7 + BATCH + (BATCH - 1) / 2])
