"""Compiled programs on disk: only when asked for, where the platform wants them, and an error where that cannot be."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

import autovi

NAMES = (
    "jax_enable_compilation_cache",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def settings():
    before = {name: getattr(jax.config, name) for name in NAMES}
    yield before
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_nothing_is_set_unless_asked_for():
    code = "import jax; a = dict(jax.config.values); import autovi; assert dict(jax.config.values) == a"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(autovi.__file__).parents[1])


def test_programs_are_kept_in_the_folder_also_after_others_were_compiled(tmp_path):
    jax.jit(lambda x: x + 0.125)(1.0)
    folder = tmp_path / "new" / "folder"
    assert autovi.use_compilation_cache(folder) == str(folder)
    jax.jit(lambda x: x + 0.25)(1.0)  # in less than the second from which on JAX keeps programs by default
    first = {file.name for file in folder.iterdir() if file.name.endswith("-cache")}
    assert first
    other = tmp_path / "other"
    autovi.use_compilation_cache(str(other))
    jax.jit(lambda x: x + 0.5)(jnp.ones(3))
    assert list(other.glob("*-cache"))
    assert {file.name for file in folder.glob("*-cache")} == first


HOMES = {
    "linux": ({}, ".cache/autovi"),
    "linux with a folder": ({"XDG_CACHE_HOME": "/tmp/of/mine"}, "/tmp/of/mine/autovi"),
    "linux with a relative folder": ({"XDG_CACHE_HOME": "of/mine"}, ".cache/autovi"),
    "darwin": ({"XDG_CACHE_HOME": "/tmp/of/mine"}, "Library/Caches/autovi"),
    "win32": ({"LOCALAPPDATA": "/tmp/Local"}, "/tmp/Local/autovi"),
    "win32 without it": ({}, "AppData/Local/autovi"),
}


@pytest.mark.parametrize("case", HOMES)
def test_the_default_folder_is_where_the_platform_keeps_caches(case, monkeypatch, tmp_path):
    variables, expected = HOMES[case]
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("/tmp", str(tmp_path)))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", case.split()[0])
    assert autovi.use_compilation_cache() == str(tmp_path / expected.replace("/tmp", str(tmp_path)))
    assert (tmp_path / expected.replace("/tmp", str(tmp_path))).is_dir()


@pytest.mark.parametrize("folder", ["file", "file/inside"])
def test_a_folder_that_cannot_be_written_is_an_error(folder, tmp_path, settings):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="folder: the compilation cache cannot be written .*; name another") as caught:
        autovi.use_compilation_cache(tmp_path / folder)
    assert str(tmp_path / folder) in str(caught.value)
    assert {name: getattr(jax.config, name) for name in NAMES} == settings


def test_a_folder_without_the_right_to_write_is_an_error(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(kwargs["dir"]))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)  # tests may run as root, whom no folder refuses
    with pytest.raises(PermissionError, match="cannot be written .Permission denied.; name another"):
        autovi.use_compilation_cache(tmp_path)
