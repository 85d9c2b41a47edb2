"""`reparameterizations`: what autovi knows of draws of a distribution that move with its parameters."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpyro.distributions import Distribution

from autovi.distributions import registry
from autovi.distributions.location_scale import LOCATION_SCALE, coordinates_of
from autovi.distributions.supports import support_values
from autovi.distributions.table import TABLE, Known
from autovi.estimators import ESTIMATORS, Estimator
from autovi.estimators.base import Facts
from autovi.implicit.rule import routes
from autovi.plan.display import terminal_width, wrapped
from autovi.plan.facts import candidates

NUMERICAL = ("quadrature", "triangular")  # routes with an integral in them that is computed, or that of a part
CITED = re.compile(r'([A-Z][^.()"]*? \(\d{4}\), "[^"]+")')


@dataclass(frozen=True)
class Reparameterization:
    """A way in which draws of a distribution move with its parameters, and what it claims.

    Attributes:
        name: the estimator that is built on it, or "location_scale", the coordinates in which a fit draws normal sites.
        routes: parameter -> how a draw is differentiated in it, as `autovi.implicit.routes` says it; None: it has no
            derivative there.
        exact: are all derivatives in closed form, or by JAX? Else some are integrals, computed to rounding error.
        right_for: the costs for which gradients through it are unbiased.
        cost: of one gradient, beside the draw.
        reserved: why it is not taken unasked; None where it may be.
        source: papers.
    """

    name: str
    routes: Mapping[str, str | None]
    exact: bool
    right_for: str
    cost: str
    reserved: str | None
    source: str

    def __str__(self) -> str:
        ways = ", ".join(f"{p}: {way or 'no derivative'}" for p, way in self.routes.items()) or "no parameters"
        exact = "exact" if self.exact else "by quadrature, to rounding"
        told = [f"{self.name} ({exact}) {ways}", f"right for {self.right_for}", self.cost]
        told += [f"only where asked for: {self.reserved}"] if self.reserved else []
        return "; ".join([*told, *([self.source] if self.source else [])])


class Reparameterizations(tuple[Reparameterization, ...]):
    """The reparameterizations of a distribution, the one that is preferred first; empty where there are none.

    `distribution` is its class, `note` what else is known of it, `others` the estimators that are right for it besides:
    name -> "unbiased" or "biased". Which of these a model admits depends on the model.
    """

    distribution: str
    note: str
    others: Mapping[str, str]

    def __new__(
        cls, found: Any = (), distribution: str = "", note: str = "", others: Mapping[str, str] | None = None
    ) -> Reparameterizations:
        """A tuple of `found`."""
        made = super().__new__(cls, found)
        made.distribution, made.note, made.others = distribution, note, dict(others or {})
        return made

    def __getitem__(self, which: Any) -> Any:
        """By place, or by name."""
        if not isinstance(which, str):
            return super().__getitem__(which)
        for one in self:
            if one.name == which:
                return one
        raise KeyError(f"{self.distribution} has no reparameterization {which!r}, but {[one.name for one in self]}")

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready values."""
        found = [{**vars(one), "routes": dict(one.routes)} for one in self]
        return {"distribution": self.distribution, "found": found, "note": self.note, "others": dict(self.others)}

    def __str__(self) -> str:
        width, lines = (
            terminal_width(),
            [f"{self.distribution}: {'' if self else 'no reparameterization'}".rstrip(": ")],
        )
        lines += [line for one in self for line in _item(str(one), width)]
        unbiased, biased = ([n for n, what in self.others.items() if what == w] for w in ("unbiased", "biased"))
        told = {"note": self.note, "besides": ", ".join(unbiased), "biased": ", ".join(biased)}
        return "\n".join(
            [*lines, *(line for n, said in told.items() if said for line in wrapped(f"{n}: {said}", width))]
        )

    __repr__ = __str__


def _item(text: str, width: int) -> list[str]:
    first, *rest = wrapped(text, width - 4, "    ")
    return [f"  - {first.lstrip()}", *rest]


