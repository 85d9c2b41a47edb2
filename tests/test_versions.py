"""What `show_versions` prints, and that nothing keeps it from printing."""

import importlib.metadata
import re

import jax
import pytest

import autovi
from autovi import versions


def printed(capsys):
    autovi.show_versions()
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    return {row[0]: row[1] if len(row) > 1 else "" for row in rows}


def test_versions_devices_and_settings(capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_nothing")
    monkeypatch.setenv("SECRET_TOKEN", "hidden")
    rows = printed(capsys)
    for name in ("autovi", "jax", "jaxlib", "numpyro", "optax", "arviz", "xarray", "numpy"):
        assert rows[name] == importlib.metadata.version(name)
    assert re.match(r"3\.\d+\.\d+", rows["python"]) and rows["platform"] and int(rows["cores"]) > 0
    assert rows["devices"].startswith(f"{len(jax.devices())}: cpu")
    assert rows["jax_enable_x64"] == "False" and rows["XLA_FLAGS"] == "--xla_nothing"
    assert "SECRET_TOKEN" not in rows
    with jax.enable_x64(True):
        assert printed(capsys)["jax_enable_x64"] == "True"


def test_what_is_missing_or_broken_is_said(capsys, monkeypatch):
    def version(name):
        if name == "arviz":
            raise importlib.metadata.PackageNotFoundError(name)
        if name == "numpyro":
            raise OSError("no such metadata\nmore")
        if name == "matplotlib":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    def devices():
        raise RuntimeError("no backend")

    monkeypatch.setattr(versions, "version", version)
    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setattr(versions, "SETTINGS", (*versions.SETTINGS, "jax_that_is_gone"))
    monkeypatch.setattr(versions, "VARIABLES", ())
    monkeypatch.setattr(versions, "PREFIXES", ())
    rows = printed(capsys)
    assert rows["arviz"] == "not installed" and "matplotlib" not in rows
    assert rows["numpyro"] == "unknown (OSError: no such metadata)"
    assert rows["devices"] == "unknown (RuntimeError: no backend)"
    assert rows["jax_that_is_gone"].startswith("unknown (AttributeError")
    assert rows["nothing"] == "set"  # in the environment


def test_a_fork_is_not_asked_for_its_devices(capsys, monkeypatch):
    monkeypatch.setattr(versions, "is_fork_of_running_jax", lambda: True)
    monkeypatch.setattr(jax, "devices", lambda: pytest.fail("asked"))
    assert printed(capsys)["devices"] == "not asked, in a fork"
