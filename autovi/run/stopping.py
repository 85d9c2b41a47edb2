"""What the host knows of a running fit: its learning rates, and when it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from autovi.numbers import how_many
from autovi.run.learning_rate import RATES, evaluated
from autovi.run.outlook import Outlook, means, outlooks
from autovi.run.starts import Agreement, Modes
from autovi.run.thresholds import THRESHOLDS

CHUNK = 100  # steps between two looks of the host
SHORTEST = 8  # chunks of a level before its loss is looked at
LONGEST = 10_000  # steps of a level that are enough where noise hides all
LOOKS = 0.01  # growth of a level between two looks, beyond a chunk
EXPECTED = 4_000  # steps of a fit that ends where its loss stands still, as a guess
HOPELESS = 10  # chunks after which it is asked whether steps still change anything
LOST = 0.9  # share of steps in them that changed nothing, beyond which the fit ends


def is_looked_at(since: int) -> bool:
    """Is the loss looked at after so many steps of a level? After each chunk; later, each time they grew by a part."""
    return since >= SHORTEST * CHUNK and since // CHUNK % max(1, int(LOOKS * since) // CHUNK) == 0


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
    off_ladder: str = ""  # why none was
    gain: float | None = None  # what the last look expected, see `Outlook`
    gain_se: float | None = None
    loss_se: float | None = None
    modes: Modes | None = None  # what several starts found
    restarts: Agreement | None = None
    interrupted: bool = False  # by Ctrl-C, or a fault of the user's function: no restart follows
    skipped: int = 0  # steps that changed nothing, when it was last asked whether steps still change anything

    @property
    def limit(self) -> int:
        """The number of the step after which the fit ends whatever the loss does."""
        return self.leg_start + (self.max_steps if self.num_steps is None else self.num_steps)

    @property
    def expected_steps(self) -> int:
        """Roughly how many steps are to come."""
        return min(self.limit - self.step, EXPECTED) if self.num_steps is None else self.limit - self.step

    def next_leg(self, num_steps: int | None, max_steps: int, new_data: bool = False) -> Progress:
        """The progress of a fit that goes on from here.

        Without `num_steps` it makes the steps that it was stopped in, or goes on until the loss stands still, at the
        learning rate that it had reached (at the first one, with new data).
        """
        own: dict[str, Any] = {"losses": list(self.losses), "lowered": list(self.lowered), "interrupted": False}
        own |= dict.fromkeys(("gain", "gain_se", "loss_se"))
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

    def has_ended(self) -> bool:
        """Looks at the loss after a chunk. Lowers the learning rate where there is little left to gain at it; at the
        lowest the fit has ended, with its status and message set."""
        since = self.step - self.level_start
        if not is_looked_at(since):
            return False
        seen = self._outlooks(since)
        last = self.level + 1 == len(self.rates)
        errors = THRESHOLDS.errors_to_stop if last else THRESHOLDS.errors_to_lower
        settled = [outlook for outlook in seen if outlook.little_left(errors)]
        if settled and last:
            self.status, self.message = "converged", f"{self._stand()}: {self._remembered(settled[0]).said}"
            return True
        rises = bool(seen) and seen[0].certainly_rises
        hidden = bool(seen) and since >= LONGEST and self._is_hidden(seen[-1], since, last)
        if not (settled or rises or hidden):
            return False
        if last and not rises:
            self.status, self.message = "noisy", self._noisy(seen[-1])
            return True
        if last:
            return False
        self.level, self.level_start = self.level + 1, self.step
        self.lowered.append(self.step)
        return False

    def end_at_limit(self) -> None:
        """Status and message of a fit that made all its steps."""
        if self.num_steps is not None:
            made = how_many(self.num_steps, "step")
            self.message = f"ran the {made} asked for; whether they suffice was not tested"
            return
        self.message = f"the loss had not come to a stand after max_steps={self.max_steps:_}"
        if not (seen := self._outlooks(self.step - self.level_start)):
            return
        last = seen[-1]
        if not last.certainly_falls:
            self.status, self.message = "noisy", self._noisy(last)
        else:
            self.message += f": {self._remembered(last).said}"

    def _outlooks(self, since: int) -> list[Outlook]:
        """What is to be expected of the loss by the steps of this level; nothing where most of them were not finite."""
        recent = self.all_losses()[-since:] if since else np.zeros(0, np.float32)
        finite = recent[np.isfinite(recent)]
        if since < SHORTEST * CHUNK or finite.size < since / 2:
            return []
        return outlooks(means(finite), (self.limit - self.step) / since, float(np.finfo(recent.dtype).eps))

    def _is_hidden(self, outlook: Outlook, since: int, last: bool) -> bool:
        """Does the loss not fall as far as its noise lets see, with no prospect that the steps to come will tell?"""
        if outlook.certainly_falls:
            return False
        return not last or not outlook.can_be_known((self.limit - self.step) / since)

    def _stand(self) -> str:
        return f"the loss stands still{' at the lowest learning rate' * (len(self.rates) > 1)}"

    def _noisy(self, outlook: Outlook) -> str:
        said = f"the noise of the loss hides whether it still falls: {self._remembered(outlook).said}"
        if outlook.rounding >= THRESHOLDS.nats:
            return f"{said}, since float32 does not hold more; jax.config.update('jax_enable_x64', True) does"
        return f"{said}; more particles (num_particles=) quieten it"

    def _remembered(self, outlook: Outlook) -> Outlook:
        self.gain, self.gain_se, self.loss_se = (float(x) for x in outlook[:3])
        return outlook
