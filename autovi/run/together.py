"""Fits that run side by side: each goes on until it asks for stochastic steps, which all of them then make together.

A fit is a generator of the legs that it asks for. So the host's part of each runs by itself, in turn, in one thread,
and only legs of one program share its lanes: what runs beside what follows from the fits alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

import jax
from jax.errors import JaxRuntimeError
from tqdm.auto import tqdm

from autovi.process import computing
from autovi.run.checks import check_end
from autovi.run.faults import fields_of, said
from autovi.run.interruption import Interruption
from autovi.run.lanes import Lanes, count_of_lanes, idle
from autovi.run.loop import collect, is_asked_for_hope, is_hopeless, next_schedule, note_interruption
from autovi.run.reporting import LOG
from autovi.run.running import Steps, ran
from autovi.run.state import State
from autovi.run.stopping import CHUNK, Progress


class Ended(Protocol):
    """What a fit gives back."""

    @property
    def progress(self) -> Progress:
        """How it ended."""


Result = TypeVar("Result", bound=Ended)


@computing()
def alone(fit: Generator[Steps, State, Result]) -> Result:
    """What a fit gives back that runs by itself."""
    advance: Callable[[], Steps] = partial(next, fit)
    while True:
        try:
            leg = advance()
        except StopIteration as end:
            return end.value
        try:
            advance = partial(fit.send, ran(*leg))
        except BaseException as error:  # the fit may have something to give back all the same
            advance = partial(fit.throw, error)


@computing()
def together(fits: Sequence[Generator[Steps, State, Result]]) -> list[Result | BaseException]:
    """What each fit gives back, or the error that ended it, in their order.

    The same fits give the same numbers. Beside others a fit has not the bits that it has alone, but the same random
    numbers, and the same steps but for rounding. What goes wrong in one does not touch the others. Ctrl-C ends all: of
    those that had begun their steps there is what there is, as of a fit alone, and a KeyboardInterrupt of the others.
    """
    group = _Together(fits)
    group.run()
    return [group.results[at] for at in range(len(fits))]


class _Together(Generic[Result]):
    """Fits on their way: what each waits for, and what came of it."""

    def __init__(self, fits: Sequence[Generator[Steps, State, Result]]):
        self.fits = fits
        self.waiting: dict[int, Steps] = {}
        self.results: dict[int, Result | BaseException] = {}
        self.interrupted = False

    def run(self) -> None:
        """All of them to their ends."""
        for at, fit in enumerate(self.fits):
            if self.interrupted:
                self.results[at] = KeyboardInterrupt("stopped by Ctrl-C before the first step: there is no fit")
            else:
                self._advance(at, partial(next, fit))
        while self.waiting and not self.interrupted:
            self._run_group(self._largest_group())
        for at in list(self.waiting):
            self._advance(at, partial(self.fits[at].throw, KeyboardInterrupt("stopped by Ctrl-C before its steps")))

    def _advance(self, at: int, advance: Callable[[], Steps]) -> None:
        self.waiting.pop(at, None)
        try:
            self.waiting[at] = advance()
        except StopIteration as end:
            self.results[at] = end.value
            self.interrupted |= end.value.progress.interrupted
        except KeyboardInterrupt as error:
            self.results[at], self.interrupted = error, True
        except Exception as error:
            self.results[at] = error

    def _largest_group(self) -> list[int]:
        """Those that wait for steps of the same program, the first of the largest groups."""
        groups: dict[tuple[int, str], list[int]] = {}
        for at, leg in self.waiting.items():
            groups.setdefault((id(leg.engine), str(leg.state.rng_key.dtype)), []).append(at)
        return max((sorted(group) for group in groups.values()), key=lambda group: (len(group), -group[0]))

    def _run_group(self, group: list[int]) -> None:
        legs = [self.waiting[at] for at in group]
        try:
            states = in_lanes(legs)
        except KeyboardInterrupt:
            self.interrupted = True
            return
        self.interrupted |= any(leg.progress.interrupted for leg in legs)
        for at, state in zip(group, states, strict=True):
            if state is not None:
                self._advance(at, partial(self.fits[at].send, state))
        rest = [at for at, state in zip(group, states, strict=True) if state is None]
        for at in rest:
            if self.interrupted:
                return
            try:
                state = ran(*self.waiting[at], fits=len(rest))
            except BaseException as error:
                self._advance(at, partial(self.fits[at].throw, error))
            else:
                self.interrupted |= self.waiting[at].progress.interrupted
                self._advance(at, partial(self.fits[at].send, state))


def in_lanes(legs: Sequence[Steps]) -> list[State | None]:
    """The states after the last step of legs that ran side by side, as `ran` gives them one by one; None of those that
    did not: all, where it is not worth it or the program cannot be made of many; those that had not ended, where XLA
    fails, as where memory runs out; those that had not begun, after Ctrl-C."""
    states: list[State | None] = [None] * len(legs)
    count = count_of_lanes(legs)
    if count == 1:
        return states
    engine, show = legs[0].engine, legs[0].watch.progress_bar
    try:
        with legs[0].watch.clock.spent("trace"):
            lanes = Lanes(legs, count)
        chunk = engine.waited(lanes.compiling, legs[0].watch.clock, show)
    except Exception as error:  # a callback of the user's, say, of which JAX does not know how to make many
        LOG.info("%d fits one after another, since side by side: %s", len(legs), error)
        return states
    began = time.perf_counter()
    try:
        _Stepping(legs, lanes, chunk, states).run(show)
    except JaxRuntimeError as error:
        LOG.info("the fits that have not ended one after another, since side by side: %s", said(error))
    clocks = {id(leg.watch.clock): leg.watch.clock for leg in legs}
    for clock in clocks.values():
        clock.took("run", (time.perf_counter() - began) / len(clocks))
    for leg, state in zip(legs, states, strict=True):
        if state is not None:
            check_end(engine, leg.progress, state, leg.inputs)
            LOG.info("%s after %d steps: %s", leg.progress.status, leg.progress.step, leg.progress.message)
    return states


class _Stepping:
    """The loop over chunks of lanes. A leg whose last step is made leaves its lane to one that waits."""

    def __init__(self, legs: Sequence[Steps], lanes: Lanes, chunk: Callable, states: list[State | None]):
        self.legs, self.lanes, self.chunk, self.states = legs, lanes, chunk, states
        self.queue = deque(range(len(legs)))
        self.places: dict[int, int] = {}  # lane -> the leg in it
        self.before = [fields_of(leg.progress) for leg in legs]

    def run(self, show: bool) -> None:
        """Chunk after chunk to the end."""
        limits = [leg.progress.limit - leg.progress.step for leg in self.legs]
        total = None if any(leg.progress.num_steps is None for leg in self.legs) else sum(limits)
        bar = tqdm(total=total, disable=not show, unit="step", desc=f"{len(self.legs)} fits")
        interruption = Interruption()
        try:
            with interruption, bar:
                while self._filled(interruption) and not interruption.requested:
                    self._step(bar)
                for lane, at in list(self.places.items()):
                    note_interruption(self.legs[at].progress, interruption)
                    self._leave(lane)
        except JaxRuntimeError:
            for at in (*self.places.values(), *self.queue):
                if self.states[at] is None:
                    vars(self.legs[at].progress).update(self.before[at])
            raise

    def _filled(self, interruption: Interruption) -> bool:
        """Puts legs that wait into free lanes; False when no leg is left."""
        for lane in range(self.lanes.count):
            while lane not in self.places and self.queue and not interruption.requested:
                at = self.queue.popleft()
                progress = self.legs[at].progress
                if progress.step == progress.leg_start:
                    progress.skipped = int(self.legs[at].state.skipped)
                self.lanes.fill(lane, self.legs[at])
                self.places[lane] = at
        return bool(self.places)

    def _step(self, bar: tqdm) -> None:
        schedules = {
            lane: next_schedule(self.legs[at].progress, self.legs[at].progress.step) for lane, at in self.places.items()
        }
        for lane in [lane for lane, schedule in schedules.items() if schedule is None]:
            self._leave(lane)
        if not self.places:
            return
        losses = self.lanes.advance(self.chunk, [schedules.get(lane) or idle() for lane in range(self.lanes.count)])
        skipped = self.lanes.skipped
        for lane, at in list(self.places.items()):
            progress = self.legs[at].progress
            collect(progress, losses[lane], min(CHUNK, progress.limit - progress.step), bar)
            lost = is_asked_for_hope(progress, progress.step) and is_hopeless(progress, int(skipped[lane]))
            stands = not lost and progress.num_steps is None and progress.has_ended()
            if lost or stands or progress.step >= progress.limit:
                self._leave(lane)

    def _leave(self, lane: int) -> None:
        state = jax.block_until_ready(self.lanes.state(lane))
        self.states[self.places.pop(lane)] = state
