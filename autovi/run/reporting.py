"""What a fit tells while it runs: a callback's report, the log, the progress bar."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import numpy as np

from autovi.numbers import how_many
from autovi.program.program import Program
from autovi.run.state import State
from autovi.run.stopping import Progress

LOG = logging.getLogger("autovi")
# Python prints warnings of loggers that nobody has set up; what is to be seen without asking is in the result.
LOG.addHandler(logging.NullHandler())


class Report:
    """What a callback is told after a chunk of steps.

    Attributes:
        step: how many steps the fit has made.
        losses: the negative ELBO of the chunk's steps, nats.
    """

    def __init__(self, program: Program, state: State, progress: Progress):
        self._program, self._state = program, state
        self.step = progress.step
        self.losses = progress.losses[-1]

    @property
    def loss(self) -> float:
        """The mean of `losses`, of those that are finite; NaN where none is."""
        finite = self.losses[np.isfinite(self.losses)]
        return float(finite.mean()) if finite.size else float("nan")

    @cached_property
    def params(self) -> dict[str, np.ndarray]:
        """The parameters as a fit that ended here would have them, named as in `Fit.params`. To be read within the
        callback: the next steps take their memory."""
        if self._state is None:
            raise RuntimeError("callback: read report.params within the callback; the next steps take their memory")
        return self._program.named(self._state.fitted)

    def __repr__(self) -> str:
        return f"Report(step={self.step}, loss={self.loss:.6g})"

    def close(self) -> None:
        """The callback has returned."""
        self._state = None  # type: ignore[assignment]


def called(callback: Callable[[Report], Any] | None, program: Program, state: State, progress: Progress) -> str | None:
    """Calls a callback, and returns why the fit is to end; None where it goes on.

    What a callback raises ends the fit, which is then returned as it stands: nothing that was fitted is lost.
    """
    if callback is None:
        return None
    report = Report(program, state, progress)
    try:
        stop = callback(report)
    except StopIteration:
        stop = True
    except Exception as error:
        LOG.exception("the callback raised an exception")
        progress.interrupted = True
        raised = f"the callback raised {type(error).__name__}: {error}"
        return f"stopped after {how_many(progress.step, 'step')}, since {raised}"
    finally:
        report.close()
    return f"stopped by the callback after {how_many(progress.step, 'step')}" if _is_true(stop) else None


def _is_true(stop: Any) -> bool:
    """Only True stops, NumPy's and JAX's too: a callback may end in an expression that returns something else, such as
    `list.append`."""
    if not isinstance(stop, bool | np.generic | np.ndarray | jax.Array):
        return False
    return np.ndim(stop) == 0 and np.asarray(stop).dtype.kind == "b" and bool(stop)
