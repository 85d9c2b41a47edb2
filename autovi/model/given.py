"""What the graph holds of sites that a closed form may take: the parameters of their distributions, and their masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from autovi.distributions.registry import strip
from autovi.model.execution import Record, mask_of, plate_scale

# Class -> the names of its parameters.
GIVEN: dict[str, tuple[str, ...]] = {
    "BinomialLogits": ("logits", "total_count"),
    "BinomialProbs": ("probs", "total_count"),
    "Poisson": ("rate",),
}


def given_outputs(record: Record, sizes: Mapping[str, int]) -> dict[str, Any]:
    """The outputs "given:z:rate" and so on, of the site's batch shape, with "given:z:mask" where it has one.

    Nothing of a site of another class, of one with an event, and of one whose density is scaled otherwise than by its
    subsampled plates: under such a scale no closed form holds.
    """
    assert record.fn is not None
    base, shape = strip(record.fn), record.fn.batch_shape
    names, scale = GIVEN.get(type(base).__name__, ()), 1.0 if record.scale is None else record.scale
    plain = isinstance(scale, int | float) and abs(scale - plate_scale(record.frames, sizes)) < 1e-6 * scale
    if not names or record.fn.event_shape or not plain:
        return {}
    found = {f"given:{record.name}:{n}": jnp.broadcast_to(jnp.asarray(getattr(base, n)), shape) for n in names}
    mask = mask_of(record.fn)
    if mask is not None:
        found[f"given:{record.name}:mask"] = jnp.broadcast_to(jnp.asarray(mask), shape)
    return found
