"""A table as a model sees it: columns by name, rows by index, and the matrix of the columns where one is asked for."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.model.leaves import DataError


@dataclass(frozen=True)
class Header:
    """What is known of a table besides its numbers.

    `refused` are the columns that hold no numbers, each with what is said when a model asks for it; `codes` are those
    whose integers stand for categories, of which no matrix is made. `asked` collects what a model took by name.
    """

    where: str
    names: tuple[str, ...]
    refused: tuple[tuple[str, str], ...] = ()
    codes: tuple[str, ...] = ()
    asked: set[str] = field(default_factory=set, compare=False, repr=False)

    def to_json(self) -> list[Any]:
        """The header as lists and strings."""
        return [self.where, list(self.names), [list(pair) for pair in self.refused], list(self.codes)]

    @classmethod
    def from_json(cls, content: Sequence[Any]) -> Header:
        """The inverse of `to_json`."""
        where, names, refused, codes = content
        return cls(where, tuple(names), tuple((name, said) for name, said in refused), tuple(codes))


@jax.tree_util.register_pytree_with_keys_class
class Columns:
    """The columns of one data frame inside a model, each with its own type.

    `table["age"]` (or `table.age`) is a column, `table[["age", "dose"]]` a table of some, `table[rows]` a table of some
    rows, `len(table)` the number of rows, `table.columns` the names. Where an array is needed (`table @ w`,
    `table[:, 0]`, `jnp.dot(table, w)`, `table.T`) it is the matrix of all columns, `(rows, columns)`.

    Raises:
        KeyError: no column of that name; the message lists those there are.
        DataError: a column that holds no numbers, or a matrix of one that has no place in it.
    """

    __array_priority__ = 1000  # NumPy arrays to the left of an operator leave it to the table
    __hash__ = None  # type: ignore[assignment]  # == is that of arrays

    def __init__(self, header: Header, values: Sequence[Any]):
        self._header, self._values = header, tuple(values)

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], Header]:
        """Columns by name, for JAX."""
        keys = [jax.tree_util.DictKey(name) for name in self._header.names]
        return list(zip(keys, self._values, strict=True)), self._header

    @classmethod
    def tree_unflatten(cls, header: Header, values: Sequence[Any]) -> Columns:
        """The inverse of `tree_flatten_with_keys`."""
        return cls(header, values)

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return [*self._header.names, *(name for name, _ in self._header.refused)]

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns)."""
        rows = np.shape(self._values[0]) if self._values else (0,)
        return (*rows, len(self.columns))

    def __len__(self) -> int:
        return self.shape[0]

    def __contains__(self, name: Any) -> bool:
        return name in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self._column(key)
        if isinstance(key, list) and key and all(isinstance(name, str) for name in key):
            codes = tuple(name for name in key if name in self._header.codes)
            header = Header(self._header.where, tuple(key), (), codes, self._header.asked)
            return Columns(header, [self._column(name) for name in key])
        if isinstance(key, tuple) or key is None or key is Ellipsis:
            return self._matrix()[key]
        return Columns(self._header, [value[key] for value in self._values])

    def _column(self, name: str) -> Any:
        self._header.asked.add(name)
        if name in self._header.names:
            return self._values[self._header.names.index(name)]
        if name in (refused := dict(self._header.refused)):
            raise DataError(refused[name])
        raise KeyError(f"{self._header.where}: no column is called {name!r}; the columns are {self.columns}")

    def _matrix(self) -> Any:
        """All columns beside one another, along a last axis."""
        header = self._header
        for _, said in header.refused:
            raise DataError(f"{said}. (The model takes {header.where!r} as a whole.)")
        if header.codes:
            raise DataError(
                f"{header.where}: column {header.codes[0]!r} holds categories, whose codes are no quantities in a "
                f"matrix; take the columns by name, {header.where}[{header.names[0]!r}], or some of them, "
                f"{header.where}[[...]]"
            )
        concrete = all(isinstance(value, np.ndarray) for value in self._values)
        return (np if concrete else jnp).stack(self._values, axis=-1)

    def __jax_array__(self) -> Any:
        return jnp.asarray(self._matrix())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._matrix(), dtype)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if hasattr(jax.Array, name):
            return getattr(self._matrix(), name)
        if name in self.columns:
            return self._column(name)
        self._header.asked.add(name)
        raise AttributeError(
            f"{self._header.where}: a data frame comes into the model as arrays, and has no {name!r} there; take its "
            f"columns by name, of {self.columns}, and prepare all else before the fit"
        )

    def __repr__(self) -> str:
        return f"Columns({self.columns})"


def taken_apart(table: Columns) -> tuple[Header, tuple[Any, ...]]:
    """What is known of a table, and its columns that hold numbers. No methods: those names are the columns'."""
    return table._header, table._values


def _binary(function: Callable[[Any, Any], Any]) -> Callable[[Columns, Any], Any]:
    return lambda table, other: function(table._matrix(), _plain(other))


def _reflected(function: Callable[[Any, Any], Any]) -> Callable[[Columns, Any], Any]:
    return lambda table, other: function(_plain(other), table._matrix())


def _unary(function: Callable[[Any], Any]) -> Callable[[Columns], Any]:
    return lambda table: function(table._matrix())


def _plain(value: Any) -> Any:
    return value._matrix() if isinstance(value, Columns) else value


# The operators of arrays, on the matrix of all columns.
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor"):
    _function = getattr(operator, _name)
    setattr(Columns, f"__{_name.strip('_')}__", _binary(_function))
    setattr(Columns, f"__r{_name.strip('_')}__", _reflected(_function))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Columns, f"__{_name}__", _binary(getattr(operator, _name)))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(Columns, f"__{_name}__", _unary(getattr(operator, _name)))
