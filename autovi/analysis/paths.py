"""How an output depends on an input: the path between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from autovi.analysis.primitives import Names

NONE: Names = frozenset()


class Since(NamedTuple):
    """Along the output's dimension `axis`, a place depends on the input's places up to its own; on those before it
    alone if `strict`."""

    axis: int
    strict: bool = False


class Dependence(NamedTuple):
    """How an output depends on an input.

    aligned: for each dimension `d` of the input the output dimension `e` such that `out[..., i at e, ...]`
        depends on the input only through `input[..., i at d, ...]`; None where no such dimension is known.
    jumps: primitives on the way at which the output, where it is finite, may be discontinuous in the input.
        Empty for inputs that are not floating point.
    cutoffs: the same for switches between the output and a non-finite constant, such as `-inf` outside the
        support: the output does not jump from one finite value to another there, but `exp(output)` may.
    rules: operations on the way whose derivative need not be that of what they compute: `stop_gradient`, and functions
        of the user's own with derivatives of their own.
    later: for each dimension of the input along which the output follows the steps of a scan that goes forward, how.
    """

    aligned: tuple[int | None, ...]
    jumps: Names = NONE
    cutoffs: Names = NONE
    later: tuple[Since | None, ...] | None = None  # None: nothing but what `aligned` says
    rules: Names = NONE

    @property
    def since(self) -> tuple[Since | None, ...]:
        """`later`, with the dimensions that are aligned: there a place depends on its own alone."""
        return tuple(None if a is None else Since(a) for a in self.aligned) if self.later is None else self.later


def join_paths(a: Dependence, b: Dependence) -> Dependence:
    """How an output depends on an input that it depends on in two ways."""
    aligned = tuple(i if i == j else None for i, j in zip(a.aligned, b.aligned, strict=True))
    later = None
    if a.later is not None or b.later is not None:
        later = tuple(joined_since(i, j) for i, j in zip(a.since, b.since, strict=True))
    return Dependence(aligned, a.jumps | b.jumps, a.cutoffs | b.cutoffs, later, a.rules | b.rules)


def joined_since(a: Since | None, b: Since | None) -> Since | None:
    """How the sum of two outputs follows an input that both follow."""
    if a is None or b is None or a.axis != b.axis:
        return None
    return Since(a.axis, a.strict and b.strict)


def joined(a: Dependence | None, b: Dependence | None) -> Dependence:
    """How the sum of two outputs depends on an input that either may depend on."""
    if a is None or b is None:
        return a or b or Dependence(())
    return join_paths(a, b)


def moved(path: Dependence, change: Callable[[int], int | None]) -> Dependence:
    """A path whose dimensions are others. Negative ones stand for steps of an enclosing loop, and no operation inside a
    step moves them."""
    aligned = tuple(None if a is None else change(a) for a in path.aligned)
    if path.later is None:
        return path._replace(aligned=aligned)
    placed = [None if s is None else (change(s.axis), s.strict) for s in path.later]
    later = tuple(None if s is None or s[0] is None else Since(s[0], s[1]) for s in placed)
    return path._replace(aligned=aligned, later=later)


def seen_later(path: Dependence, step: int, lost: bool) -> Dependence:
    """The path of what a step leaves to the next one, which is aligned with it no more; `lost`: nor follows it."""
    aligned = tuple(None if a == step else a for a in path.aligned)
    if aligned == path.aligned and path.later is None:
        return path
    later = tuple(s if s is None or s.axis != step else None if lost else Since(step, True) for s in path.since)
    return path._replace(aligned=aligned, later=later)
