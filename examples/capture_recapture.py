"""Capture and recapture: how many of the marked animals survive from year to year, though the dead are not seen.

The model of Cormack, Jolly and Seber. An animal that is alive survives to the next occasion with a probability, and is
then seen with another; the dead stay dead, so that some combinations of states have probability zero. All states are
summed out along the occasions of a `scan`; what comes before an animal is first caught is masked. Run it with
`python examples/capture_recapture.py`.
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

SURVIVAL, RECAPTURE = 0.8, 0.6


def simulate(num_animals: int = 120, num_occasions: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Captures (occasions, animals), each animal caught at least once; and who was alive since then."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, num_occasions - 1, num_animals)
    alive = np.zeros((num_occasions, num_animals), int)
    seen = np.zeros_like(alive)
    alive[first, np.arange(num_animals)] = seen[first, np.arange(num_animals)] = 1
    for t in range(1, num_occasions):
        survives = alive[t - 1] * (rng.random(num_animals) < SURVIVAL)
        alive[t] = np.where(first < t, survives, alive[t])
        seen[t] = np.where(first < t, alive[t] * (rng.random(num_animals) < RECAPTURE), seen[t])
    return seen, alive


def model(seen) -> None:
    """`seen[t, i]`: was animal i caught at occasion t? Up to its first capture it lives, and nothing is observed."""
    survival = numpyro.sample("survival", dist.Beta(1.0, 1.0))
    recapture = numpyro.sample("recapture", dist.Beta(1.0, 1.0))

    def occasion(carry, seen):
        alive, marked = carry
        with numpyro.plate("animal", seen.shape[0]):
            alive = numpyro.sample("alive", dist.Bernoulli(jnp.where(marked, survival * alive, 1.0)))
            with numpyro.handlers.mask(mask=marked):
                numpyro.sample("seen", dist.Bernoulli(recapture * alive), obs=seen)
        return (alive, marked | (seen == 1)), None

    scan(occasion, (jnp.ones(seen.shape[1], int), jnp.asarray(seen[0] == 1)), seen[1:])


def log_likelihood(seen: np.ndarray, survival: float, recapture: float) -> float:
    """The same without states: each animal's history by the probability never to be seen again after an occasion."""
    num_occasions = len(seen)
    never = [1.0]
    for _ in range(num_occasions - 1):
        never.append(1 - survival + survival * (1 - recapture) * never[-1])
    total = 0.0
    for history in seen.T:
        caught = np.flatnonzero(history)
        between, again = caught[-1] - caught[0], len(caught) - 1
        total += between * np.log(survival) + again * np.log(recapture) + (between - again) * np.log(1 - recapture)
        total += np.log(never[num_occasions - 1 - caught[-1]])
    return float(total)


def exact_means(seen: np.ndarray, size: int = 80) -> tuple[float, float]:
    """Posterior means of both probabilities, on a grid: the priors are uniform."""
    grid = (np.arange(size) + 0.5) / size
    log_p = np.array([[log_likelihood(seen, s, r) for r in grid] for s in grid])
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    return float(p.sum(axis=1) @ grid), float(p.sum(axis=0) @ grid)


def figure(fit: "autovi.Fit", seen: np.ndarray, alive: np.ndarray) -> Figure:
    """Both probabilities, and how many of the marked animals live at each occasion, beside how many were seen."""
    picture = Figure(figsize=(11, 4), layout="constrained")
    probabilities, numbers = picture.subplots(1, 2)
    draws = fit.sample(2000)
    for name, truth, color in (("survival", SURVIVAL, "C0"), ("recapture", RECAPTURE, "C1")):
        probabilities.hist(draws[name], bins=40, density=True, color=color, alpha=0.5, label=name)
        probabilities.axvline(truth, color=color, ls="--", lw=1)
    probabilities.set(title="Probabilities (dashed: truth)", xlabel="probability", ylabel="density")

    occasions = np.arange(1, len(seen))
    marked = np.cumsum(seen, axis=0)[:-1] > 0
    living = (draws["alive"] * marked).sum(axis=-1)
    low, middle, high = np.quantile(living, [0.03, 0.5, 0.97], axis=0)
    numbers.bar(occasions, (seen[1:] * marked).sum(axis=1), color="0.8", label="seen again")
    numbers.errorbar(occasions, middle, [middle - low, high - middle], fmt="o", color="C0", label="alive, 94 %")
    numbers.plot(occasions, (alive[1:] * marked).sum(axis=1), "kx", label="alive, truth")
    numbers.set(title="Marked animals", xlabel="occasion", ylabel="animals")
    for ax in (probabilities, numbers):
        ax.legend(fontsize=9)
    return picture


def main(
    output: str | Path = "demo_output", *, num_animals: int = 120, rng_key: int = 0, progress_bar: bool = True
) -> "autovi.Fit":
    """Fit the model, print it beside the exact means; save the plot."""
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    seen, alive = simulate(num_animals)
    fit = autovi.fit(model, {"seen": seen}, rng_key=rng_key, progress_bar=progress_bar)
    print(fit)
    print(fit.summary(var_names=["survival", "recapture"]))
    print("\nExact means: survival {:.3f}, recapture {:.3f}".format(*exact_means(seen)))
    figure(fit, seen, alive).savefig(output / "capture_recapture.png", dpi=120)
    return fit


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the plot")
    main(parser.parse_args().output)
