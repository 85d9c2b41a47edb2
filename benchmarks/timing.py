"""Alternating rounds within a budget of time, and what is left out when it runs short."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

FIRST_UNIT = 20.0  # seconds that a unit may take, before one has been seen


class Budget:
    """Seconds for a whole benchmark of several units; what was left out or failed is kept with its reason.

    A unit is not interrupted. So it starts only where as much time is left as the longest one so far took, or as it
    says that it needs.
    """

    def __init__(self, seconds: float, *, longest: float = FIRST_UNIT, clock: Callable[[], float] = time.perf_counter):
        self.clock, self.longest = clock, longest
        self.end = clock() + seconds
        self.missing: dict[str, str] = {}

    def left(self) -> float:
        """Seconds until the end; negative after it."""
        return self.end - self.clock()

    def unit(self, name: str, work: Callable[[], Any], needs: float | None = None) -> Any:
        """What `work()` returns; None, and a line in `missing`, where time is short or it raises."""
        needs = self.longest if needs is None else needs
        if self.left() < needs:
            self.missing[name] = f"left out: {max(self.left(), 0):.0f} s left, it may take {needs:.0f} s"
            return None
        start = self.clock()
        try:
            return work()
        except Exception as error:
            # A device is lent for minutes: what one program cannot do must not cost the figures of the others.
            self.missing[name] = f"failed: {type(error).__name__}: {str(error)[:300]}"
            return None
        finally:
            self.longest = max(self.longest, self.clock() - start)

    @property
    def failed(self) -> bool:
        """Whether some unit raised."""
        return any(reason.startswith("failed") for reason in self.missing.values())


def alternating(
    calls: Mapping[Any, Callable[[], Any]], rounds: int, seconds: float, limit: float = math.inf
) -> dict[Any, list[float]]:
    """Seconds of every call, round by round, in alternating order, so that none always follows the same other one.

    At most `rounds` of them; none begins after `seconds` but the first three, and none after `limit` but the first.
    """
    times: dict[Any, list[float]] = {name: [] for name in calls}
    start = time.perf_counter()
    for round_number in range(rounds):
        elapsed = time.perf_counter() - start
        if (round_number >= 3 and elapsed > seconds) or (round_number >= 1 and elapsed > limit):
            break
        for name in list(calls)[:: 1 if round_number % 2 == 0 else -1]:
            before = time.perf_counter()
            calls[name]()
            times[name].append(time.perf_counter() - before)
    return times


def slope(few: list[float], many: list[float], steps_between: int) -> float | None:
    """Seconds a step, from the median times of few steps and of many; None where noise outweighs the steps."""
    difference = statistics.median(many) - statistics.median(few)
    return difference / steps_between if difference > 0 else None
