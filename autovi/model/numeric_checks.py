"""What is tested of every number before JAX has it: finite, and held by the type that JAX computes with."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import numpy as np

REMEDY = (
    "drop them, or put any valid number in their place and mark them missing with obs_mask (a model that handles NaN "
    "itself takes them with allow_nan={{{name!r}}})"
)


def is_array(value: Any) -> bool:
    """Is this an array of NumPy or JAX?"""
    return isinstance(value, np.ndarray | jax.Array)


def widened(value: np.ndarray) -> np.ndarray:
    """Integers of at least 32 bits: with less, 255 + 1 is 0 in a density."""
    small = np.issubdtype(value.dtype, np.integer) and value.dtype.itemsize < 4
    return value.astype(np.int32) if small else value


def check_precision(name: str, value: Any) -> None:
    """JAX computes with 32 bits unless told otherwise: numbers that do not fit are refused, and a warning says where
    the differences between numbers would be lost."""
    if not isinstance(value, np.ndarray) or value.dtype.itemsize < 8 or not value.size:
        return
    if jax.config.read("jax_enable_x64"):
        return
    remedy = "subtract an offset, change the unit, or set jax_enable_x64"
    array = value
    if np.issubdtype(array.dtype, np.integer):
        limits = np.iinfo(np.int32 if array.dtype.kind == "i" else np.uint32)
        if array.min() < limits.min or array.max() > limits.max:
            raise ValueError(f"data[{name!r}] has integers that do not fit 32 bits, up to {array.max()}; {remedy}")
    elif np.issubdtype(array.dtype, np.floating):
        array = array[~np.isnan(array)]  # let through with allow_nan
        largest = float(np.abs(array).max(initial=0.0))
        if largest > float(np.finfo(np.float32).max):
            raise ValueError(f"data[{name!r}] has numbers that do not fit 32 bits, up to {largest:.3g}; {remedy}")
        _check_underflow(name, array, remedy)
        spread = float(array.max() - array.min()) if array.size else 0.0
        if 0 < spread < 1e3 * np.finfo(np.float32).eps * largest:
            warnings.warn(
                f"data[{name!r}] varies by {spread:.3g} around {largest:.6g}, of which 32 bits keep less than a "
                f"thousand steps; {remedy}",
                UserWarning,
                stacklevel=8,
            )


def _check_underflow(name: str, array: np.ndarray, remedy: str) -> None:
    tiny = (array != 0) & (np.abs(array) < np.finfo(np.float32).tiny)
    if tiny.any():
        warnings.warn(
            f"data[{name!r}] has {int(tiny.sum())} numbers that 32 bits do not hold, such as "
            f"{float(array[tiny].flat[0]):.3g}, which becomes 0; {remedy}",
            UserWarning,
            stacklevel=9,
        )


def check_finite(name: str, value: Any, allow_nan: bool = False) -> None:
    """Raises ValueError at NaN or infinite values, with the first; with `allow_nan` at infinite ones alone."""
    if isinstance(value, float) and value != value:  # an infinite scalar may be a setting, such as a bound
        if allow_nan:
            return
        raise ValueError(
            f"data[{name!r}] is NaN; give a number, or None where the model takes None for what is missing"
        )
    # JAX's issubdtype knows bfloat16 and the like, and keys, which are no numbers.
    if not is_array(value) or not jax.dtypes.issubdtype(value.dtype, np.inexact):
        return
    array = np.asarray(value)
    bad = np.isinf(array) if allow_nan else ~np.isfinite(array)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        what, remedy = ("infinite", "drop them") if allow_nan else ("NaN or infinite", REMEDY.format(name=name))
        raise ValueError(f"data[{name!r}] has {int(bad.sum())} {what} values, the first at {where}; {remedy}")


def has_nan(value: Any) -> bool:
    """Has an array of the data, or a number, a NaN?"""
    if isinstance(value, float):
        return value != value
    return (
        is_array(value) and jax.dtypes.issubdtype(value.dtype, np.inexact) and bool(np.isnan(np.asarray(value)).any())
    )
