"""What the graph holds of a masked latent site: its mask, a draw without it, and of a finite site its density without.

A mask sets the log density of its own site to zero, nothing else: where something else feels an element, it is a latent
value with a flat prior. Where nothing does, its posterior is its prior, by convention the one without the mask.
"""

from __future__ import annotations

from contextlib import suppress

import jax
import jax.numpy as jnp

from autovi.distributions.densities import log_density
from autovi.distributions.supports import support_values
from autovi.model.execution import Record, mask_of, site_key, unmasked


def masked_outputs(record: Record, rng_key: jax.Array) -> dict[str, jax.Array]:
    """The outputs "mask:z", of the site's batch shape, "prior:z", where its distribution can be drawn from, and
    "unmasked:z", where its support can be listed; of an observed site inside a scan the mask alone."""
    mask = mask_of(record.fn)
    if mask is None or (record.observed and not record.from_scan):
        return {}
    assert record.fn is not None
    name = record.name
    out = {f"mask:{name}": jnp.broadcast_to(jnp.asarray(mask), record.fn.batch_shape)}
    if record.observed:
        return out
    with suppress(NotImplementedError):  # a prior without a sampler, such as ImproperUniform
        out[f"prior:{name}"] = unmasked(record.fn).sample(site_key(rng_key, f"prior:{name}"))
    if support_values(unmasked(record.fn)) is not None:
        out[f"unmasked:{name}"] = log_density(unmasked(record.fn), record.value)
    return out
