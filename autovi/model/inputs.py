"""The user's data as arrays: checked, labelled, and split into what is traced and what is static."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from autovi.keys import is_key
from autovi.model.columns import Columns, Header, taken_apart
from autovi.model.digest import digest
from autovi.model.labels import Labels, is_frame
from autovi.model.leaves import is_list_of_data, split
from autovi.model.numeric_checks import check_finite, check_precision, has_nan, is_array, widened

Arrays = dict[str, Any]
NAMES_SAID = 4  # of the arguments of one length


@dataclass(frozen=True)
class Inputs:
    """Arguments of a model: `arrays` by path are traced, all other leaves are static.

    `rebuild(arrays)` gives back `(args, kwargs)`. With `concrete=True` the arrays are constants of the program,
    for models that compute shapes or indices from the values of their data. Data frames are matrices, or `Columns`;
    which of both a model takes is found by running it. As long as it is not known, `opened(names)` gives the same data
    with these `frames` as `Columns`.
    """

    arrays: Arrays
    static: tuple[tuple[str, Any], ...]
    paths: tuple[str, ...]
    tree: Any
    labels: Mapping[str, Labels]
    concrete: bool = False
    allow_nan: frozenset[str] = frozenset()
    opened: Callable[[Collection[str]], Inputs] | None = None
    frames: tuple[str, ...] = ()

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
        # In the type that JAX will make of them: a float64 shape without jax_enable_x64 is a warning from JAX 0.12 on.
        kept = lambda a: is_key(a) or isinstance(a, jax.ShapeDtypeStruct)  # noqa: E731
        kind = lambda a: a.dtype if kept(a) else jax.dtypes.canonicalize_dtype(a.dtype)  # noqa: E731
        arrays = {p: jax.ShapeDtypeStruct(np.shape(a), kind(a)) for p, a in self.arrays.items()}
        return replace(self, arrays=arrays, labels={}, opened=None)

    def as_constants(self) -> Inputs:
        """The same data as constants of the program."""
        return replace(self, concrete=True)

    def headers(self) -> list[Header]:
        """Those of the data frames that are taken by column."""
        whole = jax.tree.unflatten(self.tree, self.paths)
        found = jax.tree.leaves(whole, is_leaf=lambda v: isinstance(v, Columns))
        return [taken_apart(v)[0] for v in found if isinstance(v, Columns)]

    def with_nan(self) -> list[str]:
        """The arguments that have NaN, by path."""
        return [name for name, value in (*self.arrays.items(), *self.static) if has_nan(value)]

    def signature(self) -> Any:
        """What the compiled program depends on besides the values of the traced arrays. Hashable, and holds no data."""
        kinds = tuple((p, np.shape(a), str(a.dtype), _placement(a)) for p, a in self.arrays.items())
        constants = digest(list(self.arrays.values())) if self.concrete else ""
        return kinds, self.paths, str(self.tree), digest(self.static), constants


def _placement(array: Any) -> tuple[Any, ...]:
    """What JAX compiles for besides shape and type: where an array lies, and how weak its type is."""
    names = ("weak_type", "sharding", "committed")  # an array of keys has not all of them
    return tuple(str(getattr(array, name, "")) for name in names) if isinstance(array, jax.Array) else ()


def bind(model: Callable, data: Any, allow_nan: Collection[str] = ()) -> Inputs:
    """Checks `data` against the model's signature and makes arrays of its leaves.

    A dict gives keyword arguments, a tuple positional ones, None no arguments. A data frame becomes a matrix, or
    `Columns` if no matrix can be made of it; see `Inputs.opened`. Arguments in `allow_nan` may have NaN.

    Raises:
        ValueError: a key the model does not take, one it needs and lacks, or a NaN or infinite value.
        TypeError: `model` is no function, or `data` or one of its leaves is of a kind that cannot become an array.
    """
    if not callable(model):
        raise TypeError(f"model: expected a NumPyro model function, got {type(model).__name__}")
    args, kwargs = _arguments(data)
    check_signature(model, args, kwargs)
    names = _positional_names(model, len(args))
    given = jax.tree.map(_of_data_set, (args, kwargs), is_leaf=lambda v: v is not args and _is_leaf(v))
    frames = tuple(_path_name(path, names) for path, leaf in _flat(given)[0] if is_frame(leaf))
    bound = partial(_bound, given, names, _allowed(allow_nan))
    closed = set(frames)
    while True:
        try:
            inputs = bound(set(frames) - closed)
        except _NoMatrix as error:
            closed.discard(str(error))
        else:
            break
    return replace(inputs, opened=bound, frames=frames) if closed else inputs


class _NoMatrix(Exception):
    """The data frame of this name makes no matrix."""


def _bound(given: Any, names: list[str], allow_nan: frozenset[str], by_column: Collection[str]) -> Inputs:
    flat, tree = _flat(given)
    leaves: list[Any] = []
    labels: dict[str, Labels] = {}
    for path, leaf in flat:
        name = _path_name(path, names)
        if is_frame(leaf):
            value, found = (_table if name in by_column else _matrix)(leaf, name, allow_nan)
        else:
            value, found = _read(leaf, name, allow_nan)
        leaves.append(value)
        labels |= found
    whole = jax.tree.unflatten(tree, leaves)
    flat, tree = _flat(whole)
    values = {_path_name(path, names): leaf for path, leaf in flat}
    arrays = {name: value for name, value in values.items() if is_array(value)}
    static = tuple((name, value) for name, value in values.items() if not is_array(value))
    kept = {name: label for name, label in labels.items() if name in arrays}
    return Inputs(arrays, static, tuple(values), tree, kept, allow_nan=allow_nan)


def _flat(given: Any) -> tuple[list[Any], Any]:
    return jax.tree_util.tree_flatten_with_path(given, is_leaf=lambda v: v is not given[0] and _is_leaf(v))


def _read(leaf: Any, name: str, allow_nan: frozenset[str]) -> tuple[Any, dict[str, Labels]]:
    value, label = split(leaf, name)
    # A copy: draws and predictions are computed when asked for, when the user may have changed the array in place.
    value = widened(value.copy()) if isinstance(value, np.ndarray) else value
    check_finite(name, value, bool(allow_nan & {name, _head(name)}))
    check_precision(name, value)
    return value, {} if label is None else {name: label}


def _matrix(frame: Any, name: str, allow_nan: frozenset[str]) -> tuple[Any, dict[str, Labels]]:
    try:
        return _read(frame, name, allow_nan)
    except (TypeError, ValueError) as error:
        if not all(isinstance(column, str) for column in frame.columns):
            raise  # by name there are strings alone
        raise _NoMatrix(name) from error


def _table(frame: Any, name: str, allow_nan: frozenset[str]) -> tuple[Any, dict[str, Labels]]:
    """The columns of a frame, each of its own type; what is wrong with one is said when the model takes it."""
    values: dict[str, Any] = {}
    labels: dict[str, Labels] = {}
    refused: dict[str, str] = {}
    for column in frame.columns:
        twice = list(frame.columns).count(column) > 1
        if twice or not isinstance(column, str):
            fault = "two columns have the name" if twice else "no text, but a column has the name"
            refused[str(column)] = f"{name}: {fault} {column!r}; rename it"
            continue
        try:
            values[column], found = _read(frame[column], f"{name}[{column!r}]", allow_nan)
            labels |= found
        except (TypeError, ValueError) as error:
            refused[column] = str(error)
    codes = tuple(c for c in values if (label := labels.get(f"{name}[{c!r}]")) and label.categories is not None)
    header = Header(name, tuple(values), tuple(refused.items()), codes)
    return Columns(header, list(values.values())), labels


def _of_data_set(value: Any) -> Any:
    """A data set of xarray is a dict of arrays."""
    return dict(value.data_vars) if hasattr(value, "data_vars") else value


def _allowed(allow_nan: Any) -> frozenset[str]:
    """The names in `allow_nan`; one string is no set of them, nor is True."""
    if isinstance(allow_nan, str):
        raise ValueError(f"allow_nan: expected a set of names, got a string; say allow_nan={{{allow_nan!r}}}")
    if not isinstance(allow_nan, Collection):
        raise TypeError(f"allow_nan: expected a set of names of arguments, such as {{'y'}}, got {allow_nan!r}")
    return frozenset(allow_nan)


def check_allowed(inputs: Inputs, allow_nan: Collection[str]) -> None:
    """Raises ValueError at a name in `allow_nan` that no argument has."""
    if not allow_nan:
        return
    opened = () if inputs.opened is None else inputs.opened(inputs.frames).paths
    known = {*inputs.paths, *opened}
    known |= {_head(name) for name in known}
    if unknown := sorted(set(map(str, allow_nan)) - known):
        raise ValueError(f"allow_nan: no argument is called {unknown[0]!r}; the data are {sorted(known)}")


def _head(name: str) -> str:
    """The argument that a nested name belongs to."""
    return name.split("[", 1)[0].split(".", 1)[0]


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
    remedy = (
        "as one argument it is data=(frame,), with a column for each argument data={c: frame[c] for c in frame.columns}"
        if is_frame(data)
        else "a single array is data=(array,)"
    )
    raise TypeError(
        f"data: expected a dict (keyword arguments of the model), a tuple (positional ones) or None, got "
        f"{type(data).__name__}; {remedy}"
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
        return (len(value) > 0 and all(map(_is_number_or_list, value))) or is_list_of_data(value)
    return not isinstance(value, dict | tuple | Columns)


def _is_number_or_list(value: Any) -> bool:
    return isinstance(value, int | float | np.number) or (type(value) is list and _is_leaf(value))


def _path_name(path: tuple, positional: list[str]) -> str:
    side, rest = path[0].idx, path[1:]
    head = positional[rest[0].idx] if side == 0 else str(rest[0].key)
    return head + "".join(map(str, rest[1:]))
