"""What is measured of one fit and of one run of NUTS, in the process that makes it."""

import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

DRAWS = 4000  # as many as NUTS makes
WARMUP, SAMPLES, CHAINS = 1000, 1000, 4
KHAT_WARNS = 0.7  # the limit above which autovi's display says that the posterior is not to be trusted
UNWARNED = ("converged", "good", "usable")  # what a fit says that has nothing to warn of


def dimensions(model: Callable, data: Mapping[str, Any], draw: Mapping[str, np.ndarray]) -> int:
    """Unconstrained dimensions of the continuous latent sites, whose values one draw holds."""
    import jax.numpy as jnp
    import numpyro
    from numpyro.distributions import biject_to

    values = {name: jnp.asarray(value) for name, value in draw.items()}  # a scan indexes them while it is traced
    seeded = numpyro.handlers.seed(numpyro.handlers.substitute(model, data=values), 0)
    sites = numpyro.handlers.trace(seeded).get_trace(**data).values()
    latent = [s for s in sites if s["type"] == "sample" and not s["is_observed"] and not s["fn"].support.is_discrete]
    return sum(int(np.prod(biject_to(s["fn"].support).inverse_shape(np.shape(s["value"])))) for s in latent)


def drawn(fit: Any, count: int = DRAWS, plain: bool = False) -> dict[str, np.ndarray]:
    """Draws of the fit as it gives them; plain: from q itself, never resampled by importance."""
    resamples = "resample" in inspect.signature(fit.sample).parameters
    return fit.sample(count, resample=False) if plain and resamples else fit.sample(count)


def described(fit: Any) -> dict[str, Any]:
    """What a fit says of itself. What this version does not know is None."""
    rungs = getattr(fit, "rungs", None)
    after = None if rungs is None else [rung for rung in rungs if rung.name != "mode"]
    efficiency = getattr(fit, "efficiency", None)
    return {
        "elbo": float(fit.elbo),
        "elbo_se": float(fit.elbo_se),
        "khat": float(fit.khat),
        "efficiency": None if efficiency is None else float(efficiency),
        "verdict": word_of(fit),
        "message": str(fit.message),
        "warned": warned(fit),
        "rung": None if not rungs else str(rungs[-1].name),
        "rungs": None if rungs is None else [{k: _plain(getattr(r, k, None)) for k in RECORDED} for r in rungs],
        "evaluations": None if after is None else sum(int(rung.evaluations or 0) for rung in after),
    }


RECORDED = ("name", "evaluations", "seconds", "said")


def word_of(fit: Any) -> str:
    """The word of the verdict; of a version without one, the status."""
    return str(getattr(getattr(fit, "verdict", None), "word", fit.status))


def warned(fit: Any) -> bool:
    """Whether the fit says that its answer may be wrong: in its verdict, or without one in its status or k-hat."""
    if getattr(fit, "verdict", None) is not None:
        return word_of(fit) not in UNWARNED
    return fit.status not in UNWARNED or not fit.khat <= KHAT_WARNS


def _plain(value: Any) -> Any:
    """A value that JSON can hold."""
    return value if value is None or isinstance(value, str | int | float) else str(value)


def fitted(model: Callable, data: Mapping[str, Any], **settings: Any) -> tuple[Any, dict[str, np.ndarray], float]:
    """A fit, its draws, and the seconds from the call of `fit` to the draws on the host."""
    import autovi

    start = time.perf_counter()
    fit = autovi.fit(model, dict(data), progress_bar=False, **settings)
    draws = drawn(fit)
    return fit, draws, time.perf_counter() - start


def sampled(
    model: Callable,
    data: Mapping[str, Any],
    seed: int = 0,
    warmup: int = WARMUP,
    samples: int = SAMPLES,
    **settings: Any,
) -> tuple[Any, dict[str, np.ndarray], float]:
    """NumPyro's NUTS with vectorized chains: the run, its draws, and the seconds from its making to the draws."""
    import jax
    from numpyro.infer import MCMC, NUTS

    start = time.perf_counter()
    kernel = NUTS(model, **settings)
    chains = {"num_chains": CHAINS, "chain_method": "vectorized", "progress_bar": False}
    run = MCMC(kernel, num_warmup=warmup, num_samples=samples, **chains)
    run.run(jax.random.key(seed), **data, extra_fields=("diverging", "num_steps"))
    draws = {name: np.asarray(values) for name, values in run.get_samples().items()}
    return run, draws, time.perf_counter() - start


def mixing(run: Any) -> dict[str, float]:
    """Worst R-hat and smallest effective sample size of a run of NUTS, and its divergences."""
    from numpyro.diagnostics import effective_sample_size, gelman_rubin

    chains = {name: np.asarray(values) for name, values in run.get_samples(group_by_chain=True).items()}
    # Elements that are the same in all draws, such as a corner of a Cholesky factor, have neither.
    moving = [v.reshape(*v.shape[:2], -1)[..., v.std(axis=(0, 1)).ravel() > 0] for v in chains.values()]
    moving = [values for values in moving if values.shape[-1]]
    extra = run.get_extra_fields()
    return {
        "r_hat": float(max(np.max(gelman_rubin(values)) for values in moving)),
        "ess": float(min(np.min(effective_sample_size(values)) for values in moving)),
        "divergences": int(np.sum(extra["diverging"])),
        "mean_steps": float(np.mean(extra["num_steps"])),
    }
