"""The labels that a user's data carries: read before JAX sees the numbers, given back to the results.

pandas, xarray and polars are recognized by what their objects offer and are never imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Labels(NamedTuple):
    """Names and coordinate values of the axes of one array, None where an axis has none.

    Shapes:
        dims: one name per axis.
        coords: one array per axis, as long as the axis.
        categories: the names that the integers of the array stand for; None where they are numbers.
    """

    dims: tuple[str | None, ...]
    coords: tuple[np.ndarray | None, ...]
    categories: np.ndarray | None = None


def plate_coords(
    plates: Mapping[str, int], labels: Mapping[str, Labels], proven: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Coordinate values for the plates that the labels of the data speak of without doubt.

    An axis named like a plate and as long as it is the plate's. For a plate without one, `proven` is asked, what
    the program shows to be its labels, and then the first axes of all arguments: those as long as the plate,
    unless named like another plate. Where labels disagree, or another plate has the same size, the plate gets
    nothing: no label is better than a wrong one.

    Args:
        plates: plate name -> size.
        labels: argument name -> labels of its axes.
        proven: plate name -> coordinate values.

    Example:
        >>> plate_coords({"school": 2}, {"y": Labels((None,), (np.array(["a", "b"]),))})
        {'school': array(['a', 'b'], dtype='<U1')}
    """
    found = {}
    for plate, size in plates.items():
        candidates = _named(plate, size, labels)
        if not candidates and plate in (proven or {}):
            candidates = [(proven or {})[plate]]
        if not candidates and list(plates.values()).count(size) == 1:
            candidates = _first_axes(plate, size, plates, labels)
        if (values := agreed(candidates)) is not None:
            found[plate] = values
    return found


def agreed(candidates: Sequence[np.ndarray]) -> np.ndarray | None:
    """The labels that all candidates are; None where they disagree, or where there are none."""
    same = all(_same(candidates[0], other) for other in candidates[1:])
    return candidates[0] if candidates and same else None


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


def is_frame(value: Any) -> bool:
    """Is this a table with named columns?"""
    return hasattr(value, "columns") and hasattr(value, "dtypes")


def labels_of(value: Any) -> Labels | None:
    """The labels of the axes of a Series, a frame, an index or a DataArray; None where there are none."""
    if hasattr(value, "dims") and hasattr(value, "coords"):
        dims = tuple(dim if isinstance(dim, str) else None for dim in value.dims)
        coords = tuple(np.asarray(value.coords[d]) if d in value.coords else None for d in value.dims)
    elif hasattr(value, "index") or is_frame(value):
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
