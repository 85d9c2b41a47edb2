"""Errors of XLA while a fit runs, such as out of memory, and what is left of the run then."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.errors import JaxRuntimeError

from autovi.run.state import State
from autovi.run.stopping import Progress

SHARE = 0.005  # of the time since, that copying a state may take at most
OFTEN = 0.25  # seconds between two copies, at least: for each the device waits for the host
BYTES_A_SECOND = 1e9  # that are copied to the host, as a guess before the first copy
LONGEST = 300  # letters of an error that a message repeats


def said(error: JaxRuntimeError) -> str:
    """An error of XLA in a message: its first line, and what helps where memory ran out."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    first = first if len(first) <= LONGEST else f"{first[:LONGEST]}…"
    return f"{first}; a smaller num_particles= or batch_size= takes less memory" if is_out_of_memory(error) else first


def is_out_of_memory(error: JaxRuntimeError) -> bool:
    """Did memory run out?"""
    return "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()


class LastState:
    """The last state that is known to be whole, on the host: a chunk uses up the state that it is given, so that
    nothing is left of it when XLA fails. Copied as often as that costs next to nothing."""

    def __init__(self, state: State):
        size = sum(x.nbytes for x in jax.tree.leaves(state))
        self._copied, self._cost = time.monotonic(), size / BYTES_A_SECOND
        self._kept: tuple[State, dict[str, Any]] | None = None

    @property
    def is_due(self) -> bool:
        """Is it time for another copy?"""
        return time.monotonic() - self._copied >= max(OFTEN, self._cost / SHARE)

    def keep(self, state: State, progress: Progress) -> None:
        """Copies a state. `progress` is what is known of it, all its losses read."""
        began = time.monotonic()
        self._kept = jax.tree.map(_on_host, state), fields_of(progress)
        self._copied = time.monotonic()
        self._cost = self._copied - began

    def found(self, progress: Progress) -> State | None:
        """The last state that was kept; `progress` is then what it was. None where none was."""
        if self._kept is None:
            return None
        state, fields = self._kept
        vars(progress).update(fields)
        return state


def _on_host(leaf: Any) -> Any:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        # NumPy has no type for it; to copy it on the device, a program would be compiled.
        return jax.random.wrap_key_data(jnp.array(np.array(jax.random.key_data(leaf))), impl=jax.random.key_impl(leaf))
    return np.array(leaf)


def fields_of(progress: Progress) -> dict[str, Any]:
    """What is known of a fit, to be what it was again: `vars(progress).update(...)`."""
    return {**vars(progress), "losses": list(progress.losses), "lowered": list(progress.lowered)}
