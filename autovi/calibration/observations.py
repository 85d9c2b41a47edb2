"""Which elements of which arguments are observations of which sites.

It is found by trying: arguments take two of their own values in patterns, by which each element of an observed value
says where it comes from. What is found is checked again on every simulated data set (`simulating.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from autovi.keys import is_key
from autovi.numbers import how_many

Arrays = Mapping[str, Any]


class Observed(NamedTuple):
    """Elements `at` (of the flat argument) hold elements `of` (of the site's flat value)."""

    argument: str
    site: str
    at: np.ndarray
    of: np.ndarray


def observed_of(observed: Callable[[Arrays], Arrays], arrays: Arrays) -> tuple[Observed, ...]:
    """Where observations lie.

    Args:
        observed: data arrays -> the values that observed sites have with them.
        arrays: the data, by path.

    Raises:
        ValueError: an observation that is computed from the data, is not among them, or stands at two sites.
    """
    shapes = {site: np.shape(value) for site, value in observed(arrays).items()}
    owner = {site: np.full(shape, -1).ravel() for site, shape in shapes.items()}
    place = {site: np.zeros(shape, int).ravel() for site, shape in shapes.items()}
    names = [name for name, array in arrays.items() if _can_vary(array)]
    for number, name in enumerate(names):
        for site, (moved, at) in _moved_by(observed, arrays, name).items():
            if np.any(owner[site][moved] >= 0):
                raise _computed(name, site)
            owner[site][moved], place[site][moved] = number, at[moved]
    for site, owners in owner.items():
        if lost := int(np.sum(owners < 0)):
            raise ValueError(
                f"site {site!r}: {how_many(lost, 'observation')} of {owners.size:,} are not among the arguments of the "
                "model, so that no others can be put in their place; pass what is observed in data="
            )
    found = [
        Observed(names[number], site, place[site][of], of)
        for site, owners in owner.items()
        for number in np.unique(owners)
        for of in [np.flatnonzero(owners == number)]
    ]
    _check_once(found)
    return tuple(found)


def with_type_of(array: Any, draws: Any) -> np.ndarray:
    """An argument in the type that draws can take the place of: whole numbers become floating ones where their site is
    continuous."""
    array, kind = np.asarray(jnp.asarray(array)), np.dtype(draws.dtype)
    return array.astype(kind) if kind.kind == "f" and array.dtype.kind != "f" else array


def filled(arrays: Arrays, draws: Arrays, observed: tuple[Observed, ...]) -> dict[str, np.ndarray]:
    """The arguments that hold observations, with draws of the sites in their place."""
    new = {found.argument: np.array(arrays[found.argument]).ravel() for found in observed}
    for argument, site, at, of in observed:
        new[argument][at] = np.ravel(draws[site])[of]
    return {name: flat.reshape(np.shape(arrays[name])) for name, flat in new.items()}


def _moved_by(
    observed: Callable[[Arrays], Arrays], arrays: Arrays, name: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Site -> which elements of its value an argument moves, and which of the argument's elements they are."""
    shape, size = np.shape(arrays[name]), int(np.size(arrays[name]))
    low, high = _two_values(arrays[name])

    def at(pattern: Any) -> dict[str, np.ndarray]:
        tried = np.where(np.broadcast_to(pattern, (size,)), high, low).reshape(shape)
        return {s: np.asarray(v, np.float64).ravel() for s, v in observed({**arrays, name: tried}).items()}

    lowest, highest = at(False), at(True)
    moved = {s: lowest[s] != highest[s] for s in lowest if np.any(lowest[s] != highest[s])}
    for site, which in moved.items():
        if np.any(lowest[site][which] != float(low)) or np.any(highest[site][which] != float(high)):
            raise _computed(name, site)
    places = {site: np.zeros(which.size, int) for site, which in moved.items()}
    for bit in range((size - 1).bit_length() if moved else 0):
        seen = at((np.arange(size) >> bit) & 1 == 1)
        for site in moved:
            places[site] += (seen[site] == float(high)).astype(int) << bit
    return {site: (which, places[site]) for site, which in moved.items()}


def _two_values(array: Any) -> tuple[Any, Any]:
    """Two values of the type of an array, those that it has if it has two: such are in the support."""
    array = np.asarray(jnp.asarray(array))  # as JAX has it, in which precision
    finite = array[np.isfinite(array)]
    low, high = (finite.min(), finite.max()) if finite.size else (array.dtype.type(0), array.dtype.type(1))
    if low == high:
        low, high = (False, True) if array.dtype == bool else (low, array.dtype.type(low + 1))
    return array.dtype.type(low), array.dtype.type(high)


def _can_vary(array: Any) -> bool:
    return not is_key(array) and np.size(array) > 0 and np.asarray(array).dtype.kind in "biuf"


def _computed(argument: str, site: str) -> ValueError:
    return ValueError(
        f"site {site!r}: its observations are computed from the argument {argument!r}, so that draws of them say "
        f"nothing of what {argument!r} would have been; expected obs={argument} as it is passed (a part, another shape "
        "or type of it are right too), so compute them before you pass them"
    )


def _check_once(found: list[Observed]) -> None:
    taken: dict[str, dict[int, str]] = {}
    for argument, site, at, _ in found:
        sites = taken.setdefault(argument, {})
        for i in at.tolist():
            if i in sites:
                where = f"sites {sites[i]!r} and {site!r}" if sites[i] != site else f"two elements of site {site!r}"
                raise ValueError(
                    f"data: {argument!r} is the observation of {where}, of which no one draw can stand for both; pass "
                    "it twice, under two names"
                )
            sites[i] = site
