"""Fits that go on where a process ended: the numbers are those of one that was never ended."""

import shutil
import signal
import warnings

import numpy as np
import pytest
from checkpoints.kept_models import CASES, STEPS, X, Y, digest, regression

import autovi
from autovi.checkpoints import folder, journal

DATA = {"x": X, "y": Y}


class Killed(BaseException):
    """The end of a process: nothing in a fit catches it."""


def run(name, folder=None, callback=lambda report: None, **more):
    model, options = CASES[name]
    place = None if folder is None else autovi.Checkpoint(folder, seconds=0)
    asked = {**options, **more}
    return autovi.fit(model, DATA, checkpoint=place, callback=callback, num_draws=10, progress_bar=False, **asked)


def killing(after):
    """A callback in whose call number `after` the process ends."""
    calls = []

    def callback(report):
        calls.append(report.step)
        if len(calls) == after:
            raise Killed

    return callback


@pytest.mark.parametrize("name", CASES)
def test_a_killed_fit_goes_on_to_the_same_numbers(name, tmp_path):
    whole = digest(run(name))
    rng = np.random.default_rng(1)
    for _ in range(4):
        with pytest.raises(Killed):
            run(name, tmp_path, killing(int(rng.integers(1, 4))))
    assert digest(run(name, tmp_path)) == whole
    # One that has ended is not run again.
    seen = []
    assert digest(run(name, tmp_path, lambda report: seen.append(report.step))) == whole and not seen


def test_it_goes_on_from_the_last_chunk(tmp_path):
    with pytest.raises(Killed):
        run("full data", tmp_path, killing(4))
    seen = []
    run("full data", tmp_path, lambda report: seen.append(report.step))
    assert seen[0] == 400  # the fourth chunk had not been kept when its callback was called


def test_ctrl_c_keeps_what_there_is(tmp_path):
    def callback(report):
        if report.step == 300:
            signal.raise_signal(signal.SIGINT)

    stopped = run("batches", tmp_path, callback)
    assert (stopped.status, stopped.losses.size) == ("stopped", 300)
    seen = []
    rest = run("batches", tmp_path, lambda report: seen.append(report.step))
    assert seen[0] == 400 and digest(rest) == digest(run("batches"))


def test_sigterm_saves_and_is_passed_on(tmp_path):
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        place = autovi.Checkpoint(tmp_path, seconds=3600)
        stop = lambda report: signal.raise_signal(signal.SIGTERM) if report.step == 300 else None  # noqa: E731
        options = {"num_steps": 1000, "progress_bar": False, "num_draws": 10}
        fit = autovi.fit(regression, DATA, checkpoint=place, callback=stop, **options)
        assert came == [signal.SIGTERM]
        assert fit.message.startswith("stopped by SIGTERM after 300 steps")
    finally:
        signal.signal(signal.SIGTERM, before)
    seen = []
    autovi.fit(regression, DATA, checkpoint=place, callback=lambda report: seen.append(report.step), **options)
    assert seen[0] == 400


def other_model(x, y):
    return regression(x + 1.0, y)


@pytest.mark.parametrize(
    ("said", "model", "data", "options"),
    [
        ("data: y", regression, {"x": X, "y": Y + 1}, {}),
        ("the model", other_model, DATA, {}),
        (r"num_steps \(it was 200, and is 300\)", regression, DATA, {"num_steps": 300}),
        (r"rng_key \(it was 0, and is 1\)", regression, DATA, {"rng_key": 1}),
        ("the plan", regression, DATA, {"estimators": {"a": "score"}}),
        (r"num_particles", regression, DATA, {"num_particles": 7}),
        ("init", regression, DATA, {"init": {"a": 1.0}}),
    ],
)
def test_the_folder_of_another_fit_is_refused(said, model, data, options, tmp_path):
    asked = {"num_steps": 200, "num_draws": 10, "progress_bar": False, "checkpoint": tmp_path}
    autovi.fit(regression, DATA, **asked)
    with pytest.raises(ValueError, match=f"checkpoint: .* belongs to another fit, of which differs: {said}"):
        autovi.fit(model, data, **{**asked, **options})


