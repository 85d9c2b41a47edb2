"""The same key gives the same bits, however a fit is run; and on other versions the same answer, within its error."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from checkpoints.kept_models import CASES, X, Y, digest, schools
from result.saved_fits import CASES as SAVED_CASES
from result.saved_fits import NUM_DRAWS, SAVED

import autovi

DATA = {"x": X, "y": Y}
TESTS = Path(__file__).parent
# By steps with restarts, of batches, by the score function, and by the ladder.
FITS = {**{name: CASES[name] for name in ("full data", "batches", "score")}, "ladder": (schools, {})}


def run(name, **more):
    model, options = FITS[name]
    return autovi.fit(model, DATA, **{"rng_key": 3, "num_draws": 100, "progress_bar": False, **options, **more})


@pytest.fixture(scope="module", params=FITS)
def first(request):
    """A fit by name, with the digest of all its numbers."""
    return request.param, digest(run(request.param))


def test_again(first):
    name, expected = first
    assert digest(run(name)) == expected


def test_compiled_again(first):
    name, expected = first
    autovi.clear_cache()
    assert digest(run(name)) == expected


def test_with_a_progress_bar(first, capsys):
    name, expected = first
    assert digest(run(name, progress_bar=True)) == expected


def test_from_a_thread(first):
    name, expected = first
    found = []
    thread = threading.Thread(target=lambda: found.append(digest(run(name))))
    thread.start()
    thread.join()
    assert found == [expected]


def test_with_a_callback(first):
    name, expected = first
    if name in ("ladder", "full data"):
        pytest.skip("a callback asks for stochastic steps, and for restarts one after another")
    assert digest(run(name, callback=lambda report: report.params)) == expected


@pytest.mark.parametrize("name", ["batches", "score"])
def test_after_a_resume(name):
    stopped = run(name, callback=lambda report: report.step == 300)
    assert stopped.losses.size == 300
    rest, whole = stopped.resume(), run(name)
    np.testing.assert_array_equal(rest.losses, whole.losses)
    for parameter, value in whole.params.items():
        np.testing.assert_array_equal(rest.params[parameter], value, err_msg=parameter)


def test_another_key_is_another_fit(first):
    name, expected = first
    assert digest(run(name, rng_key=4)) != expected


@pytest.mark.slow
def test_in_another_process():
    """Two of them, as neither has the settings of the tests."""
    code = "import test_reproducible as t; print({n: t.digest(t.run(n)) for n in ('score', 'ladder')})"
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    command, env = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": paths}
    one, other = (subprocess.run(command, env=env, check=True, capture_output=True).stdout for _ in range(2))
    assert one == other and b"score" in one


# --- golden values ----------------------------------------------------------------------------------------------------

GOLDEN = {name: json.loads((SAVED / "0.1.0" / "numbers.json").read_text())[name] for name in ("ladder", "summed_out")}
ERRORS = 5.5  # standard errors of a difference of two means of draws, of about 30 numbers: false alarms under 1e-5
FEW = 10  # draws: more of what is not seen in 4,000 others has a probability under 1e-4 of being chance
SPREAD = 0.15  # relative: the error of an sd, of tails that are not normal too


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values(name):
    """Those of autovi 0.1.0, whatever the versions of JAX and NumPyro are now: of draws of q and of the ELBO."""
    model, data, options, _ = SAVED_CASES[name]
    fit, golden = autovi.fit(model, data, rng_key=11, num_draws=200, progress_bar=False, **options), GOLDEN[name]
    assert abs(fit.elbo - golden["elbo"][0]) <= ERRORS * np.hypot(fit.elbo_se, golden["elbo"][1])
    for site, drawn in fit.sample(NUM_DRAWS, resample=False).items():
        mean, sd = (np.asarray(golden[key][site]) for key in ("mean", "sd"))
        rare = 0.0 if drawn.dtype.kind == "f" else FEW / NUM_DRAWS  # a value seen once in a thousand draws, or never
        error = np.hypot(sd, drawn.std(0)) / np.sqrt(NUM_DRAWS)
        assert np.all(np.abs(drawn.mean(0) - mean) <= ERRORS * error + rare), site
        if not rare:
            np.testing.assert_allclose(drawn.std(0), sd, rtol=SPREAD, err_msg=site)
