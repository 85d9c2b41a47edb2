"""What the process must allow before autovi computes in it: a JAX that runs, and compilation."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import jax

FORKED = (
    "this process was forked from one in which JAX was already in use, and JAX would hang in it: its threads do not "
    'survive a fork. Start workers by multiprocessing.get_context("spawn") or "forkserver" (ProcessPoolExecutor takes '
    "it as mp_context=), or fork before JAX is used at all"
)


def jax_is_running() -> bool:
    """Has JAX started its threads in this process, or in the one that it was forked from?"""
    # JAX says it nowhere in public, and to ask for its devices would start them.
    return bool(getattr(sys.modules.get("jax._src.xla_bridge"), "_backends", None))


class _Fork:
    """Whether this process is a fork that JAX does not run in."""

    lost_threads = False

    def note(self) -> None:
        self.lost_threads = self.lost_threads or jax_is_running()


_FORK = _Fork()
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_FORK.note)


def is_fork_of_running_jax() -> bool:
    """Was this process forked after JAX had started? Then nothing that JAX is asked for would return."""
    return _FORK.lost_threads


def check_process() -> None:
    """Raises RuntimeError in a process that was forked after JAX had started."""
    if is_fork_of_running_jax():
        raise RuntimeError(FORKED)


@contextmanager
def computing() -> Iterator[None]:
    """Around all that traces, compiles or runs a program, as a `with` block or a decorator.

    Compilation is on inside, whatever `jax.disable_jit` or JAX_DISABLE_JIT say: programs are traced as a whole in any
    case, so that no value could be looked at between two operations, and without it loops are written out step by step.

    Raises:
        RuntimeError: this process was forked after JAX had started.
    """
    check_process()
    disabled = jax.config.jax_disable_jit  # type: ignore[attr-defined]  # that of a `with` block too
    with jax.disable_jit(False) if disabled else nullcontext():
        yield
