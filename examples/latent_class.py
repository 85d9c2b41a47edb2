"""Latent classes: persons of unknown kinds who answer yes-or-no questions, each kind in its own way.

A person's class is summed out of all answers together, missing ones masked; `fit.marginals()` has the probabilities of
each person's class. The first question orders the classes, which are otherwise known up to their names. Run it with
`python examples/latent_class.py`.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.nn import sigmoid
from matplotlib.figure import Figure
from numpyro.distributions.transforms import OrderedTransform

import autovi

SHARES = np.array([0.3, 0.45, 0.25])
# How often each class says yes to each question.
YES = np.array(
    [
        [0.10, 0.15, 0.20, 0.80, 0.85, 0.30, 0.20, 0.70],
        [0.45, 0.80, 0.75, 0.20, 0.30, 0.75, 0.25, 0.30],
        [0.90, 0.70, 0.15, 0.25, 0.80, 0.20, 0.85, 0.80],
    ]
)


def simulate(num_persons: int = 400, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Answers (persons, questions), a tenth of them missing (-1); and the true classes."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(len(SHARES), num_persons, p=SHARES)
    answers = (rng.random((num_persons, YES.shape[1])) < YES[kinds]).astype(int)
    return {"answers": np.where(rng.random(answers.shape) < 0.1, -1, answers)}, kinds


def model(answers) -> None:
    """`yes[c, j]` is the probability that a person of class c says yes to question j."""
    (num_persons, num_questions), num_classes = answers.shape, len(SHARES)
    share = numpyro.sample("share", dist.Dirichlet(2.0 * jnp.ones(num_classes)))
    ordered = dist.TransformedDistribution(
        dist.Normal(jnp.array([-2.0, 0.5, 0.5]), jnp.array([1.0, 0.5, 0.5])).to_event(1), OrderedTransform()
    )
    first = numpyro.sample("first", ordered)
    others = numpyro.sample("others", dist.Normal(0.0, 1.5).expand([num_classes, num_questions - 1]).to_event(2))
    yes = numpyro.deterministic("yes", sigmoid(jnp.concatenate([first[:, None], others], axis=1)))
    with numpyro.plate("person", num_persons, dim=-2):
        kind = numpyro.sample("kind", dist.Categorical(share))
        with numpyro.plate("question", num_questions, dim=-1), numpyro.handlers.mask(mask=answers >= 0):
            says_yes = dist.Bernoulli(yes[kind, jnp.arange(num_questions)])
            numpyro.sample("answer", says_yes, obs=jnp.maximum(answers, 0))


def figure(fit: "autovi.Fit", kinds: np.ndarray) -> Figure:
    """What each class answers, beside the truth, and the probabilities of the persons' classes."""
    picture = Figure(figsize=(12, 4), layout="constrained")
    answers, persons = picture.subplots(1, 2, width_ratios=[1.4, 1])
    low, middle, high = np.quantile(fit.sample(1000)["yes"], [0.03, 0.5, 0.97], axis=0)
    for c in range(len(SHARES)):
        places = np.arange(YES.shape[1]) + 0.2 * (c - 1)
        bars = [middle[c] - low[c], high[c] - middle[c]]
        answers.errorbar(places, middle[c], bars, fmt="o", color=f"C{c}", label=f"class {c}, 94 %")
        answers.plot(places, YES[c], "kx", label="truth" if c == 0 else None)
    answers.set(title="What each class answers", xlabel="question", ylabel="probability of yes", ylim=(0, 1.2))

    found = fit.marginals()["kind"][:, 0]
    order = np.lexsort((found[np.arange(len(kinds)), kinds], kinds))
    persons.stackplot(np.arange(len(kinds)), found[order].T, colors=[f"C{c}" for c in range(len(SHARES))], alpha=0.7)
    for edge in np.cumsum(np.bincount(kinds))[:-1]:
        persons.axvline(edge, color="k", lw=1)
    persons.set(title="Probabilities of the class, by true class", xlabel="person, sorted", ylabel="probability")
    answers.legend(fontsize=9, ncols=4, loc="upper center")
    return picture


def main(
    output: str | Path = "demo_output", *, num_persons: int = 400, rng_key: int = 0, progress_bar: bool = True
) -> "autovi.Fit":
    """Fit the model, print it and how many persons are put into their class; save the plot."""
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    data, kinds = simulate(num_persons)
    fit = autovi.fit(model, data, rng_key=rng_key, progress_bar=progress_bar)
    print(fit)
    right = (fit.marginals()["kind"][:, 0].argmax(-1) == kinds).mean()
    print(f"\n{right:.0%} of the persons are put into their class")
    figure(fit, kinds).savefig(output / "latent_class.png", dpi=120)
    return fit


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the plot")
    main(parser.parse_args().output)
