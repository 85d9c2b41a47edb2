"""A model run once on numbers, to see what is wrong with them: after a start that failed, for its message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from autovi.model.execution import Record, execute, mask_of
from autovi.model.inputs import Inputs
from autovi.model.parameters import wrong_parameters
from autovi.model.places import with_places
from autovi.model.sites import feasible


def run_at_origin(model: Callable, inputs: Inputs, arrays: Mapping[str, Any], lengths: Mapping[str, int]) -> Trial:
    """The sites where the fit starts: latent ones at the origin of the unconstrained scale, discrete ones at a value of
    their support."""
    args, kwargs = inputs.rebuild(dict(arrays))
    indices = {name: jnp.arange(length) for name, length in lengths.items()}
    with suppress(Exception), numpyro.validation_enabled(False):  # what it raises was said when it was traced
        return Trial(execute(model, args, kwargs, jax.random.key(0), latent=feasible, indices=indices))
    return Trial({})


class Trial:
    """The sites of such a run, by name; none if it failed."""

    def __init__(self, records: Mapping[str, Record]):
        self.records = {n: r for n, r in records.items() if r.fn is not None}

    def with_line(self, message: str, site: str) -> str:
        """A message that ends with the user's line that makes a site."""
        return with_places(message, self.records[site].place) if site in self.records else message

    def wrong_parameters(self, site: str) -> str | None:
        """What is wrong with the parameters of a site's distribution, if anything is."""
        fn = self.records[site].fn if site in self.records else None
        return None if fn is None else wrong_parameters(fn)

    def outside(self, site: str) -> str | None:
        """The first value of a site outside of its support, "-1 at (2,)"."""
        record = self.records.get(site)
        if record is None or record.fn is None:
            return None
        value, mask = np.asarray(record.value), mask_of(record.fn)
        outside = ~np.asarray(record.fn.support(record.value)) & (True if mask is None else np.asarray(mask))
        if not outside.any():
            return None
        where = tuple(int(i) for i in np.argwhere(outside)[0])
        one = np.broadcast_to(value, outside.shape + value.shape[value.ndim - record.fn.event_dim :])[where]
        shown = f"{one:.6g}" if np.ndim(one) == 0 else np.array2string(one, precision=4, threshold=6)
        return f"{shown} at {where}" if where else shown
