"""A fitted q: its parameters, draws, predictions and numbers, computed when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import numpy as np

from autovi.keys import as_key
from autovi.model.inputs import Inputs
from autovi.model.new_data import bind_like
from autovi.plan.plan import Plan
from autovi.preparation import Options
from autovi.process import computing
from autovi.result import export
from autovi.result.diagnostics import GRADIENT_REPEATS, SiteGradient, gradient_summary
from autovi.result.evidence import Evidence, num_weighed
from autovi.run.checks import check_count
from autovi.run.clock import Seconds, waiting
from autovi.run.drawing import (
    DENSITIES,
    DRAWS_BUDGET,
    LIKELIHOODS,
    VALUES,
    Draws,
    batch_log_weights,
    draws,
    gradients,
    kept_per_draw,
)
from autovi.run.engine import Engine
from autovi.run.predicting import predict
from autovi.run.state import State
from autovi.run.stopping import Progress


@dataclass(eq=False)
class Posterior:
    """What of a `Fit` does not depend on how it is shown, stored or gone on with."""

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
        """What was chosen for every site and why."""
        return self.engine.program.plan if self.saved_plan is None else self.saved_plan

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
        """The data that are arguments of the programs, on the device."""
        return jax.device_put(self.inputs.traced())

    def check_unchanged(self) -> None:
        """What is computed after the fit is traced after it: the model must still be the one that was fitted."""
        self.engine.use_unchanged(self.model, self.guide, self.inputs, self._at_rest)

    @contextmanager
    def _diagnosing(self, what: str) -> Iterator[None]:
        """What runs inside is computed after the fit, for which the model must be unchanged: timed, with a line while
        it lasts."""
        with computing(), self.seconds.spent("diagnostics"), waiting(f"computing {what}", self.progress_bar):
            self.check_unchanged()
            yield

    def _draw(self, num_draws: int, rng_key: jax.Array, *kinds: str) -> Draws:
        with self._diagnosing(f"{num_draws} posterior draws"):
            return draws(self.engine, self.raw_params, self.arrays, rng_key, num_draws, kinds)

    @computing()
    def _own_draws(self, *kinds: str) -> Draws:
        """The draws of `draws`, of which these kinds are kept."""
        return self._draw(self.num_draws, jax.random.fold_in(self.rng_key, 0), *kinds)

    @cached_property
    def is_light(self) -> bool:
        """Is all that belongs to the draws small enough to be made and kept at once?"""
        return self.num_draws * kept_per_draw(self.engine, (VALUES, LIKELIHOODS)) <= DRAWS_BUDGET

    @cached_property
    def draws(self) -> Draws:
        """`num_draws` posterior draws with their log densities, the ones in `idata`; with the log likelihoods of the
        observations where these are few enough to be held beside them (see `log_likelihoods`)."""
        return self._own_draws(DENSITIES, VALUES, *([LIKELIHOODS] if self.is_light else []))

    @cached_property
    def values(self) -> dict[str, np.ndarray]:
        """The values of `draws`, without their densities where these take long."""
        return (self.draws if self.is_light or "draws" in self.__dict__ else self._own_draws(VALUES)).values

    @property
    def log_likelihoods(self) -> dict[str, np.ndarray]:
        """Observed site -> `(num_draws, *shape)`, the log likelihood of each observation under each of `draws`."""
        return (self.draws if self.is_light else self._own_draws(LIKELIHOODS)).log_likelihoods

    @cached_property
    def densities(self) -> Draws:
        """`draws` with log p and log q, the values left out where they are large."""
        return self.draws if self.is_light or "draws" in self.__dict__ else self._own_draws(DENSITIES)

    @cached_property
    def evidence(self) -> Evidence:
        """ELBO and weights, each computed when it is asked for."""
        plates = self.engine.program.sites.subsampled.values()
        batches = ", ".join(f"{p.length} of the {p.size} elements of {p.name!r}" for p in plates)
        weighed = num_weighed(self.num_draws, self.engine.numbers_per_draw, bool(plates))
        known = self.is_light or "draws" in vars(self)
        return Evidence(self.num_draws, self.num_draws if known else weighed, self._weigh, self._weigh_batches, batches)

    def _weigh(self, num_draws: int) -> np.ndarray:
        """log p(x, z) - log q(z) of the first draws at full plates."""
        first = jax.random.fold_in(self.rng_key, 0)
        kept = self.densities if num_draws == self.num_draws else self._draw(num_draws, first, DENSITIES)
        return np.asarray(kept.log_p - kept.log_q)

    def _weigh_batches(self) -> np.ndarray:
        """Estimates of it, each of another draw on a batch of its own."""
        key = jax.random.fold_in(self.rng_key, 4)
        with self._diagnosing("the ELBO"):
            return batch_log_weights(self.engine, self.raw_params, self.arrays, key, self.num_draws)

    @property
    def log_weights(self) -> np.ndarray:
        """log p(x, z) - log q(z) of the draws that are weighed (see `estimated_from`)."""
        return self.evidence.log_weights

    @property
    def estimated_from(self) -> str:
        """What ELBO and k-hat are estimated from, in words."""
        return self.evidence.said

    @property
    def elbo(self) -> float:
        """The ELBO in nats, from `num_draws` draws at full plates. Where these would take minutes, it is from fewer, or
        from draws on batches as in the fit (see `estimated_from`)."""
        return self.evidence.elbo.value

    @property
    def elbo_se(self) -> float:
        """The Monte Carlo standard error of `elbo`, in nats."""
        return self.evidence.elbo.se

    @property
    def khat(self) -> float:
        """Pareto k of the importance weights p(x, z) / q(z): above 0.7 the posterior is not to be trusted as it is.

        Vehtari et al. (2024), "Pareto smoothed importance sampling"; Yao et al. (2018), "Yes, but did it work?"
        """
        return self.evidence.khat

    @property
    def khat_se(self) -> float:
        """The standard error of `khat`: (1 + k) / sqrt(n) with n weights in the tail that is fitted (Smith, 1985)."""
        return export.pareto_k_se(self.khat, self.evidence.num_weighed)

    @cached_property
    @computing()
    def gradients(self) -> dict[str, SiteGradient]:
        """Variance and signal-to-noise ratio of the gradient estimate of one step, at the fitted parameters.

        By latent site; sites that share a block share its numbers. Parameter sites by name. Sites that are summed out
        have no gradient.
        """
        key = jax.random.fold_in(self.rng_key, 1)
        with self._diagnosing("the noise of gradients"):
            sampled = gradients(self.engine, self.raw_params, self.state.estimators, self.arrays, key, GRADIENT_REPEATS)
        of_block = gradient_summary(sampled["guide"])
        blocks = self.engine.program.plan.blocks
        of_site = {s: of_block[b.name] for b in blocks if b.name in of_block for s in b.sites}
        return {**of_site, **gradient_summary(sampled["param"])}

    @computing()
    def sample(self, num_draws: int, rng_key: int | jax.Array | None = None) -> dict[str, np.ndarray]:
        """Posterior draws: name -> `(num_draws, *shape)`, constrained, deterministic sites included.

        Without `rng_key` the draws are the same at every call.
        """
        check_count("num_draws", num_draws)
        key = jax.random.fold_in(self.rng_key, 2) if rng_key is None else as_key(rng_key)
        return dict(self._draw(int(num_draws), key, VALUES).values)

    @computing()
    def predict(
        self,
        new_data: Any = None,
        *,
        num_draws: int | None = None,
        rng_key: int | jax.Array | None = None,
        batch_size: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Posterior predictive draws: name -> `(num_draws, *shape)` of observed and deterministic sites.

        `new_data` takes the form of `fit`'s data, without the observations (None: the data of the fit). Latent sites
        of a plate that has another size there are drawn anew, from their prior given the rest, and returned as well.
        Without `num_draws` the latent values are those in `idata`; without `rng_key` the draws are the same at every
        call. `batch_size` draws are made at once (None: so many as hold about twenty million numbers).

        Raises:
            ValueError: `new_data` does not fit the model; the message names the argument.
        """
        check_count("batch_size", batch_size, optional=True)
        inputs = self.inputs if new_data is None else bind_like(self.model, new_data, self.inputs)
        return self.predicted(inputs, num_draws, rng_key, batch_size)

    def predicted(
        self,
        inputs: Inputs,
        num_draws: int | None = None,
        rng_key: int | jax.Array | None = None,
        batch_size: int | None = None,
    ) -> dict[str, np.ndarray]:
        """`predict` for data that are bound to the model already."""
        key = jax.random.fold_in(self.rng_key, 3) if rng_key is None else as_key(rng_key)
        latent_key, key = jax.random.split(key)
        values = self.values if num_draws is None else self.sample(num_draws, latent_key)
        latent = {n: v for n, v in values.items() if n in self.engine.program.sites.latents}
        with self._diagnosing("predictions"):
            return predict(self.engine, self.model, inputs, latent, self._site_params, key, batch_size)

    @cached_property
    @computing()
    def observed(self) -> dict[str, np.ndarray]:
        """The observed values at full plates, by site."""
        with self._diagnosing("the observed values"):
            return {n: np.asarray(v) for n, v in self.engine.observed(self.arrays).items()}
