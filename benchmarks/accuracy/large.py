"""A hierarchy of 1,000 groups and 100,000 rows, written centred and non-centred.

The errors are normal, so that the effects integrate out: NUTS on what is left, four numbers and sums over the rows of
each group, gives the posterior of the global parameters in the same run, in double precision.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from benchmarks.accuracy.measuring import mixing, sampled

GROUPS, ROWS = 1000, 100_000
GLOBALS = ("mu", "slope", "tau", "sigma")


def _globals() -> tuple[Any, Any, Any, Any]:
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfNormal(2.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(5.0))
    return mu, slope, tau, sigma


def centred(group, x, y, num_groups):
    """Effects around their mean."""
    mu, slope, tau, sigma = _globals()
    with numpyro.plate("groups", num_groups):
        effect = numpyro.sample("effect", dist.Normal(mu, tau))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(effect[group] + slope * x, sigma), obs=y)


def non_centred(group, x, y, num_groups):
    """Effects from standard normal noise."""
    mu, slope, tau, sigma = _globals()
    with numpyro.plate("groups", num_groups):
        noise = numpyro.sample("noise", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal((mu + tau * noise)[group] + slope * x, sigma), obs=y)


def simulate(seed: int, tau: float, sigma: float, rows: int = ROWS, groups: int = GROUPS) -> dict[str, Any]:
    """Groups of all sizes, mean effect 1, slope 0.5."""
    rng = np.random.default_rng(seed)
    group = np.sort(rng.integers(0, groups, rows))
    x = rng.normal(size=rows)
    y = rng.normal(1.0, tau, groups)[group] + 0.5 * x + sigma * rng.normal(size=rows)
    return {"group": group, "x": x, "y": y, "num_groups": groups}


def collapsed(sums: dict[str, np.ndarray]):
    """The same posterior of the globals without the effects.

    Of a group of n rows with residuals r = y - slope x: the mean of r is normal around mu with variance
    tau^2 + sigma^2 / n, and apart from it the squared deviations from it, divided by sigma^2, are chi-square.
    """
    mu, slope, tau, sigma = _globals()
    n, mean_x, mean_y = sums["n"], sums["mean_x"], sums["mean_y"]
    within = sums["yy"] - 2 * slope * sums["xy"] + slope**2 * sums["xx"]
    free = n.sum() - len(n)
    numpyro.factor("within", -free * jnp.log(sigma) - 0.5 * within / sigma**2)
    spread = jnp.sqrt(tau**2 + sigma**2 / n)
    numpyro.sample("means", dist.Normal(mu + slope * mean_x, spread).to_event(1), obs=mean_y)


def sums_of(group, x, y, num_groups) -> dict[str, np.ndarray]:
    """Sizes and means of the groups that have rows, and sums of products of deviations from them over all groups."""
    n = np.bincount(group, minlength=num_groups)
    mean_x, mean_y = (np.bincount(group, v, num_groups) / np.maximum(n, 1) for v in (x, y))
    dx, dy = x - mean_x[group], y - mean_y[group]
    kept = n > 0
    products = {"xx": dx @ dx, "xy": dx @ dy, "yy": dy @ dy}
    return {"n": n[kept].astype(float), "mean_x": mean_x[kept], "mean_y": mean_y[kept], **products}


# Data that say much of an effect go with the centred writing, data that say little with the other one.
CASES = {"centred": (centred, (71, 0.5, 1.0)), "non_centred": (non_centred, (72, 0.1, 2.0))}


def reference(data: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Draws of the globals by NUTS on the collapsed model, and how it mixed."""
    run, draws, _ = sampled(collapsed, {"sums": sums_of(**data)}, seed=0, samples=2000)
    return {name: draws[name] for name in GLOBALS}, mixing(run)
