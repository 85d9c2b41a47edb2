"""False stops on losses whose future is known: the benchmark at a fifth of its size and of its steps."""

import numpy as np
import pytest

from autovi.run.outlook import BATCH
from autovi.run.stopping import CHUNK, Progress
from benchmarks import stopping

MAX_STEPS, COUNT = 20_000, 200


@pytest.fixture(scope="module", params=stopping.FAMILIES)
def outcomes(request):
    """With the noise of 8 and of 128 particles."""
    return [stopping.outcome(request.param, COUNT, noise, MAX_STEPS) for noise in stopping.PARTICLES.values()]


@pytest.mark.slow
def test_false_stops_are_rare(outcomes):
    """At most 1 % of 200, and most of the curves that can be stopped are."""
    for found in outcomes:
        assert found.false.sum() <= COUNT // 100
        could = found.oracle < MAX_STEPS // 8
        assert could.sum() > COUNT // 5 and (found.stop[could] > 0).mean() > 0.6


@pytest.mark.slow
def test_the_word_does_not_depend_on_the_number_of_particles(outcomes):
    """Where the steps suffice to know the loss with 8 particles, 128 say the same; and stop no later, as a rule."""
    few, many = outcomes
    stopped = few.stop > 0
    assert (many.stop[stopped] > 0).mean() > 0.98
    both = stopped & (many.stop > 0)
    assert np.median(many.stop[both] / few.stop[both]) <= 1


def test_the_benchmark_sees_what_a_fit_sees():
    """The same step for `Progress`, which is given every loss."""
    rng = np.random.default_rng(0)
    steps = np.arange(6000)
    losses = 20 * np.exp(-steps / 300) + np.array([[0.05], [0.4], [1.0], [300.0]]) * rng.normal(size=(4, 6000))
    losses = losses.astype(np.float32).astype(float)
    found = stopping.stops(losses.reshape(4, -1, BATCH).mean(axis=2), 6000)
    for curve, stop in zip(losses, found, strict=True):
        progress = Progress(None, 6000, (1.0,))
        while progress.step < 6000 and not progress.has_ended():
            progress.losses.append(curve[progress.step : progress.step + CHUNK].astype(np.float32))
            progress.step += CHUNK
        assert (progress.step if progress.status == "converged" else 0) == stop
    assert found[0] > 800 and found[3] == 0


def test_the_oracle_knows_the_future():
    at_end = np.maximum(1 - np.arange(1, 101) / 50, 0)[None]  # a line that ends after 50 batches
    assert stopping.oracle(at_end)[0] == 45 * BATCH
    assert stopping.oracle(np.zeros((1, 100)))[0] == 800
