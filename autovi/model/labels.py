"""The labels that a user's data carries: taken off before JAX sees the numbers, given back to the results.

pandas, xarray and polars are recognized by what their objects offer and are never imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np


class Labels(NamedTuple):
    """Names and coordinate values of the axes of one array, None where an axis has none.

    Shapes:
        dims: one name per axis.
        coords: one array per axis, as long as the axis.
    """

    dims: tuple[str | None, ...]
    coords: tuple[np.ndarray | None, ...]


def split(value: Any, name: str = "data") -> tuple[Any, Labels | None]:
    """Split one leaf of the user's data into plain numbers and the labels of its axes.

    Series, data frames and indexes (pandas, polars), xarray's DataArray, NumPy arrays and scalars, and lists
    and tuples of numbers become NumPy arrays. JAX arrays, Python scalars, strings, None, callables and all
    else come back untouched. The labels are None where no axis has any; the index 0, 1, 2, ... that pandas
    gives to what has no index is none.

    Args:
        value: the leaf.
        name: what messages call it.

    Raises:
        TypeError: text, categories, dates or other objects, which have to be turned into numbers first.
        ValueError: missing values, or nested lists of unequal lengths.

    Example:
        >>> array, labels = split(pd.Series([1.0, 2.0], index=["a", "b"]), "y")
        >>> labels.coords[0]
        array(['a', 'b'], dtype=object)
    """
    if isinstance(value, jax.Array):
        return value, None
    if isinstance(value, np.ndarray | np.generic):
        return _numbers(value, name), None
    if isinstance(value, list | tuple):
        return _from_list(value, name), None
    if not (hasattr(value, "to_numpy") and hasattr(value, "shape")):
        return value, None
    _refuse_columns(value, name)
    return _numbers(_to_numpy(value), name), _labels(value)


def plate_coords(plates: Mapping[str, int], labels: Mapping[str, Labels]) -> dict[str, np.ndarray]:
    """Coordinate values for the plates that the labels of the data speak of without doubt.

    An axis named like a plate and as long as it is the plate's. For a plate without one, the first axes of
    all arguments are asked: those as long as the plate, unless named like another plate. Where labels
    disagree, or another plate has the same size, the plate gets nothing: no label is better than a wrong one.

    Args:
        plates: plate name -> size.
        labels: argument name -> labels of its axes.

    Example:
        >>> plate_coords({"school": 2}, {"y": Labels((None,), (np.array(["a", "b"]),))})
        {'school': array(['a', 'b'], dtype='<U1')}
    """
    found = {}
    for plate, size in plates.items():
        candidates = _named(plate, size, labels)
        if not candidates and list(plates.values()).count(size) == 1:
            candidates = _first_axes(plate, size, plates, labels)
        if candidates and all(_same(candidates[0], other) for other in candidates[1:]):
            found[plate] = candidates[0]
    return found


def _named(plate: str, size: int, labels: Mapping[str, Labels]) -> list[np.ndarray]:
    return [
        values
        for label in labels.values()
        for dim, values in zip(label.dims, label.coords, strict=True)
        if dim == plate and values is not None and len(values) == size
    ]


def _first_axes(plate: str, size: int, plates: Mapping[str, int], labels: Mapping[str, Labels]) -> list[np.ndarray]:
    elsewhere = set(plates) - {plate}
    firsts = [(label.dims[0], label.coords[0]) for label in labels.values() if label.dims]
    return [v for dim, v in firsts if v is not None and len(v) == size and dim not in elsewhere]


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.all(a == b))


def _from_list(value: list | tuple, name: str) -> Any:
    if not all(isinstance(leaf, bool | int | float | np.number | np.bool_) for leaf in _leaves(value)):
        return value
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected nested lists of equal lengths, got {error}") from None


def _leaves(value: Any) -> Iterator[Any]:
    if not isinstance(value, list | tuple):
        yield value
        return
    for item in value:
        yield from _leaves(item)


def _numbers(value: Any, name: str) -> np.ndarray:
    """The NumPy array of `value` if it holds numbers or booleans only, otherwise an error."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(
            f"{name}: a masked array has no numbers under its mask; give filled values, and the mask as data "
            "of its own (numpyro's obs_mask)"
        )
    array = np.asarray(value)
    if _is_numeric(array.dtype):
        return array
    if array.dtype.kind == "O" and any(_is_missing(item) for item in array.flat):
        raise ValueError(f"{name}: missing values among the data; drop them or fill them in")
    raise _not_numbers(name, array.dtype)


def _is_numeric(dtype: Any) -> bool:
    # ml_dtypes (bfloat16, float8) register as kind "V", and JAX computes with them.
    return dtype.kind in "biufc" or dtype.type.__module__ == "ml_dtypes"


def _is_missing(item: Any) -> bool:
    return item is None or type(item).__name__ in ("NAType", "NaTType")


def _not_numbers(name: str, dtype: Any) -> TypeError:
    kind = getattr(dtype, "kind", "O")
    if kind in "mM":
        advice = "turn dates and durations into numbers, such as days since the first"
    else:
        advice = "encode it as integer codes, such as pandas.factorize(x)[0], and keep the names as labels"
    return TypeError(f"{name}: expected numbers, got values of dtype {dtype}; {advice}")


def _refuse_columns(value: Any, name: str) -> None:
    """Name the column at fault, which the array of a whole frame can no longer tell."""
    if not _is_frame(value):
        dtype = getattr(value, "dtype", None)
        # The categories may be numbers themselves, so that the array would look sound.
        if str(dtype) == "category":
            raise _not_numbers(name, dtype)
        return
    for column, dtype in zip(value.columns, list(value.dtypes), strict=True):
        if str(dtype) == "category" or getattr(dtype, "kind", "f") not in "biufc":
            raise _not_numbers(f"{name}[{column!r}]", dtype)


def _is_frame(value: Any) -> bool:
    return hasattr(value, "columns") and hasattr(value, "dtypes")


def _to_numpy(value: Any) -> np.ndarray:
    array = value.to_numpy()
    if _is_frame(value) and array.dtype.kind == "O":
        # Integer beside boolean columns: objects for pandas, numbers for NumPy.
        return np.array(array.tolist()).reshape(array.shape)
    return array


def _labels(value: Any) -> Labels | None:
    if hasattr(value, "dims") and hasattr(value, "coords"):
        dims = tuple(dim if isinstance(dim, str) else None for dim in value.dims)
        coords = tuple(np.asarray(value.coords[d]) if d in value.coords else None for d in value.dims)
    elif hasattr(value, "index") or _is_frame(value):
        axes = [getattr(value, axis) for axis in ("index", "columns") if hasattr(value, axis)]
        axes = axes if hasattr(value, "index") else [None, *axes]
        dims = tuple(_axis_name(axis) for axis in axes)
        coords = tuple(_axis_values(axis) for axis in axes)
    else:
        return None
    return None if all(v is None for v in (*dims, *coords)) else Labels(dims, coords)


def _axis_name(axis: Any) -> str | None:
    name = getattr(axis, "name", None)
    return name if isinstance(name, str) else None


def _axis_values(axis: Any) -> np.ndarray | None:
    """The labels of an index; of a list of column names (polars) too."""
    is_range = all(hasattr(axis, field) for field in ("start", "stop", "step"))
    if axis is None or (is_range and (axis.start, axis.step) == (0, 1)):
        return None
    if hasattr(axis, "to_numpy"):
        return axis.to_numpy()
    return np.array(axis)
