"""Whose a function or a class is: a library's, known by its name, or the user's, who may change it."""

from __future__ import annotations

import functools
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any

import numpy as np

_LIBRARIES = frozenset({"autovi", "jax", "jaxlib", "numpy", "numpyro", "optax", "builtins", *sys.stdlib_module_names})
_INSTALLED = tuple(str(Path(sysconfig.get_path(p)).resolve()) for p in ("stdlib", "purelib", "platlib"))
MADE_AT_RUN_TIME = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_DESCRIPTORS = (
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)


@functools.cache
def is_installed(module: str | None) -> bool:
    """Is this the name of a library's module, not of one that the user edits?"""
    if not module or module == "__main__":
        return False
    if module.split(".")[0] in _LIBRARIES:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and str(Path(file).resolve()).startswith(_INSTALLED)


@functools.cache
def is_installed_file(file: str) -> bool:
    """Is this file a library's?"""
    return str(Path(file).resolve()).startswith(_INSTALLED)


@functools.cache
def is_file_of(file: str, *packages: str) -> bool:
    """Is this file one of these packages'?"""
    folders = [Path(f).parent for p in packages if (f := getattr(sys.modules.get(p), "__file__", None)) is not None]
    return any(Path(file).is_relative_to(folder) for folder in folders)


def is_of_jax(item: Any) -> bool:
    """Is a function or a class JAX's own?"""
    return str(item.__module__).split(".")[0] in ("jax", "jaxlib")


def reference(value: Any) -> str | None:
    """The name under which a library has this very object; None: it is no library's."""
    if isinstance(value, types.ModuleType):
        return f"module {value.__name__}" if is_installed(value.__name__) else None
    if isinstance(value, _DESCRIPTORS):
        return (
            f"{class_name(value.__objclass__)}.{value.__name__}"
            if is_installed(value.__objclass__.__module__)
            else None
        )
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(name, str):
        return None
    own = getattr(value, "__module__", None)
    for module in (own, "numpy", "scipy.special") if isinstance(value, np.ufunc) else (own,):
        if not isinstance(module, str) or not is_installed(module):
            continue
        found: Any = sys.modules.get(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is value:
            return f"{module}:{name}"
    return None


def is_of_library(item: Any) -> bool:
    """Is a function or a class made by a library? What runs in a namespace of its own says it is of `builtins`."""
    if isinstance(item, types.FunctionType):
        return (
            is_installed(item.__module__)
            and getattr(sys.modules.get(item.__module__), "__dict__", None) is item.__globals__
        )
    made_by_c = not item.__flags__ & MADE_AT_RUN_TIME
    return is_installed(item.__module__) and (item.__module__ != "builtins" or made_by_c)


def class_name(cls: type) -> str:
    """Module and name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"
