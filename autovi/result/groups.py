"""The groups of an ArviZ object: what of a fit goes into which."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autovi.model.inputs import Inputs
from autovi.model.new_data import bind_like
from autovi.result import export
from autovi.result.axes import Axes, as_dicts, numbers_of
from autovi.result.constants import constant_elements
from autovi.result.posterior import Posterior

OF_NEW_DATA = ("predictions", "predictions_constant_data")
Groups = dict[str, Callable[[], Mapping[str, Any]]]


CHAINS = ("fit", "restarts")


def chains_of(fit: Any, chains: str) -> Sequence[Any]:
    """The fits that are the further chains of an object: all restarts, or none.

    Raises:
        ValueError: another word, or there are no restarts.
    """
    if chains not in CHAINS:
        raise ValueError(f"chains: expected 'fit' or 'restarts', got {chains!r}")
    if chains == "fit":
        return ()
    if fit.restarts is None:
        raise ValueError("chains: this fit has no restarts; autovi.fit(model, data, num_restarts=4) makes some")
    return tuple(fit.restarts)


def to_arviz(
    fit: Posterior,
    chains: Sequence[Posterior],
    groups: str | Collection[str] | None,
    new_data: Any,
    coords: Any,
    dims: Any,
) -> Any:
    """See `Fit.to_arviz`; `chains` are the fits that it has in place of its own draws, if any."""
    groups = [groups] if isinstance(groups, str) else groups
    axes = axes_of(fit)
    own_coords, own_dims = as_dicts(coords, dims)
    if own_coords or own_dims:
        axes = replace(axes, coords={**fit.coords, **own_coords}, dims={**fit.dims, **own_dims})
        axes.check()
    made = _of_chains([_of_fit(one, axes) for one in chains or (fit,)])
    of_new: dict[str, Any] = {}
    if new_data is not None:
        inputs = bind_like(fit.model, new_data, fit.inputs)
        of_new = {"predictions": axes.of_new_data(fit.model, inputs)}
        predicted = lambda: [_chain(one.predicted(inputs)) for one in chains or (fit,)]  # noqa: E731
        made["predictions"] = lambda: _stacked(predicted())
        made["predictions_constant_data"] = lambda: {axes.variable(n): a for n, a in numbers_of(inputs).items()}
    _check_groups(groups, made)
    wanted = {name: make() for name, make in made.items() if groups is None or name in groups}
    return export.build(wanted, **axes.named(), **of_new, attrs=_attrs(fit))


def _check_groups(groups: Collection[str] | None, made: Groups) -> None:
    if unknown := sorted(set(groups or ()) - set(made)):
        where = " without new_data" if unknown[0] in OF_NEW_DATA else ""
        raise ValueError(f"groups: unknown name {unknown[0]!r}{where}; expected some of {list(made)}")


def axes_of(fit: Posterior) -> Axes:
    """Dims and coords of everything in a fit."""
    return Axes(fit.engine.full.traced, fit.inputs, fit.coords, fit.dims)


def posterior_alone(fit: Posterior) -> Any:
    """An object with the posterior and nothing that takes longer."""
    return export.build({"posterior": _chain(fit.values)}, **axes_of(fit).named())


def summary(fit: Posterior, idata: Any, **kwargs: Any) -> Any:
    """See `Fit.summary`; `idata` is the whole object, if there is one or it is quickly made."""
    whole = kwargs.get("group", "posterior") != "posterior"
    constant = {} if whole else constant_elements(fit, fit.values)
    return export.summary(posterior_alone(fit) if idata is None else idata, constant=constant, **kwargs)


def _of_fit(fit: Posterior, axes: Axes) -> Groups:
    return {
        "posterior": lambda: _chain(fit.values),
        "posterior_predictive": lambda: _chain(_predictive(fit)),
        "log_likelihood": lambda: _chain(fit.log_likelihoods),
        "sample_stats": lambda: _chain(_stats(fit)),
        "observed_data": lambda: fit.observed,
        "constant_data": lambda: {axes.variable(n): a for n, a in constant_data(fit.inputs, fit.observed).items()},
    }


def _of_chains(each: Sequence[Groups]) -> Groups:
    """The groups of several fits, those of draws with a chain for each."""

    def made(name: str) -> Callable[[], Mapping[str, Any]]:
        if name in export.DATA_GROUPS:
            return each[0][name]
        return lambda: _stacked([groups[name]() for groups in each])

    return {name: made(name) for name in each[0]}


def _stacked(chains: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Variables of several chains as one."""
    return {name: np.concatenate([one[name] for one in chains]) for name in chains[0]}


def _predictive(fit: Posterior) -> dict[str, np.ndarray]:
    observed = fit.engine.full.sites.observed
    return {n: v for n, v in fit.predict().items() if n in observed} if observed else {}


def _stats(fit: Posterior) -> dict[str, np.ndarray]:
    """Log densities at the draws, and the log weight with which each stands for the posterior: one and the same for all
    where it has been used up in choosing them."""
    draws = fit.densities
    weight = np.zeros_like(draws.log_p) if fit.resampled else draws.log_p - draws.log_q
    return {"lp": draws.log_p, "log_q": draws.log_q, "log_weight": weight}


def constant_data(inputs: Inputs, observed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model's array arguments that are not observations, keys of random numbers apart."""
    seen = observed.values()
    return {n: a for n, a in numbers_of(inputs).items() if not any(_same_numbers(a, o) for o in seen)}


def _attrs(fit: Posterior) -> dict[str, Any]:
    return {
        "plan": json.dumps(fit.plan.to_dict()),
        "estimators": json.dumps({c.site: c.estimator for c in fit.plan.choices}),
        "biased": json.dumps(fit.plan.biased),
        "elbo": fit.elbo,
        "elbo_se": fit.elbo_se,
        "khat": fit.khat,
        "efficiency": fit.efficiency,
        "resampled": int(fit.resampled),
        "drawn": fit.drawn,
        "estimated_from": fit.estimated_from,
        "verdict": str(fit.verdict),
        "status": fit.status,
        "message": fit.message,
        "sampling_time": fit.seconds.fitting,
    }


def _chain(group: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {n: np.asarray(v)[None] for n, v in group.items()}


def _same_numbers(array: np.ndarray, other: np.ndarray) -> bool:
    """Equal at the precision of `other`: JAX makes 32 bits of the user's 64."""
    return array.shape == other.shape and np.array_equal(array.astype(other.dtype), other)
