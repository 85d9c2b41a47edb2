"""What a report of a fault needs to say of the machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax

from autovi.process import is_fork_of_running_jax

PACKAGES = (
    *("autovi", "jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu", "numpyro", "optax"),
    *("arviz", "arviz-base", "arviz-stats", "arviz-plots", "xarray", "numpy", "ml_dtypes", "scipy", "pandas"),
    *("polars", "h5netcdf", "matplotlib", "tqdm", "cloudpickle"),
)
OPTIONAL = frozenset(PACKAGES) - {"autovi", "jax", "jaxlib", "numpyro", "optax", "arviz", "xarray", "numpy"}
SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_disable_jit",
    "jax_debug_nans",
    "jax_compilation_cache_dir",
)
VARIABLES = ("CUDA_VISIBLE_DEVICES", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS")
PREFIXES = ("JAX_", "XLA_")


def show_versions() -> None:
    """Prints the versions of autovi and of what it stands on, the devices, and the settings of JAX and XLA.

    For reports of faults. Packages that are missing, and what cannot be found out, are said to be so. JAX is started if
    it was not, to ask for its devices. The environment's variables are those of JAX, XLA and CUDA alone; look at them
    before you publish them.

    Example:
        >>> autovi.show_versions()
        System
          python                        3.11.9
        ...
    """
    parts = {"System": _system(), "Packages": _packages(), "JAX": _settings(), "Environment": _environment()}
    width = 2 + max(len(name) for rows in parts.values() for name in rows)
    for title, rows in parts.items():
        print(title)
        for name, value in (rows or {"nothing set": ""}).items():
            print(f"  {name:{width}}{value}".rstrip())


def _found(ask: Callable[[], Any]) -> str:
    """The answer as text; what went wrong where there is none."""
    try:
        return str(ask())
    except Exception as error:  # whatever is broken here is what the reader of the report wants to know
        return f"unknown ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'})"


def _system() -> dict[str, str]:
    return {
        "python": _found(platform.python_version),
        "implementation": _found(platform.python_implementation),
        "platform": _found(platform.platform),
        "machine": _found(platform.machine),
        "cores": _found(os.cpu_count),
    }


def version_of(package: str) -> str:
    """The version of an installed package; "unknown" for one that only lies on Python's path."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _packages() -> dict[str, str]:
    rows = {name: _installed(name) for name in PACKAGES}
    return {name: said or "not installed" for name, said in rows.items() if said or name not in OPTIONAL}


def _installed(name: str) -> str | None:
    try:
        version(name)
    except PackageNotFoundError:
        return None
    except Exception:  # a broken installation
        pass
    return _found(lambda: version(name))


def _settings() -> dict[str, str]:
    devices = "not asked, in a fork" if is_fork_of_running_jax() else _found(_devices)
    return {"devices": devices, **{name: _found(partial(getattr, jax.config, name)) for name in SETTINGS}}


def _devices() -> str:
    devices = jax.devices()
    kinds = dict.fromkeys(f"{device.platform} ({device.device_kind})" for device in devices)
    return f"{len(devices)}: {', '.join(kinds)}; {jax.process_count()} process(es)"


def _environment() -> dict[str, str]:
    names = [name for name in sorted(os.environ) if name in VARIABLES or name.startswith(PREFIXES)]
    return {name: os.environ[name] for name in names}
