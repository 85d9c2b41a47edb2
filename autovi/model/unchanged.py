"""What is computed after a fit is traced after it, for which the model is looked at again: it may have changed since.
Where one fit follows the other, and no line of the user's comes between, that is time lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_NOTHING_BETWEEN = ContextVar("nothing_between", default=False)


@contextmanager
def nothing_between() -> Iterator[None]:
    """Inside, models are taken to be what they were when they were fitted."""
    token = _NOTHING_BETWEEN.set(True)
    try:
        yield
    finally:
        _NOTHING_BETWEEN.reset(token)


def is_known_unchanged() -> bool:
    """Need a model not be looked at again?"""
    return _NOTHING_BETWEEN.get()
