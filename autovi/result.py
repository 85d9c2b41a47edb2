"""What a fit gives back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any

import jax
import numpy as np

from autovi import export
from autovi.coordinates import plate_coords
from autovi.diagnostics import Elbo, SiteGradient, elbo_of, gradient_summary
from autovi.engine import Draws, Engine
from autovi.inputs import Inputs, bind
from autovi.plan import Plan
from autovi.saving import write_fit

GRADIENT_REPEATS = 64


@dataclass(eq=False)
class Fit:
    """A fitted posterior. Draws and diagnostics are computed when first asked for, and kept.

    `status` is "converged" (the loss stands still), "max_steps" (all steps were run), "stopped" (Ctrl-C) or "failed"
    (non-finite steps); `message` says it in words. `losses` is the negative ELBO per step, `(num_steps,)` in nats, of
    which `skipped_steps` changed nothing.
    """

    model: Callable
    engine: Engine
    inputs: Inputs
    raw_params: Any
    estimator_params: Any
    losses: np.ndarray
    status: str
    message: str
    skipped_steps: int
    rng_key: jax.Array
    num_draws: int
    seconds: float

    @property
    def plan(self) -> Plan:
        """What was chosen for every site and why."""
        return self.engine.program.plan

    @cached_property
    def params(self) -> dict[str, np.ndarray]:
        """The fitted parameters: "block.parameter" for the engine's families, parameter sites by name, constrained."""
        flat = {f"{b}.{k}": np.asarray(v) for b, leaves in self.raw_params["guide"].items() for k, v in leaves.items()}
        sites = jax.tree.map(np.asarray, self.engine.program.constrained(self.raw_params))
        return {**flat, **sites}

    @cached_property
    def _arrays(self) -> Any:
        return jax.device_put(self.inputs.traced())

    def _draw(self, num_draws: int, rng_key: jax.Array) -> Draws:
        return self.engine.draws(self.raw_params, self._arrays, rng_key, num_draws)

    @cached_property
    def draws(self) -> Draws:
        """`num_draws` posterior draws with their log densities, the ones in `idata`."""
        return self._draw(self.num_draws, jax.random.fold_in(self.rng_key, 0))

    @cached_property
    def _elbo(self) -> Elbo:
        return elbo_of(self.draws.log_p - self.draws.log_q)

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
        return export.pareto_k(self.draws.log_p - self.draws.log_q)

    @cached_property
    def gradients(self) -> dict[str, SiteGradient]:
        """Variance and signal-to-noise ratio of every block's gradient estimate at the fitted parameters."""
        key = jax.random.fold_in(self.rng_key, 1)
        sampled = self.engine.gradients(self.raw_params, self.estimator_params, self._arrays, key, GRADIENT_REPEATS)
        return gradient_summary({**sampled["guide"], **sampled["param"]})

    def sample(self, num_draws: int, rng_key: int | jax.Array | None = None) -> dict[str, np.ndarray]:
        """Posterior draws: name -> `(num_draws, *shape)`, constrained, deterministic sites included.

        Without `rng_key` the draws are the same at every call.
        """
        if isinstance(num_draws, bool) or not isinstance(num_draws, int | np.integer) or num_draws < 1:
            raise ValueError(f"num_draws: expected an integer of at least 1, got {num_draws!r}")
        key = jax.random.fold_in(self.rng_key, 2) if rng_key is None else _key(rng_key)
        return dict(self._draw(int(num_draws), key).values)

    def predict(
        self, new_data: Any = None, *, num_draws: int | None = None, rng_key: int | jax.Array | None = None
    ) -> dict[str, np.ndarray]:
        """Posterior predictive draws: name -> `(num_draws, *shape)` of observed and deterministic sites.

        `new_data` takes the form of `fit`'s data, without the observations (None: the data of the fit). Latent sites
        of a plate that has another size there are drawn anew, from their prior given the rest.
        """
        inputs = self.inputs if new_data is None else self._bind(new_data)
        values = self.draws.values if num_draws is None else self.sample(num_draws)
        latent = {n: v for n, v in values.items() if n in self.engine.program.sites.latents}
        key = jax.random.fold_in(self.rng_key, 3) if rng_key is None else _key(rng_key)
        params = self.engine.program.constrained(self.raw_params)
        return self.engine.predict(self.model, inputs, latent, params, key)

    def _bind(self, new_data: Any) -> Inputs:
        inputs = bind(self.model, new_data)
        return inputs.as_constants() if self.inputs.concrete else inputs

    @cached_property
    def idata(self) -> Any:
        """The posterior as ArviZ opens it; the same object at every access. See `to_arviz`."""
        return self.to_arviz()

    def to_arviz(self) -> Any:
        """An InferenceData (ArviZ 0.x) or DataTree (ArviZ 1.x) with dims `(chain, draw)`, one chain.

        Groups: posterior, posterior_predictive, log_likelihood, sample_stats (`lp` and `log_q` on the unconstrained
        scale, and their difference `log_weight`), observed_data, constant_data. Plates are dims; pandas and xarray
        labels of the data are coords. The plan, the ELBO and k-hat are attributes.
        """
        sites = self.engine.full.sites
        draws = self.draws
        predictive = {n: v for n, v in self.predict().items() if n in sites.observed}
        observed = self._observed
        constant = {n: np.asarray(a) for n, a in self.inputs.arrays.items() if not _among(a, observed.values())}
        stats = {"lp": draws.log_p, "log_q": draws.log_q, "log_weight": draws.log_p - draws.log_q}
        groups = {
            "posterior": _chain(draws.values),
            "posterior_predictive": _chain(predictive),
            "log_likelihood": _chain(draws.log_likelihoods),
            "sample_stats": _chain(stats),
            "observed_data": observed,
            "constant_data": constant,
        }
        coords = plate_coords({p.name: p.size for p in sites.plates.values()}, self.inputs.labels)
        return export.build(groups, dims=self._dims(groups), coords=coords, attrs=self._attrs())

    @cached_property
    def _observed(self) -> dict[str, np.ndarray]:
        return {n: np.asarray(v) for n, v in self.engine.observed(self._arrays).items()}

    def _dims(self, groups: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
        sites = self.engine.full.sites
        dims: dict[str, list[str]] = {}
        for name, site in sites.samples.items():
            names: list[str | None] = [None] * len(site.batch_shape)
            for plate in site.plates:
                if -plate.dim <= len(names) and site.batch_shape[plate.dim] == plate.size:
                    names[plate.dim] = plate.name
            dims[name] = _filled(name, [*names, *[None] * len(site.event_shape)])
        for name, plates in sites.deterministics.items():
            dims[name] = _filled(name, list(plates))
        for name, array in groups["constant_data"].items():
            dims[name] = self._constant_dims(name, array)
        return dims

    def _constant_dims(self, name: str, array: np.ndarray) -> list[str]:
        """A data array's axes: its own labels' names, else the one plate of its length."""
        labels = self.inputs.labels.get(name)
        sizes = [p.size for p in self.engine.full.sites.plates.values()]
        names: list[str | None] = []
        for axis, size in enumerate(np.shape(array)):
            plates = [p.name for p in self.engine.full.sites.plates.values() if p.size == size]
            own = labels.dims[axis] if labels is not None else None
            unambiguous = sizes.count(size) == 1 and plates[0] not in names
            names.append(plates[0] if unambiguous and (own is None or own == plates[0]) else None)
        return _filled(name, names)

    def _attrs(self) -> dict[str, Any]:
        return {
            "inference_library": "autovi",
            "inference_library_version": _version(),
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
        return export.summary(self.idata, **kwargs)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the fit to one file of arrays and JSON, complete or not at all. `autovi.load` reads it.

        Raises:
            ValueError: an argument of the model that is neither an array nor a JSON value; the message names it.
        """
        write_fit(self, path)

    def __repr__(self) -> str:
        return f"Fit({self.status}: {self.message}; {self.losses.size} steps in {self.seconds:.1f} s)\n{self.plan}"


def _version() -> str:
    return metadata.version("autovi")


def _key(rng_key: int | jax.Array) -> jax.Array:
    return jax.random.key(int(rng_key)) if isinstance(rng_key, int | np.integer) else rng_key


def _chain(group: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {n: np.asarray(v)[None] for n, v in group.items()}


def _filled(name: str, names: list[str | None]) -> list[str]:
    return [dim or f"{name}_dim_{i}" for i, dim in enumerate(names)]


def _among(array: Any, others: Any) -> bool:
    return any(np.shape(array) == np.shape(o) and np.array_equal(np.asarray(array), o) for o in others)
