"""What is installed."""

import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_type_checkers_are_told_that_there_are_annotations():
    """PEP 561: an empty file in the package, which the wheel takes with all else that is in the folder."""
    assert (ROOT / "autovi" / "py.typed").read_bytes() == b""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"] == {"packages": ["autovi"]}
    assert "Typing :: Typed" in project["project"]["classifiers"]
    ignored = (ROOT / ".gitignore").read_text().split()
    assert not [line for line in ignored if "typed" in line]  # hatch leaves out what git ignores


def test_the_wheel_holds_all_modules(tmp_path):
    builders = pytest.importorskip("hatchling.builders.wheel")
    (wheel,) = builders.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("autovi/")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "autovi").rglob("*.py")}
    assert held == modules | {"autovi/py.typed"}
