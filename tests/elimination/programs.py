"""Small random programs with discrete sites: the same for the same seed, and a hypothesis strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st

from elimination.brute import AT_ONCE
from elimination.description import Parent, Program, Site
from elimination.model import SD

LATENT = ("categorical", "categorical", "categorical_probs", "bernoulli", "bernoulli_probs", "uniform", "binomial")
IN_SCAN = ("categorical", "categorical", "bernoulli", "binomial")  # their values start at 0, as a chain's first does
OBSERVED = ("normal", "bernoulli", "categorical", "poisson")
YES_OR_NO = ("bernoulli", "bernoulli_probs")


class Builder:
    """Adds sites one after the other, their numbers drawn at random."""

    def __init__(self, seed: int, plates: Sequence[int] = ()):
        self.rng = np.random.default_rng(seed)
        self.plates, self.length = tuple(plates), 0
        self.thetas = int(self.rng.choice(3, p=[0.2, 0.4, 0.4]))
        self.common = self.plates and self.chance(0.2)  # one mask around all sites of a plate
        self.masks: dict[tuple[int, ...], np.ndarray] = {}
        self.sites: list[Site] = []
        self.scanned: list[Site] = []

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return bool(self.rng.uniform() < probability)

    def shape(self, depth: int) -> tuple[int, ...]:
        """That of a site inside so many plates, in a scan of `length` steps if it has any."""
        return (*((self.length,) if self.length else ()), *self.plates[:depth][::-1])

    def latent(self, name: str, depth: int = 0, parents: Sequence[Any] = (), **fixed: Any) -> Site:
        """A latent site; `at_most` values."""
        at_most = fixed.pop("at_most", 5)
        kind = fixed.pop("kind", None) or str(self.rng.choice(IN_SCAN if self.length else LATENT))
        asked = fixed.pop("size", None) or int(self.rng.integers(2, at_most + 1))
        size = 2 if kind in YES_OR_NO else asked
        low = int(self.rng.integers(-1, 3)) if kind == "uniform" else 0
        event = (size,) if kind.startswith("categorical") else ()
        return self._add(name, kind, depth, parents, event, size=size, low=low, **fixed)

    def observed(self, name: str, depth: int = 0, parents: Sequence[Any] = (), **fixed: Any) -> Site:
        """An observed site, its data drawn at random and not from the model."""
        kind = fixed.pop("kind", None) or str(self.rng.choice(OBSERVED))
        size = {"bernoulli": 2, "categorical": 3}.get(kind, 0)
        shape = fixed.get("shape", self.shape(depth))
        if kind == "normal":
            data = self.rng.normal(0.0, 1.0 + SD, shape).round(2)
        else:
            data = self.rng.integers(0, size or 4, shape)
        event = (size,) if kind == "categorical" else ()
        return self._add(name, kind, depth, parents, event, size=size, data=np.asarray(data), **fixed)

    def factor(self, name: str, depth: int = 0, parents: Sequence[Any] = (), **fixed: Any) -> Site:
        """A factor, without any normalization."""
        return self._add(name, "factor", depth, parents, (), **fixed)

    def _add(
        self, name: str, kind: str, depth: int, parents: Sequence[Any], event: tuple[int, ...], **fixed: Any
    ) -> Site:
        above = tuple(p if isinstance(p, Parent) else Parent(p) for p in parents)
        shape = fixed.pop("shape", self.shape(depth))
        others = [next(s for s in (*self.sites, *self.scanned, None) if s is None or s.name == p.name) for p in above]
        # A site whose parent is itself a step before.
        sizes = tuple(fixed["size"] if o is None else o.size for o in others)
        lows = [0 if o is None else o.low for o in others]
        base = self.rng.normal(0.0, 1.2, (*sizes, *event)).round(2)
        slope = self.rng.normal(0.0, 0.6, (self.thetas, *sizes, *event)).round(2)
        if kind == "uniform" or self.chance(0.3):
            slope = np.zeros_like(slope)
        line = None
        if above and kind not in ("uniform", "factor") and self.chance(0.15):
            intercept, by = (
                self.rng.normal(0, 0.7, event).round(2),
                self.rng.normal(0, 0.5, (len(sizes), *event)).round(2),
            )
            values = np.indices(sizes) + np.reshape(lows, (-1, *[1] * len(sizes)))
            base = intercept + np.tensordot(np.moveaxis(values, 0, -1), by, axes=1)
            slope = np.broadcast_to(slope[(slice(None), *[slice(0, 1)] * len(sizes))], slope.shape)
            line = (intercept, by)
        elif above and event and "data" not in fixed and self.chance(0.35):
            base, slope = self._with_zeros(kind, base, slope)
        if fixed.pop("varying", False) or self.chance(0.2):
            fixed["offset"] = self.rng.normal(0.0, 0.7, (*shape, *event)).round(2)
        if "mask" not in fixed and not fixed.get("neighbours"):
            mask = self._mask(shape, "data" not in fixed)
            fixed |= {} if mask is None else {"mask": mask}
        if self.chance(0.12):
            fixed["scale"] = float(self.rng.choice([0.5, 2.0, 3.0]))
        site = Site(
            name, kind, depth, shape, base, slope, above, line=line,
            lookup=self._lookup(sizes, base), masked_by_handler=self.chance(0.5), **fixed,
        )  # fmt: skip
        (self.scanned if self.length else self.sites).append(site)
        return site

    def _mask(self, shape: tuple[int, ...], latent: bool) -> np.ndarray | None:
        """A mask that is on in three of five elements, or none. The latent sites of a scan have masks from a step on
        only: see `_scan`."""
        if self.common and shape and not self.length:
            return self.masks.setdefault(shape, self.rng.uniform(size=shape) < 0.6)
        if (latent and self.length) or not self.chance(0.15):
            return None
        return np.asarray(self.rng.uniform(size=shape) < 0.6)

    def _with_zeros(self, kind: str, base: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of probability zero, for some values of the parents; one at least is left. Probabilities, through the
        logarithm of which no gradient passes at zero, then have none."""
        zero = self.rng.uniform(size=base.shape) < 0.35
        spared = self.rng.integers(0, base.shape[-1], base.shape[:-1])
        zero &= np.arange(base.shape[-1]) != spared[..., None]
        still = np.zeros_like(slope) if kind == "categorical_probs" else np.where(zero, 0.0, slope)
        return np.where(zero, -np.inf, base), still

    def _lookup(self, sizes: tuple[int, ...], base: np.ndarray) -> str:
        ways = ["index", "index", "take"]
        ways += ["where"] if sizes and sizes[0] == 2 else []
        ways += ["one_hot"] if np.isfinite(base).all() else []  # which multiplies what is not chosen by 0
        return str(self.rng.choice(ways))

    def made(self, name: str) -> Program:
        """The program."""
        scale = float(self.rng.choice([0.5, 2.0])) if self.chance(0.1) else 1.0
        return Program(name, self.plates, tuple(self.sites), tuple(self.scanned), self.length, self.thetas, scale)

    def steps(self) -> int:
        """The length of a chain: 3 to 8, and often 8."""
        return 8 if self.chance(0.3) else int(self.rng.integers(3, 9))

    def values(self, steps: int, sites: int = 1, at_most: int = 5) -> int:
        """How many values each of some sites may have, so that chains of so many steps are summed in one array."""
        fits = [k for k in range(2, at_most + 1) if k ** (steps * sites) <= AT_ONCE]
        return int(self.rng.integers(2, max(fits) + 1))


