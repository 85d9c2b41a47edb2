"""What the graph holds of a site in partly non-centred coordinates, and of one that could be in such."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions.transforms import IdentityTransform, Transform

from autovi.distributions.coordinates import Coordinates, PseudoData
from autovi.distributions.location_scale import LOCATION_SCALE, coordinates_of, standardized_log_density
from autovi.distributions.registry import strip
from autovi.model.execution import Record, SiteError
from autovi.model.places import with_places
from autovi.model.sites import Sites, sum_rightmost
from autovi.model.traced import weighted

PARTS = ("location", "spread")  # what coordinates are made of, each an output of the graph


def coordinates_at(record: Record, asked: bool) -> Coordinates | None:
    """The coordinates of a latent site; None where it has none.

    Raises:
        SiteError: it has none, and they were asked for.
    """
    assert record.fn is not None
    coordinates = coordinates_of(record.fn)
    if coordinates is None and asked:
        got = type(strip(record.fn)).__name__
        raise SiteError(
            with_places(
                f"site {record.name!r}: it has no partly non-centred coordinates: expected one of "
                f"{', '.join(LOCATION_SCALE)}, got {got}; leave it out of noncentred=",
                record.place,
            )
        )
    return coordinates


def part_outputs(site: str, coordinates: Coordinates | None) -> dict[str, Any]:
    """The parameters of the coordinates as outputs of the graph."""
    return {name: jnp.asarray(getattr(coordinates, part)) for part, name in _outputs(site, coordinates).items()}


def named(site: str, coordinates: Coordinates) -> Coordinates:
    """The coordinates with the names of these outputs in the place of their arrays."""
    return replace(coordinates, **_outputs(site, coordinates))  # type: ignore[type-var]


def _outputs(site: str, coordinates: Coordinates | None) -> dict[str, str]:
    return {part: f"{part}:{site}" for part in PARTS if getattr(coordinates, part, None) is not None}


@dataclass(frozen=True)
class NodeOf:
    """A latent site that has a node: how its value is made of it. `at` is None of a site in its own coordinates,
    and `ndim` the number of the site's batch dimensions."""

    record: Record
    transform: Transform
    coordinates: Coordinates | None
    node: jax.Array
    at: PseudoData | None
    ndim: int

    def outputs(self, scale: float) -> dict[str, jax.Array]:
        """The log Jacobian by batch element, with the `scale` of the site's plates, as "jacobian:z"; and "standard:z",
        what "p:z" is, from the node."""
        name, out = self.record.name, {}
        plain, log_dets = self.node, []
        if self.coordinates is not None and self.at is not None:
            density = standardized_log_density(self.record.fn, self.node, self.at)
            if density is not None:
                out[f"standard:{name}"] = density if self.record.scale is None else self.record.scale * density
            log_dets.append(sum_rightmost(self.coordinates.log_det(self.at), self.ndim))
            plain = self.coordinates.value(self.node, self.at)
        if not isinstance(self.transform, IdentityTransform):
            log_det = self.transform.log_abs_det_jacobian(plain, self.record.value)
            log_dets.append(sum_rightmost(log_det, self.ndim))
        if log_dets:
            # The Jacobian belongs to q's change of variables: handlers.scale does not scale it.
            out[f"jacobian:{name}"] = weighted(reduce(add, log_dets), scale, None)
        return out


def check_noncentred(asked: Collection[str], sites: Sites, guide: Any) -> None:
    """Can sites of these names be in partly non-centred coordinates?

    Raises:
        SiteError: there is no latent site of a name, or a guide function, which draws the values themselves.
    """
    if asked and guide is not None:
        raise SiteError("noncentred: expected a model without a guide function, which draws the values themselves")
    for name in asked:
        if name not in sites.latents:
            raise SiteError(
                f"noncentred: no latent site is called {name!r}; the latent sites are {list(sites.latents)}"
            )
