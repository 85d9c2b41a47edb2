"""Names and labels of the axes of what a fit gives back: dims and coords, as ArviZ takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from autovi.model.labels import Labels, plate_coords
from autovi.model.sites import Site, Sites


@dataclass(frozen=True)
class Axes:
    """Dims and coords of a model's sites, and of the data arrays beside them.

    Args:
        sites: those of the model with every plate at full size.
        labels: argument -> labels of its axes.
        constant: argument -> array, of the data that are no observations.
    """

    sites: Sites
    labels: Mapping[str, Labels]
    constant: Mapping[str, np.ndarray]

    def named(self) -> dict[str, Any]:
        """Dims by variable and coords by dim."""
        dims = self._dims()
        return {"dims": dims, "coords": {**self._column_coords(dims), **self._coords}}

    def variable(self, argument: str) -> str:
        """The name of a data array in ArviZ: names of sites and plates are theirs alone."""
        taken = {*self.sites.samples, *self.sites.deterministics, *self.sites.plates}
        return self.variable(f"{argument}_data") if argument in taken else argument

    @cached_property
    def _plate_sizes(self) -> dict[str, int]:
        return {p.name: p.size for p in self.sites.plates.values()}

    @cached_property
    def _coords(self) -> dict[str, Any]:
        return plate_coords(self._plate_sizes, self.labels)

    def _dims(self) -> dict[str, list[str | None]]:
        """Names of the leading axes of every variable; those after them get ArviZ's own."""
        dims = {name: _plate_names(site) for name, site in self.sites.samples.items()}
        dims |= {name: list(plates) for name, plates in self.sites.deterministics.items()}
        dims |= {self.variable(n): self._constant_dims(n, array) for n, array in self.constant.items()}
        return dims

    def _constant_dims(self, name: str, array: np.ndarray) -> list[str | None]:
        """The plates among a data array's axes: those that its labels name, else the only one of that length."""
        labels, sizes = self.labels.get(name), self._plate_sizes
        names: list[str | None] = []
        for axis, size in enumerate(np.shape(array)):
            dim, values = (None, None) if labels is None else (labels.dims[axis], labels.coords[axis])
            fitting = [plate for plate in sizes if sizes[plate] == size]
            plate = dim if dim is not None else fitting[0] if len(fitting) == 1 else None
            # The columns of a table are no plate, though there be as many.
            foreign = plate not in fitting or (values is not None and not _same(values, self._coords.get(plate)))
            names.append(None if foreign or plate in names else plate)
        return names

    def _column_coords(self, dims: Mapping[str, list[str | None]]) -> dict[str, Any]:
        """Labels of the axes of data arrays that are no plates."""
        labels = {self.variable(n): self.labels[n] for n in self.constant if n in self.labels}
        return {
            f"{n}_dim_{axis}": values
            for n, label in labels.items()
            for axis, values in enumerate(label.coords)
            if values is not None and dims[n][axis] is None
        }


def _plate_names(site: Site) -> list[str | None]:
    names: list[str | None] = [None] * len(site.batch_shape)
    for plate in site.plates:
        if -plate.dim <= len(names) and site.batch_shape[plate.dim] == plate.size:
            names[plate.dim] = plate.name
    return names


def _same(values: np.ndarray, other: np.ndarray | None) -> bool:
    return other is not None and np.array_equal(values, other)
