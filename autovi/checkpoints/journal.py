"""The legs of a fit on disk.

All that a fit does between its legs of stochastic steps (plan, start, search for modes) follows from its arguments: a
process that runs it again does the same again, and takes up each leg where it was kept. So the fit that comes out is
that of a process that was never killed, bit for bit, whatever it was doing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from autovi.checkpoints.folder import Folder
from autovi.checkpoints.identity import Identity, difference, identity_of
from autovi.model.inputs import Inputs
from autovi.program.program import Program
from autovi.result.saving import progress_fields, progress_of
from autovi.run.engine import Engine
from autovi.run.state import State
from autovi.run.stopping import Progress
from autovi.run.stored import restored, stored

SHARE = 0.005  # of the time since, that writing may take at most; with the last write, 1 % of a fit of a minute
BYTES_A_SECOND = 1e8  # that are written, as a guess before the first time


@dataclass(frozen=True)
class Checkpoint:
    """Where a fit is kept as it goes, and how often.

    Attributes:
        folder: made if it is not there; one for each fit.
        seconds: at least so many between two times, and two hundred times as long as writing took; 0: after every chunk
            of 100 steps.
        steps: at the first chunk after so many; None: by the seconds alone.

    Raises:
        ValueError: a negative number of seconds, or fewer steps than one.

    Example:
        >>> autovi.fit(model, data, checkpoint=autovi.Checkpoint("run1", seconds=60))
    """

    folder: str | os.PathLike[str]
    seconds: float = 10.0
    steps: int | None = None

    def __post_init__(self) -> None:
        if not self.seconds >= 0:
            raise ValueError(f"checkpoint: expected seconds of 0 or more, got {self.seconds!r}")
        if self.steps is not None and not self.steps >= 1:
            raise ValueError(f"checkpoint: expected steps of 1 or more, or None, got {self.steps!r}")


def as_checkpoint(asked: Any) -> Checkpoint | None:
    """The argument `checkpoint` of a fit.

    Raises:
        TypeError: it is neither a path nor a `Checkpoint`.
    """
    if asked is None or isinstance(asked, Checkpoint):
        return asked
    if isinstance(asked, str | os.PathLike):
        return Checkpoint(asked)
    raise TypeError(f"checkpoint: expected a folder's path or an autovi.Checkpoint, got {type(asked).__name__}")


class Kept:
    """A fit in its folder, which is this process's until `close`.

    Raises:
        ValueError: the folder belongs to another fit, or is damaged; the message says what differs.
        OSError: as for `Folder`.
    """

    def __init__(self, asked: Checkpoint, identity: Identity):
        self.asked, self.folder = asked, Folder(asked.folder)
        try:
            self._claim(identity)
        except BaseException:
            self.folder.close()
            raise

    def _claim(self, identity: Identity) -> None:
        there = self.folder.read("fit")
        if there is None:
            self.folder.write("fit", {}, {"kind": "checkpoint", "identity": identity})
        elif differs := difference(there[1]["identity"], identity):
            raise ValueError(
                f"checkpoint: {self.folder.path!r} belongs to another fit, of which differs: {differs}; give this one "
                "a folder of its own, or remove that one"
            )

    def journal(self, restart: int) -> OnDisk:
        """The journal of one of the fits from different starts."""
        return OnDisk(self, restart)

    def close(self) -> None:
        """Lets another process have the folder."""
        self.folder.close()


@contextmanager
def in_folder(
    asked: Checkpoint | None, engine: Engine, inputs: Inputs, decides: Mapping[str, Any]
) -> Iterator[Kept | None]:
    """A fit's folder while it runs; None where none is asked for. `decides` are the arguments that decide its steps."""
    if asked is None:
        yield None
        return
    kept = Kept(asked, identity_of(engine, inputs, decides))
    try:
        yield kept
    finally:
        kept.close()


class OnDisk:
    """The legs of one fit in a folder: see `run/keeping.py`."""

    def __init__(self, kept: Kept, restart: int):
        self.kept, self.restart, self.count = kept, restart, 0

    def next_leg(self) -> KeptLeg:
        """The leg that is about to start."""
        self.count += 1
        return KeptLeg(self.kept, f"restart{self.restart}-leg{self.count - 1}")


class KeptLeg:
    """One leg in its file."""

    def __init__(self, kept: Kept, name: str):
        self.folder, self.asked, self.name = kept.folder, kept.asked, name
        self.started, self.step, self.cost = time.monotonic(), 0, 0.0

    def found(self, like: State, program: Program, progress: Progress) -> tuple[State, bool] | None:
        """The kept state, if there is one; `progress` is then what it was.

        Raises:
            ValueError: the file is damaged, or of another plan.
        """
        self.cost = sum(x.nbytes for x in jax.tree.leaves(like)) / BYTES_A_SECOND
        there = self.folder.read(self.name)
        if there is None:
            return None
        arrays, meta = there
        arrays = {n.removeprefix("state/"): x for n, x in arrays.items() if n.startswith("state/")}
        state = jax.tree.map(jnp.asarray, restored(like, program, arrays))
        own = {"learning_rate": progress.learning_rate}  # a function, which a file does not hold
        vars(progress).update({**vars(progress_of(meta["progress"], there[0]["losses"])), **own})
        self.step = progress.step
        return state, meta["ended"]

    def is_due(self, step: int) -> bool:
        """Is it time, by the clock or the steps?"""
        if self.folder.is_lost:
            return False
        if self.asked.steps is not None and step - self.step >= self.asked.steps:
            return True
        least = max(self.asked.seconds, self.cost / SHARE) if self.asked.seconds else 0.0
        return time.monotonic() - self.started >= least

    def keep(self, state: State, progress: Progress, ended: bool = False) -> None:
        """Writes the state; an earlier one is there until this one is."""
        began = time.monotonic()
        arrays = {f"state/{n}": x for n, x in stored(state).items()}
        meta = {"kind": "leg", "progress": progress_fields(progress), "ended": ended}
        self.folder.write(self.name, {**arrays, "losses": progress.all_losses()}, meta)
        self.started, self.step = time.monotonic(), progress.step
        self.cost = self.started - began
