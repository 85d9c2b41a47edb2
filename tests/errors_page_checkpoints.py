"""Cases of docs/errors.md about checkpoints: what is kept for another fit, or cannot be kept."""

import shutil
import signal

import errors_page_models as m
from jax.errors import JaxRuntimeError

import autovi
from autovi.run import drawing, faults, running
from autovi.run.background import Compiling

OPTIONS = {"num_steps": 200, "num_draws": 10, "progress_bar": False}


def fit(folder, **options):
    return autovi.fit(m.normal, m.DATA, checkpoint=folder, **{**OPTIONS, **options})


def no_folder(tmp_path):
    fit(3)


def negative(tmp_path):
    autovi.Checkpoint(tmp_path, seconds=-1)


def of_another(tmp_path):
    fit(tmp_path)
    fit(tmp_path, num_steps=300)


def twice_at_once(tmp_path):
    caught = []

    def callback(report):
        try:
            fit(tmp_path)
        except BlockingIOError as error:
            caught.append(error)
        return True

    fit(tmp_path, callback=callback)
    raise caught[0]


def a_file(tmp_path):
    (tmp_path / "file").write_text("")
    fit(tmp_path / "file")


def vanishing(tmp_path):
    fit(autovi.Checkpoint(tmp_path / "run", seconds=0), callback=lambda report: shutil.rmtree(tmp_path / "run"))


def terminated(tmp_path):
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        stopped = fit(tmp_path, callback=lambda report: signal.raise_signal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    raise RuntimeError(f"status {stopped.status}: {stopped.message}")


def out_of_memory(tmp_path):
    optimize, before, chunks = running.optimize, (faults.OFTEN, faults.SHARE), []

    def failing(chunk, *args, **kwargs):
        def limited(*given):
            chunks.append(1)
            if len(chunks) == 2:
                raise JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")
            return chunk(*given)

        return optimize(limited, *args, **kwargs)

    try:
        running.optimize, faults.OFTEN, faults.SHARE = failing, 0.0, float("inf")
        stopped = fit(None)
    finally:
        running.optimize, faults.OFTEN, faults.SHARE = optimize, *before
    raise RuntimeError(f"status {stopped.status}: {stopped.message}")


def no_memory_for_draws(tmp_path):
    whole, made = fit(None), drawing.compiling_draws

    def full(*args):
        raise JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")

    try:
        drawing.compiling_draws = lambda *args, **kwargs: (Compiling(lambda: full), made(*args, **kwargs)[1])
        whole.sample(1000, resample=False)
    finally:
        drawing.compiling_draws = made


CASES = {
    "a `checkpoint` that is neither a path nor a `Checkpoint` (`TypeError`)": [no_folder],
    "a `Checkpoint` with fewer seconds than none, or fewer steps than one": [negative],
    "the folder of another fit's checkpoint": [of_another],
    "a checkpoint's folder that another fit is writing into (`BlockingIOError`)": [twice_at_once],
    "a checkpoint's path that is a file (`NotADirectoryError`)": [a_file],
    "the folder of a checkpoint is full, read-only or gone": [vanishing],
    "SIGTERM, of a fit with a checkpoint": [terminated],
    "XLA fails, as where memory runs out": [out_of_memory],
    "memory runs out in draws or diagnostics, though they were made in ever smaller parts (`JaxRuntimeError`)": [
        no_memory_for_draws
    ],
}
