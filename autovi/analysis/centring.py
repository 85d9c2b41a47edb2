"""Which sites could be in partly non-centred coordinates to some purpose: those whose location or scale is unknown.

Where a scale is small, the values that have it are squeezed together, and where a location moves, they move with it: q
would have to follow. In other coordinates (`distributions/coordinates.py`) it need not.
"""

from __future__ import annotations

from dataclasses import dataclass

from autovi.analysis.structure import Structure
from autovi.model.images import images
from autovi.model.traced import Traced

BEGINNING = "in partly non-centred coordinates, since"


@dataclass(frozen=True)
class Moves:
    """The latent sites on which the location and the scale of a site depend, in order of execution; the site itself
    where its steps in a scan depend on earlier ones. `of_image`: those of what the model makes of the site."""

    site: str
    location: tuple[str, ...] = ()
    scale: tuple[str, ...] = ()
    of_image: bool = False

    @property
    def what(self) -> str:
        """What moves: "location", "scale" or "both"."""
        return "both" if self.location and self.scale else ("location" if self.location else "scale")

    @property
    def sentence(self) -> str:
        """What a plan says of the site."""
        if self.of_image:
            parts = [("times a scale that depends on", self.scale), ("plus what depends on", self.location)]
            said = " ".join(f"{how} {self._told(names)}" for how, names in parts if names)
            return f"{BEGINNING} the model takes it {said}"
        if self.location == self.scale:
            return f"{BEGINNING} its location and scale depend on {self._told(self.location)}"
        parts = [("scale", self.scale), ("location", self.location)]
        known = [(what, self._told(names)) for what, names in parts if names]
        rest = "".join(f" and its {what} on {names}" for what, names in known[1:])
        return f"{BEGINNING} its {known[0][0]} depends on {known[0][1]}{rest}"

    def _told(self, names: tuple[str, ...]) -> str:
        told = ["its own earlier values" if n == self.site else repr(n) for n in names]
        return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"


def candidates(traced: Traced, structure: Structure) -> dict[str, Moves]:
    """The latent sites with a location or a scale that depends on latent sites, none of these discrete, in order of
    execution; also those of which the model makes a value with such a location or scale. A value that follows a
    discrete site would jump with it, and so would all that depends on the value.

    Args:
        traced: a model without a guide function, no site of it in such coordinates yet.
        structure: its structure.
    """
    latents = traced.sites.latents
    above = lambda output: tuple(n for n in latents if n in structure.moved_by.get(output, ()))  # noqa: E731
    moves = [Moves(n, above(f"location:{n}"), above(f"spread:{n}")) for n in latents if n in traced.coordinates]
    found = {m.site: m for m in moves if m.location or m.scale} | _of_images(traced)
    smooth = lambda m: not any(latents[n].discrete for n in (*m.location, *m.scale))  # noqa: E731
    return {n: found[n] for n in latents if n in found and smooth(found[n])}


def _of_images(traced: Traced) -> dict[str, Moves]:
    graph, inputs = traced.graph, traced.graph.inputs
    reached = {n: graph.downstream([inputs[f"node:{n}"]]) for n in traced.sites.latents if f"node:{n}" in inputs}
    above = lambda operands: tuple(n for n, reach in reached.items() if reach & set(operands))  # noqa: E731
    return {n: Moves(n, above(i.shifts), above(i.factors), of_image=True) for n, i in images(traced).items()}
