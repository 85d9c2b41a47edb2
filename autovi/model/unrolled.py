"""NumPyro's scan and cond written out, so that every site in them is a site of its own, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.contrib.control_flow.scan import scan_wrapper
from numpyro.ops.pytree import PytreeTrace
from numpyro.primitives import Messenger

from autovi.model.execution import SiteError, refuse_drawn, refuse_draws_inside

MAX_STEPS = 20  # of a scan that is written out; each costs as much to compile as a line of the user's


def unseen() -> Any:
    """A context in which no handler of the caller's sees a site: one that calls for a gradient does not draw it."""
    return handlers.block()


class Unrolled(Messenger):
    """A function whose short scans are loops and whose conds run both branches.

    A site "x" in a scan of up to `MAX_STEPS` steps is "x[0]", "x[1]", ..., each drawn given those before it; in a cond
    it is "x[true]" or "x[false]", both are drawn, and the predicate selects what comes out. `parts` has what a scan has
    stacked. In a longer scan "x" is one site with a dimension of steps, drawn one after the other where each depends on
    those before (`model/chains.py`).
    """

    def __init__(self, fn: Callable):
        super().__init__(fn)
        self._stacked: list[tuple[Any, list[Any]]] = []

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "control_flow" and not (msg["fn"] is scan_wrapper and _length(msg) > MAX_STEPS):
            _check_not_given(msg)
            msg["fn"] = self._loop if msg["fn"] is scan_wrapper else _both

    def parts(self, array: Any) -> list[Any]:
        """The arrays that a scan stacked to this one; itself where none did."""
        return next((parts for stacked, parts in self._stacked if stacked is array), [array])

    def _loop(self, f: Callable, init: Any, xs: Any, length: int | None, reverse: bool, **others: Any) -> Any:
        length = jnp.shape(jax.tree.leaves(xs)[0])[0] if length is None else length
        carry, made = jax.tree.map(jnp.asarray, init), {}
        for step in reversed(range(length)) if reverse else range(length):
            with _Named(f"[{step}]"):
                carry, made[step] = f(carry, jax.tree.map(lambda x, at=step: x[at], xs))
        columns = [jax.tree.leaves(made[step]) for step in range(length)]
        stacked = [self._stack(parts) for parts in zip(*columns, strict=True)]
        ys = jax.tree.unflatten(jax.tree.structure(made[0]), stacked) if length else None
        return (length, None, carry), (PytreeTrace({}), ys)

    def _stack(self, parts: tuple[Any, ...]) -> jax.Array:
        stacked = jnp.stack(parts)
        self._stacked.append((stacked, list(parts)))
        return stacked


def _check_not_given(msg: dict[str, Any]) -> None:
    """Handlers that set values know the sites by the names that they have no more here."""
    if any(by is not refuse_drawn for _, by in msg["kwargs"]["substitute_stack"]):
        raise SiteError(
            "fn: a handler inside of it (substitute, condition or replay) sets values of sites in a scan or cond; an "
            "expected loss draws all of its sites: write the given values in their place"
        )


def _length(msg: dict[str, Any]) -> int:
    _, _, xs, length = msg["args"][:4]
    return jnp.shape(jax.tree.leaves(xs)[0])[0] if length is None else length


def _both(predicate: Any, true_fun: Callable, false_fun: Callable, operand: Any, **others: Any) -> Any:
    with _Named("[true]"):
        if_true = true_fun(operand)
    with _Named("[false]"):
        if_false = false_fun(operand)
    return jax.tree.map(lambda a, b: jnp.where(predicate, a, b), if_true, if_false), PytreeTrace({})


class _Named(Messenger):
    """Adds to the names of the sites inside where they are; plates are the same ones everywhere."""

    def __init__(self, place: str):
        super().__init__(None)
        self.place = place

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] in ("sample", "deterministic"):
            msg["name"] = f"{msg['name']}{self.place}"
        elif msg["type"] == "control_flow":
            refuse_draws_inside(msg)  # where it stays a loop: its sites would not have the name
