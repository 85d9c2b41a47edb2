"""The toy of the RELAX paper: E (b - .499)^2 in the logit of one Bernoulli, trained by each estimator's own gradients.

    python -m benchmarks.relax_toy [--steps 10000] [--seeds 5] [--estimators REINFORCE "RELAX, black box"]

Grathwohl, Choi, Wu, Roeder and Duvenaud (2018), "Backpropagation through the Void", figure 1: the loss (left) and the
logarithm of the variance of one gradient (right) while the logit, from 0, is trained by Adam at 0.01. The paper draws
REINFORCE, REBAR and RELAX; here leave-one-out and DisARM, of two evaluations a step, are beside them.
"""

import argparse
import os
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from matplotlib.figure import Figure

import autovi
from autovi.estimators import Disarm, Estimator, Rebar, Relax, Score
from benchmarks.reporting import RESULTS, save, table

TARGET = 0.499
RATE = 0.01
POINTS = 100
DRAWS = 1000
FLOOR = 1e-15  # rounding of gradients of 5e-4
CLOSED = {"REINFORCE": 1.5625e-2, "leave-one-out, 2": 2.5e-7, "DisARM": 0.0}  # at the start


class Contender(NamedTuple):
    """An estimator, and how many draws it averages."""

    estimator: Estimator
    num_samples: int = 1


CONTENDERS = {
    "REINFORCE": Contender(Score("none")),
    "REBAR": Contender(Rebar()),
    "RELAX": Contender(Relax()),
    "RELAX, black box": Contender(Relax(through_model=False)),
    "leave-one-out, 2": Contender(Score("leave_one_out"), 2),
    "DisARM": Contender(Disarm()),
}


def loss(logit: jax.Array) -> jax.Array:
    """(b - t)^2 of one draw."""
    return (numpyro.sample("b", dist.Bernoulli(logits=logit)) - TARGET) ** 2


def exact_loss(logit: np.ndarray) -> np.ndarray:
    """Its expectation, in double precision."""
    p = 1 / (1 + np.exp(-np.asarray(logit, float)))
    return p * (1 - TARGET) ** 2 + (1 - p) * TARGET**2


def train(contender: Contender, num_steps: int, num_seeds: int, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Logits and variances `[seeds, points]` before every `num_steps / points` steps; a variance is of `DRAWS`
    gradients at the same logit, with what the estimator has learned until then."""
    step = autovi.stochastic_value_and_grad(
        loss, estimators={"b": contender.estimator}, num_samples=contender.num_samples
    )
    adam = optax.adam(RATE)

    def update(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
        logit, memory, learned = carry
        _, slope, learned = step(logit, rng_key=key, estimator_state=learned)
        change, memory = adam.update(slope, memory)
        return (optax.apply_updates(logit, change), memory, learned), None

    def stretch(carry: tuple, key: jax.Array) -> tuple[tuple, tuple]:
        training, looking = jax.random.split(key)
        logit, _, learned = carry
        slope = lambda k: step(logit, rng_key=k, estimator_state=learned)[1]  # noqa: E731
        variance = jnp.var(jax.vmap(slope)(jax.random.split(looking, DRAWS)))
        carry, _ = jax.lax.scan(update, carry, jax.random.split(training, num_steps // points))
        return carry, (logit, variance)

    @jax.jit
    @jax.vmap
    def run(key: jax.Array) -> tuple:
        start, own = jnp.zeros(()), jax.random.fold_in(key, 1)
        carry = start, adam.init(start), step.init(start, rng_key=own)
        return jax.lax.scan(stretch, carry, jax.random.split(key, points))[1]

    logits, variances = run(jax.random.split(jax.random.key(0), num_seeds))
    return np.asarray(logits, float), np.asarray(variances, float)


def draw(found: dict[str, dict[str, Any]]) -> Figure:
    """Left the median over the seeds in the band from least to most, right the mean, without the points where no
    two gradients differed."""
    figure = Figure(figsize=(11.0, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, curve in found.items():
        losses, variances = np.asarray(curve["loss"]), np.mean(curve["variance"], 0)
        (line,) = left.plot(curve["step"], np.median(losses, 0), linewidth=1.3)
        left.fill_between(curve["step"], losses.min(0), losses.max(0), color=line.get_color(), alpha=0.15)
        shown = variances > FLOOR
        right.plot(np.asarray(curve["step"])[shown], np.log10(variances[shown]), label=name, linewidth=1.3)
    left.set(xlabel="step", ylabel="exact loss", title=f"E (b - {TARGET})^2, trained by Adam at {RATE}")
    left.axhline(TARGET**2, color="#888888", linewidth=0.8, linestyle=":")
    right.set(xlabel="step", ylabel="log10 of the variance of one gradient", title=f"of {DRAWS} at each point")
    right.legend(fontsize=8, ncols=2)
    return figure


def main(argv: list[str] | None = None) -> None:
    """Train, print the variances at some steps, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--estimators", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    points = min(POINTS, args.steps)
    steps = [i * (args.steps // points) for i in range(points)]
    shown = sorted({i * points // 100 for i in (0, 1, 5, 10, 20, 50)} | {points - 1})
    found: dict[str, dict[str, Any]] = {}
    rows = []
    for name in args.estimators:
        logits, variances = train(CONTENDERS[name], args.steps, args.seeds, points)
        losses = exact_loss(logits)
        found[name] = {"step": steps, "loss": losses.tolist(), "variance": variances.tolist()}
        cells = [f"{v:.2g}" for v in np.mean(variances, 0)[shown]]
        rows.append([name, *cells, f"{CLOSED[name]:.3g}" if name in CLOSED else "", f"{np.median(losses[:, -1]):.6f}"])
    header = ["variance at step", *(str(steps[i]) for i in shown), "closed form at 0", f"loss at {steps[-1]}"]
    print(table(header, rows))
    seen = f"Variances are means over {args.seeds} seeds, losses medians"
    print(f"\n{seen}. The least loss is {TARGET**2:.6f}, the first {exact_loss(np.zeros(())):.6f}")
    print(f"Saved {save('relax_toy', found, args.output)}")
    path = args.output / "relax_toy.png"
    draw(found).savefig(path, dpi=130)
    print(f"Drawn {path}")


if __name__ == "__main__":
    main()
