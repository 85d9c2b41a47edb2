"""Independent categoricals over any finite support."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from autovi.families.base import Family, Layout, Params
from autovi.model.sites import Site


@dataclass(frozen=True)
class Categorical(Family):
    """q(z = v_k) = softmax(logits)_k over the values v_0 < v_1 < ... of a finite support.

    Serves Categorical, DiscreteUniform, Binomial of known size, OrderedLogistic and every other distribution that can
    list its support. Draws are indices into the support. Parameters: `logits`, `[*batch, K]`.

    Example:
        >>> autovi.fit(model, data, families={"switchpoint": "categorical"})
    """

    name: ClassVar[str] = "categorical"
    distribution_name: ClassVar[str] = "CategoricalLogits"
    estimators: ClassVar[tuple[str, ...]] = ("marginalize", "enumerate", "score")

    def refuses(self, site: Site) -> str | None:
        if not site.discrete:
            return f"its values are continuous ({site.support})"
        if site.values is None:
            return f"its support ({site.support}) cannot be listed before the model runs"
        return None

    def init(self, start: jax.Array, layout: Layout) -> Params:
        assert layout.num_values is not None
        return {"logits": jnp.zeros((*layout.batch_shape, layout.num_values))}

    def distribution(self, params: Params, event_ndim: int) -> dist.Distribution:
        return dist.CategoricalLogits(params["logits"], validate_args=False)
