"""Colours of elements: no factor sees two of one colour, so that all factors are evaluated together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from autovi.elimination.sweeps import Named, Part, Sweep

Meetings = dict[str, dict[int, set[int]]]  # variable -> its elements -> the others in a scope with them


def swept(
    parts: Sequence[Part], shapes: Mapping[str, tuple[int, ...]], named: Named, sizes: Mapping[str, int]
) -> tuple[Sweep, ...]:
    """The parts in sweeps: together those that depend on the same variables, where that takes no further colour.
    `shapes` are those of the arrays of colours."""
    groups: list[tuple[list[Part], Meetings, dict[str, int]]] = []
    for part in parts:
        meetings = _meetings(part)
        own = _counts(meetings)
        for i, (members, others, count) in enumerate(groups):
            if count == own and _counts(joint := _joined(others, meetings)) == own:
                groups[i] = ([*members, part], joint, own)
                break
        else:
            groups.append(([part], meetings, own))
    return tuple(Sweep(tuple(ps), _arrays(_coloured(m), shapes), named, sizes) for ps, m, _ in groups)


def _meetings(part: Part) -> Meetings:
    found: Meetings = {}
    for scope in part.scopes:
        for v, i in scope:
            found.setdefault(v, {}).setdefault(i, set()).update(j for w, j in scope if w == v and j != i)
    return found


def _joined(one: Meetings, other: Meetings) -> Meetings:
    none: dict[int, set[int]] = {}
    return {
        v: {
            i: one.get(v, none).get(i, set()) | other.get(v, none).get(i, set())
            for i in {**one.get(v, none), **other.get(v, none)}
        }
        for v in {**one, **other}
    }


def _coloured(meetings: Meetings) -> dict[str, dict[int, int]]:
    """A colour for each element, in the order of elements or of how many they meet, whichever takes fewer colours."""
    found = {}
    for v, meets in meetings.items():
        orders = [sorted(meets), sorted(meets, key=lambda i: (-len(meets[i]), i))]
        found[v] = min((_greedily(order, meets) for order in orders), key=lambda colours: max(colours.values()))
    return found


def _greedily(order: Sequence[int], meets: Mapping[int, set[int]]) -> dict[int, int]:
    colours: dict[int, int] = {}
    for i in order:
        taken = {colours[j] for j in meets[i] if j in colours}
        colours[i] = next(c for c in range(len(taken) + 1) if c not in taken)
    return colours


def _counts(meetings: Meetings) -> dict[str, int]:
    return {v: 1 + max(colours.values()) for v, colours in _coloured(meetings).items()}


def _arrays(colours: Mapping[str, Mapping[int, int]], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    found = {}
    for v, of in colours.items():
        flat = np.zeros(prod(shapes[v]), int)
        flat[list(of)] = list(of.values())
        found[v] = flat.reshape(shapes[v])
    return found
