"""Finished simulations in a folder, from which a process that was ended goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from autovi.calibration.outcomes import Outcome, restored, stored
from autovi.checkpoints.folder import Folder
from autovi.checkpoints.identity import Identity, difference
from autovi.checkpoints.journal import Checkpoint

HEAD = "calibration"


class KeptOutcomes:
    """The outcomes of a calibration in its folder, which is this process's until `close`.

    A file holds those of some seconds; a longer calibration of the same kind goes on from the shorter one's.

    Raises:
        ValueError: the folder belongs to another calibration, or to a fit, or is damaged; the message says what
            differs.
        OSError: as for `Folder`.
    """

    def __init__(self, asked: Checkpoint, identity: Identity):
        self.asked, self.folder = asked, Folder(asked.folder)
        try:
            self._claim(identity)
            self.found, self.names = self._read()
        except BaseException:
            self.folder.close()
            raise
        self.written, self.waiting = time.monotonic(), list[Outcome]()

    def _claim(self, identity: Identity) -> None:
        if self.folder.read("fit") is not None:
            raise ValueError(
                f"checkpoint: {self.folder.path!r} belongs to a fit; give the calibration a folder of its own"
            )
        there = self.folder.read(HEAD)
        if there is None:
            self.folder.write(HEAD, {}, {"kind": "calibration", "identity": identity})
        elif differs := difference(there[1]["identity"], identity):
            raise ValueError(
                f"checkpoint: {self.folder.path!r} belongs to another calibration, of which differs: {differs}; give "
                "this one a folder of its own, or remove that one"
            )

    def _read(self) -> tuple[list[Outcome], tuple[str, ...]]:
        found: list[Outcome] = []
        names: tuple[str, ...] = ()
        self.parts = 0
        while (there := self.folder.read(self._part())) is not None:
            arrays, meta = there
            found += restored({n: np.asarray(a) for n, a in arrays.items()}, meta)
            names = tuple(meta["names"]) or names
            self.parts += 1
        return found, names

    def _part(self) -> str:
        return f"simulations-{self.parts}"

    def add(self, outcome: Outcome, names: tuple[str, ...]) -> None:
        """Keeps an outcome, at once or with those of the next seconds."""
        self.waiting.append(outcome)
        if time.monotonic() - self.written >= self.asked.seconds:
            self.write(names)

    def write(self, names: tuple[str, ...]) -> None:
        """Writes what waits."""
        if self.waiting:
            arrays, meta = stored(self.waiting, len(names))
            if self.folder.write(self._part(), arrays, {"kind": "simulations", "names": list(names), **meta}):
                self.waiting, self.parts = [], self.parts + 1
        self.written = time.monotonic()

    def close(self) -> None:
        """Lets another process have the folder."""
        self.folder.close()


def asked_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """What of the options of a fit decides its numbers."""
    return {name: value for name, value in options.items() if name not in ("coords", "dims")}
