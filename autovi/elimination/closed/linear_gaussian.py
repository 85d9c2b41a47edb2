"""Normal sites whose terms are quadratic in them: linear Gaussian models, integrated out exactly.

The log of all their terms together is a quadratic, so that the integral is Gaussian: the marginal likelihood of the
Kalman filter, of a hierarchy of normal means, of regression weights. That a term is a quadratic is read from the graph
(`analysis/degrees.py`); its coefficients are its first two derivatives, which are exact at any point. They are taken at
the sites' posterior means, where what is added up is smallest: far from there float32 would lose its digits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, prod
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from autovi.analysis.degrees import degrees
from autovi.elimination.choosing import subsampled_below
from autovi.elimination.closed.base import Closed, Form, Found, Seen, Where
from autovi.elimination.eliminate import Intractable
from autovi.elimination.factors import Factor
from autovi.elimination.group import Mixed, Placed, connected, felt_by, network_of
from autovi.elimination.network import Network
from autovi.elimination.quadratics import Integrating, Quadratic
from autovi.elimination.steps import integrated_out
from autovi.model.lags import lagged
from autovi.model.sites import Site
from autovi.numbers import how_many

NORMAL = frozenset("GaussianRandomWalk LowRankMultivariateNormal MultivariateNormal Normal".split())
BUDGET = 4_000_000  # numbers that the largest precision of one particle may have
MAX_WIDTH = 200  # numbers that one term may depend on: its second derivatives are taken in pairs of them


class LinearGaussian(Form):
    """The normal sites of which all terms are quadratics, those with a square in them densities of normal sites."""

    on_request = True

    @classmethod
    def offers(cls, site: Site) -> bool:
        return site.distribution in NORMAL and not site.discrete and site.unconstrained_shape == site.shape

    @classmethod
    def find(cls, names: Collection[str], where: Where) -> Found:
        left = {n: why for n in names if (why := _alone(n, where)) is not None}
        closed: list[Closed] = []
        waiting = connected([n for n in names if n not in left], where.structure)
        while waiting:
            members, *waiting = waiting
            made = _not_quadratic(members, where) or _made(members, where)
            if isinstance(made, Quadratics):
                closed.append(made)
                continue
            left |= made if isinstance(made, dict) else dict.fromkeys(members, made)
            waiting = [*connected([n for n in members if n not in left], where.structure), *waiting]
        return Found(tuple(closed), left)


def _alone(name: str, where: Where) -> str | None:
    """Why a site has no closed form, whatever others have."""
    if f"mask:{name}" in where.traced.graph.outputs:
        return "its prior is masked, and a flat prior need not have an integral"
    return subsampled_below(name, where.structure)


def _variables(name: str, where: Where) -> list[Any]:
    lags = where.traced.lags.get(name, 0)
    return [where.traced.graph.inputs[f"node:{lagged(name, k)}"] for k in range(lags + 1)]


def _not_quadratic(members: Collection[str], where: Where) -> dict[str, str]:
    """The sites at fault where a term is no quadratic in all of them together, and why."""
    graph = where.traced.graph
    together = [v for n in members for v in _variables(n, where)]
    terms = sorted(set().union(*(felt_by(where.structure, n) for n in members)) - where.unfelt)
    found = degrees(graph, terms, together)
    for term, degree in found.items():
        site = where.sites[term.removeprefix("p:")]
        if degree <= (2 if site.distribution in NORMAL else 1):
            continue
        own = {n: degrees(graph, [term], _variables(n, where))[term] for n in members}
        worst = max(own.values())
        guilty = [n for n in members if own[n] == worst]
        return dict.fromkeys(guilty, f"the term {term!r} ({site.distribution}) is {_called(degree, site)}")
    return {}


def _called(degree: float, site: Site) -> str:
    if degree == inf:
        return "no quadratic in it, as far as can be read from the model: it does not depend on it linearly"
    if degree > 2:
        return f"of degree {degree:.0f} in it, so that what depends on it does not do so linearly"
    return "quadratic in it, and no normal density"


def _made(members: Sequence[str], where: Where) -> Quadratics | str:
    """The closed form of sites whose terms are quadratics; or why there is none."""
    whole: set[str] = set()
    while True:
        try:
            return _with_whole(members, where, whole)
        except Mixed as error:
            # Elements that a term mixes are one element of several numbers.
            if error.site in whole or where.traced.lags.get(error.site, 0) or where.sites[error.site].subsampled:
                return str(error)
            whole.add(error.site)
        except Intractable as error:
            more = {n for n in members if not where.traced.lags.get(n, 0)} - whole
            if not more or any(where.sites[n].subsampled for n in more):
                return f"integrated out together, {error}"
            whole |= more


def _with_whole(members: Sequence[str], where: Where, whole: Collection[str]) -> Quadratics | str:
    samples, structure = where.sites, where.structure
    shapes = {s: samples[s].shape if s in whole else samples[s].event_shape for s in members}
    widths = {s: prod(shapes[s]) for s in members}
    network, terms, dims = network_of(members, samples, structure, widths, whole)
    terms = {t: p for t, p in terms.items() if t not in where.unfelt}
    for term, placed in terms.items():
        if (width := sum(network.sizes[v] for v in placed.variables)) > MAX_WIDTH:
            return f"the term {term!r} depends on {width} numbers at once, more than {MAX_WIDTH}"
    scale = where.scales.get(members[0], 1.0)
    made = Quadratics(tuple(members), terms, dims, scale, network)
    largest = made.largest({t: structure.shapes[t] for t in terms})
    if largest > BUDGET:
        return f"it would take a matrix of {how_many(largest, 'number')} for each particle"
    return replace(made, numbers=largest)


@dataclass(frozen=True)
class Quadratics(Closed):
    """Sites whose terms are quadratics in them; the largest matrix has so many `numbers`."""

    network: Network
    numbers: int = 0

    @property
    def said(self) -> str:
        chained = "step by step" if self.network.lags else ""
        together = f"{how_many(len(self.sites), 'site')} together" if len(self.sites) > 1 else ""
        how = ", ".join(filter(None, [together, chained]))
        held = f"the largest matrix has {how_many(self.numbers, 'number')}"
        return f"all that depends on it is linear in it and normal{f', {how}' if how else ''} ({held})"

    def resized(self, shapes: Mapping[str, tuple[int, ...]], scale: float) -> Self:
        lengths = self.lengths(shapes)
        elements = {s: prod(lengths[d] for d in self.elements_of(s)) for s in self.sites}
        widths = {v: prod(shapes[s]) // elements[s] for v, s in self.network.variables.items()}
        network = replace(self.network, sizes={**self.network.sizes, **lengths, **widths})
        return replace(self, scale=scale, network=network)

    # --- the integral -----------------------------------------------------------------------------------------------

    def log_sums(self, seen: Seen) -> list[Factor]:
        at = jax.lax.stop_gradient(self._means(seen))
        found = integrated_out(self.network, self._factors(seen, at), Integrating())
        return [Factor(self.scale * f.constant, f.elements, f.sources) for f in found]

    def drawn(self, rng_key: jax.Array, seen: Seen) -> dict[str, jax.Array]:
        at = self._means(seen)
        return self._shaped(seen, self._from(seen, at, Integrating(rng_key)))

    def most_likely(self, seen: Seen) -> dict[str, jax.Array]:
        return self._shaped(seen, self._from(seen, self._means(seen), Integrating()))

    def _means(self, seen: Seen) -> dict[str, jax.Array]:
        """The posterior means `[*elements, width]`, from the origin, so with the digits that are left there."""
        return self._from(seen, {s: jnp.zeros(self._flat(seen, s)) for s in self.sites}, Integrating())

    def _from(self, seen: Seen, at: Mapping[str, jax.Array], how: Integrating) -> dict[str, jax.Array]:
        """The sites' means, or a draw of them where `how` says so: the gradient of the log integral in their shifts."""
        factors = self._factors(seen, at)

        def total(shifts: Mapping[str, jax.Array]) -> jax.Array:
            found = integrated_out(self.network, [*factors, *(self._shift(s, x) for s, x in shifts.items())], how)
            return jnp.asarray(sum(jnp.sum(f.constant) for f in found))

        moved = jax.grad(total)({s: jnp.zeros_like(x) for s, x in at.items()})
        return {s: at[s] + moved[s] for s in at}

    def largest(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """How many numbers the largest matrix will have. Nothing is computed.

        Raises:
            Intractable: elements are coupled through variables outside.
        """
        how = Integrating()

        def run() -> Any:
            factors = []
            for t, p in self.terms.items():
                shape = [n for n, d in zip(shapes[t], p.dims, strict=True) if d is not None]
                n = sum(self.network.sizes[v] for v in p.variables)
                arrays = (jnp.zeros((*shape, n, n)), jnp.zeros((*shape, n)), jnp.zeros(shape))
                factors.append(self._factor(t, *arrays))
            return [f.constant for f in integrated_out(self.network, factors, how)]

        jax.eval_shape(run)
        return max(how.sizes)

    # --- the factors ------------------------------------------------------------------------------------------------

    def _factors(self, seen: Seen, at: Mapping[str, jax.Array]) -> list[Quadratic]:
        """The terms as quadratics in how far the sites are from `at`."""
        together: dict[tuple[str, ...], list[str]] = {}
        for term, placed in self.terms.items():
            together.setdefault(placed.variables, []).append(term)
        return [f for variables, names in together.items() for f in self._expanded(seen, at, variables, sorted(names))]

    def _expanded(
        self, seen: Seen, at: Mapping[str, jax.Array], variables: tuple[str, ...], names: list[str]
    ) -> list[Quadratic]:
        widths = [self.network.sizes[v] for v in variables]

        def terms(moved: jax.Array) -> dict[str, jax.Array]:
            parts = jnp.split(moved, np.cumsum(widths)[:-1])
            values = {v: self._value(seen, v, at, x) for v, x in zip(variables, parts, strict=True)}
            return {t: self._by_elements(x, self.terms[t]) for t, x in seen.terms(names, values).items()}

        origin = jnp.zeros(sum(widths))
        scalar = all(d is None for t in names for d in self.terms[t].dims)
        slope = jax.jacrev(terms) if scalar and len(origin) > 1 else jax.jacfwd(terms)
        values, slopes, curvatures = terms(origin), slope(origin), jax.jacfwd(slope)(origin)
        return [self._factor(t, -curvatures[t], slopes[t], values[t]) for t in names]

    def _factor(self, term: str, precision: jax.Array, shift: jax.Array, constant: jax.Array) -> Quadratic:
        placed = self.terms[term]
        elements = tuple(d for d in placed.dims if d is not None)
        widths = tuple(self.network.sizes[v] for v in placed.variables)
        return Quadratic(precision, shift, constant, elements, placed.variables, widths, frozenset({term}))

    def _by_elements(self, term: jax.Array, placed: Placed) -> jax.Array:
        """A term added up over what is no axis of elements, without its plate scale."""
        summed = jnp.sum(term, tuple(e for e, d in enumerate(placed.dims) if d is None))
        return summed if self.scale == 1.0 else summed / self.scale

    def _shift(self, site: str, shift: jax.Array) -> Quadratic:
        """exp of the shift times the site, `[*elements, width]`."""
        n, front = shift.shape[-1], shift.shape[:-1]
        zeros = jnp.zeros((*front, n, n), shift.dtype)
        return Quadratic(zeros, shift, jnp.zeros(front, shift.dtype), self.elements_of(site), (site,), (n,))

    # --- values -----------------------------------------------------------------------------------------------------

    def _flat(self, seen: Seen, site: str) -> tuple[int, ...]:
        elements = [n for n, d in zip(seen.shape(site), self.dims[site], strict=False) if d is not None]
        return (*elements, self.network.sizes[site])

    def _value(self, seen: Seen, variable: str, at: Mapping[str, jax.Array], moved: jax.Array) -> jax.Array:
        """A site, or its values some steps before, moved from `at` at every element alike."""
        site = self.network.variables[variable]
        lag = next(k for k in range(self.network.lags.get(site, 0) + 1) if lagged(site, k) == variable)
        there = at[site]
        if lag:
            axis = self.elements_of(site).index(self.network.time[site])
            there = jnp.roll(there, -lag if site in self.network.backward else lag, axis)
        return (there + moved).reshape(seen.shape(site))

    def _shaped(self, seen: Seen, values: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return {s: x.reshape(seen.shape(s)) for s, x in values.items()}
