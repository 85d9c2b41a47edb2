"""A hidden Markov model: counts that come from a quiet or a busy state, one for each hour.

The states are an ordinary `Categorical` site in a `scan`. They are summed out step by step; afterwards
`fit.marginals()` has their probabilities and `fit.sample(n, discrete="map")` the most likely paths (Viterbi). Run it
with `python examples/hidden_markov.py`.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from matplotlib.figure import Figure
from numpyro.contrib.control_flow import scan
from numpyro.distributions.transforms import OrderedTransform

import autovi

RATES, STAY = np.array([2.0, 7.0]), np.array([0.95, 0.85])


def simulate(num_steps: int = 250, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Counts and the states they came from, the first of which follows a quiet one."""
    rng = np.random.default_rng(seed)
    state, states = 0, []
    for _ in range(num_steps):
        state = state if rng.random() < STAY[state] else 1 - state
        states.append(state)
    return rng.poisson(RATES[states]), np.array(states)


def model(counts) -> None:
    """`stay` are the probabilities to stay quiet and busy, `rates` the counts expected in each."""
    stay = numpyro.sample("stay", dist.Beta(8.0, 2.0).expand([2]).to_event(1))
    lowest_and_log_gap = dist.Normal(jnp.array([0.5, 0.0]), 1.0).to_event(1)
    log_rates = numpyro.sample("log_rates", dist.TransformedDistribution(lowest_and_log_gap, OrderedTransform()))
    rates = numpyro.deterministic("rates", jnp.exp(log_rates))
    transitions = jnp.stack([jnp.stack([stay[0], 1 - stay[0]]), jnp.stack([1 - stay[1], stay[1]])])

    def step(state, count):
        state = numpyro.sample("state", dist.Categorical(transitions[state]))
        numpyro.sample("count", dist.Poisson(rates[state]), obs=count)
        return state, None

    scan(step, 0, counts)


def figure(fit: "autovi.Fit", counts: np.ndarray, states: np.ndarray) -> Figure:
    """The counts above, below them the probability that each hour is busy, the most likely path and the truth."""
    hours, draws = np.arange(len(counts)), fit.sample(500)
    expected = np.take_along_axis(draws["rates"], draws["state"], axis=1).mean(axis=0)
    paths = fit.sample(100, discrete="map")["state"]

    picture = Figure(figsize=(10, 6), layout="constrained")
    data, busy = picture.subplots(2, 1, sharex=True)
    data.bar(hours, counts, width=1.0, color="0.75", label="data")
    data.step(hours, expected, where="mid", color="C0", label="expected count")
    data.set(title="Counts by the hour", ylabel="count")
    busy.fill_between(hours, states, step="mid", color="0.85", lw=0, label="truth")
    busy.plot(hours, fit.marginals()["state"][:, 1], color="C0", label="probability")
    busy.step(hours, np.median(paths, axis=0), "k--", where="mid", lw=1, label="most likely path, median")
    busy.set(title="Is it busy?", xlabel="hour", ylabel="probability of the busy state")
    for ax in (data, busy):
        ax.legend(loc="upper right", fontsize=9)
    return picture


def main(
    output: str | Path = "demo_output", *, num_steps: int = 250, rng_key: int = 0, progress_bar: bool = True
) -> "autovi.Fit":
    """Fit the model, print it and the share of hours whose likelier state is the true one; save the plot."""
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    counts, states = simulate(num_steps)
    fit = autovi.fit(model, {"counts": counts}, rng_key=rng_key, progress_bar=progress_bar)
    print(fit)
    print(fit.summary(var_names=["stay", "rates"]))
    right = (fit.marginals()["state"].argmax(-1) == states).mean()
    print(f"\n{right:.0%} of the hours are put into the state they came from")
    figure(fit, counts, states).savefig(output / "hidden_markov.png", dpi=120)
    return fit


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the plot")
    main(parser.parse_args().output)
