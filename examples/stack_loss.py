"""NUTS from a fit: plant operation data whose coefficients are so correlated that a warm-up takes most of the work.

Robust regression of the loss of ammonia in a stack on air flow, water temperature and acid concentration, none of them
centred. `fit.to_nuts()` hands over starts, mass matrix and step size: NUTS only adapts its step size. Beside it runs
NUTS with its own warm-up, and both are compared with the fit. Run it with `python examples/stack_loss.py`; it takes
about a minute.

Data: 21 days of a plant that oxidizes ammonia to nitric acid, K. A. Brownlee, "Statistical Theory and Methodology in
Science and Engineering", 2nd edition, Wiley (1965), pages 491 to 500.
"""

import argparse
from pathlib import Path
from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from matplotlib.figure import Figure
from numpyro.infer import MCMC, NUTS

import autovi

# fmt: off
AIR = np.array([80, 80, 75, 62, 62, 62, 62, 62, 58, 58, 58, 58, 58, 58, 50, 50, 50, 50, 50, 56, 70], float)
WATER = np.array([27, 27, 25, 24, 22, 23, 24, 24, 23, 18, 18, 17, 18, 19, 18, 18, 19, 19, 20, 20, 20], float)
ACID = np.array([89, 88, 90, 87, 87, 87, 93, 93, 87, 80, 89, 88, 82, 93, 89, 86, 72, 79, 80, 82, 91], float)
LOSS = np.array([42, 37, 37, 28, 18, 18, 19, 20, 15, 14, 14, 13, 11, 12, 8, 7, 8, 8, 9, 15, 15], float)
# fmt: on
DATA = {"x": np.column_stack([AIR, WATER, ACID]), "loss": LOSS}
CHAINS, WANTED = 4, 400.0


def model(x, loss=None) -> None:
    """A line with errors of Student's t, of which two days in three are within one `scale`."""
    level = numpyro.sample("level", dist.Normal(0.0, 100.0))
    with numpyro.plate("cause", x.shape[1]):
        slope = numpyro.sample("slope", dist.Normal(0.0, 5.0))
    scale = numpyro.sample("scale", dist.HalfNormal(10.0))
    with numpyro.plate("day", x.shape[0]):
        numpyro.sample("loss", dist.StudentT(4.0, level + jnp.dot(x, slope), scale), obs=loss)


def run(mcmc: MCMC, rng_key: int, init_params: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Runs the chains; gradient evaluations of all of them up to every 10th draw, warm-up included, and the smallest
    effective size of the draws so far."""
    extra = {"extra_fields": ("num_steps",)}
    mcmc.warmup(jax.random.key(rng_key), **DATA, init_params=init_params, collect_warmup=True, **extra)
    warmup = np.sum(mcmc.get_extra_fields()["num_steps"])
    mcmc.run(jax.random.key(rng_key + 1), **DATA, **extra)
    steps = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["num_steps"]).sum(axis=0).cumsum()
    draws = {n: np.asarray(v) for n, v in mcmc.get_samples(group_by_chain=True).items()}
    scalars = [x for v in draws.values() for x in np.moveaxis(v.reshape(*v.shape[:2], -1), -1, 0)]
    counts = np.arange(10, len(steps) + 1, 10)
    ess = [min(float(az.ess(x[:, :count], method="bulk")) for x in scalars) for count in counts]
    return warmup + steps[counts - 1], np.asarray(ess)


def evaluations(gradients: np.ndarray, ess: np.ndarray) -> int:
    """Gradient evaluations to the effective size that is wanted; to the end, where that is not reached."""
    return int(gradients[np.argmax(ess >= WANTED) if np.any(ess >= WANTED) else -1])


def figure(runs: dict[str, tuple[np.ndarray, np.ndarray]], fit_evaluations: int) -> Figure:
    """Effective size over gradient evaluations, that of the fit marked."""
    picture = Figure(figsize=(7, 4.5), layout="constrained")
    ax = picture.subplots()
    for name, (gradients, ess) in runs.items():
        ax.plot(gradients, ess, label=name)
        ax.plot([gradients[0]], [ess[0]], "k|", ms=12)
    ax.axvline(fit_evaluations, color="C0", ls=":", label="what the fit took")
    ax.axhline(WANTED, color="grey", lw=0.8)
    ax.set(
        xscale="log", yscale="log", xlabel="gradient evaluations, warm-up included", ylabel="smallest effective size"
    )
    ax.set_title("NUTS on the stack loss data")
    ax.legend()
    return picture


def main(
    output: str | Path = "demo_output",
    *,
    num_samples: int = 300,
    own_warmup: int = 1000,
    rng_key: int = 0,
    progress_bar: bool = True,
) -> dict[str, int]:
    """Fit, run NUTS from the fit and with its own warm-up, compare, save the plots; return gradient evaluations."""
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    fit = autovi.fit(model, DATA, rng_key=rng_key, progress_bar=progress_bar)
    print("\nThe stack loss data\n")
    print(fit)
    start = fit.to_nuts(CHAINS)
    print(start)
    vectorized = {"chain_method": "vectorized", "progress_bar": False}
    handed = start.mcmc(num_samples, **vectorized)
    own = MCMC(NUTS(model), num_warmup=own_warmup, num_samples=num_samples, num_chains=CHAINS, **vectorized)
    runs = {"from the fit": run(handed, rng_key, start.init_params), "own warm-up": run(own, rng_key)}
    spent = sum(rung.evaluations for rung in fit.rungs)
    found = {"the fit": spent, **{name: evaluations(*of) for name, of in runs.items()}}
    print(f"\nGradient evaluations to an effective size of {WANTED:.0f}:")
    for name, count in found.items():
        print(f"  {name:<14}{count:>10,}")
    compared = autovi.compare({"own warm-up": own, "from the fit": handed, "fit": fit})
    print(f"\n{compared}")
    plot, pairs = output / "stack_loss.png", output / "stack_loss_pairs.png"
    figure(runs, spent).savefig(plot, dpi=120)
    compared.plot(["level", "slope"]).savefig(pairs, dpi=120)
    print(f"\nSaved {plot} and {pairs}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the plots")
    main(parser.parse_args().output)
