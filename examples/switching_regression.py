"""A switching regression: one of two lines holds at a time, and which one lasts for a while.

The regime is a chain in a `scan` and is summed out; coefficients, noise and how long regimes last are learned with it.
A second discrete site says whether a point is an outlier: both are summed out together. Run it with
`python examples/switching_regression.py`.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from matplotlib.figure import Figure
from numpyro.contrib.control_flow import scan

import autovi

INTERCEPTS, SLOPES, NOISE = np.array([-1.0, 1.0]), np.array([1.5, -0.5]), 0.4
STAY, OUTLIERS, WIDE = 0.93, 0.06, 3.0


def simulate(num_steps: int = 200, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Points in their order; the regime and whether each is an outlier."""
    rng = np.random.default_rng(seed)
    regime = np.cumsum(rng.random(num_steps) > STAY) % 2
    outlier = rng.random(num_steps) < OUTLIERS
    x = rng.uniform(-2, 2, num_steps)
    y = INTERCEPTS[regime] + SLOPES[regime] * x + np.where(outlier, WIDE, NOISE) * rng.normal(size=num_steps)
    return {"x": x.astype(np.float32), "y": y.astype(np.float32)}, regime, outlier


def model(x, y) -> None:
    """The regime with the steeper line is called 0."""
    intercepts = numpyro.sample("intercepts", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    flatter = numpyro.sample("flatter", dist.Normal(0.0, 1.0))
    steeper_by = numpyro.sample("steeper_by", dist.LogNormal(0.0, 1.0))
    slopes = numpyro.deterministic("slopes", jnp.stack([flatter + steeper_by, flatter]))
    noise = numpyro.sample("noise", dist.LogNormal(-1.0, 0.5))
    stay = numpyro.sample("stay", dist.Beta(8.0, 2.0))
    outliers = numpyro.sample("outliers", dist.Beta(1.0, 10.0))

    def step(regime, point):
        regime = numpyro.sample("regime", dist.Bernoulli(jnp.where(regime == 1, stay, 1 - stay)))
        outlier = numpyro.sample("outlier", dist.Bernoulli(outliers))
        mean = intercepts[regime] + slopes[regime] * point["x"]
        numpyro.sample("y", dist.Normal(mean, jnp.where(outlier == 1, WIDE, noise)), obs=point["y"])
        return regime, None

    scan(step, 0, {"x": x, "y": y})


def figure(fit: "autovi.Fit", data: dict[str, np.ndarray], regime: np.ndarray) -> Figure:
    """The points with both lines, and the probability of the second regime along the steps."""
    picture = Figure(figsize=(11, 4), layout="constrained")
    lines, steps = picture.subplots(1, 2, width_ratios=[1, 1.5])
    found, draws = fit.marginals(), fit.sample(500)
    grid = np.linspace(-2, 2, 2)
    lines.scatter(data["x"], data["y"], c=found["regime"][:, 1], cmap="coolwarm", s=12)
    suspects = found["outlier"][:, 1] > 0.5
    lines.plot(data["x"][suspects], data["y"][suspects], "ko", mfc="none", ms=8, label="outlier, probability > 0.5")
    for k, color in ((0, "C0"), (1, "C3")):
        each = draws["intercepts"][:, k, None] + draws["slopes"][:, k, None] * grid
        lines.plot(grid, each.mean(axis=0), color=color, label=f"regime {k}")
    lines.set(title="Two lines", xlabel="x", ylabel="y")
    places = np.arange(len(regime))
    steps.fill_between(places, regime, step="mid", color="0.85", lw=0, label="truth")
    steps.plot(places, found["regime"][:, 1], color="C0", lw=1, label="probability")
    steps.set(title="Which line holds", xlabel="step", ylabel="probability of regime 1")
    for ax in (lines, steps):
        ax.legend(fontsize=8)
    return picture


def main(
    output: str | Path = "demo_output", *, num_steps: int = 200, rng_key: int = 0, progress_bar: bool = True
) -> "autovi.Fit":
    """Fit the model, print it and how often the likelier regime is the true one; save the plot."""
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    data, regime, _ = simulate(num_steps)
    fit = autovi.fit(model, data, rng_key=rng_key, progress_bar=progress_bar)
    print(fit)
    print(fit.summary(var_names=["intercepts", "slopes", "noise", "stay", "outliers"]))
    right = (fit.marginals()["regime"].argmax(-1) == regime).mean()
    print(f"\n{right:.0%} of the steps are put into the regime they came from")
    figure(fit, data, regime).savefig(output / "switching_regression.png", dpi=120)
    return fit


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the plot")
    main(parser.parse_args().output)
