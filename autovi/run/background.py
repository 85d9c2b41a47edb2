"""Compiling in a thread of its own: JAX compiles where Python hears no Ctrl-C."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from autovi.run.clock import COMPILE_TIME

# Programs are compiled in the order in which they are asked for, as many at once as there are cores: more would keep
# the first one, which is waited for, from its core.
_CORES = threading.Semaphore(os.cpu_count() or 1)


class Compiling:
    """A program on its way to be compiled, from the moment that this is made.

    Args:
        compiled: compiles it, and returns it.
        jaxpr: the program, for an estimate of the time, if it is compiled with care.
        returns: shapes of what it returns.
        after: a program that is waited for before: it has the cores for itself until then.
    """

    def __init__(
        self,
        compiled: Callable[[], Callable],
        jaxpr: Any = None,
        returns: Any = None,
        after: Compiling | None = None,
    ):
        self._after = after
        self._compiled: Callable[[], Callable] | None = compiled
        self._jaxpr, self.returns = jaxpr, returns
        self._program: Callable | None = None
        self._error: BaseException | None = None
        self._finished = threading.Event()  # a thread that Ctrl-C ended the waiting for counts as ended, before 3.13
        # No daemon: Python must not end while XLA is at work in it.
        threading.Thread(target=self._run, name="autovi-compile").start()

    def _run(self) -> None:
        try:
            self._compile()
        finally:
            self._compiled = self._jaxpr = None  # what it was compiled from is no longer needed
            self._finished.set()

    def _compile(self) -> None:
        assert self._compiled is not None
        try:
            if self._after is not None:
                self._after._finished.wait()
                self._after = None
            with _CORES:
                started = time.perf_counter()
                self._program = self._compiled()
            if self._jaxpr is not None:
                COMPILE_TIME.seen(self._jaxpr, time.perf_counter() - started)
        except BaseException as error:
            self._error = error

    @property
    def done(self) -> bool:
        """Is it compiled, or has it failed?"""
        return self._finished.is_set()

    @property
    def failed(self) -> bool:
        """Has it failed? Then it may be tried again."""
        return self.done and self._error is not None

    @property
    def said(self) -> str:
        """The sentence that stands while one waits for it."""
        jaxpr = self._jaxpr  # the thread may let go of it meanwhile
        return "compiling" if jaxpr is None else f"compiling, about {max(1.0, COMPILE_TIME.expected(jaxpr)):.0f} s"

    def result(self) -> Callable:
        """The compiled program, waited for. Ctrl-C ends the waiting, not the compiling."""
        self._finished.wait()
        if self._error is not None:
            raise self._error
        assert self._program is not None
        return self._program
