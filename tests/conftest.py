"""What every test relies on: JAX on the CPU, no plot windows, ArviZ's daily notice said once, programs compiled well
only where their run time matters. And `--quick`: a part of the suite for the work in between."""

import os
import warnings
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["MPLBACKEND"] = "Agg"


# The shapes that annotations promise are checked at every call of these modules.
install_import_hook(["autovi.estimators.baselines", "autovi.estimators"], "beartype.beartype")

# Rooms whose programs run briefly: to optimize their code takes twice as long as to compile it at all. The others are
# tested as users run them: the numerics, and the end-to-end tests beside the rooms.
ROOMS = Path(__file__).parent
COMPILED_BRIEFLY = {ROOMS / name for name in ("analysis", "benchmarks", "estimators", "families", "model", "objective")}
COMPILED_BRIEFLY |= {ROOMS / name for name in ("plan", "result", "run")}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--quick`, which `make test-quick` passes."""
    parser.addoption("--quick", action="store_true", help="the first case of each test that is not marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--quick`, of each test function its first case alone, and none that is marked slow."""
    if not config.getoption("--quick"):
        return
    kept: dict[str, pytest.Item] = {}
    for item in items:
        if item.get_closest_marker("slow") is None:
            kept.setdefault(item.nodeid.split("[")[0], item)
    chosen = set(kept.values())
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = kept.values()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the test's fixtures, those of its module included, since they compile too."""
    import jax  # not before its platform is set

    jax.config.update("jax_disable_most_optimizations", item.path.parent in COMPILED_BRIEFLY)


def pytest_configure(config: pytest.Config) -> None:
    """Import ArviZ once before the workers start.

    ArviZ 0.23 stamps a file in the user's cache on its first import of the day, by a rename that fails when
    two processes do it at once.
    """
    if not hasattr(config, "workerinput"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            import arviz  # noqa: F401
