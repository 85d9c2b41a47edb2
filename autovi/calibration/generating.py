"""The model that makes data: its sites, and where what it draws belongs in the data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from autovi.analysis.bounded_loops import run_once
from autovi.calibration.observations import Observed, observed_of
from autovi.model.inputs import Inputs, bind, check_allowed
from autovi.model.sites import Sites
from autovi.model.target import Target
from autovi.model.targets import as_target
from autovi.prior import at_full_size


@dataclass(frozen=True, eq=False)
class Generating:
    """A model, data of the form that it makes, and what of these are observations.

    `inputs` hold the data; only arguments that may hold observations are traced where the model needs the values of
    others.
    """

    target: Target
    inputs: Inputs
    sites: Sites

    @cached_property
    def lengths(self) -> dict[str, int]:
        """Every plate at its full size."""
        return {plate.name: plate.size for plate in self.sites.plates.values()}

    def draws(self, arrays: Mapping[str, Any], rng_key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        """One draw of all sites from the prior, and the observed values in `arrays`; to be traced."""
        made = self.target.simulate(self.inputs.without_data(), self.lengths, arrays, rng_key[None], 1)
        return {name: value[0] for name, value in made[0].items()}, made[1]

    @cached_property
    def observed(self) -> tuple[Observed, ...]:
        """Where observations lie in the data."""
        key = jax.random.key(0)
        seen = jax.jit(lambda arrays: self.draws(arrays, key)[1])
        return observed_of(seen, self.inputs.arrays)

    @property
    def arguments(self) -> list[str]:
        """The arguments that hold observations."""
        return list(dict.fromkeys(found.argument for found in self.observed))


def generating(
    model: Callable, data: Any, allow_nan: Collection[str], told: Mapping[str, str], rng_key: jax.Array
) -> Generating:
    """What is known of a model that makes data like `data`.

    Args:
        told: argument -> the site that it observes, for arguments that the data lack.

    Raises:
        ValueError: nothing is observed, or a term of the density cannot be drawn from; or as `bind` for bad data.
    """
    inputs = bind(model, data, allow_nan)
    check_allowed(inputs, allow_nan)
    traced, bound = at_full_size(model, inputs)
    _check_told(told, model)
    if told or not traced.sites.observed:
        made = Generating(as_target(model), bound, traced.sites)
        inputs = bind(model, _completed(made, model, data, told, rng_key), allow_nan)
        traced, bound = at_full_size(model, inputs)
    if not traced.sites.observed:
        raise ValueError(_NOTHING)
    _check_drawable(traced.sites)
    if bound.concrete:
        bound = _with_values(model, bound)
    return Generating(as_target(model), bound, traced.sites)


_NOTHING = (
    "data: no site of the model is observed with these data, so that there is nothing to simulate; pass what is "
    "observed (its values do not count), or say observed={argument: site} of an argument that you leave out"
)


def _check_told(told: Mapping[str, str], model: Callable) -> None:
    try:
        known = list(inspect.signature(model).parameters)
    except (TypeError, ValueError):
        return
    if unknown := [name for name in told if name not in known]:
        raise ValueError(f"observed: no argument of the model is called {unknown[0]!r}; expected some of {known}")


def _completed(
    made: Generating, model: Callable, data: Any, told: Mapping[str, str], rng_key: jax.Array
) -> dict[str, Any]:
    """The data with draws as those arguments that are left out: the told ones, else each that has a site's name."""
    parameters = list(inspect.signature(model).parameters)
    given = dict(zip(parameters, data, strict=False)) if isinstance(data, tuple) else dict(data or {})
    absent = [name for name in parameters if given.get(name) is None]
    wanted = dict(told) or {name: name for name in absent if name in made.sites.latents}
    if not wanted:
        raise ValueError(_NOTHING)
    for argument, site in wanted.items():
        if site not in made.sites.samples:
            known = list(made.sites.latents)
            raise ValueError(f"observed[{argument!r}]: no site is called {site!r}; expected one of {known}")
    drawn = run_once(lambda arrays, key: made.draws(arrays, key)[0], made.inputs.traced(), rng_key)
    return given | {argument: np.asarray(drawn[site]) for argument, site in wanted.items()}


def _check_drawable(sites: Sites) -> None:
    for name, site in sites.samples.items():
        if site.auxiliary and site.distribution == "Unit":
            raise ValueError(
                f"site {name!r}: a factor is a term of the density that cannot be drawn from, so that data simulated "
                "by this model do not follow its density; give generator=, a model without it that makes the same data"
            )
    if sites.params:
        raise ValueError(
            f"site {next(iter(sites.params))!r}: a parameter (numpyro.param) has no prior to draw from; give it one by "
            "numpyro.sample, or give generator=, a model that says its value"
        )


def _with_values(model: Callable, inputs: Inputs) -> Inputs:
    """The inputs of a model that needs values of its data, with those arguments traced whose values it does not need.
    (So one program serves all simulated data.)

    Raises:
        ValueError: it needs the values of what it observes.
    """
    free = []
    for name in inputs.arrays:
        try:
            traced, bound = at_full_size(model, _traced_alone(inputs, [name]))
        except Exception:
            continue
        if not bound.concrete and traced.sites.observed:
            free.append(name)
    found = _traced_alone(inputs, free)
    if not free or at_full_size(model, found)[1].concrete:
        raise ValueError(
            "data: the model reads the values of what it observes, as for a shape or an index, so that each simulated "
            "data set would be another program; pass such numbers as arguments of their own"
        )
    return found


def _traced_alone(inputs: Inputs, names: Collection[str]) -> Inputs:
    """The same data, with these arrays traced and all others constants."""
    arrays = {name: inputs.arrays[name] for name in names}
    others = tuple((name, array) for name, array in inputs.arrays.items() if name not in arrays)
    return replace(inputs, arrays=arrays, static=(*inputs.static, *others), concrete=False)
