"""A latent count with a Poisson prior, of which a binomial part is observed.

With N ~ Poisson(rate) and y ~ Binomial(N, p), thinning gives y ~ Poisson(rate p), and independently of it N - y ~
Poisson(rate (1 - p)). Where the prior of N is masked, so that it is flat, the sum over N is 1 / p, and N - y is
negative binomial; where y is masked the sum is 1, and N has its prior.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from numpyro.distributions import Poisson

from autovi.distributions.densities import log_density
from autovi.elimination.choosing import subsampled_below
from autovi.elimination.closed.base import Closed, Form, Found, Seen, Where
from autovi.elimination.factors import Factor
from autovi.elimination.group import Mixed, felt_by, network_of
from autovi.model.graph import Graph

BINOMIALS = {"BinomialProbs": "probs", "BinomialLogits": "logits"}
MOVING = frozenset("broadcast_in_dim reshape squeeze expand_dims copy convert_element_type".split())


class ThinnedPoisson(Form):
    """The counts whose total is that of one observed binomial, and which nothing else feels."""

    on_request = False

    @classmethod
    def offers(cls, site: Any) -> bool:
        return site.distribution == "Poisson" and not site.event_shape

    @classmethod
    def find(cls, names: Collection[str], where: Where) -> Found:
        found = {n: _of(n, where) for n in names}
        closed = tuple(c for c in found.values() if isinstance(c, Closed))
        return Found(closed, {n: why for n, why in found.items() if isinstance(why, str)})


def _of(name: str, where: Where) -> ThinnedCount | str:
    """The closed form of a count, or why it has none."""
    graph, samples = where.traced.graph, where.sites
    if where.structure.lags.get(name, 0 if not samples[name].from_scan else None) != 0:
        return "it is drawn in a scan whose later steps depend on it"
    if (why := subsampled_below(name, where.structure)) is not None:
        return why
    others = [t.removeprefix("p:") for t in sorted(felt_by(where.structure, name) - {f"p:{name}", *where.unfelt})]
    if len(others) != 1:
        what = f"several terms depend on it ({', '.join(map(repr, others))})" if others else "nothing depends on it"
        return f"{what}; the closed form is that of one observed binomial of which it is the total count"
    (observed,) = others
    site = samples[observed]
    parameter = BINOMIALS.get(site.distribution)
    if parameter is None or not site.observed:
        return f"{observed!r} ({site.distribution}), which depends on it, is no observed binomial"
    if f"given:{name}:rate" not in graph.outputs or f"given:{observed}:{parameter}" not in graph.outputs:
        return "its density, or that of its observation, is scaled otherwise than by a subsampled plate"
    node = graph.inputs[f"node:{name}"]
    if _traced_back(graph, graph.outputs[f"given:{observed}:total_count"]) is not node:
        return f"the total count of {observed!r} is made of it, and not it alone"
    moved = graph.downstream([node])
    if any(o in graph.outputs and _among(graph, o, moved) for o in _other_parameters(name, observed, parameter)):
        return f"{observed!r} depends on it otherwise than by its total count"
    try:
        _, terms, dims = network_of([name], samples, where.structure, {name: 1})
    except Mixed as error:
        return str(error)
    terms = {t: terms[t] for t in (f"p:{name}", f"p:{observed}")}
    shape = where.structure.shapes[f"p:{observed}"]
    if any(d is None and n > 1 for d, n in zip(terms[f"p:{observed}"].dims, shape, strict=True)):
        return f"each of its elements has several observations in {observed!r}"
    return ThinnedCount((name,), terms, dims, where.scales.get(name, 1.0), observed, parameter)


def _other_parameters(name: str, observed: str, parameter: str) -> list[str]:
    return [f"given:{name}:rate", f"given:{name}:mask", f"given:{observed}:{parameter}", f"given:{observed}:mask"]


def _among(graph: Graph, output: str, variables: Collection[Any]) -> bool:
    var = graph.outputs[output]
    return not isinstance(var, Literal) and var in variables


def _traced_back(graph: Graph, var: Any) -> Any:
    """The variable that holds the same numbers, before they were copied or cast."""
    while not isinstance(var, Literal) and (eqn := graph.maker(var)) is not None and eqn.primitive.name in MOVING:
        var = eqn.invars[0]
    return var


class _Numbers(NamedTuple):
    """By elements: the rate, log p and log(1 - p), the observation, and what is not masked (None: all)."""

    rate: jax.Array
    seen: jax.Array
    unseen: jax.Array
    value: jax.Array
    prior_on: Any
    observed_on: Any


@dataclass(frozen=True)
class ThinnedCount(Closed):
    """A count whose binomial part `observed` is known; `parameter` is what that is given."""

    observed: str
    parameter: str

    @property
    def said(self) -> str:
        return f"{self.observed!r} is Poisson of its rate thinned, and what was not seen is Poisson too"

    def log_sums(self, seen: Seen) -> list[Factor]:
        given = self._read(seen)
        observed = log_density(Poisson(given.rate * jnp.exp(given.seen)), given.value)
        if given.prior_on is not None:
            observed = jnp.where(given.prior_on, observed, -given.seen)
        if given.observed_on is not None:
            observed = jnp.where(given.observed_on, observed, 0.0)
        (name,) = self.sites
        return [Factor(self.scale * observed, self.elements_of(name), frozenset(self.terms))]

    def drawn(self, rng_key: jax.Array, seen: Seen) -> dict[str, jax.Array]:
        given = self._read(seen)
        flat_key, count_key = jax.random.split(rng_key)
        rate = given.rate * jnp.exp(given.unseen)
        if given.prior_on is not None:
            odds = jnp.exp(given.unseen - given.seen)
            rate = jnp.where(given.prior_on, rate, odds * jax.random.gamma(flat_key, given.value + 1.0, rate.shape))
        return self._placed(given, lambda rate: Poisson(rate).sample(count_key), rate)

    def most_likely(self, seen: Seen) -> dict[str, jax.Array]:
        given = self._read(seen)
        rate = given.rate * jnp.exp(given.unseen)
        if given.prior_on is not None:
            rate = jnp.where(given.prior_on, rate, jnp.exp(given.unseen - given.seen) * given.value)
        return self._placed(given, jnp.floor, rate)

    def _placed(self, given: _Numbers, count: Any, rate: jax.Array) -> dict[str, jax.Array]:
        """The site's value, from what makes a count of a rate: beside the observation, or where there is none alone."""
        (name,) = self.sites
        if given.observed_on is not None:
            rate = jnp.where(given.observed_on, rate, given.rate)
        rest = count(rate)
        known = given.value if given.observed_on is None else jnp.where(given.observed_on, given.value, 0)
        whole = (rest + known).astype(int)
        sizes = dict(zip(self.elements_of(name), whole.shape, strict=True))
        return {name: whole.reshape([1 if d is None else sizes[d] for d in self.dims[name]])}

    def _read(self, seen: Seen) -> _Numbers:
        (name,) = self.sites
        own = self._along(seen, name, "given", "rate")
        parameter = self._along(seen, self.observed, "given", self.parameter)
        value = self._along(seen, self.observed, "observed")
        logs = (jnp.log(parameter), jnp.log1p(-parameter))
        if self.parameter == "logits":
            logs = (jax.nn.log_sigmoid(parameter), jax.nn.log_sigmoid(-parameter))
        masks = [self._along(seen, n, "given", "mask") for n in (name, self.observed)]
        rate, *others = jnp.broadcast_arrays(own, *logs, value)
        return _Numbers(rate, *others, *masks)

    def _along(self, seen: Seen, site: str, *parts: str) -> Any:
        """An output of one of the two sites along the axes of the count's elements; None of one that is not there."""
        output = ":".join([parts[0], site, *parts[1:]])
        if not seen.has(output):
            return None
        array = jnp.asarray(seen.outputs([output])[output])
        dims = self.terms[f"p:{site}"].dims
        axes = tuple(d for d in dims if d is not None)
        whole = jnp.squeeze(array, tuple(i for i, d in enumerate(dims) if d is None))
        return Factor(whole, axes).along(self.elements_of(self.sites[0]))