def test_a_folder_is_one_fit_s_at_a_time(tmp_path):
    inner = []

    def callback(report):
        with pytest.raises(BlockingIOError, match="checkpoint: another fit is writing into") as caught:
            run("full data", tmp_path)
        inner.append(caught.value)
        return True

    run("full data", tmp_path, callback)
    assert inner
    run("full data", tmp_path)  # it is free again


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_what_cannot_be_written_is_a_warning_and_the_fit_goes_on(fault, tmp_path, monkeypatch):
    count, write = [], folder.storage.write

    def failing(path, arrays, meta):
        count.append(path)
        if len(count) > 3:
            raise fault
        write(path, arrays, meta)

    monkeypatch.setattr(folder.storage, "write", failing)
    with pytest.warns(UserWarning, match="checkpoint: nothing more is saved in .*; the fit goes on without"):
        fit = run("batches", tmp_path)
    assert len(count) == 4 and fit.losses.size == STEPS["num_steps"]
    monkeypatch.undo()
    assert digest(run("batches", tmp_path)) == digest(fit)  # from the last that was written


def test_a_folder_that_vanishes_is_a_warning(tmp_path):
    place = tmp_path / "run"
    gone = lambda report: shutil.rmtree(place) if report.step == 300 else None  # noqa: E731
    with pytest.warns(UserWarning, match="checkpoint: nothing more is saved in"):
        fit = run("batches", place, gone)
    assert fit.losses.size == STEPS["num_steps"]


def test_a_damaged_file_is_refused(tmp_path):
    run("batches", tmp_path)
    (file,) = tmp_path.glob("restart0-leg0*")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="it is damaged or cut short"):
        run("batches", tmp_path)


def test_what_a_killed_process_left_half_written_is_swept_away(tmp_path):
    (tmp_path / "restart0-leg0.autovi.abc.tmp").write_bytes(b"half")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run("batches", tmp_path)
    assert not list(tmp_path.glob("*.tmp"))


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="checkpoint: .* is a file and no folder"):
        run("batches", tmp_path / "file")


@pytest.mark.parametrize("asked", [3, {"folder": "x"}])
def test_what_is_no_checkpoint_is_refused(asked):
    with pytest.raises(TypeError, match="checkpoint: expected a folder's path or an autovi.Checkpoint, got"):
        autovi.fit(regression, DATA, checkpoint=asked)


@pytest.mark.parametrize("options", [{"seconds": -1}, {"seconds": float("nan")}, {"steps": 0}])
def test_how_often_is_checked(options):
    with pytest.raises(ValueError, match="checkpoint: expected"):
        autovi.Checkpoint("x", **options)


def test_a_large_state_is_kept_more_rarely(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(journal.time, "monotonic", lambda: now[0])
    kept = journal.Kept(autovi.Checkpoint(tmp_path), {})
    # Bytes, of which 100 MB are written in a second, as a guess, and two hundred times as long is waited.
    for size, due in ((1_000, 10.0), (20_000_000, 40.0)):
        leg, now[0] = kept.journal(0).next_leg(), 0.0
        leg.started = 0.0
        assert leg.found({"x": np.broadcast_to(np.uint8(0), size)}, None, None) is None
        now[0] = due - 0.1
        assert not leg.is_due(100)
        now[0] = due + 0.1
        assert leg.is_due(100)
    kept.close()


def test_it_is_kept_by_steps(tmp_path):
    place, seen = autovi.Checkpoint(tmp_path, seconds=3600, steps=300), []
    ended = lambda report: (_ for _ in ()).throw(Killed) if report.step == 800 else None  # noqa: E731
    options = {"num_steps": 1000, "progress_bar": False, "num_draws": 10, "checkpoint": place}
    with pytest.raises(Killed):
        autovi.fit(regression, DATA, callback=ended, **options)
    autovi.fit(regression, DATA, callback=lambda report: seen.append(report.step), **options)
    assert seen[0] == 700
