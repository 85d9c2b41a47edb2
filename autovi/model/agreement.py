"""Do the value and the distribution of a site go together?"""

from __future__ import annotations

from math import prod

import numpy as np

from autovi.implicit.composite.supports import composition_fault
from autovi.model.execution import Record, SiteError
from autovi.model.places import Place, with_places


class ShapeError(SiteError):
    """Shapes that do not go together; the lengths of the data may explain it."""

    def __init__(self, said: str, place: Place | None):
        super().__init__(with_places(said, place))
        self.said, self.place = said, place


def check_site(record: Record) -> None:
    """Do value and distribution of a site agree in shape, and its density with its draws?

    Raises:
        SiteError: they do not; the message names the site, both shapes, the plates, and what would explain it.
    """
    assert record.fn is not None
    if (fault := _fault_of_shape(record)) is not None:
        raise ShapeError(f"site {record.name!r}: {fault}", record.place)
    if (fault := composition_fault(record.fn)) is not None:
        raise SiteError(with_places(f"site {record.name!r}: {fault}", record.place))


def _fault_of_shape(record: Record) -> str | None:
    assert record.fn is not None
    names = [f.name for f in record.frames]
    if twice := [n for n in names if names.count(n) > 1]:
        return f"plate {twice[0]!r} is entered inside of itself; enter it once, and give another plate another name"
    value, expected = np.shape(record.value), tuple(record.fn.shape())
    try:
        together = np.broadcast_shapes(value, expected)
    except ValueError:
        together = None
    # One number may stand for all elements; data that are repeated along a dimension are a mistake.
    repeated = record.observed and prod(value) > 1 and prod(value) != prod(expected) and together == expected
    if together is not None and together in (value, expected) and not repeated:
        return None
    frames = {f.name: f.size for f in record.frames}
    said = f"its value has shape {value}, its distribution {expected} (plates {frames}); expected the same. "
    apart = [d for d in range(-len(value), 0) if len(value) == len(expected) and value[d] != expected[d]]
    # The plate that alone keeps them apart: it has another size than the data.
    plate = next(
        (f for f in record.frames if apart == [f.dim - record.fn.event_dim] and f.size == expected[apart[0]]), None
    )
    if plate is not None and value[apart[0]] > 1:
        return (
            f"{said}The value has {value[apart[0]]} elements along plate {plate.name!r}, which has {plate.size}: give "
            "numpyro.plate the size of the data, and index data by what a subsampled plate yields"
        )
    return (
        f"{said}A missing or misplaced numpyro.plate, a missing [:, None], or data not indexed by a subsampled plate "
        "would explain it"
    )
