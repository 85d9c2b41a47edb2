"""One leaf of the user's data as an array of numbers, or the sentence that says why it cannot be one.

pandas, xarray, polars, SciPy and PyTorch are recognized by what their objects offer and are never imported.
"""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Iterator, KeysView, Mapping, Set, ValuesView
from typing import Any

import jax
import numpy as np

from autovi.model.labels import Labels, is_frame, labels_of

CODES = (
    'make categories of them, pandas.Series(x).astype("category"), whose codes are taken and whose names label the '
    "results, or give integer codes"
)
DATES = "turn dates and durations into numbers, such as days since the first"
MISSING = "drop them or fill them in; a missing observation is any valid number with obs_mask"


class DataError(ValueError):
    """A fault of the data that shows when a model takes them; its message is complete."""


def split(value: Any, name: str = "data") -> tuple[Any, Labels | None]:
    """Split one leaf of the user's data into plain numbers and the labels of its axes.

    Series, data frames and indexes (pandas, polars), xarray's DataArray, NumPy arrays and scalars, lists and tuples of
    numbers, and what offers itself to NumPy (tensors of other libraries) become NumPy arrays; categories become their
    integer codes. JAX arrays, Python scalars, strings, None, callables and all else that may be a setting come back
    untouched. The labels are None where no axis has any; the index 0, 1, 2, ... that pandas gives to what has no
    index is none.

    Args:
        value: the leaf.
        name: what messages call it.

    Raises:
        TypeError: text, dates, complex numbers, sets, iterators or other objects that are no numbers.
        ValueError: missing values, or nested lists of unequal lengths.

    Example:
        >>> array, labels = split(pd.Series([1.0, 2.0], index=["a", "b"]), "y")
        >>> labels.coords[0]
        array(['a', 'b'], dtype=object)
    """
    if isinstance(value, jax.Array):
        _refuse_complex(value, name)
        return value, None
    if isinstance(value, np.str_):
        return str(value), None
    if isinstance(value, np.ndarray | np.generic):
        return _numbers(value, name), None
    if isinstance(value, list | tuple):
        return _from_list(value, name), None
    if (said := _never_numbers(value)) is not None:
        raise TypeError(f"{name}: expected numbers, got {said}")
    if (coded := _codes(value, name)) is not None:
        codes, categories = coded
        labels = labels_of(value) or Labels((None,), (None,))
        return codes, labels._replace(categories=categories)
    if hasattr(value, "to_numpy") and hasattr(value, "shape"):
        _refuse_columns(value, name)
        return _numbers(_to_numpy(value, name), name), labels_of(value)
    if hasattr(value, "__array__") and not isinstance(value, type):
        return _numbers(_from_tensor(value, name), name), None
    return value, None


def is_list_of_data(value: Any) -> bool:
    """Is a list meant as an array? So it is if it holds numbers or text, nested or not, and no arrays or the like."""
    if type(value) is not list:
        return False
    leaves = list(_leaves(value, list))
    return all(x is None or isinstance(x, _ITEMS) for x in leaves) and any(x is not None for x in leaves)


_ITEMS = (numbers.Number, np.generic, str, bytes, datetime.date, datetime.timedelta, datetime.time)


def _leaves(value: Any, nested: Any = list | tuple) -> Iterator[Any]:
    if not isinstance(value, nested):
        yield value
        return
    for item in value:
        yield from _leaves(item, nested)


def _from_list(value: list | tuple, name: str) -> Any:
    leaves = list(_leaves(value))
    if not all(isinstance(leaf, bool | int | float | np.number | np.bool_) for leaf in leaves):
        if not is_list_of_data(value):
            return value
        raise _not_all_numbers(leaves, name)
    if (said := _ragged(value)) is not None:
        raise ValueError(
            f"{name}: expected nested lists of equal lengths, got {said}; pad them, and give their lengths or a mask "
            "as data of their own"
        )
    return _numbers(np.asarray(value), name)


