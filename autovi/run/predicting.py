"""Posterior predictive draws, in parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from autovi.analysis.indices import check_indices
from autovi.compiling import compiler_options
from autovi.model.inputs import Inputs
from autovi.model.targets import as_target, trace_program
from autovi.process import computing
from autovi.run.drawing import DRAWS_BUDGET, joined, places
from autovi.run.engine import Engine


@computing()
def predict(
    engine: Engine,
    model: Callable,
    inputs: Inputs,
    values: Mapping[str, Any],
    params: Mapping[str, Any],
    rng_key: jax.Array,
    batch_size: int | None,
) -> dict[str, np.ndarray]:
    """Posterior predictive draws for the data in `inputs`, one for each draw of the latent sites in `values`,
    `batch_size` of them at once."""
    count = next(iter(values.values())).shape[0]
    traced, _ = trace_program(model, None, inputs)
    check_indices(traced, inputs)
    graph = traced.graph
    numbers = max(1, graph.numbers(graph.outputs.values(), set(graph.inputs.values()).__contains__))
    part = int(np.clip(DRAWS_BUDGET // numbers if batch_size is None else batch_size, 1, count))
    lengths = {n: p.size for n, p in traced.sites.subsampled.items()}
    engine.use(model, None)
    shapes = inputs.without_data()

    def some(arrays: Any, params: Any, values: Any, keys: jax.Array) -> Any:
        target = as_target(engine.model_function)
        return jax.vmap(lambda v, k: target.predict(shapes, lengths, arrays, params, v, k))(values, keys)

    options = compiler_options(part * numbers)
    key = ("predict", traced.fingerprint.key, inputs.signature(), part)
    run = engine.kept(key, lambda: jax.jit(some, compiler_options=options))
    keys, arrays = jax.random.split(rng_key, count), jax.device_put(inputs.traced())
    chosen = lambda at: {n: v[at] for n, v in values.items()}  # noqa: E731
    return joined((run(arrays, params, chosen(at), keys[at]) for at in places(count, part)), part, count)