def _single(seed: int) -> Builder:
    b = Builder(seed, (3,))
    b.latent("z", 1)
    b.observed("y", 1, ["z"])
    return b


def _jointly(seed: int) -> Builder:
    """Two or three sites of each element, looked up jointly."""
    b = Builder(seed, (3,))
    names = ["z0", "z1", "z2"][: b.rng.integers(2, 4)]
    for i, name in enumerate(names):
        b.latent(name, 1, names[:i][-1:] if b.chance(0.5) else (), at_most=4)
    b.observed("y", 1, names)
    if b.chance(0.4):
        b.factor("f", 1, names[:2])
    return b


def _parent(seed: int) -> Builder:
    """A parent outside of the plate of its children."""
    b = Builder(seed, (4,))
    b.latent("c")
    b.latent("z", 1, ["c"])
    b.observed("y", 1, ["z", "c"] if b.chance(0.5) else ["z"])
    return b


def _nested(seed: int) -> Builder:
    """Sites outside of, between and inside of two plates."""
    b = Builder(seed, (2, 3))
    b.latent("c", 0, at_most=3)
    b.latent("g", 1, ["c"], at_most=4)
    b.latent("z", 2, ["g", "c"] if b.chance(0.5) else ["g"], at_most=4)
    if b.chance(0.5):
        b.latent("w", 2, ["z"] if b.chance(0.5) else ["c"], at_most=3)
    b.observed("y", 2, ["z", "w"] if len(b.sites) == 4 else ["z"])
    if b.chance(0.5):
        b.observed("x", 1, ["g"])
    return b


def _tree(seed: int) -> Builder:
    """Each site below one of those before it, inside of one plate or of none."""
    b = Builder(seed, (2,) if seed % 2 else ())
    depth = len(b.plates)
    for i in range(int(b.rng.integers(3, 7))):
        above = [f"z{b.rng.integers(0, i)}"] if i else []
        b.latent(f"z{i}", depth, above, at_most=4)
        if b.chance(0.6) or i == 2:
            b.observed(f"y{i}", depth, [f"z{i}"])
    return b


def _any(seed: int) -> Builder:
    """One to six sites in plates or not, each with up to two parents among those whose plates it is in."""
    b = Builder(seed, (2, 2))
    for i in range(int(b.rng.integers(1, 7))):
        depth = int(b.rng.integers(0, 3))
        outside = [s.name for s in b.sites if s.latent and s.depth <= depth]
        above = list(b.rng.permutation(outside)[: b.rng.integers(0, 3)])
        site = b.latent(f"z{i}", depth, map(str, above), at_most=3)
        if b.chance(0.5) or i == 0:
            partner = [] if not outside or b.chance(0.5) else [str(b.rng.choice(outside))]
            inner = int(b.rng.integers(depth, 3))
            b.observed(f"y{i}", inner, [site.name, *partner])
        if outside and b.chance(0.25):
            b.factor(f"f{i}", depth, [site.name, str(b.rng.choice(outside))])
    return b


