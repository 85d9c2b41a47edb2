"""What every test relies on: JAX on the CPU, no plot windows, ArviZ's daily notice said once, programs compiled briefly
and kept for the next run. And `--quick`: a part of the suite for the work in between."""

import gc
import hashlib
import os
import platform
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["MPLBACKEND"] = "Agg"
# Programs of the tests themselves: with batched linear algebra they may hang otherwise (see `autovi/compiling.py`).
ORDER_OF_LEAST_MEMORY = "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {ORDER_OF_LEAST_MEMORY}".strip()


# The shapes that annotations promise are checked at every call of these modules.
install_import_hook(["autovi.estimators.baselines", "autovi.estimators"], "beartype.beartype")


# The room of many distributions alike, in which to compile one takes seconds: with --quick, these files stand for all.
STAND_FOR_IMPLICIT = {"test_factorized.py", "test_gamma.py", "test_kl.py"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--quick`, which `make test-quick` passes, and `--optimize`."""
    parser.addoption("--quick", action="store_true", help="the first case of each test that is not marked slow")
    parser.addoption(
        "--optimize", action="store_true", help="compile every program as XLA does by default, which takes longer"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--quick`, of each test function its first case alone, and none that is marked slow."""
    if not config.getoption("--quick"):
        return
    gone = [name for name in STAND_FOR_IMPLICIT if not (Path(__file__).parent / "implicit" / name).exists()]
    if gone:
        raise pytest.UsageError(f"tests/conftest.py: expected files of tests/implicit for --quick, got {gone}")
    kept: dict[str, pytest.Item] = {}
    for item in items:
        stands = item.path.parent.name != "implicit" or item.path.name in STAND_FOR_IMPLICIT
        if stands and item.get_closest_marker("slow") is None:
            kept.setdefault(item.nodeid.split("[")[0], item)
    chosen = set(kept.values())
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = kept.values()


# What a test compiles is seldom run twice. jax 0.10 compiles in half the time without its fusion emitters, and in two
# thirds of it with little optimization.
LITTLE_OPTIMIZATION = ["--xla_backend_optimization_level=1"]
if version("jax").startswith("0.10."):
    LITTLE_OPTIMIZATION += ["--xla_cpu_use_fusion_emitters=false"]


def pytest_configure(config: pytest.Config) -> None:
    """Compile with little optimization what does not ask for more, and keep it. Import ArviZ once before the workers
    start.

    ArviZ 0.23 stamps a file in the user's cache on its first import of the day, by a rename that fails when
    two processes do it at once.
    """
    if hasattr(config, "workerinput"):  # all of this is inherited
        return
    if not config.getoption("--optimize"):
        os.environ["XLA_FLAGS"] = " ".join([os.environ["XLA_FLAGS"], *LITTLE_OPTIMIZATION])
    _keep_programs(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz  # noqa: F401


@pytest.fixture(autouse=True, scope="session")
def as_users_compile(pytestconfig: pytest.Config):
    """What autovi compiles with full optimization has it here too, but with `--quick`."""
    if not pytestconfig.getoption("--quick"):
        from as_users import FULL

        from autovi import compiling

        compiling.FULL.update(FULL)


MOST_KEPT = 2e9  # bytes of programs, those of earlier states of the code too, above which all are thrown away


def _keep_programs(config: pytest.Config) -> None:
    """Compiled programs go to pytest's cache: the workers share them, and the next run has those that are the same.

    JAX finds a program by all that it is compiled from: its operations, options, the version of XLA. Of the processor
    it knows little, so each has its own folder. `--cache-clear` starts anew.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or not hasattr(config, "cache"):
        return
    programs = config.cache.mkdir("programs") / _processor()
    programs.mkdir(exist_ok=True)
    kept = list(os.scandir(programs))
    if sum(file.stat().st_size for file in kept) > MOST_KEPT:
        for file in kept:
            os.unlink(file)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(programs)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


def _processor() -> str:
    """What names the kind of processor, as Linux lists it; elsewhere its architecture."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return f"{platform.machine()}-{hashlib.sha256(' '.join(kind).encode()).hexdigest()[:12]}"


ROOM = 6e9  # bytes by which a worker may grow until it lets go of what it has compiled
held = [0.0]  # bytes after the last time: what is freed stays with the process, and is used again


def _resident() -> float:
    """The bytes that this process holds in memory, as Linux counts them; 0 elsewhere."""
    counts = Path("/proc/self/statm")
    return float(counts.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if counts.exists() else 0.0


@pytest.fixture(autouse=True, scope="module")
def within_memory():
    """Thousands of compiled programs would be kept to the end: they go with the file they belong to."""
    yield
    if _resident() > held[0] + ROOM:
        import jax

        import autovi

        autovi.clear_cache()
        jax.clear_caches()
        gc.collect()
        held[0] = _resident()
