"""Rows of tables: the part of an array over full plates that belongs to the elements of one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from autovi.estimators.base import Rows
from autovi.model.sites import Site


def row_axes(site: Site) -> dict[str, int]:
    """Subsampled plate -> the axis of the site's full batch shape that it runs along."""
    full = site.full(site.batch_shape)
    axes = {p.name: len(full) + p.dim for p in site.plates if p.subsampled}
    sizes = {p.name: p.size for p in site.plates}
    return {name: axis for name, axis in axes.items() if axis >= 0 and full[axis] == sizes[name]}


def gather(site: Site, tree: Any, indices: Mapping[str, Any]) -> Any:
    """The rows of a tree of tables, whose leading axes are the site's full batch shape."""
    for name, axis in row_axes(site).items():
        if name in indices:
            tree = jax.tree.map(lambda x, a=axis, i=indices[name]: jnp.take(x, i, axis=a), tree)
    return tree


def scatter(site: Site, tree: Any, rows: Any, indices: Mapping[str, Any]) -> Any:
    """The tables with those rows replaced."""
    axes = {axis: indices[name] for name, axis in row_axes(site).items() if name in indices}
    if not axes:
        return rows
    last = max(axes)
    grid = [axes.get(axis) for axis in range(last + 1)]

    def put(table: jax.Array, new: jax.Array) -> jax.Array:
        places = [jnp.arange(table.shape[a]) if index is None else index for a, index in enumerate(grid)]
        return table.at[jnp.ix_(*places)].set(new)

    return jax.tree.map(put, tree, rows)


def map_rows(fn: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """`fn` of the tables that are marked as `Rows`; all else as it is (of the last tree, where there are several)."""
    marked = lambda leaf: isinstance(leaf, Rows)  # noqa: E731

    def one(leaf: Any, *rest: Any) -> Any:
        last = rest[-1] if rest else leaf
        return Rows(fn(leaf.array, *(r.array for r in rest))) if isinstance(leaf, Rows) else last

    return jax.tree.map(one, tree, *others, is_leaf=marked)
