"""The user's data as arrays: checked, labelled, and split into what is traced and what is static."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from autovi.model.digest import digest
from autovi.model.labels import Labels, split

Arrays = dict[str, Any]
NAMES_SAID = 4  # of the arguments of one length


@dataclass(frozen=True)
class Inputs:
    """Arguments of a model: `arrays` by path are traced, all other leaves are static.

    `rebuild(arrays)` gives back `(args, kwargs)`. With `concrete=True` the arrays are constants of the program,
    for models that compute shapes or indices from the values of their data.
    """

    arrays: Arrays
    static: tuple[tuple[str, Any], ...]
    paths: tuple[str, ...]
    tree: Any
    labels: Mapping[str, Labels]
    concrete: bool = False

    def rebuild(self, arrays: Arrays) -> tuple[tuple, dict[str, Any]]:
        """The model's positional and keyword arguments with these arrays in their places."""
        arrays = self.arrays if self.concrete else arrays
        static = dict(self.static)
        return jax.tree.unflatten(self.tree, [arrays[p] if p in arrays else static[p] for p in self.paths])

    def traced(self) -> Arrays:
        """The arrays that are arguments of the compiled program."""
        return {} if self.concrete else self.arrays

    def without_data(self) -> Inputs:
        """The same for other arrays of these shapes: traced ones are not held."""
        if self.concrete:
            return self
        arrays = {p: jax.ShapeDtypeStruct(np.shape(a), a.dtype) for p, a in self.arrays.items()}
        return replace(self, arrays=arrays, labels={})

    def as_constants(self) -> Inputs:
        """The same data as constants of the program."""
        return replace(self, concrete=True)

    def signature(self) -> Any:
        """What the compiled program depends on besides the values of the traced arrays. Hashable, and holds no data."""
        kinds = tuple((p, np.shape(a), str(a.dtype), _placement(a)) for p, a in self.arrays.items())
        constants = digest(list(self.arrays.values())) if self.concrete else ""
        return kinds, self.paths, str(self.tree), digest(self.static), constants


def _placement(array: Any) -> tuple[Any, ...]:
    """What JAX compiles for besides shape and type: where an array lies, and how weak its type is."""
    names = ("weak_type", "sharding", "committed")  # an array of keys has not all of them
    return tuple(str(getattr(array, name, "")) for name in names) if isinstance(array, jax.Array) else ()


def bind(model: Callable, data: Any) -> Inputs:
    """Checks `data` against the model's signature and makes arrays of its leaves.

    A dict gives keyword arguments, a tuple positional ones, None no arguments.

    Raises:
        ValueError: a key the model does not take, one it needs and lacks, or a NaN or infinite value.
        TypeError: `model` is no function, or `data` or one of its leaves is of a kind that cannot become an array.
    """
    if not callable(model):
        raise TypeError(f"model: expected a NumPyro model function, got {type(model).__name__}")
    args, kwargs = _arguments(data)
    check_signature(model, args, kwargs)
    names = _positional_names(model, len(args))
    paths, leaves, tree = [], [], None
    flat, tree = jax.tree_util.tree_flatten_with_path((args, kwargs), is_leaf=lambda v: v is not args and _is_leaf(v))
    arrays: Arrays = {}
    static: list[tuple[str, Any]] = []
    labels: dict[str, Labels] = {}
    for path, leaf in flat:
        name = _path_name(path, names)
        value, label = split(leaf, name)
        # A copy: draws and predictions are computed when asked for, when the user may have changed the array in place.
        value = _widened(value.copy()) if isinstance(value, np.ndarray) else value
        paths.append(name)
        leaves.append(value)
        _check_finite(name, value)
        _check_precision(name, value)
        if _is_array(value):
            arrays[name] = value
            if label is not None:
                labels[name] = label
        else:
            static.append((name, value))
    return Inputs(arrays, tuple(static), tuple(paths), tree, labels)


class ShapeError(ValueError):
    """Shapes that do not go together; what `lengths_said` of the data may explain it."""