def reparameterizations(distribution: Distribution | type[Distribution]) -> Reparameterizations:
    """Which reparameterizations autovi knows for a distribution, and what each claims.

    A draw is z = t(eps; theta) with a gradient in theta: explicit, by the derivative of NumPyro's own map of noise;
    implicit, dz/dtheta = -(dS/dz)^-1 dS/dtheta at a fixed value of a standardization S(z; theta) (Figurnov, Mohamed and
    Mnih, 2018); or through noise whose own density still depends on theta, with a score term that makes up for it
    (`rsvi`, `g_rep`). All is read from the tables that a fit chooses by.

    Args:
        distribution: a NumPyro distribution, or a class of NumPyro's. What is known of wrappers, mixtures, truncations
            and transformed distributions depends on what they hold, so that an instance is needed.

    Returns:
        A tuple of `Reparameterization`s that prints as a list; its `others` are the estimators that need none.

    Raises:
        TypeError: no distribution.
        ValueError: a class that says nothing without what it holds.

    Example:
        >>> autovi.reparameterizations(dist.Gamma(2.0, 1.0))["implicit"].routes
        {'concentration': 'quadrature', 'rate': 'explicit'}
    """
    if isinstance(distribution, type) and issubclass(distribution, Distribution):
        return _of_class(distribution)
    if not isinstance(distribution, Distribution):
        raise TypeError(f"distribution: expected a NumPyro distribution or its class, got {distribution!r}")
    row, inside = registry.lookup(distribution), registry.strip(distribution)
    values = support_values(distribution) if row.discrete and not distribution.event_shape else None
    centred = coordinates_of(distribution)
    held = [] if centred is None else [getattr(centred, n, None) for n in ("location", "spread")]
    moved = [n for n in inside.arg_constraints if any(vars(inside).get(n) is x for x in held if x is not None)]
    count = None if values is None else len(values)
    return _found(type(inside).__name__, row, count, routes(distribution), None if centred is None else moved)


def _of_class(cls: type[Distribution]) -> Reparameterizations:
    name = cls.__name__
    if name not in TABLE or not cls.__module__.startswith("numpyro."):
        raise ValueError(f"distribution: {name} is not NumPyro's own; pass an instance")
    if registry.depends_on_instance(name):
        raise ValueError(f"distribution: what is known of {name} depends on what it holds; pass an instance")
    row = TABLE[name]
    missing = row.not_pathwise if row.pathwise else tuple(cls.arg_constraints)
    names = dict.fromkeys([*cls.arg_constraints, *row.implicit])
    ways = {n: None if n in missing else row.implicit.get(n, "explicit") for n in names}
    return _found(name, row, 2 if row.enumerable else None, ways, None)


def _found(
    name: str, row: Known, num_values: int | None, ways: Mapping[str, str | None], moved: list[str] | None
) -> Reparameterizations:
    facts = Facts(row, num_values=num_values, distribution=name)
    kinds: dict[str, Estimator] = {n: cls() for n, cls in ESTIMATORS.items()}
    right = {
        n: e for n, e in kinds.items() if e.refuses(facts) is None and (e.on_request or n in candidates(None, facts))
    }
    maps = [n for n in candidates(None, facts) if n in right and right[n].pathwise]
    # What is taken unasked first.
    found = [_of_estimator(right[n], row, ways) for n in sorted(maps, key=lambda n: right[n].corrected)]
    if moved is not None or (not row.discrete and name in LOCATION_SCALE):
        standard = dict.fromkeys(moved, "explicit") if moved else {n: w for n, w in ways.items() if w == "explicit"}
        costs = "fits of the engine's own guide, whose coordinates it is (partly non-centred)"
        found.append(Reparameterization("location_scale", standard, True, costs, "no gradient of its own", None, ""))
    others = {n: "biased" if e.biased else "unbiased" for n, e in right.items() if n not in maps}
    note = "; ".join(filter(None, [row.note, _moving(row)]))
    return Reparameterizations(found, name, note, others)


def _of_estimator(estimator: Estimator, row: Known, ways: Mapping[str, str | None]) -> Reparameterization:
    exact = not any(way in NUMERICAL for way in ways.values()) or estimator.corrected
    if estimator.corrected:  # its own map, whose noise is corrected by a score
        ways = dict.fromkeys(ways, "explicit")
    costs = "costs continuous in the draw" + (", and periodic in its angles" if row.periodic else "")
    one = "one evaluation of the cost and of its derivative" + (", and a score term" if estimator.corrected else "")
    cited = " ".join((inspect.getdoc(type(estimator)) or "").split())
    source = "; ".join(CITED.findall(cited))
    asked = "it has more variance than the other" if estimator.corrected else row.reserved
    return Reparameterization(estimator.name, dict(ways), exact, costs, one, asked, source)


def _moving(row: Known) -> str:
    if not row.moving_support:
        return ""
    return f"its support moves with {', '.join(row.moving_support)}, which the score function does not see"