def _not_all_numbers(leaves: list[Any], name: str) -> Exception:
    missing = sum(_is_missing(leaf) for leaf in leaves)
    if missing:
        return ValueError(f"{name}: missing values among the data (None, {missing} of {len(leaves)}); {MISSING}")
    first = next(leaf for leaf in leaves if not isinstance(leaf, bool | int | float | np.number | np.bool_))
    if isinstance(first, str):
        return TypeError(
            f"{name}: expected numbers, got a list with text such as {first!r}; {CODES}. (Text that is a setting of "
            "the model goes into a tuple.)"
        )
    if (said := _never_numbers(first)) is not None:
        return TypeError(f"{name}: expected numbers, got a list with {said}")
    return TypeError(f"{name}: expected numbers, got a list with {type(first).__name__}, such as {first!r}")


def _ragged(value: list | tuple) -> str | None:
    """What is unequal in nested lists."""
    nested = [item for item in value if isinstance(item, list | tuple)]
    if not nested:
        return None
    if len(nested) < len(value):
        return "numbers beside lists"
    lengths = [len(item) for item in nested]
    other = next((i for i, length in enumerate(lengths) if length != lengths[0]), None)
    if other is not None:
        return f"{lengths[0]} and {lengths[other]} (the first and number {other + 1})"
    inner = [_ragged(item) for item in nested]
    return next((said for said in inner if said is not None), None) or _ragged([x for item in nested for x in item])


