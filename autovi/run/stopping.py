"""When a fit ends: what the host knows of it, its learning rates, and a verdict on the loss, honest about noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from autovi.numbers import how_many, with_error
from autovi.run.learning_rate import RATES, evaluated

CHUNK = 100  # steps between two looks of the host
WINDOW = 8  # chunks that a verdict on the loss looks at
TOLERANCE = 0.01  # a fall of less, in nats over a window, is none
PRECISION = 0.1  # standard error, in nats, with which a fall must be known before it is said to be none
LONGEST = 5000  # steps: a window of so many is judged whatever its noise
HOPELESS = 10  # chunks after which it is asked whether steps still change anything
LOST = 0.9  # share of steps in them that changed nothing, beyond which the fit ends


class Schedule(NamedTuple):
    """What the host decides for each step of a chunk: the learning rate (0 or less: no step), the number of the step
    within the running mean of the parameters, and the emphasis of recent steps in it (see `Pace`)."""

    rate: np.ndarray
    number: np.ndarray
    emphasis: np.ndarray


@dataclass
class Progress:
    """What the host knows of a running fit.

    A fit that goes on has several legs, each with its own number of steps. `rates` are learning rates, the first where
    there is a number of steps; `learning_rate` is a schedule of the user's, a function of the step since
    `learning_rate_start`.
    """

    num_steps: int | None
    max_steps: int
    rates: tuple[float, ...] = RATES
    learning_rate: Callable[[Any], Any] | None = None
    learning_rate_start: int = 0
    losses: list[np.ndarray] = field(default_factory=list)
    step: int = 0
    leg_start: int = 0
    level: int = 0  # which of the rates
    level_start: int = 0
    lowered: list[int] = field(default_factory=list)  # the steps before which the rate was lowered
    status: str = "max_steps"
    message: str = ""
    rungs: tuple[Any, ...] = ()  # of the ladder, that were taken
    interrupted: bool = False  # by Ctrl-C, or a fault of the user's function: no restart follows

    @property
    def limit(self) -> int:
        """The number of the step after which the fit ends whatever the loss does."""
        return self.leg_start + (self.max_steps if self.num_steps is None else self.num_steps)

    def next_leg(self, num_steps: int | None, max_steps: int, new_data: bool = False) -> Progress:
        """The progress of a fit that goes on from here.

        Without `num_steps` it makes the steps that it was stopped in, or goes on until the loss stands still, at the
        learning rate that it had reached (at the first one, with new data).
        """
        own: dict[str, Any] = {"losses": list(self.losses), "lowered": list(self.lowered), "interrupted": False}
        if num_steps is None and self.num_steps is not None and self.step < self.limit and not new_data:
            return replace(self, **own, status="max_steps", message="")
        stays = num_steps is None and self.num_steps is None and not new_data
        return replace(
            self,
            num_steps=num_steps,
            max_steps=max_steps,
            **own,
            leg_start=self.step,
            level=self.level if stays else 0,
            level_start=self.level_start if stays else self.step,
            status="max_steps",
            message="",
        )

    def all_losses(self) -> np.ndarray:
        """The loss of every step so far."""
        return np.concatenate([*self.losses, np.zeros(0, np.float32)])

    def final_loss(self) -> float:
        """The mean over the last tenth of the steps (infinite when none is finite): what restarts are compared by."""
        losses = self.all_losses()
        last = losses[-max(1, losses.size // 10) :]
        return float(last[np.isfinite(last)].mean()) if np.isfinite(last).any() else np.inf

    def schedule(self, start: int) -> Schedule:
        """The next chunk's, beginning at step `start`.

        With a number of steps the rate falls along half a cosine, and the parameters of the last quarter are averaged.
        Without one the rate is that of the level and all but its first chunk is averaged; with the user's optimizer or
        schedule, where there is one level, recent steps count more: the n-th with weight 4 / (n + 3) (Shamir and Zhang,
        2013).
        """
        steps = np.arange(start, start + CHUNK)
        in_leg = steps - self.leg_start
        if self.num_steps is not None:
            cosine = 0.5 * (1 + np.cos(np.pi * np.minimum(in_leg / self.num_steps, 1.0)))
            rate = np.maximum(cosine, 1e-3) * self.rates[0]
            number = np.maximum(in_leg - int(0.75 * self.num_steps) + 1, 1)
        else:
            rate = np.full(CHUNK, self.rates[self.level])
            number = np.maximum(steps - self.level_start - CHUNK + 1, 1)
        if self.learning_rate is not None:
            rate = evaluated(self.learning_rate, steps - self.learning_rate_start)
        emphasis = np.full(CHUNK, 0.0 if self.num_steps is not None or len(self.rates) > 1 else 3.0)
        rate = np.where(steps < self.limit, rate, 0.0)
        return Schedule(rate.astype(np.float32), number.astype(np.float32), emphasis.astype(np.float32))

    def stands_still(self) -> bool:
        """Lowers the learning rate once the loss stands still; True when it does at the lowest."""
        since = self.step - self.level_start
        if since < WINDOW * CHUNK:
            return False
        window = min(max(WINDOW * CHUNK, since // 2), LONGEST)
        recent = self.all_losses()[-window:]
        recent = recent[np.isfinite(recent)]
        if recent.size < WINDOW * CHUNK // 2:
            return False
        verdict = judge(recent, window)
        if not verdict.standing:
            return False
        if self.level + 1 < len(self.rates):
            self.level, self.level_start = self.level + 1, self.step
            self.lowered.append(self.step)
            return False
        self.message = (
            f"the loss stands still{' at the lowest learning rate' * (len(self.rates) > 1)}: between the halves of the "
            f"last {how_many(recent.size, 'step')} it {verdict.said}"
        )
        return True


class Verdict(NamedTuple):
    """How much the loss fell from the first to the second half of a window, and its standard error, in nats."""

    fall: float
    se: float
    window: int  # steps, those without a finite loss included

    @property
    def standing(self) -> bool:
        """Nothing is left to wait for: no fall beyond two standard errors, and these small enough to see one (or the
        window as long as is worth looking at)."""
        seen = self.se < PRECISION or self.window >= LONGEST
        return self.fall < max(2.0 * self.se, TOLERANCE) and seen

    @property
    def said(self) -> str:
        """What the loss did, in words."""
        moved, se = with_error(abs(self.fall), self.se)
        if not moved.strip("0."):
            return f"did not fall (standard error {se} nats)"
        if self.fall > 0:
            return f"still fell by {moved} nats (standard error {se})"
        return f"did not fall (it rose by {moved} nats, standard error {se})"


def judge(losses: np.ndarray, window: int | None = None) -> Verdict:
    """Compares the halves of a window of losses, of which the finite ones are given. The standard error comes from
    means of batches of half a chunk, so that the correlation between steps is in it."""
    batches = losses[: losses.size // (CHUNK // 2) * (CHUNK // 2)].reshape(-1, CHUNK // 2).mean(axis=1)
    first, second = np.array_split(batches, 2)
    se = np.sqrt(first.var(ddof=1) / first.size + second.var(ddof=1) / second.size)
    return Verdict(float(first.mean() - second.mean()), float(se), losses.size if window is None else window)
