"""A log density of one's own as a target."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from autovi.distributions.table import TABLE
from autovi.model.execution import site_key
from autovi.model.graph import placeholder, trace
from autovi.model.inputs import Inputs
from autovi.model.sites import Site, Sites, term_site
from autovi.model.target import NOTHING, Given, OfParameters, unchecked
from autovi.model.traced import Traced


@dataclass(frozen=True)
class LogDensity(OfParameters):
    """A log density over the reals, log p(params) up to a constant, as a function of a tree of arrays.

    Args:
        function: `function(params, ...)` returns a scalar in nats; what follows comes from `fit`'s data.
        template: a tree of floating arrays or numbers (or `jax.ShapeDtypeStruct`) of the parameters' shapes; their
            values do not count. A leaf becomes a site, named by its path, such as "scale" or "layer.weight".

    Raises:
        TypeError: a leaf that is not floating, or a result that is no scalar.

    Example:
        >>> target = autovi.LogDensity(lambda p, y: -0.5 * ((y - p["mu"]) ** 2).sum(), {"mu": 0.0})
        >>> fit = autovi.fit(target, {"y": y})
    """

    def trace(
        self,
        guide: Callable | None,
        inputs: Inputs,
        lengths: Mapping[str, int],
        relaxed: Collection[str] = (),
        check_guide: Callable[[Sites], Any] = unchecked,
        noncentred: Collection[str] = (),
    ) -> tuple[Traced, Inputs]:
        if noncentred:
            raise ValueError("noncentred: a LogDensity does not say of its sites how they are distributed")
        if guide is not None:
            raise ValueError("guide: a guide function needs a NumPyro model; a LogDensity takes the name of a guide")
        shapes, made = self._leaves()

        def program(arrays: dict[str, Any], rng_key: jax.Array) -> dict[str, jax.Array]:
            args, kwargs = inputs.rebuild(arrays)
            values = {n: placeholder(f"node:{n}", shape, jnp.result_type(float)) for n, shape in shapes.items()}
            total = jnp.asarray(self.function(jax.tree.unflatten(made, values.values()), *args, **kwargs))
            if total.shape != () or not jnp.issubdtype(total.dtype, jnp.floating):
                raise TypeError(f"LogDensity: expected a floating scalar, got shape {total.shape} of {total.dtype}")
            # Nothing is known of how the density is made, so that it is itself what may jump.
            terms = {"p:log_density": total, "part:0#p:log_density": total}
            return terms | {f"value:{n}": v for n, v in values.items()}

        graph = trace(program, inputs.traced(), jax.eval_shape(jax.random.key, 0))
        sites = {n: _site(n, shape) for n, shape in shapes.items()} | {"log_density": term_site("log_density")}
        all_sites = Sites(sites, {}, {}, {})
        return Traced(all_sites, None, graph, graph, dict.fromkeys(shapes, 1.0), {}, {}, {}), inputs

    def prior(
        self,
        guide: Callable | None,
        inputs: Inputs,
        arrays: Mapping[str, Any],
        rng_key: jax.Array,
        given: Given = NOTHING,
    ) -> dict:
        shapes, _ = self._leaves()
        drawn = {n: jax.random.normal(site_key(rng_key, n), shape) for n, shape in shapes.items()}
        return {**drawn, **given.values}

    def _leaves(self) -> tuple[dict[str, tuple[int, ...]], Any]:
        leaves, made = jax.tree_util.tree_flatten_with_path(self.template)
        shapes = {}
        for path, leaf in leaves:
            name = jax.tree_util.keystr(path, simple=True, separator=".") or "params"
            kind = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
            if not jnp.issubdtype(kind, jnp.floating):
                raise TypeError(f"LogDensity: template leaf {name!r} is of type {kind}, expected floating numbers")
            shapes[name] = tuple(jnp.shape(leaf))
        return shapes, made


def _site(name: str, shape: tuple[int, ...]) -> Site:
    return Site(
        name=name,
        distribution="LogDensity",
        support="real",
        batch_shape=(),
        event_shape=shape,
        plates=(),
        observed=False,
        discrete=False,
        values=None,
        unconstrained_shape=shape,
        from_scan=False,
        masked=False,
        gradients=TABLE["ImproperUniform"],
        auxiliary=False,
        infer=(),
    )
