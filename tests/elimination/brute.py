"""The exact answers of a program by brute force, in NumPy and float64.

The description is written out as variables (one for each element of a latent site) and tables of log weights over a few
of them. Sums are over all configurations of what hangs together; what is apart is multiplied. A part that is too large
is summed for each value of the variable that most tables have, the parent of a plate say, which takes it apart.

The evidence is log sum exp, over the configurations, of the sum of all log densities under their scales and masks. An
element of a masked latent that is in no term which is not masked has no part in it: given its parents it has its
prior, without scale and mask, which adds up to one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, gammaln, log_expit, logsumexp, xlogy

from elimination.description import Parent, Program, Site

Key = tuple[str, tuple[int, ...]]  # a latent site and the index of an element

AT_ONCE = 400_000  # configurations whose weights are held in one array
MOST = 2_000_000  # configurations that one sum may go over
SD = 0.8  # of normal observations


class Table(NamedTuple):
    """Log weights by the values of the variables in `keys`."""

    keys: tuple[Key, ...]
    log: np.ndarray


def _categorical(site: Site, p: np.ndarray) -> np.ndarray:
    return p - logsumexp(p, axis=-1, keepdims=True)


def _bernoulli(site: Site, p: np.ndarray) -> np.ndarray:
    return np.stack([log_expit(-p), log_expit(p)], axis=-1)


def _binomial(site: Site, p: np.ndarray) -> np.ndarray:
    k, n = np.arange(site.size), site.size - 1
    choose = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    q = expit(p)[..., None]
    return choose + xlogy(k, q) + xlogy(n - k, 1 - q)


# Log probabilities of all values of a site, on a last axis.
PMF: dict[str, Callable[[Site, np.ndarray], np.ndarray]] = {
    "categorical": _categorical,
    "categorical_probs": _categorical,
    "bernoulli": _bernoulli,
    "bernoulli_probs": _bernoulli,
    "uniform": lambda site, p: np.broadcast_to(-np.log(site.size), (*p.shape, site.size)),
    "binomial": _binomial,
}
# Log densities of one observed value.
OBSERVED: dict[str, Callable[[np.ndarray, Any], np.ndarray]] = {
    "normal": lambda p, y: -0.5 * ((y - p) / SD) ** 2 - np.log(SD) - 0.5 * np.log(2 * np.pi),
    "poisson": lambda p, y: y * p - np.exp(p) - gammaln(y + 1),
    "factor": lambda p, y: p,
}


class Written(NamedTuple):
    """A program written out: the number of values of every variable, the tables, and the elements that count."""

    sizes: dict[Key, int]
    tables: list[Table]
    counts: frozenset[Key]


class Element(NamedTuple):
    """One element of a site: its own variable, if any, and its log density unscaled and unmasked."""

    key: Key | None
    table: Table
    scale: float
    on: bool


def write_out(program: Program, theta: np.ndarray) -> Written:
    """The program at a value of its continuous parameters as variables and tables."""
    elements = [
        e for site in program.every for index in np.ndindex(*site.shape) for e in _of(program, site, index, theta)
    ]
    felt = {k for e in elements if e.on for k in e.table.keys}
    sizes = {e.key: program.latents[e.key[0]].size for e in elements if e.key is not None}
    tables = []
    for e in elements:
        if e.on:
            tables.append(Table(e.table.keys, e.scale * e.table.log))
        elif e.key is not None and e.key not in felt:
            tables.append(e.table)
    return Written(sizes, tables, frozenset(felt))


def _of(program: Program, site: Site, index: tuple[int, ...], theta: np.ndarray) -> Iterator[Element]:
    parameters = site.base + np.tensordot(theta, site.slope, axes=1)
    read = [_read(program, site, index, p) for p in site.parents]
    parameters = parameters[tuple(slice(None) if isinstance(r, tuple) else r for r in read)]
    parents = tuple(r for r in read if isinstance(r, tuple))
    if site.offset is not None:
        parameters = parameters + site.offset[index]
    scale, on = program.scale * site.scale, bool(site.mask is None or site.mask[index])
    seen = site.data is not None and bool(site.seen is None or site.seen[index])
    if site.kind in OBSERVED:
        value = None if site.data is None else site.data[index]
        yield Element(None, _distinct(parents, OBSERVED[site.kind](parameters, value)), scale, on)
        return
    log = PMF[site.kind](site, parameters)
    if site.kind == "uniform":  # its parents are looked up, and change nothing: it does not feel them
        log, parents = log[(0,) * len(parents)], ()
    if seen:
        yield Element(None, _distinct(parents, log[..., int(site.data[index]) - site.low]), scale, on)
    if site.latent or site.seen is not None:
        key = (site.name if site.latent else f"{site.name}_unobserved", index)
        yield Element(key, _distinct((*parents, key), log), scale, on and not seen)


def _read(program: Program, site: Site, index: tuple[int, ...], parent: Parent) -> Key | int:
    """The variable that an element looks at, or the number of the value that it is known to have."""
    other = next(s for s in program.every if s.name == parent.name)
    if site.neighbours:
        at = (index[0] + 1 - parent.lag,)
    elif other in program.scanned:
        at = (index[0] - parent.lag, *index[len(index) - other.depth :])
        if at[0] < 0:
            return 0
    else:
        at = index[len(index) - len(other.shape) :]
    if other.seen is not None:
        return int(other.data[at]) - other.low if other.seen[at] else (f"{other.name}_unobserved", at)
    return (other.name, at)


def _distinct(keys: tuple[Key, ...], log: np.ndarray) -> Table:
    """The table with each variable once: one that two parents stand for is taken along their diagonal."""
    log, keys = np.asarray(log, float), list(keys)
    for key in set(keys):
        while keys.count(key) > 1:
            i = keys.index(key)
            j = keys.index(key, i + 1)
            log = np.diagonal(log, axis1=i, axis2=j)  # its axis comes last
            keys = [k for n, k in enumerate(keys) if n not in (i, j)] + [key]
    return Table(tuple(keys), log)


# --- sums over configurations ---


def _parts(keys: Sequence[Key], tables: Sequence[Table]) -> list[tuple[list[Key], list[Table]]]:
    """What hangs together by tables."""
    part = {k: {k} for k in keys}
    for t in tables:
        joined = set().union(*(part[k] for k in t.keys))
        part.update(dict.fromkeys(joined, joined))
    groups = {id(g): g for g in part.values()}.values()
    return [([k for k in keys if k in g], [t for t in tables if t.keys and t.keys[0] in g]) for g in groups]


def _without(tables: Sequence[Table], key: Key, value: int) -> list[Table]:
    """The tables at one value of a variable."""
    found = []
    for t in tables:
        if key in t.keys:
            i = t.keys.index(key)
            t = Table(t.keys[:i] + t.keys[i + 1 :], np.take(t.log, value, axis=i))
        found.append(t)
    return found


def _shared_most(keys: Sequence[Key], tables: Sequence[Table]) -> Key:
    return max(keys, key=lambda k: sum(k in t.keys for t in tables))


def configurations(written: Written) -> int:
    """How many configurations one sum over the program goes over."""

    def count(keys: Sequence[Key], tables: Sequence[Table]) -> int:
        total = 0
        for part, its in _parts(keys, tables):
            total += _count_part(part, its)
        return total

    def _count_part(part: list[Key], its: list[Table]) -> int:
        size = prod(written.sizes[k] for k in part)
        if size <= AT_ONCE:
            return size
        key = _shared_most(part, its)
        return written.sizes[key] * count([k for k in part if k != key], _without(its, key, 0))

    return count(list(written.sizes), written.tables)


def _weights(keys: Sequence[Key], tables: Sequence[Table], sizes: Mapping[Key, int]) -> np.ndarray:
    """The log weight of every configuration."""
    total = np.zeros([sizes[k] for k in keys])
    for t in tables:
        order = sorted(range(len(t.keys)), key=lambda i: keys.index(t.keys[i]))
        total += np.transpose(t.log, order).reshape([sizes[k] if k in t.keys else 1 for k in keys])
    return total


def log_sum(
    keys: Sequence[Key], tables: Sequence[Table], sizes: Mapping[Key, int], keep: tuple[Key, ...] = ()
) -> np.ndarray:
    """The log of the sum of weights over all configurations, by the values of the variables to `keep`."""
    order: list[Key] = []
    total = np.asarray(sum(t.log for t in tables if not t.keys), float)
    for part, its in _parts(keys, tables):
        kept = [k for k in part if k in keep]
        if prod(sizes[k] for k in part) <= AT_ONCE:
            weights = _weights(part, its, sizes)
            found = (
                logsumexp(weights, axis=tuple(i for i, k in enumerate(part) if k not in keep))
                if len(kept) < len(part)
                else weights
            )
        else:
            key = _shared_most(part, its)
            rest = [k for k in part if k != key]
            inner = tuple(k for k in kept if k != key)
            by_value = np.stack([log_sum(rest, _without(its, key, v), sizes, inner) for v in range(sizes[key])])
            kept = [key, *inner] if key in keep else list(inner)
            found = by_value if key in keep else logsumexp(by_value, axis=0)
        total = np.add.outer(total, found)
        order += kept
    return np.transpose(total, [order.index(k) for k in keep])


def most(keys: Sequence[Key], tables: Sequence[Table], sizes: Mapping[Key, int]) -> tuple[float, dict[Key, int]]:
    """The largest log weight of a configuration, and that configuration."""
    best, chosen = float(sum(t.log for t in tables if not t.keys)), {}
    for part, its in _parts(keys, tables):
        if prod(sizes[k] for k in part) <= AT_ONCE:
            weights = _weights(part, its, sizes)
            at = np.unravel_index(np.argmax(weights), weights.shape)
            value, found = float(weights[at]), dict(zip(part, map(int, at), strict=True))
        else:
            key = _shared_most(part, its)
            rest = [k for k in part if k != key]
            tries = [(*most(rest, _without(its, key, v), sizes), v) for v in range(sizes[key])]
            value, found, v = max(tries, key=lambda t: t[0])
            found = found | {key: v}
        best, chosen = best + value, chosen | found
    return best, chosen


class Oracle:
    """The exact answers of a program given its continuous parameters `theta` [thetas]."""

    def __init__(self, program: Program, theta: Any = None):
        self.program = program
        self.theta = program.theta() if theta is None else np.asarray(theta, float)
        self.written = write_out(program, self.theta)
        if configurations(self.written) > MOST:
            raise ValueError(
                f"{program.name}: expected at most {MOST} configurations, got {configurations(self.written)}"
            )

    @cached_property
    def log_evidence(self) -> float:
        """log p(data | theta)."""
        return self._evidence(self.written)

    def _evidence(self, written: Written) -> float:
        return float(log_sum(list(written.sizes), written.tables, written.sizes))

    @cached_property
    def gradient(self) -> np.ndarray:
        """That of the evidence in theta: central differences over h, 2 h, 4 h, of which the errors in h^2 and h^4 are
        taken out; what is left is of the order of h^6 = 1e-12, and rounding of 1e-14 / h."""
        found = np.zeros(len(self.theta))
        for i, unit in enumerate(np.eye(len(self.theta))):
            steps = 0.01 * np.array([1, 2, 4])
            ends = [
                [self._evidence(write_out(self.program, self.theta + s * h * unit)) for s in (1, -1)] for h in steps
            ]
            d = [(up - down) / (2 * h) for (up, down), h in zip(ends, steps, strict=True)]
            first = [(4 * d[0] - d[1]) / 3, (4 * d[1] - d[2]) / 3]
            found[i] = (16 * first[0] - first[1]) / 15
        return found

    def joint(self, *keys: Key) -> np.ndarray:
        """The probabilities of the values of some elements, one axis each."""
        log = log_sum(list(self.written.sizes), self.written.tables, self.written.sizes, keys)
        return np.exp(log - self.log_evidence)

    @cached_property
    def marginals(self) -> dict[str, np.ndarray]:
        """Latent site -> the probabilities of its values `[*shape, values]`."""
        found = {}
        for name, site in self.program.latents.items():
            each = [self.joint((name, index)) for index in np.ndindex(*site.shape)]
            found[name] = np.reshape(each, (*site.shape, site.size))
        return found

    @cached_property
    def most_likely(self) -> tuple[float, dict[str, np.ndarray]]:
        """The largest weight of a configuration of the elements that count, and its values; those of elements that do
        not are -1."""
        counts = self.written.counts
        keys = [k for k in self.written.sizes if k in counts]
        best, chosen = most(keys, self._felt, self.written.sizes)
        found = {n: np.full(s.shape, -1) for n, s in self.program.latents.items()}
        for (name, index), value in chosen.items():
            found[name][index] = value + self.program.latents[name].low
        return best, found

    @property
    def _felt(self) -> list[Table]:
        return [t for t in self.written.tables if self.written.counts.issuperset(t.keys)]

    def log_weight(self, values: Mapping[str, np.ndarray]) -> float:
        """The weight of a configuration, of the elements that count."""
        at = lambda key: int(values[key[0]][key[1]]) - self.program.latents[key[0]].low  # noqa: E731
        return float(sum(t.log[tuple(at(k) for k in t.keys)] for t in self._felt))


def by_all(program: Program, theta: np.ndarray, keep: tuple[Key, ...] = ()) -> np.ndarray:
    """`log_sum` by one loop over all configurations, for a test of the oracle itself."""
    written = write_out(program, theta)
    keys = list(written.sizes)
    found = np.full([written.sizes[k] for k in keep], -np.inf)
    for values in product(*(range(written.sizes[k]) for k in keys)):
        at = dict(zip(keys, values, strict=True))
        cell = tuple(at[k] for k in keep)
        found[cell] = np.logaddexp(found[cell], sum(t.log[tuple(at[k] for k in t.keys)] for t in written.tables))
    return found