def lengths_said(inputs: Inputs) -> str:
    """The sentence that the arguments have unequal lengths, to follow an error about shapes; "" where they have not.

    Example:
        >>> lengths_said(bind(model, {"x": np.ones(4), "y": np.ones(5)}))
        ". The data: 'x' has 4 rows, 'y' has 5"
    """
    names: dict[int, list[str]] = {}
    for name, array in inputs.arrays.items():
        if np.ndim(array) > 0:
            names.setdefault(np.shape(array)[0], []).append(name)
    if len(names) < 2:
        return ""
    groups = [(_listed(group), "has" if len(group) == 1 else "have", length) for length, group in names.items()]
    said = [f"{who} {have} {length}{'' if i else ' rows'}" for i, (who, have, length) in enumerate(groups)]
    return f". The data: {', '.join(said)}"


def _listed(names: list[str]) -> str:
    quoted = [repr(name) for name in names]
    if len(quoted) > NAMES_SAID:
        quoted = [*quoted[: NAMES_SAID - 1], f"{len(quoted) - NAMES_SAID + 1} more"]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _arguments(data: Any) -> tuple[tuple, dict[str, Any]]:
    if data is None:
        return (), {}
    if isinstance(data, Mapping):
        return (), dict(data)
    if isinstance(data, tuple):
        return data, {}
    raise TypeError(
        f"data: expected a dict (keyword arguments of the model), a tuple (positional ones) or None, got "
        f"{type(data).__name__}; a single array is data=(array,)"
    )


def check_signature(function: Callable, args: tuple, kwargs: Mapping[str, Any], what: str = "model") -> None:
    """Does the model (or the guide) take these arguments?

    Raises:
        ValueError: an argument it does not take, or one it needs and lacks.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        known = [p.name for p in signature.parameters.values()]
        raise ValueError(f"data does not fit the {what}: {error}; the {what} takes {known}") from None


def _positional_names(model: Callable, count: int) -> list[str]:
    try:
        parameters = inspect.signature(model).parameters.values()
        names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    except (TypeError, ValueError):
        names = []
    return [names[i] if i < len(names) else f"argument {i}" for i in range(count)]


def _is_leaf(value: Any) -> bool:
    if type(value) in (list, tuple):  # named tuples stay what they are
        return len(value) > 0 and all(isinstance(v, int | float | np.number | list) for v in value)
    return not isinstance(value, dict | tuple)


def _path_name(path: tuple, positional: list[str]) -> str:
    side, rest = path[0].idx, path[1:]
    head = positional[rest[0].idx] if side == 0 else str(rest[0].key)
    return head + "".join(map(str, rest[1:]))


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | jax.Array)


def _widened(value: np.ndarray) -> np.ndarray:
    """Integers of at least 32 bits: with less, 255 + 1 is 0 in a density."""
    small = np.issubdtype(value.dtype, np.integer) and value.dtype.itemsize < 4
    return value.astype(np.int32) if small else value


def _check_precision(name: str, value: Any) -> None:
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
        largest = float(np.abs(array).max())
        if largest > float(np.finfo(np.float32).max):
            raise ValueError(f"data[{name!r}] has numbers that do not fit 32 bits, up to {largest:.3g}; {remedy}")
        _check_underflow(name, array, remedy)
        spread = float(array.max() - array.min())
        if 0 < spread < 1e3 * np.finfo(np.float32).eps * largest:
            warnings.warn(
                f"data[{name!r}] varies by {spread:.3g} around {largest:.6g}, of which 32 bits keep less than a "
                f"thousand steps; {remedy}",
                UserWarning,
                stacklevel=4,
            )


def _check_underflow(name: str, array: np.ndarray, remedy: str) -> None:
    tiny = (array != 0) & (np.abs(array) < np.finfo(np.float32).tiny)
    if tiny.any():
        warnings.warn(
            f"data[{name!r}] has {int(tiny.sum())} numbers that 32 bits do not hold, such as "
            f"{float(array[tiny].flat[0]):.3g}, which becomes 0; {remedy}",
            UserWarning,
            stacklevel=5,
        )


def _check_finite(name: str, value: Any) -> None:
    if isinstance(value, float) and value != value:  # an infinite scalar may be a setting, such as a bound
        raise ValueError(
            f"data[{name!r}] is NaN; give a number, or None where the model takes None for what is missing"
        )
    # JAX's issubdtype knows bfloat16 and the like, and keys, which are no numbers.
    if not _is_array(value) or not jax.dtypes.issubdtype(value.dtype, np.inexact):
        return
    bad = ~np.isfinite(np.asarray(value))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"data[{name!r}] has {int(bad.sum())} NaN or infinite values, the first at {where}; drop them, or put any "
            "valid number in their place and mark them missing with obs_mask"
        )