def _loop(seed: int, history: int = 1) -> Builder:
    """A chain, a name for each step; sequences in a plate may end before the others."""
    b = Builder(seed, (2,) if seed % 2 else ())
    depth, steps = len(b.plates), b.steps()
    size = b.values(steps)
    ends = b.rng.integers(1, steps + 1, 2) if depth and b.chance(0.6) else None
    for t in range(steps):
        on = {} if ends is None else {"mask": t < ends}
        past = [f"z{t - lag}" for lag in range(1, history + 1) if t >= lag]
        b.latent(f"z{t}", depth, past, kind="categorical", size=size, **on)
        b.observed(f"y{t}", depth, [f"z{t}"], **on, **({"kind": "normal"} if b.chance(0.5) else {}))
    return b


def _scan(seed: int, history: int = 1, depth: int = 0) -> Builder:
    """A chain in a scan; in a plate of sequences, some shorter than others by a mask over latent and observed sites."""
    b = Builder(seed, (2 + seed % 2,) if depth else ())
    outer = ["c"] if b.chance(0.3) else []
    if outer:
        b.latent("c", 0, at_most=3)
    b.length = b.steps()
    past = [Parent("z", lag) for lag in range(1, history + 1)]
    on: dict[str, Any] = {}
    if depth:
        ends = b.rng.integers(1, b.length + 1, b.plates[0])
        on = {"mask": np.arange(b.length)[:, None] < ends}
    size = b.values(b.length, at_most=4 if outer and depth else 5)  # of each sequence, for each value of the parent
    kind = "bernoulli" if size == 2 and b.chance(0.5) else "categorical"
    b.latent("z", depth, [*past, *outer], kind=kind, size=size, varying=b.chance(0.3), **on)
    b.observed("y", depth, [Parent("z")], **on)
    return b


def _coupled(seed: int) -> Builder:
    """Two chains in a scan, independent but for what is observed, or each pushing the other."""
    b = Builder(seed)
    b.length = int(b.rng.integers(3, 6))
    size = b.values(b.length, 2, 3)
    pushed = b.chance(0.5)
    b.latent("z", 0, [Parent("z", 1)], kind="categorical", size=size)
    b.latent("w", 0, [Parent("w", 1), Parent("z")] if pushed else [Parent("w", 1)], kind="categorical", size=size)
    b.observed("y", 0, [Parent("z"), Parent("w")])
    if b.chance(0.4):
        b.observed("x", 0, [Parent("w")])
    return b


def _vector(seed: int) -> Builder:
    """A vector without a plate, its neighbours tied by a factor."""
    b = Builder(seed)
    steps = int(b.rng.integers(3, 8))
    kind = str(b.rng.choice(["categorical", "bernoulli", "uniform", "binomial"]))
    b.latent("z", 0, shape=(steps,), kind=kind, size=b.values(steps))
    b.factor("tie", 0, [Parent("z", 1), Parent("z")], shape=(steps - 1,), neighbours=True)
    b.observed("y", 0, ["z"], shape=(steps,))
    return b


def _imputed(seed: int) -> Builder:
    """A covariate that is seen in some elements, by `obs_mask`, and a class that is not."""
    b = Builder(seed, (5,))
    b.latent("c", at_most=3)
    b.observed("x", 1, ["c"], kind=str(b.rng.choice(["categorical", "bernoulli"])), seen=b.rng.uniform(size=5) < 0.6)
    b.observed("y", 1, ["x", "c"] if b.chance(0.5) else ["x"])
    return b


# From simple to involved; what hypothesis finds is shown in the simplest.
SHAPES: dict[str, Callable[[int], Builder]] = {
    "single": _single,
    "jointly": _jointly,
    "parent": _parent,
    "nested": _nested,
    "tree": _tree,
    "any": _any,
    "loop": _loop,
    "history": lambda seed: _loop(seed, history=2),
    "scan": _scan,
    "sequences": lambda seed: _scan(seed, depth=1),
    "scan_history": lambda seed: _scan(seed, history=2, depth=seed % 2),
    "coupled": _coupled,
    "vector": _vector,
    "imputed": _imputed,
}


@cache
def program_of(seed: int, shape: str | None = None) -> Program:
    """The program of a seed, which goes through the shapes in turn unless it is given."""
    shape = list(SHAPES)[seed % len(SHAPES)] if shape is None else shape
    return SHAPES[shape](seed).made(f"{shape}-{seed}")


def programs(*shapes: str) -> st.SearchStrategy[Program]:
    """Programs of these shapes, or of all."""
    return st.builds(program_of, st.integers(0, 2**20), st.sampled_from(shapes or tuple(SHAPES)))


def elements(program: Program) -> int:
    """How many elements the latent sites of a program have."""
    return sum(prod(s.shape) for s in program.latents.values())
