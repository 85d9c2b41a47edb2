"""Ctrl-C and SIGTERM between two chunks, never inside one: a donated state must not be lost half way."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interruption:
    """While entered, the first Ctrl-C only sets `requested`; a second one interrupts at once.

    With `terminable`, for runs that are kept on disk, so does SIGTERM, by which schedulers announce the end; it is
    passed on by `pass_on` once the run has been kept. One that is entered inside of another tells that one too, when it
    is left. Outside the main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self, terminable: bool = False) -> None:
        self.requested = False
        self.terminated = False
        self._signals = (signal.SIGINT, signal.SIGTERM) if terminable else (signal.SIGINT,)
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in self._signals}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, previous in self._previous.items():
            # None: a handler that Python did not install, which it cannot put back.
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
            outer = getattr(previous, "__self__", None)
            if isinstance(outer, Interruption):
                outer.requested |= self.requested

    @property
    def name(self) -> str:
        """What asked for the end."""
        return "SIGTERM" if self.terminated else "Ctrl-C"

    def pass_on(self) -> None:
        """Sends the SIGTERM that came to whom it was for: by default that ends the process."""
        if self.terminated:
            signal.raise_signal(signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            self.requested = self.terminated = True
            return
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
