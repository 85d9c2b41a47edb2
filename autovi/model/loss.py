"""An expected loss as a target: what gradients of expectations stand on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from autovi.model.execution import SiteError, execute
from autovi.model.inputs import Inputs
from autovi.model.sites import Sites, describe, term_site
from autovi.model.target import NOTHING, Given, OfParameters, unchecked
from autovi.model.traced import Traced
from autovi.model.tracing import NumPyroRun, NumPyroTracing


@dataclass(frozen=True)
class Loss(OfParameters):
    """E loss(z; params), z drawn from the sample sites of a function that returns the loss.

    The sites' distributions are what is differentiated: they stand in the place of a guide, and their log q is no part
    of the cost. Schulman, Heess, Weber and Abbeel (2015), "Gradient Estimation Using Stochastic Computation Graphs".

    Args:
        function: `function(params, ...)` with NumPyro sample sites, none observed, returns a scalar.
        template: a tree of arrays of the shapes and types of `params`.

    Raises:
        ValueError: the result is no scalar.
    """

    guided: ClassVar[bool] = True

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
            raise ValueError("noncentred: a Loss does not say of its sites how they are distributed")
        tracing = NumPyroTracing(self.function, self.function, dict(lengths), frozenset(relaxed), check_guide)
        tracing.of_run = lambda tracing: _LossRun(tracing, self.template)
        return tracing.checked_run(inputs), inputs

    def prior(
        self,
        guide: Callable | None,
        inputs: Inputs,
        arrays: Mapping[str, Any],
        rng_key: jax.Array,
        given: Given = NOTHING,
    ) -> dict:
        args, kwargs = inputs.rebuild(dict(arrays))
        params = jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.result_type(x)), self.template)
        records = execute(self.function, (params, *args), kwargs, rng_key)
        return {n: r.value for n, r in records.items() if r.kind == "sample"}


class _LossRun(NumPyroRun):
    """The function run once on placeholders for its parameters and its sites."""

    entropy = False

    def __init__(self, tracing: NumPyroTracing, template: Any):
        super().__init__(tracing)
        self.template = template

    def outputs(self, arguments: tuple[tuple, dict], rng_key: jax.Array) -> dict[str, Any]:
        args, kwargs = arguments
        params = self.parameter("params", self.template)
        returned: list[Any] = []
        function = lambda *a, **k: returned.append(self.tracing.model(*a, **k))  # noqa: E731
        records, out = self.guided(function, (params, *args), kwargs, rng_key)
        loss = jnp.asarray(returned[0])
        if loss.shape != ():
            raise SiteError(f"loss: expected a scalar, got shape {loss.shape}")
        self.sites = Sites({**describe(records).samples, "loss": term_site("loss")}, {}, {}, describe(records).plates)
        self.scales = {}
        return out | {"p:loss": -loss, "part:0#p:loss": loss} | {f"value:{n}": v for n, v in self.drawn.items()}
