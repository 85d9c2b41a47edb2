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


def gather_rows(site: Site, tree: Any, indices: Mapping[str, Any]) -> Any:
    """The rows of those tables in a tree that are marked as `Rows`; all else as it is."""
    return _at_rows(lambda table: gather(site, table, indices), tree)


def scatter_rows(site: Site, tree: Any, rows: Any, indices: Mapping[str, Any]) -> Any:
    """The tree with the rows of its `Rows` replaced, and all else too."""
    return _at_rows(lambda table, new: scatter(site, table, new, indices), tree, rows)


def _at_rows(fn: Callable[..., Any], tree: Any, *others: Any) -> Any:
    marked = lambda leaf: isinstance(leaf, Rows)  # noqa: E731

    def one(leaf: Any, *rest: Any) -> Any:
        if isinstance(leaf, Rows):
            return Rows(fn(leaf.array, *(r.array for r in rest)))
        return rest[-1] if rest else leaf

    return jax.tree.map(one, tree, *others, is_leaf=marked)
