"""Files of every version are read by this one, without data and with them, and damaged ones are refused."""

import json
import warnings
from contextlib import nullcontext

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from result.saved_fits import CASES, NUM_DRAWS, SAVED

import autovi
from autovi.checkpoints.folder import Folder

FILES = sorted(SAVED.glob("*/*.autovi"))
# Of a difference of two means of 4,000 draws, of about 200 numbers: false alarms under 1e-5, and none in the version
# that wrote the file, whose draws are the same.
ERRORS = 5.5
HEAVY = 0.15  # relative: the error of an sd, of tails that are not normal too
LARGEST = 50_000  # bytes

each = pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")


def loaded(path, **more):
    """The fit of a file; of one in double precision with a warning, where that is off."""
    model, _, _, asked = CASES[path.stem]
    off = path.stem == "float64" and not jax.config.jax_enable_x64
    with pytest.warns(UserWarning, match="jax_enable_x64=True") if off else nullcontext():
        return autovi.load(path, model, **asked, **more)


def numbers_of(path):
    return json.loads((path.parent / "numbers.json").read_text())[path.stem]


def test_every_version_has_its_files():
    folders = [folder for folder in SAVED.iterdir() if folder.is_dir()]
    assert autovi.__version__ in [folder.name for folder in folders]
    for folder in folders:
        assert {p.stem for p in folder.glob("*.autovi")} == set(json.loads((folder / "numbers.json").read_text()))
    assert {p.stem for p in FILES if p.parent.name == autovi.__version__} == set(CASES)


@each
def test_it_is_read_without_data(path):
    assert path.stat().st_size < LARGEST
    fit, expected = loaded(path), numbers_of(path)
    assert set(fit.params) == set(expected["params"])
    for name, value in expected["params"].items():
        np.testing.assert_allclose(fit.params[name], np.asarray(value), rtol=2e-5, atol=1e-6, err_msg=name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="data: .*cannot be drawn without them")
        drawn = fit.sample(NUM_DRAWS, rng_key=1, resample=False)
    assert drawn and set(drawn) <= set(expected["mean"])
    for name, value in drawn.items():
        mean, sd = (np.asarray(expected[key][name]) for key in ("mean", "sd"))
        assert np.all(np.abs(value.mean(0) - mean) <= ERRORS * sd * np.sqrt(2 / NUM_DRAWS) + 1e-6), name
        np.testing.assert_allclose(value.std(0), sd, rtol=HEAVY, err_msg=name)


@pytest.mark.slow
@each
def test_it_is_whole_with_its_data(path):
    _, data, _, _ = CASES[path.stem]
    fit, (elbo, se) = loaded(path, data=data), numbers_of(path)["elbo"]
    assert abs(fit.elbo - elbo) <= ERRORS * np.hypot(fit.elbo_se, se) + 1e-3
    assert set(fit.sample(5, resample=False)) == set(numbers_of(path)["mean"])


def test_sums_are_left_out_without_data():
    (path,) = (p for p in FILES if p.parent.name == autovi.__version__ and p.stem == "summed_out")
    with pytest.warns(UserWarning, match=r"data: \['z'\] cannot be drawn"):
        assert set(loaded(path).sample(5)) == {"weight", "means"}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A saved fit and the files of a checkpoint: name -> content and how it is read."""
    folder = tmp_path_factory.mktemp("kept")
    model, data, options, _ = CASES["mean_field"]
    autovi.fit(model, data, **options, num_draws=10, progress_bar=False, checkpoint=folder / "run")
    place = Folder(folder / "run")

    def of_checkpoint(name):
        def read(content):
            (folder / "run" / f"{name}.autovi").write_bytes(content)
            return place.read(name)

        return (folder / "run" / f"{name}.autovi").read_bytes(), read

    def of_fit(content):
        (folder / "fit.autovi").write_bytes(content)
        return autovi.load(folder / "fit.autovi", model)

    whole = SAVED / autovi.__version__ / "mean_field.autovi"
    yield {
        "a saved fit": (whole.read_bytes(), of_fit),
        "the claim of a checkpoint": of_checkpoint("fit"),
        "a leg of a checkpoint": of_checkpoint("restart0-leg0"),
    }
    place.close()


CHANGES = {
    "a bit": lambda content, at, bit: content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :],
    "the end": lambda content, at, bit: content[:at],
    "more at the end": lambda content, at, bit: content + content[: at % 100 + 1],
    "more within": lambda content, at, bit: content[:at] + bytes([bit]) + content[at:],
    "a byte less": lambda content, at, bit: content[:at] + content[at + 1 :],
}


@pytest.mark.parametrize("what", ["a saved fit", "the claim of a checkpoint", "a leg of a checkpoint"])
@settings(max_examples=150, deadline=None, derandomize=True)
@given(change=st.sampled_from(sorted(CHANGES)), part=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_what_is_no_longer_what_was_written_is_refused(kept, what, change, part, bit):
    content, read = kept[what]
    changed = CHANGES[change](content, int(part * len(content)), bit)
    with pytest.raises(ValueError, match=r"path '.*autovi'"):
        read(changed)


def test_what_is_as_it_was_written_is_read(kept):
    for content, read in kept.values():
        assert read(content) is not None
