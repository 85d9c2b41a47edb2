"""The draws of a posterior, from whatever holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from autovi.result import export
from autovi.result.groups import posterior_alone
from autovi.result.posterior import Posterior


def dataset_of(name: str, result: Any) -> Any:
    """Its posterior as an `xarray.Dataset` of numbers with dims `(chain, draw, ...)`.

    Args:
        name: what the user calls it, for errors.
        result: a `Fit`, a NumPyro `MCMC` that has run, what ArviZ makes (`InferenceData`, `DataTree`, or its posterior
            as an `xarray.Dataset`), or a dict from name to draws `(num_draws, *shape)`.

    Raises:
        TypeError: something else.
        ValueError: no posterior in it, an `MCMC` that has not run, or draws that are unequal in number or too few.
    """
    if isinstance(result, Posterior):
        return export.posterior(posterior_alone(result))
    if hasattr(result, "get_samples"):
        return _built(name, _of_chains(name, result))
    if export.is_arviz(result):
        try:
            return export.posterior(result)
        except KeyError:
            raise ValueError(f"results[{name!r}]: expected a group 'posterior', got none") from None
    if isinstance(result, Mapping):
        arrays = {str(n): np.asarray(v)[None] for n, v in result.items()}
        return _built(name, arrays)
    raise TypeError(
        f"results[{name!r}]: expected a Fit, a NumPyro MCMC, an ArviZ object or a dict of draws, got "
        f"{type(result).__name__}"
    )


def _of_chains(name: str, mcmc: Any) -> dict[str, np.ndarray]:
    try:
        samples = mcmc.get_samples(group_by_chain=True)
    except (AttributeError, AssertionError, TypeError) as error:
        raise ValueError(f"results[{name!r}]: it has no draws; call its run first ({error})") from None
    if not isinstance(samples, Mapping):
        raise ValueError(f"results[{name!r}]: expected draws by the names of sites, got {type(samples).__name__}")
    return {n: np.asarray(v) for n, v in samples.items()}


def _built(name: str, arrays: Mapping[str, np.ndarray]) -> Any:
    lengths = {n: v.shape[1] if v.ndim > 1 else 0 for n, v in arrays.items()}
    if not arrays or len(set(lengths.values())) > 1 or min(lengths.values()) < 4:
        raise ValueError(f"results[{name!r}]: expected at least 4 draws, as many of each variable, got {lengths}")
    return export.posterior(export.build({"posterior": arrays}))
