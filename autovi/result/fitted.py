"""A fitted q: what produced it, how it ended, and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.errors import JaxRuntimeError

from autovi.ladder.rungs import Rung
from autovi.model.inputs import Inputs
from autovi.plan.plan import Plan
from autovi.preparation import Options
from autovi.process import computing
from autovi.result.restarts import Restarts
from autovi.result.without_data import NEEDED
from autovi.run.clock import Seconds, waiting
from autovi.run.engine import Engine
from autovi.run.faults import is_out_of_memory
from autovi.run.state import State
from autovi.run.stopping import Progress


@dataclass(eq=False)
class Fitted:
    """A fitted q, and what produced it."""

    model: Callable
    guide: Callable | None
    engine: Engine
    inputs: Inputs
    state: State
    progress: Progress
    rng_key: jax.Array
    num_draws: int
    seconds: Seconds
    options: Options
    progress_bar: bool = False
    coords: Mapping[str, Any] = field(default_factory=dict)
    dims: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    saved_plan: Plan | None = None  # of a loaded fit, whose engine was told every choice
    # All of them, where there were several. By a factory: as a plain default it would be a name without a docstring.
    restarts: Restarts | None = field(default_factory=lambda: None)
    absent: Mapping[str, Any] = field(default_factory=dict)  # of a loaded fit: what is known of data that are not there

    def __post_init__(self) -> None:
        self._at_rest = self.engine.at_rest()  # False: the model's own callbacks change what they read

    @property
    def status(self) -> str:
        """How the fit ended, in a word."""
        return self.progress.status

    @property
    def message(self) -> str:
        """How the fit ended, in a sentence."""
        return self.progress.message

    @cached_property
    def losses(self) -> np.ndarray:
        """The negative ELBO of every step, `(num_steps,)` in nats."""
        return self.progress.all_losses()

    @property
    def skipped_steps(self) -> int:
        """How many steps had a non-finite ELBO or gradient and changed nothing."""
        return int(self.state.skipped)

    @cached_property
    @computing()
    def raw_params(self) -> Any:
        """The parameters to be used, by block, on the scale that they were trained on."""
        return self.state.fitted

    @property
    def plan(self) -> Plan:
        """What was chosen for every site and why, and the rungs that were taken."""
        plan = self.engine.program.plan if self.saved_plan is None else self.saved_plan
        off = self.progress.off_ladder
        return replace(plan, rungs=(f"none, since {off}",) if off else tuple(map(str, self.rungs)))

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """The rungs of the ladder that were taken, with gradient evaluations, seconds and the ELBO of what each left;
        empty where the fit took stochastic steps from the start."""
        return self.progress.rungs

    @cached_property
    def params(self) -> dict[str, np.ndarray]:
        """The fitted parameters: "block.parameter" for the engine's families, parameter sites by name, constrained."""
        return self.engine.program.named(self.raw_params)

    @cached_property
    @computing()
    def _site_params(self) -> dict[str, Any]:
        return self.engine.program.constrained(self.raw_params)

    @cached_property
    @computing()
    def arrays(self) -> Any:
        """The data that are arguments of the programs, on the device.

        Raises:
            ValueError: the fit was loaded without them.
        """
        if self.lacks_data:
            raise ValueError(
                f"data: this fit was loaded without its data, which this needs; {NEEDED}. Without them there are "
                "params, sample, and predict for new data"
            )
        return jax.device_put(self.inputs.traced())

    @property
    def lacks_data(self) -> bool:
        """Was it loaded without its data?"""
        return bool(self.absent)

    def check_unchanged(self) -> None:
        """What is computed after the fit is traced after it: the model must still be the one that was fitted."""
        self.engine.use_unchanged(self.model, self.guide, self.inputs, self._at_rest)

    @contextmanager
    def _diagnosing(self, what: str) -> Iterator[None]:
        """What runs inside is computed after the fit, for which the model must be unchanged: timed, with a line while
        it lasts."""
        with computing(), self.seconds.spent("diagnostics"), waiting(f"computing {what}", self.progress_bar):
            self.check_unchanged()
            try:
                yield
            except JaxRuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                raise JaxRuntimeError(
                    f"num_draws: memory ran out in {what}; the fit itself is whole: `save` it, and ask for fewer draws "
                    f"or groups at a time, or open it where there is more memory ({error})"
                ) from error
