"""What a fit gives back."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np
import optax

from autovi.keys import as_key
from autovi.model.guides import copied
from autovi.model.inputs import Inputs
from autovi.model.new_data import bind_like
from autovi.plan.plan import Plan
from autovi.preparation import Options
from autovi.process import computing
from autovi.result import export, plots
from autovi.result.diagnostics import GRADIENT_REPEATS, SiteGradient, gradient_summary
from autovi.result.display import fit_html, fit_text
from autovi.result.evidence import Evidence
from autovi.result.groups import summary, to_arviz
from autovi.result.resuming import resumed
from autovi.result.saving import write_fit
from autovi.run.checks import check_count
from autovi.run.clock import Seconds, waiting
from autovi.run.drawing import (
    DENSITIES,
    DRAWS_BUDGET,
    LIKELIHOODS,
    VALUES,
    Draws,
    draws,
    gradients,
    kept_per_draw,
)
from autovi.run.engine import Engine
from autovi.run.loop import MAX_STEPS
from autovi.run.predicting import predict
from autovi.run.reporting import Report
from autovi.run.state import State
from autovi.run.stopping import Progress


@dataclass(eq=False)
class Fit:
    """A fitted posterior. Draws and diagnostics are computed when first asked for, and kept.

    `status` is "converged" (the loss stands still), "mean_field" (the same, with discrete sites that meet in the model
    and are independent in q), "max_steps" (all steps were run), "stopped" (Ctrl-C) or "failed" (non-finite steps);
    `message` says it in words. `losses` is the negative ELBO per step, `(num_steps,)` in nats, of which `skipped_steps`
    changed nothing.
    """

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

    def __dir__(self) -> list[str]:
        """What is public: how a fit is held inside is not."""
        inside = {"coords", "dims", "engine", "inputs", "options", "progress", "progress_bar", "raw_params"}
        inside |= {"saved_plan", "state"}
        return [name for name in super().__dir__() if not name.startswith("_") and name not in inside]

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
    def _arrays(self) -> Any:
        return jax.device_put(self.inputs.traced())

    def _check_unchanged(self) -> None:
        """What is computed after the fit is traced after it: the model must still be the one that was fitted."""
        self.engine.use_unchanged(self.model, self.guide, self.inputs, self._at_rest)

    @contextmanager
    def _diagnosing(self, what: str) -> Iterator[None]:
        """What runs inside is computed after the fit, for which the model must be unchanged: timed, with a line while
        it lasts."""
        with computing(), self.seconds.spent("diagnostics"), waiting(f"computing {what}", self.progress_bar):
            self._check_unchanged()
            yield

    def _draw(self, num_draws: int, rng_key: jax.Array, *kinds: str) -> Draws:
        with self._diagnosing(f"{num_draws} posterior draws"):
            return draws(self.engine, self.raw_params, self._arrays, rng_key, num_draws, kinds)

    @computing()
    def _own_draws(self, *kinds: str) -> Draws:
        """The draws of `draws`, of which these kinds are kept."""
        return self._draw(self.num_draws, jax.random.fold_in(self.rng_key, 0), *kinds)

    @cached_property
    def _light(self) -> bool:
        """Is all that belongs to the draws small enough to be made and kept at once?"""
        return self.num_draws * kept_per_draw(self.engine, (VALUES, LIKELIHOODS)) <= DRAWS_BUDGET

    @cached_property
    def draws(self) -> Draws:
        """`num_draws` posterior draws with their log densities, the ones in `idata`; with the log likelihoods of the
        observations where these are few enough to be held beside them (see `log_likelihoods`)."""
        return self._own_draws(DENSITIES, VALUES, *([LIKELIHOODS] if self._light else []))

    @cached_property
    def _values(self) -> dict[str, np.ndarray]:
        """The values of `draws`, without their densities where these take long."""
        return (self.draws if self._light or "draws" in self.__dict__ else self._own_draws(VALUES)).values

    @property
    def log_likelihoods(self) -> dict[str, np.ndarray]:
        """Observed site -> `(num_draws, *shape)`, the log likelihood of each observation under each of `draws`."""
        return (self.draws if self._light else self._own_draws(LIKELIHOODS)).log_likelihoods

    @cached_property
    def _densities(self) -> Draws:
        """`draws` with log p and log q, the values left out where they are large."""
        return self.draws if self._light or "draws" in self.__dict__ else self._own_draws(DENSITIES)

    @cached_property
    def _evidence(self) -> Evidence:
        return Evidence(self)

    @property
    def _log_weights(self) -> np.ndarray:
        return self._evidence.log_weights

    @property
    def estimated_from(self) -> str:
        """What ELBO and k-hat are estimated from, in words."""
        return self._evidence.said

    @property
    def elbo(self) -> float:
        """The ELBO in nats, from `num_draws` draws at full plates. Where these would take minutes, it is from fewer, or
        from draws on batches as in the fit (see `estimated_from`)."""
        return self._evidence.elbo.value

    @property
    def elbo_se(self) -> float:
        """The Monte Carlo standard error of `elbo`, in nats."""
        return self._evidence.elbo.se

    @property
    def khat(self) -> float:
        """Pareto k of the importance weights p(x, z) / q(z): above 0.7 the posterior is not to be trusted as it is.

        Vehtari et al. (2024), "Pareto smoothed importance sampling"; Yao et al. (2018), "Yes, but did it work?"
        """
        return self._evidence.khat

    @property
    def khat_se(self) -> float:
        """The standard error of `khat`: (1 + k) / sqrt(n) with n weights in the tail that is fitted (Smith, 1985)."""
        return export.pareto_k_se(self.khat, self._evidence.num_weighed)

    @cached_property
    @computing()
    def gradients(self) -> dict[str, SiteGradient]:
        """Variance and signal-to-noise ratio of the gradient estimate of one step, at the fitted parameters.

        By latent site; sites that share a block share its numbers. Parameter sites by name. Sites that are summed out
        have no gradient.
        """
        key = jax.random.fold_in(self.rng_key, 1)
        with self._diagnosing("the noise of gradients"):
            sampled = gradients(
                self.engine, self.raw_params, self.state.estimators, self._arrays, key, GRADIENT_REPEATS
            )
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
        return self._predicted(inputs, num_draws, rng_key, batch_size)

    def _predicted(
        self,
        inputs: Inputs,
        num_draws: int | None = None,
        rng_key: int | jax.Array | None = None,
        batch_size: int | None = None,
    ) -> dict[str, np.ndarray]:
        key = jax.random.fold_in(self.rng_key, 3) if rng_key is None else as_key(rng_key)
        latent_key, key = jax.random.split(key)
        values = self._values if num_draws is None else self.sample(num_draws, latent_key)
        latent = {n: v for n, v in values.items() if n in self.engine.program.sites.latents}
        with self._diagnosing("predictions"):
            return predict(self.engine, self.model, inputs, latent, self._site_params, key, batch_size)

    def resume(
        self,
        num_steps: int | None = None,
        *,
        data: Any = None,
        max_steps: int = MAX_STEPS,
        learning_rate: float | optax.Schedule | None = None,
        callback: Callable[[Report], Any] | None = None,
        progress_bar: bool | None = None,
    ) -> Fit:
        """A fit that goes on where this one ended, its optimizer's memory included; this one stays what it is.

        Args:
            num_steps: so many steps more, at a learning rate that falls as in `fit`; None: the rest of the steps in
                which the fit was stopped, or until the loss stands still.
            data: new data of the form and sizes of the old, categories by their names; None: the same.
            max_steps: the bound on the steps to come when `num_steps` is None.
            learning_rate: as in `fit`, a schedule from its beginning (that of a loaded fit, which its file does not
                hold, from where it was); None: as before.
            callback: as in `fit`; it is not remembered.
            progress_bar: None: as in the fit.

        Raises:
            ValueError: data of other sizes, or a model that has changed since.

        Example:
            >>> fit = fit.resume(5000)
        """
        return resumed(self, data, num_steps, max_steps, learning_rate, callback, progress_bar)

    @cached_property
    def idata(self) -> Any:
        """The posterior as ArviZ opens it; the same object at every access. See `to_arviz`."""
        return self.to_arviz()

    def to_arviz(
        self,
        groups: str | Collection[str] | None = None,
        *,
        num_draws: int | None = None,
        new_data: Any = None,
        coords: Mapping[str, Any] | None = None,
        dims: Mapping[str, Sequence[str | None]] | None = None,
    ) -> Any:
        """An InferenceData (ArviZ 0.x) or DataTree (ArviZ 1.x) with dims `(chain, draw)`, one chain.

        Groups: posterior, posterior_predictive, log_likelihood (unscaled, 0 where masked), sample_stats,
        observed_data, constant_data (an argument named like a site or plate gets "_data" at its end). Plates are
        dims; pandas and xarray labels of the data are coords. The plan, the ELBO and k-hat are attributes.
        `dims` (variable -> names of all its axes) and `coords` (dim -> labels) are as in `arviz.from_dict`; they win
        over those of `fit`, and those over plates and labels of the data.
        With `new_data` (as for `predict`) there are predictions and predictions_constant_data too, with the labels of
        the new data; elements that the posterior has too keep theirs.
        `groups` names those that are wanted (None: all): predictions and log likelihoods are as large as draws times
        observations, and are made only where they are asked for. `num_draws` asks for another number of draws than the
        fit's. `sample_stats` holds the log densities of model (`lp`)
        and posterior (`log_q`) in the same variables, those in which each site was fitted, and their difference
        `log_weight`.

        Raises:
            ValueError: an unknown group; dims or coords that do not fit the model.
        """
        if num_draws is not None and num_draws != self.num_draws:
            return self._with_draws(num_draws).to_arviz(groups, new_data=new_data, coords=coords, dims=dims)
        return to_arviz(self, groups, new_data, coords, dims)

    def _with_draws(self, num_draws: int) -> Fit:
        """The same fit with another number of draws."""
        check_count("num_draws", num_draws)
        fit = replace(self, num_draws=int(num_draws))
        fit._at_rest = self._at_rest
        return fit

    @cached_property
    @computing()
    def _observed(self) -> dict[str, np.ndarray]:
        with self._diagnosing("the observed values"):
            return {n: np.asarray(v) for n, v in self.engine.observed(self._arrays).items()}

    def summary(self, **kwargs: Any) -> Any:
        """`az.summary` made right for independent draws: statistics without convergence columns, which are for chains.

        Elements that are the same whatever the latent values, such as the zeros of a Cholesky factor, are left out.
        Keyword arguments go to `az.summary`.
        """
        return summary(self, **kwargs)

    plot = plots.plot
    plot_forest = plots.plot_forest

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the fit to one file of arrays and JSON, complete or not at all. `autovi.load` reads it.

        Raises:
            ValueError: an argument of the model that is neither an array nor a JSON value; the message names it.
            FileNotFoundError: the folder is not there. IsADirectoryError: the path is a folder.
        """
        write_fit(self, path)

    def __copy__(self) -> Fit:
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Fit:
        """A copy that shares nothing that could be changed; what is compiled, all fits of one program share."""
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        memo |= {id(self.engine): self.engine, id(self.guide): copied(self.guide, memo)}
        kept = {n: v for n, v in vars(self).items() if not isinstance(getattr(type(self), n, None), cached_property)}
        vars(twin).update({n: deepcopy(v, memo) for n, v in kept.items()})  # the rest is computed anew when asked for
        self.engine.use(twin.model, twin.guide)  # whoever of the two lives longer
        return twin

    def __repr__(self) -> str:
        return fit_text(self)

    def _repr_html_(self) -> str:
        return fit_html(self)
