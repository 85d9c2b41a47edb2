"""What a fit gives back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from autovi.keys import as_key
from autovi.model.inputs import Inputs
from autovi.model.new_data import bind_like
from autovi.plan.plan import Plan
from autovi.result import export
from autovi.result.axes import Axes, as_dicts, numbers_of
from autovi.result.diagnostics import Elbo, SiteGradient, elbo_of, gradient_summary
from autovi.result.saving import write_fit
from autovi.run.engine import DENSITIES, DRAWS_BUDGET, LIKELIHOODS, VALUES, Draws, Engine
from autovi.run.state import State
from autovi.run.stopping import Progress

GRADIENT_REPEATS = 64


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
    seconds: float
    coords: Mapping[str, Any] = field(default_factory=dict)
    dims: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    saved_plan: Plan | None = None  # of a loaded fit, whose engine was told every choice

    def __post_init__(self) -> None:
        self._at_rest = self.engine.at_rest()  # False: the model's own callbacks change what they read

    def __dir__(self) -> list[str]:
        """What is public: how a fit is held inside is not."""
        inside = {"engine", "inputs", "state", "progress", "raw_params", "coords", "dims", "saved_plan"}
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
        flat = {f"{b}.{k}": np.asarray(v) for b, leaves in self.raw_params["guide"].items() for k, v in leaves.items()}
        return {**flat, **jax.tree.map(np.asarray, self._site_params)}

    @cached_property
    def _site_params(self) -> dict[str, Any]:
        return self.engine.program.constrained(self.raw_params)

    @cached_property
    def _arrays(self) -> Any:
        return jax.device_put(self.inputs.traced())

    def _check_unchanged(self) -> None:
        """What is computed after the fit is traced after it: the model must still be the one that was fitted."""
        self.engine.use_unchanged(self.model, self.guide, self.inputs, self._at_rest)

    def _draw(self, num_draws: int, rng_key: jax.Array, *kinds: str) -> Draws:
        self._check_unchanged()
        return self.engine.draws(self.raw_params, self._arrays, rng_key, num_draws, kinds)

    def _own_draws(self, *kinds: str) -> Draws:
        """The draws of `draws`, of which these kinds are kept."""
        return self._draw(self.num_draws, jax.random.fold_in(self.rng_key, 0), *kinds)

    @cached_property
    def _light(self) -> bool:
        """Is all that belongs to the draws small enough to be made and kept at once?"""
        return self.num_draws * self.engine.kept_per_draw((VALUES, LIKELIHOODS)) <= DRAWS_BUDGET

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

    @property
    def _log_weights(self) -> np.ndarray:
        return np.asarray(self._densities.log_p - self._densities.log_q)

    @cached_property
    def _elbo(self) -> Elbo:
        return elbo_of(self._log_weights)

    @property
    def elbo(self) -> float:
        """The ELBO in nats, estimated with `num_draws` draws at full plates."""
        return self._elbo.value

    @property
    def elbo_se(self) -> float:
        """The Monte Carlo standard error of `elbo`, in nats."""
        return self._elbo.se

    @cached_property
    def khat(self) -> float:
        """Pareto k of the importance weights p(x, z) / q(z): above 0.7 the posterior is not to be trusted as it is.

        Vehtari et al. (2024), "Pareto smoothed importance sampling"; Yao et al. (2018), "Yes, but did it work?"
        """
        return export.pareto_k(self._log_weights)

    @cached_property
    def gradients(self) -> dict[str, SiteGradient]:
        """Variance and signal-to-noise ratio of the gradient estimate of one step, at the fitted parameters.

        By latent site; sites that share a block share its numbers. Parameter sites by name. Sites that are summed out
        have no gradient.
        """
        key = jax.random.fold_in(self.rng_key, 1)
        self._check_unchanged()
        sampled = self.engine.gradients(self.raw_params, self.state.estimators, self._arrays, key, GRADIENT_REPEATS)
        of_block = gradient_summary(sampled["guide"])
        blocks = self.engine.program.plan.blocks
        of_site = {s: of_block[b.name] for b in blocks if b.name in of_block for s in b.sites}
        return {**of_site, **gradient_summary(sampled["param"])}

    def sample(self, num_draws: int, rng_key: int | jax.Array | None = None) -> dict[str, np.ndarray]:
        """Posterior draws: name -> `(num_draws, *shape)`, constrained, deterministic sites included.

        Without `rng_key` the draws are the same at every call.
        """
        _check_count("num_draws", num_draws)
        key = jax.random.fold_in(self.rng_key, 2) if rng_key is None else as_key(rng_key)
        return dict(self._draw(int(num_draws), key, VALUES).values)

    def predict(
        self, new_data: Any = None, *, num_draws: int | None = None, rng_key: int | jax.Array | None = None
    ) -> dict[str, np.ndarray]:
        """Posterior predictive draws: name -> `(num_draws, *shape)` of observed and deterministic sites.

        `new_data` takes the form of `fit`'s data, without the observations (None: the data of the fit). Latent sites
        of a plate that has another size there are drawn anew, from their prior given the rest, and returned as well.
        Without `num_draws` the latent values are those in `idata`; without `rng_key` the draws are the same at every
        call.

        Raises:
            ValueError: `new_data` does not fit the model; the message names the argument.
        """
        inputs = self.inputs if new_data is None else bind_like(self.model, new_data, self.inputs)
        return self._predicted(inputs, num_draws, rng_key)

    def _predicted(
        self, inputs: Inputs, num_draws: int | None = None, rng_key: int | jax.Array | None = None
    ) -> dict[str, np.ndarray]:
        key = jax.random.fold_in(self.rng_key, 3) if rng_key is None else as_key(rng_key)
        latent_key, key = jax.random.split(key)
        values = self._values if num_draws is None else self.sample(num_draws, latent_key)
        latent = {n: v for n, v in values.items() if n in self.engine.program.sites.latents}
        return self.engine.predict(self.model, inputs, latent, self._site_params, key)

    @cached_property
    def idata(self) -> Any:
        """The posterior as ArviZ opens it; the same object at every access. See `to_arviz`."""
        return self.to_arviz()

    def to_arviz(
        self,
        groups: Collection[str] | None = None,
        *,
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
        observations, and are made only where they are asked for. `sample_stats` holds the log densities of model (`lp`)
        and posterior (`log_q`) in the same variables, those in which each site was fitted, and their difference
        `log_weight`.

        Raises:
            ValueError: an unknown group; dims or coords that do not fit the model.
        """
        axes = self._axes
        own_coords, own_dims = as_dicts(coords, dims)
        if own_coords or own_dims:
            axes = replace(axes, coords={**self.coords, **own_coords}, dims={**self.dims, **own_dims})
            axes.check()
        made: dict[str, Callable[[], Mapping[str, Any]]] = {
            "posterior": lambda: _chain(self._values),
            "posterior_predictive": lambda: _chain(self._predictive()),
            "log_likelihood": lambda: _chain(self.log_likelihoods),
            "sample_stats": lambda: _chain(self._stats()),
            "observed_data": lambda: self._observed,
            "constant_data": lambda: {self._axes.variable(n): a for n, a in self._constant.items()},
        }
        of_new: dict[str, Any] = {}
        if new_data is not None:
            inputs = bind_like(self.model, new_data, self.inputs)
            of_new = {"predictions": axes.of_new_data(self.model, inputs)}
            made["predictions"] = lambda: _chain(self._predicted(inputs))
            made["predictions_constant_data"] = lambda: {
                self._axes.variable(n): a for n, a in numbers_of(inputs).items()
            }
        if unknown := sorted(set(groups or ()) - set(made)):
            raise ValueError(f"groups: {unknown} are none of {list(made)}")
        wanted = {name: make() for name, make in made.items() if groups is None or name in groups}
        return export.build(wanted, **axes.named(), **of_new, attrs=self._attrs())

    @cached_property
    def _axes(self) -> Axes:
        return Axes(self.engine.full.traced, self.inputs, self.coords, self.dims)

    def _predictive(self) -> dict[str, np.ndarray]:
        observed = self.engine.full.sites.observed
        return {n: v for n, v in self.predict().items() if n in observed} if observed else {}

    def _stats(self) -> dict[str, np.ndarray]:
        draws = self._densities
        return {"lp": draws.log_p, "log_q": draws.log_q, "log_weight": draws.log_p - draws.log_q}

    @cached_property
    def _observed(self) -> dict[str, np.ndarray]:
        self._check_unchanged()
        return {n: np.asarray(v) for n, v in self.engine.observed(self._arrays).items()}

    @cached_property
    def _constant(self) -> dict[str, np.ndarray]:
        """The model's array arguments that are not observations, keys of random numbers apart."""
        return {
            n: a
            for n, a in numbers_of(self.inputs).items()
            if not any(_same_numbers(a, o) for o in self._observed.values())
        }

    def _attrs(self) -> dict[str, Any]:
        return {
            "plan": json.dumps(self.plan.to_dict()),
            "estimators": json.dumps({c.site: c.estimator for c in self.plan.choices}),
            "elbo": self.elbo,
            "elbo_se": self.elbo_se,
            "khat": self.khat,
            "status": self.status,
            "message": self.message,
            "sampling_time": self.seconds,
        }

    def summary(self, **kwargs: Any) -> Any:
        """`az.summary` made right for independent draws: statistics without convergence columns, which are for chains.

        Keyword arguments go to `az.summary`.
        """
        if self._light or "idata" in self.__dict__ or kwargs.get("group", "posterior") != "posterior":
            return export.summary(self.idata, **kwargs)
        return export.summary(export.build({"posterior": _chain(self._values)}, **self._axes.named()), **kwargs)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the fit to one file of arrays and JSON, complete or not at all. `autovi.load` reads it.

        Raises:
            ValueError: an argument of the model that is neither an array nor a JSON value; the message names it.
        """
        write_fit(self, path)

    def __repr__(self) -> str:
        return f"Fit({self.status}: {self.message}; {self.losses.size} steps in {self.seconds:.1f} s)\n{self.plan}"


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}")


def _chain(group: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {n: np.asarray(v)[None] for n, v in group.items()}


def _same_numbers(array: np.ndarray, other: np.ndarray) -> bool:
    """Equal at the precision of `other`: JAX makes 32 bits of the user's 64."""
    return array.shape == other.shape and np.array_equal(array.astype(other.dtype), other)
