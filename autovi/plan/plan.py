"""The plan: a value that says for every site what was chosen and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from autovi.analysis.centring import Moves
from autovi.elimination.group import Together
from autovi.estimators import Estimator
from autovi.estimators.base import Facts
from autovi.families import Family
from autovi.plan.choices import Choice
from autovi.plan.display import plan_html, plan_text


@dataclass(frozen=True)
class Block:
    """Sites with one distribution and one estimator. `family` None: the distribution is the guide function's.

    A `flat` block is a distribution over the concatenated unconstrained values of its sites, one `by_element` a
    distribution over those of each element of the plates that its sites share. It is drawn given the values of
    `parents`, flat blocks that stand before it. Behind a `map`, the family is that of v in u = loc + scale_tril v, and
    u are those values; loc and scale_tril are not trained. Where scale_tril is a diagonal, v may be stretched before
    along so many `directions`, which are not trained either.
    """

    name: str
    sites: tuple[str, ...]
    family: Family | None
    estimator: Estimator
    flat: bool = False
    by_element: bool = False
    parents: tuple[str, ...] = ()
    map: bool = False
    directions: int = 0

    @property
    def distribution(self) -> tuple[Any, ...]:
        """What q is, however its gradient is taken: all but the estimator."""
        own = self.name, self.sites, self.family, self.flat, self.by_element, self.parents
        return *own, self.map, self.directions


@dataclass(frozen=True)
class Plan:
    """What is fitted how. `blocks` are in the guide; `marginal` sites are summed out of the model instead; `ancestral`
    ones, which nothing else depends on, are drawn from it."""

    choices: tuple[Choice, ...]
    blocks: tuple[Block, ...]
    marginal: Mapping[str, Block] = field(default_factory=dict)
    guide: str = "auto"
    num_particles: int = 1
    notes: tuple[str, ...] = ()
    ancestral: tuple[str, ...] = ()
    # Discrete site -> those that it is independent of in q only.
    coupled: Mapping[str, list[str]] = field(default_factory=dict)
    # Site in partly non-centred coordinates -> what of it moves with which others.
    noncentred: Mapping[str, Moves] = field(default_factory=dict)
    # The sites on which the scale of such a site depends.
    scales: tuple[str, ...] = ()
    groups: tuple[Together, ...] = ()  # the sites that are summed out, by those that are summed out together
    rungs: tuple[str, ...] = ()  # of a fit: the way to its q
    # Site -> what was known of it when its estimator was chosen, a jump that could not be tested for counted as one.
    facts: Mapping[str, Facts] = field(default_factory=dict, compare=False, repr=False)

    def __getitem__(self, site: str) -> Choice:
        for choice in self.choices:
            if choice.site == site:
                return choice
        raise KeyError(f"no latent site is called {site!r}; the latent sites are {[c.site for c in self.choices]}")

    @cached_property
    def _by_name(self) -> dict[str, Block]:
        return {b.name: b for b in (*self.blocks, *self.marginal.values())}

    def block(self, node: str) -> Block:
        """The block of that name, in the guide or summed out."""
        return self._by_name[node]

    def estimator_of(self, node: str) -> Estimator:
        """The estimator of a block."""
        return self._by_name[node].estimator

    @property
    def biased(self) -> dict[str, str]:
        """Site -> its estimator, of the sites whose estimator is biased."""
        blocks = (*self.blocks, *self.marginal.values())
        return {site: b.estimator.name for b in blocks if b.estimator.biased for site in b.sites}

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON-ready values."""
        return {
            "guide": self.guide,
            "num_particles": self.num_particles,
            "notes": list(self.notes),
            "rungs": list(self.rungs),
            "sites": [c.to_dict() for c in self.choices],
        }

    def __str__(self) -> str:
        return plan_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return plan_html(self)
