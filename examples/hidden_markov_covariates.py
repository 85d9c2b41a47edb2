"""A hidden Markov model whose transitions depend on a covariate: an animal is active, or rests, by the weather.

The logits of becoming active and of staying so are regressions on the step's temperature; both are learned with the
states summed out. `fit.predict` then says what follows on days to come. Run it with
`python examples/hidden_markov_covariates.py`.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.nn import sigmoid
from matplotlib.figure import Figure
from numpyro.contrib.control_flow import scan

import autovi

# The logit of being active after a day at rest, and after an active one, and what the temperature adds.
LEVELS, SLOPE, MEANS = np.array([-1.5, 1.5]), 1.2, np.array([0.0, 2.5])


def simulate(num_days: int = 200, seed: int = 1) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Temperatures with a season and distances walked; and the states they came from."""
    rng = np.random.default_rng(seed)
    warmth = 1.2 * np.sin(np.arange(num_days) * 2 * np.pi / 40) + 0.5 * rng.normal(size=num_days)
    state, states = 0, []
    for at in warmth:
        state = int(rng.random() < 1 / (1 + np.exp(-(LEVELS[state] + SLOPE * at))))
        states.append(state)
    walked = rng.normal(MEANS[states], 1.0)
    return {"warmth": warmth.astype(np.float32), "walked": walked.astype(np.float32)}, np.array(states)


def model(warmth, walked=None) -> None:
    """`levels` and `slope` make the logit of an active day, `means` what is walked at rest and active."""
    levels = numpyro.sample("levels", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    slope = numpyro.sample("slope", dist.Normal(0.0, 2.0))
    rest = numpyro.sample("rest", dist.Normal(0.0, 2.0))
    more = numpyro.sample("more", dist.LogNormal(0.5, 0.7))
    means = jnp.stack([rest, rest + more])

    def step(active, today):
        active = numpyro.sample("active", dist.Bernoulli(sigmoid(levels[active] + slope * today["warmth"])))
        numpyro.sample("walked", dist.Normal(means[active], 1.0), obs=today.get("walked"))
        return active, None

    days = {"warmth": warmth} if walked is None else {"warmth": warmth, "walked": walked}
    scan(step, 0, days)


def figure(fit: "autovi.Fit", data: dict[str, np.ndarray], states: np.ndarray) -> Figure:
    """The probability of an active day beside the truth, and the transition probabilities by temperature."""
    picture = Figure(figsize=(11, 4), layout="constrained")
    over_days, by_warmth = picture.subplots(1, 2, width_ratios=[1.6, 1])
    days = np.arange(len(states))
    over_days.fill_between(days, states, step="mid", color="0.85", lw=0, label="truth")
    over_days.plot(days, fit.marginals()["active"][:, 1], color="C0", lw=1, label="probability")
    over_days.plot(days, data["warmth"] / 6 - 0.6, color="C3", lw=1, label="temperature (scaled)")
    over_days.set(title="Active days", xlabel="day", ylabel="probability")

    draws, grid = fit.sample(500), np.linspace(-2.5, 2.5, 60)
    for before, color in ((0, "C0"), (1, "C1")):
        logits = draws["levels"][:, before, None] + draws["slope"][:, None] * grid
        low, middle, high = np.quantile(1 / (1 + np.exp(-logits)), [0.03, 0.5, 0.97], axis=0)
        by_warmth.plot(grid, middle, color=color, label=f"after {'an active day' if before else 'rest'}")
        by_warmth.fill_between(grid, low, high, color=color, alpha=0.2, lw=0)
        by_warmth.plot(grid, 1 / (1 + np.exp(-(LEVELS[before] + SLOPE * grid))), "k--", lw=1)
    by_warmth.set(title="What the temperature does (dashed: truth)", xlabel="temperature", ylabel="P(active)")
    for ax in (over_days, by_warmth):
        ax.legend(fontsize=9)
    return picture


def main(
    output: str | Path = "demo_output", *, num_days: int = 200, rng_key: int = 0, progress_bar: bool = True
) -> "autovi.Fit":
    """Fit the model, print it and what warm and cold days to come would bring; save the plot."""
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    data, states = simulate(num_days)
    fit = autovi.fit(model, data, rng_key=rng_key, progress_bar=progress_bar)
    print(fit)
    print(fit.summary(var_names=["levels", "slope", "rest", "more"]))
    for name, to_come in (("warm", 1.5), ("cold", -1.5)):
        further = {"warmth": np.append(data["warmth"], np.full(10, to_come, np.float32))}
        share = fit.predict(further, num_draws=500)["active"][:, num_days:].mean()
        print(f"Of ten {name} days to come {share:.0%} would be active")
    figure(fit, data, states).savefig(output / "hidden_markov_covariates.png", dpi=120)
    return fit


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the plot")
    main(parser.parse_args().output)
