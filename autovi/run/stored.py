"""A state as named arrays, and back: what a file holds of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from autovi.program.program import Program
from autovi.run.state import State
from autovi.run.tables import Row, Table


def stored(state: State) -> dict[str, Any]:
    """Every array of a state by its path, such as ".params['guide']['mu']['loc']"."""
    return named_leaves(_open(state))


def restored(like: State, program: Program, arrays: Mapping[str, Any], with_memory: bool = True) -> State:
    """The state that those arrays are, of the structure of `like`, which may be shapes alone.

    Without `with_memory`, what an optimizer remembers is left out: where it is the user's and was not given again.

    Raises:
        ValueError: arrays that are missing, of another shape, or too many; the message names one. Or the optimizer is
            another.
    """
    template = jax.eval_shape(_open, like)
    state = filled(_forgetful(template), {n: x for n, x in arrays.items() if not _is_memory(n)})
    if with_memory:
        theirs, ours = _memory_shapes(arrays), _memory_shapes(named_leaves(template))
        if theirs != ours:
            raise ValueError(
                "optimizer: it is another than that of the fit, which remembers other numbers; pass the one that the "
                "fit had, or leave out optimizer= to look at the fit alone"
            )
        state = filled(template, arrays)
    tables = {n: Table.of(program.node_site(n), rows) for n, rows in state.tables.items()}
    return state._replace(tables=tables)


def _open(state: State) -> Any:
    rows: Any = {n: t.rows for n, t in state.tables.items()}
    return state._replace(tables=rows)


def _forgetful(state: Any) -> Any:
    tables = {n: Row(r.params, r.mean, None, r.visits) for n, r in state.tables.items()}
    return state._replace(optimizer=None, tables=tables)


def _is_memory(name: str) -> bool:
    return name.startswith(".optimizer") or (name.startswith(".tables") and "].memory" in name)


def _memory_shapes(arrays: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(array) for name, array in arrays.items() if _is_memory(name)}


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of any tree by their paths."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def filled(template: Any, arrays: Mapping[str, Any]) -> Any:
    """A tree of the template's structure and dtypes with those leaves in it.

    Raises:
        ValueError: a leaf is missing, has another shape, or has no place in the template.
    """
    expected = named_leaves(template)
    for name, leaf in expected.items():
        if name not in arrays or np.shape(arrays[name]) != leaf.shape:
            got = np.shape(arrays[name]) if name in arrays else "nothing"
            raise ValueError(
                f"model: the file belongs to another model: expected {name} of shape {leaf.shape}, got {got}"
            )
    if more := sorted(set(arrays) - set(expected)):
        raise ValueError(f"model: the file belongs to another model, which has {more}")
    leaves = [_as(arrays[name], leaf.dtype) for name, leaf in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _as(array: Any, dtype: Any) -> Any:
    return array if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) else np.asarray(array, dtype)
