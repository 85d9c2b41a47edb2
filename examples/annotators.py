"""Annotators who disagree: the true label of each item, and how far each annotator is to be trusted.

The model of Dawid and Skene (1979), "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm":
every annotator has a table of what he says of items of each class. The classes are summed out, each with all of its
labels; `fit.marginals()` has their probabilities. Labels that were never given are masked. Run it with
`python examples/annotators.py`.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from matplotlib.figure import Figure

import autovi

CLASSES = 3
SHARES = np.array([0.5, 0.3, 0.2])
RIGHT = np.array([0.95, 0.9, 0.5, 0.45, 0.4])  # how often each annotator is right; the last ones nearly guess


def simulate(num_items: int = 150, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Labels (items, annotators), a fifth of them not given (-1); and the true classes."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(CLASSES, num_items, p=SHARES)
    wrong = (truth[:, None] + rng.integers(1, CLASSES, (num_items, len(RIGHT)))) % CLASSES
    labels = np.where(rng.random(wrong.shape) < RIGHT, truth[:, None], wrong)
    return {"labels": np.where(rng.random(labels.shape) < 0.2, -1, labels)}, truth


def model(labels) -> None:
    """`confusion[j, c]` are the probabilities of what annotator j says of class c; c itself has more, a priori."""
    num_items, num_annotators = labels.shape
    share = numpyro.sample("share", dist.Dirichlet(jnp.ones(CLASSES)))
    concentration = jnp.ones((CLASSES, CLASSES)) + 2.0 * jnp.eye(CLASSES)
    confusion = numpyro.sample("confusion", dist.Dirichlet(concentration).expand([num_annotators, CLASSES]).to_event(2))
    with numpyro.plate("item", num_items, dim=-2):
        truth = numpyro.sample("truth", dist.Categorical(share))
        with numpyro.plate("annotator", num_annotators, dim=-1), numpyro.handlers.mask(mask=labels >= 0):
            said = dist.Categorical(confusion[jnp.arange(num_annotators), truth])
            numpyro.sample("label", said, obs=jnp.maximum(labels, 0))


def by_majority(labels: np.ndarray) -> np.ndarray:
    """The label that an item got most often."""
    return np.stack([(labels == c).sum(axis=1) for c in range(CLASSES)]).argmax(axis=0)


def figure(fit: "autovi.Fit", truth: np.ndarray) -> Figure:
    """The probability of the true class, item by item, and how often each annotator is right."""
    picture = Figure(figsize=(10, 4), layout="constrained")
    items, annotators = picture.subplots(1, 2)
    of_truth = fit.marginals()["truth"][:, 0][np.arange(len(truth)), truth]
    items.plot(np.sort(of_truth), ".", color="C0")
    items.axhline(0.5, color="0.7", lw=1)
    items.set(title="Probability of the true class", xlabel="item, sorted", ylabel="probability")

    draws = fit.sample(1000)
    right = np.einsum("njcc,nc->nj", draws["confusion"], draws["share"])
    low, middle, high = np.quantile(right, [0.03, 0.5, 0.97], axis=0)
    places = np.arange(len(RIGHT))
    annotators.errorbar(places, middle, [middle - low, high - middle], fmt="o", color="C0", label="94 % interval")
    annotators.plot(places, RIGHT, "kx", label="truth")
    annotators.set(title="How often each annotator is right", xlabel="annotator", ylabel="probability", ylim=(0, 1))
    annotators.set_xticks(places)
    annotators.legend(fontsize=9)
    return picture


def main(
    output: str | Path = "demo_output", *, num_items: int = 150, rng_key: int = 0, progress_bar: bool = True
) -> "autovi.Fit":
    """Fit the model, print it and how many classes are found, beside a vote of the majority; save the plot."""
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    data, truth = simulate(num_items)
    fit = autovi.fit(model, data, rng_key=rng_key, progress_bar=progress_bar)
    print(fit)
    found = fit.marginals()["truth"][:, 0].argmax(-1)
    print(f"\n{(found == truth).mean():.0%} of the items have the right class, by majority ", end="")
    print(f"{(by_majority(data['labels']) == truth).mean():.0%}")
    figure(fit, truth).savefig(output / "annotators.png", dpi=120)
    return fit


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the plot")
    main(parser.parse_args().output)
