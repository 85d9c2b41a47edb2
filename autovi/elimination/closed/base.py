"""What a closed form is: sites that leave the guide because the integral over them is known by a formula.

A form says of which sites it may be (`offers`), finds them in the structure of a program (`find`), and makes of them a
`Closed`, which has the log of the integral and draws the sites given all else. One file has one form; `FORMS` in
`autovi/elimination/closed/__init__.py` lists them, the first that fits being taken.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import jax

from autovi.analysis.structure import Structure
from autovi.elimination.factors import Factor
from autovi.elimination.group import Together
from autovi.model.sites import Site
from autovi.model.traced import Traced


class Seen(Protocol):
    """A particle as a form sees it."""

    def has(self, output: str) -> bool:
        """Does the graph have this output?"""

    def outputs(self, names: Iterable[str]) -> dict[str, Any]:
        """Outputs of the graph, by name."""

    def shape(self, site: str) -> tuple[int, ...]:
        """The shape of a site: a posterior draw has every plate at its full size."""

    def terms(self, names: Iterable[str], values: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Cost terms, scaled and masked, with some sites (or their values some steps before, "x@1") set to other
        values, each of the site's shape."""


@dataclass(frozen=True)
class Closed(Together, ABC):
    """Sites that are summed out in closed form."""

    @property
    @abstractmethod
    def said(self) -> str:
        """The formula, in words, for the plan: after "summed out in closed form: "."""

    @abstractmethod
    def log_sums(self, seen: Seen) -> list[Factor]:
        """The log of the integral over the sites of all their terms, scaled: by axes of elements."""

    def probabilities(self, seen: Seen) -> dict[str, jax.Array]:
        """Of finite sites the probabilities of their values given all else `[values, *shape]`; else none."""
        return {}

    @abstractmethod
    def drawn(self, rng_key: jax.Array, seen: Seen) -> dict[str, jax.Array]:
        """A joint draw of the sites given all else, each of its shape."""

    @abstractmethod
    def most_likely(self, seen: Seen) -> dict[str, jax.Array]:
        """The most likely values of the sites given all else, each of its shape."""


@dataclass(frozen=True)
class Where:
    """A program in which forms are looked for. `unfelt` are terms that add up to one whatever the sites are, `scales`
    the plate scale of every latent site."""

    traced: Traced
    sites: Mapping[str, Site]
    structure: Structure
    scales: Mapping[str, float]
    unfelt: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Found:
    """The closed forms that were found, and why other sites have none."""

    closed: tuple[Closed, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)


class Form(ABC):
    """A kind of closed form."""

    on_request: ClassVar[bool]  # taken only where it is asked for

    @classmethod
    @abstractmethod
    def offers(cls, site: Site) -> bool:
        """May a site of this kind have the form?"""

    @classmethod
    @abstractmethod
    def find(cls, names: Collection[str], where: Where) -> Found:
        """The closed forms of these sites, which the form offers."""
