"""Files in memory, and paths that cannot be: the error names the argument and says what is wrong with it."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from autovi.result import storage
from autovi.result.storage import read, write


def test_bytes_are_those_of_the_file(tmp_path):
    arrays, meta = {"a": np.arange(3), "key": jax.random.key(1)}, {"step": 100, "far": float("inf")}
    write(tmp_path / "file", arrays, meta)
    content = storage.to_bytes(arrays, meta)
    assert content == (tmp_path / "file").read_bytes()
    again, same = storage.from_bytes(content, "bytes")
    assert same == meta and again["a"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="'bytes': it is damaged or cut short"):
        storage.from_bytes(content[:-30], "bytes")


@pytest.mark.parametrize(
    ("path", "error", "says"),
    [
        (
            "nowhere/fit",
            FileNotFoundError,
            "path: there is no folder 'nowhere' in '{here}'; make it first: 'nowhere/fit'",
        ),
        ("~/fit", FileNotFoundError, "path: there is no folder '~' (a ~ is taken as it stands; os.path.expanduser"),
        ("folder", IsADirectoryError, "path: expected the name of a file, got that of a folder: 'folder'"),
        ("new/", IsADirectoryError, "path: expected the name of a file, got that of a folder: 'new/'"),
        ("", IsADirectoryError, "path: expected the name of a file, got that of a folder: ''"),
        ("file/fit", NotADirectoryError, "path: 'file' is a file and no folder: 'file/fit'"),
        (None, TypeError, "path: expected a str or a pathlib.Path, got NoneType"),
        (b"fit", TypeError, "path: expected a str or a pathlib.Path, got bytes"),
        (3, TypeError, "path: expected a str or a pathlib.Path, got int"),
    ],
)
def test_paths_that_cannot_be_written(tmp_path, monkeypatch, path, error, says):
    monkeypatch.chdir(tmp_path)
    os.mkdir("folder")
    Path("file").write_text("kept")
    with pytest.raises(error) as raised:
        write(path, {}, {})
    assert says.format(here=os.getcwd()) in str(raised.value)
    assert sorted(os.listdir(".")) == ["file", "folder"] and Path("file").read_text() == "kept"


@pytest.mark.parametrize(
    ("path", "error", "says"),
    [
        ("fit", FileNotFoundError, "path: there is no such file in '{here}': 'fit'"),
        ("/nowhere/at/all", FileNotFoundError, "path: there is no folder '/nowhere/at': '/nowhere/at/all'"),
        ("folder", IsADirectoryError, "path: expected a file from `fit.save`, got a folder: 'folder'"),
        (None, TypeError, "path: expected a str or a pathlib.Path, got NoneType"),
    ],
)
def test_paths_that_cannot_be_read(tmp_path, monkeypatch, path, error, says):
    monkeypatch.chdir(tmp_path)
    os.mkdir("folder")
    with pytest.raises(error) as raised:
        read(path)
    assert says.format(here=os.getcwd()) in str(raised.value)


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(PermissionError, match=r"path: no file can be written there \(Permission denied\): '.*fit'"):
        write(tmp_path / "fit", {}, {})