def _numbers(value: Any, name: str) -> np.ndarray:
    """The NumPy array of `value` if it holds real numbers or booleans only, otherwise an error."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(
            f"{name}: a masked array has no numbers under its mask; give filled values, and the mask as data "
            "of its own (numpyro's obs_mask)"
        )
    array = np.asarray(value)
    _refuse_complex(array, name)
    if _is_numeric(array.dtype):
        return array
    if array.dtype.kind == "O":
        raise _objects(name, array)
    raise _not_numbers(name, array.dtype)


def _is_numeric(dtype: Any) -> bool:
    # ml_dtypes (bfloat16, float8) register as kind "V", and JAX computes with them.
    return dtype.kind in "biuf" or dtype.type.__module__ == "ml_dtypes"


def _refuse_complex(array: Any, name: str) -> None:
    if getattr(array.dtype, "kind", "") == "c":
        raise TypeError(
            f"{name}: expected real numbers, got {array.dtype}; give x.real and x.imag as data of their own, and put "
            "them together in the model"
        )


def _objects(name: str, array: np.ndarray) -> Exception:
    """What is said of an array of Python objects."""
    items = list(array.flat)
    if any(_is_missing(item) for item in items):
        count = sum(_is_missing(item) for item in items)
        return ValueError(f"{name}: missing values among the data ({count} of {len(items)}); {MISSING}")
    if items and all(isinstance(item, numbers.Real | np.bool_) for item in items):
        kind = "int" if all(isinstance(item, numbers.Integral) for item in items) else "float"
        return TypeError(
            f"{name}: expected numbers, got values of dtype object, all of which are numbers; use .astype({kind})"
        )
    first = next((item for item in items if not isinstance(item, numbers.Real)), None)
    if isinstance(first, str):
        return _not_numbers(name, array.dtype, f", such as {first!r}")
    if (said := _never_numbers(first)) is not None:
        return TypeError(f"{name}: expected numbers, got values of dtype object, among them {said}")
    if isinstance(first, list | tuple | np.ndarray):
        return TypeError(
            f"{name}: expected numbers, got values of dtype object that are {type(first).__name__}s; make one array of "
            "them, padded if their lengths differ, with the lengths or a mask as data of their own"
        )
    return TypeError(
        f"{name}: expected numbers, got values of dtype object, such as a {type(first).__name__}; give an array of "
        "numbers"
    )


def _is_missing(item: Any) -> bool:
    return item is None or type(item).__name__ in ("NAType", "NaTType")


def _not_numbers(name: str, dtype: Any, such: str = "") -> TypeError:
    kind = getattr(dtype, "kind", "O")
    advice = "numpy.frombuffer reads numbers from bytes" if kind in "SV" else DATES if kind in "mM" else CODES
    return TypeError(f"{name}: expected numbers, got values of dtype {dtype}{such}; {advice}")


# What is never an array nor a setting: a test, what it is called, and what to do.
def _never_numbers(value: Any) -> str | None:
    if isinstance(value, Set | KeysView | ValuesView) and not isinstance(value, Mapping):
        return f"a {type(value).__name__}, which has no order or no indices; give a sorted list or an array"
    if hasattr(value, "__next__"):
        return f"a {type(value).__name__}, which can be gone through once only; give list(x)"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{type(value).__name__}; numpy.frombuffer(x, dtype) reads numbers from them"
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
        return f"a {type(value).__name__}; {DATES}"
    if isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real):
        return f"the complex number {value!r}; give its real and imaginary part as data of their own"
    if isinstance(value, numbers.Number) and not isinstance(value, int | float | np.generic):
        return f"a {type(value).__name__}; give float(x)"
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        return f"a sparse matrix ({type(value).__name__}); give x.toarray()"
    return None


def _refuse_columns(value: Any, name: str) -> None:
    """Name the column at fault, which the array of a whole frame can no longer tell."""
    if not is_frame(value):
        return
    for column, dtype in zip(value.columns, list(value.dtypes), strict=True):
        if is_categorical(dtype):
            raise TypeError(
                f"{name}[{column!r}]: expected numbers, got categories, whose codes are no quantities in a matrix; "
                "take the columns of the frame by name in the model"
            )
        if getattr(dtype, "kind", "f") not in "biufcO":
            raise _not_numbers(f"{name}[{column!r}]", dtype)
        if getattr(dtype, "kind", "f") == "O":
            _numbers(np.asarray(value[column], object), f"{name}[{column!r}]")


def is_categorical(dtype: Any) -> bool:
    """Is this the type of categories, of pandas or polars?"""
    return type(dtype).__name__ in ("CategoricalDtype", "Categorical", "Enum") or str(dtype) == "category"


def _codes(value: Any, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Integer codes and names of categories; None for anything else."""
    if is_frame(value) or not is_categorical(getattr(value, "dtype", None)):
        return None
    if hasattr(value, "to_physical"):  # polars; its own codes may be those of all series of the process
        items = value.to_list()
        known = getattr(value.dtype, "categories", None) if type(value.dtype).__name__ == "Enum" else None
        names = list(dict.fromkeys(item for item in (items if known is None else known) if item is not None))
        place = {name: code for code, name in enumerate(names)}
        codes, categories = np.array([place.get(item, -1) for item in items], int), np.array(names)
    else:  # pandas: of a series its accessor, an index or a Categorical itself
        held = getattr(value, "cat", value)
        codes, categories = np.asarray(held.codes), held.categories.to_numpy()
    missing = codes < 0
    if missing.any():
        raise ValueError(
            f"{name}: {int(missing.sum())} of {len(missing)} have no category, the first at {int(np.argmax(missing))}; "
            "drop those rows, or give them a category of their own"
        )
    return codes.astype(np.int32), categories


def _to_numpy(value: Any, name: str) -> np.ndarray:
    array = value.to_numpy()
    if is_frame(value) and array.dtype.kind == "O":
        # Integer beside boolean columns: objects for pandas, numbers for NumPy.
        return np.array(array.tolist()).reshape(array.shape)
    return array


def _from_tensor(value: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except Exception as error:
        raise TypeError(
            f"{name}: expected numbers, got a {type(value).__name__} that NumPy cannot read ({error}); give a NumPy "
            "array, such as x.detach().cpu().numpy()"
        ) from error
