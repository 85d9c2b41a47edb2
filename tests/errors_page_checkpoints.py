"""Cases of docs/errors.md about checkpoints: what is kept for another fit, or cannot be kept."""

import shutil
import signal

import errors_page_models as m

import autovi

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


CASES = {
    "a `checkpoint` that is neither a path nor a `Checkpoint` (`TypeError`)": [no_folder],
    "a `Checkpoint` with fewer seconds than none, or fewer steps than one": [negative],
    "the folder of another fit's checkpoint": [of_another],
    "a checkpoint's folder that another fit is writing into (`BlockingIOError`)": [twice_at_once],
    "a checkpoint's path that is a file (`NotADirectoryError`)": [a_file],
    "the folder of a checkpoint is full, read-only or gone": [vanishing],
    "SIGTERM, of a fit with a checkpoint": [terminated],
}
