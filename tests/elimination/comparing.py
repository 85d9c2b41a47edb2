"""Probabilities and draws of discrete sites against the oracle of their program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
from scipy import stats

from elimination.brute import Key, Oracle

ALARM = 1e-7  # the probability that one call to `check_draws` finds a fault in draws that have none
CELLS = 2_000  # of the largest table that draws are counted into
OTHERS = 20  # triples of elements at random, beside those that have a term in common


def check_marginals(oracle: Oracle, probabilities: Mapping[str, Any], atol: float = 1e-5) -> None:
    """Asserts that the probabilities of the values of every latent element are right.

    Args:
        oracle: that of the program.
        probabilities: latent site -> the probabilities of its values, in their order, `[*shape, values]`.
        atol: absolute tolerance.
    """
    exact = oracle.marginals
    missing = set(exact) - set(probabilities)
    assert not missing, f"no probabilities of {sorted(missing)}"
    for name, expected in exact.items():
        found = np.asarray(probabilities[name], float)
        assert found.shape == expected.shape, f"{name}: shape {found.shape}, expected {expected.shape}"
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=f"{oracle.program.name}, {name}")


def check_draws(oracle: Oracle, draws: Mapping[str, Any]) -> None:
    """Asserts that independent draws given theta have the right joint distribution.

    They are counted by the values of each element, of the elements of each term, of triples of elements, and of all
    elements together where those have few values. A count is binomial: each cell has an exact two-sided test, and the
    probability of a false alarm in any of them is under `ALARM`.

    Args:
        oracle: that of the program.
        draws: latent site -> its values `[draws, *shape]`.
    """
    numbers = {name: _numbered(oracle, name, draws) for name in oracle.program.latents}
    tests = []
    for keys in _looked_at(oracle):
        exact = oracle.joint(*keys)
        at = tuple(numbers[name][(slice(None), *index)] for name, index in keys)
        counts = np.zeros(exact.shape, int)
        np.add.at(counts, at, 1)
        tests += [(keys, cell, int(counts[cell]), float(exact[cell])) for cell in np.ndindex(*exact.shape)]
    k, p = np.array([t[2] for t in tests]), np.clip([t[3] for t in tests], 0.0, 1.0)
    p = np.where(p < 1e-14, 0.0, p)  # a probability of zero, up to rounding
    n = len(next(iter(numbers.values())))
    found = 2 * np.minimum(stats.binom.cdf(k, n, p), stats.binom.sf(k - 1, n, p))
    worst = int(np.argmin(found))
    keys, cell, count, exact = tests[worst]
    assert found[worst] >= ALARM / len(tests), (
        f"{oracle.program.name}: {keys} has the values number {cell} in {count} of {n} draws, expected {n * exact:.1f} "
        f"(p = {found[worst]:.2g} in one of {len(tests)} tests)"
    )


def check_most_likely(oracle: Oracle, values: Mapping[str, Any], atol: float = 1e-4) -> None:
    """Asserts that no configuration of the elements that count weighs more than this one, by more than `atol`.

    Args:
        oracle: that of the program.
        values: latent site -> its values, `[*shape]`.
        atol: a difference of log weights that rounding may make.
    """
    best, _ = oracle.most_likely
    found = oracle.log_weight({n: np.asarray(v) for n, v in values.items()})
    assert found >= best - atol, f"{oracle.program.name}: log weight {found}, the largest is {best}"


def _numbered(oracle: Oracle, name: str, draws: Mapping[str, Any]) -> np.ndarray:
    """The draws of a site as numbers from 0, checked."""
    site = oracle.program.latents[name]
    assert name in draws, f"no draws of {name}"
    values = np.asarray(draws[name])
    assert values.shape[1:] == site.shape, f"{name}: draws of shape {values.shape[1:]}, expected {site.shape}"
    assert np.all(values == np.round(values)), f"{name}: draws that are no whole numbers"
    values = values.astype(int) - site.low
    assert values.min() >= 0 and values.max() < site.size, f"{name}: draws outside of its support"
    return values


def _looked_at(oracle: Oracle) -> Iterator[tuple[Key, ...]]:
    """Groups of elements, each once."""
    sizes = oracle.written.sizes
    every = tuple(sizes)
    groups: dict[tuple[Key, ...], None] = dict.fromkeys((k,) for k in every)
    groups |= dict.fromkeys(t.keys for t in oracle.written.tables if t.keys)
    rng = np.random.default_rng(0)
    for _ in range(OTHERS):
        groups[tuple(every[i] for i in sorted(rng.permutation(len(every))[:3]))] = None
    groups[every] = None
    seen = set()
    for keys in groups:
        if frozenset(keys) not in seen and prod(sizes[k] for k in keys) <= CELLS:
            seen.add(frozenset(keys))
            yield keys
