"""Hard attention: digits that lie anywhere are read through one small window, and where to look is learned.

The digits of scikit-learn, 8 x 8 pixels, are put somewhere on a canvas of 16 x 16. One network sees the canvas as
sixteen numbers, the means of its blocks, and chooses a window of 6 x 6 pixels; another one names the digit by what the
window shows. The choice is a draw from a `Categorical` over 36 places, which has no derivative: what a window shows is
looked up in a table. The loss is the cross-entropy of each image, and `autovi.stochastic_value_and_grad` estimates the
gradient of its expectation, by the estimator that it is told or by that which it chooses, the sum over all places. The
same network with a window at random, and with one that stays in the middle, say what attention is worth.

In the manner of Mnih, Heess, Graves and Kavukcuoglu (2014), "Recurrent Models of Visual Attention", in small.

    python examples/hard_attention.py --output hard_attention

It needs scikit-learn, for the images, and matplotlib.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax.flatten_util import ravel_pytree

import autovi

CANVAS, DIGIT, WINDOW, STRIDE, BLOCK, CLASSES = 16, 8, 6, 2, 4, 10
CORNERS = [(r, c) for r in range(0, CANVAS - WINDOW + 1, STRIDE) for c in range(0, CANVAS - WINDOW + 1, STRIDE)]
PLACES, BLOCKS = len(CORNERS), (CANVAS // BLOCK) ** 2
MIDDLE = CORNERS.index((4, 4))
HELD_OUT, COPIES, HIDDEN, BATCH, RATE = 500, 10, 64, 100, 5e-3


class Contender(NamedTuple):
    """An estimator of the gradient of the place (None: what autovi chooses), and how many samples an update has."""

    estimator: Any
    samples: int


# All but the last have four evaluations of the loss for each image.
CONTENDERS = {
    "score, no baseline": Contender({"estimator": "score", "baseline": "none"}, 4),
    "score, leave-one-out": Contender({"estimator": "score", "baseline": "leave_one_out"}, 4),
    "disarm_tree": Contender("disarm_tree", 2),
    "unordered_set": Contender({"estimator": "unordered_set", "evaluations": 4}, 1),
    "enumerate": Contender(None, 1),
}
POLICIES = ("random", "middle")  # to compare with the learned one


class Digits(NamedTuple):
    """Images `[n, 144]` from 0 to 1, and labels `[n]`."""

    images: jax.Array
    labels: jax.Array


def digits() -> tuple[Digits, Digits]:
    """12,970 images to learn from, each digit at ten places, and those of 500 other digits."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))

    def put(some: np.ndarray) -> Digits:
        canvases = np.zeros((len(some), CANVAS, CANVAS), np.float32)
        for canvas, digit in zip(canvases, pixels[some], strict=True):
            row, column = rng.integers(CANVAS - DIGIT + 1, size=2)
            canvas[row : row + DIGIT, column : column + DIGIT] = digit.reshape(DIGIT, DIGIT) / 16
        return Digits(jnp.asarray(canvases.reshape(len(some), -1)), jnp.asarray(labels[some]))

    return put(np.tile(order[HELD_OUT:], COPIES)), put(order[:HELD_OUT])


def windows(images: jax.Array) -> jax.Array:
    """What the window at each place shows of each image: `[n, 36, 36]`."""
    side = np.arange(WINDOW)
    pixels = [((row + side)[:, None] * CANVAS + column + side).ravel() for row, column in CORNERS]
    return images[:, np.stack(pixels)]


def coarse(images: jax.Array) -> jax.Array:
    """The means of the blocks of each image: `[n, 16]`."""
    side = CANVAS // BLOCK
    return images.reshape(-1, side, BLOCK, side, BLOCK).mean((2, 4)).reshape(-1, BLOCKS)


def initial_params(seed: int = 0) -> dict[str, dict[str, jax.Array]]:
    """Two networks with a hidden layer each; at first all places and all digits are equally likely."""
    sizes = {"place": (BLOCKS, PLACES), "digit": (WINDOW**2, CLASSES)}
    keys = jax.random.split(jax.random.key(seed), len(sizes))
    return {
        name: {
            "in": jax.random.normal(key, (inputs, HIDDEN)) / np.sqrt(inputs),
            "bias": jnp.zeros(HIDDEN),
            "out": jnp.zeros((HIDDEN, outputs)),
        }
        for key, (name, (inputs, outputs)) in zip(keys, sizes.items(), strict=True)
    }


def network(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Logits."""
    return jnp.tanh(x @ params["in"] + params["bias"]) @ params["out"]


def look(params: Any, images: jax.Array, policy: str) -> jax.Array:
    """The place of the window on each image `[n]`: "learned" and "random" are drawn, the "likeliest" and the "middle"
    are not."""
    logits = network(params["place"], coarse(images))
    if policy == "middle":
        return jnp.full(len(images), MIDDLE)
    if policy == "likeliest":
        return jnp.argmax(logits, -1)
    return numpyro.sample("place", dist.Categorical(logits=logits if policy == "learned" else jnp.zeros_like(logits)))


def read(params: Any, images: jax.Array, policy: str) -> jax.Array:
    """The log probabilities of the digits `[n, 10]`."""
    place = look(params, images, policy)
    return jax.nn.log_softmax(network(params["digit"], windows(images)[jnp.arange(len(images)), place]))


def loss(params: Any, batch: Digits, policy: str = "learned") -> jax.Array:
    """The cross-entropy of each image in nats, over their number: parts of a mean, so that each image's window is
    charged with its own part."""
    with numpyro.plate("image", len(batch.labels)):
        log_p = read(params, batch.images, policy)
    return -jnp.take_along_axis(log_p, batch.labels[:, None], -1)[:, 0] / len(batch.labels)


def accuracy(params: Any, data: Digits, policy: str) -> float:
    """The share of digits that are named right."""
    with numpyro.handlers.seed(rng_seed=1):
        log_p = read(params, data.images, policy)
    return float(jnp.mean(jnp.argmax(log_p, -1) == data.labels))


def estimates(contender: Contender) -> Any:
    """A function of parameters, batch and key: estimates of the expected loss and of its gradient."""
    sites = None if contender.estimator is None else {"place": contender.estimator}
    return autovi.stochastic_value_and_grad(loss, estimators=sites, num_samples=contender.samples)


def trainer(contender: Contender, policy: str, data: Digits, num_updates: int) -> Any:
    """A compiled function of a seed: the parameters after so many updates, and the loss of each."""
    step, optimizer = estimates(contender), optax.adam(RATE)

    def update(carry: Any, rng_key: jax.Array) -> Any:
        params, memory = carry
        of_batch, own = jax.random.split(rng_key)
        index = jax.random.randint(of_batch, (BATCH,), 0, len(data.labels))
        value, grads = step(params, Digits(data.images[index], data.labels[index]), policy, rng_key=own)
        updates, memory = optimizer.update(grads, memory)
        return (optax.apply_updates(params, updates), memory), value

    @jax.jit
    def train(seed: jax.Array) -> tuple[Any, jax.Array]:
        params = initial_params(seed)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), num_updates)
        (params, _), losses = jax.lax.scan(update, (params, optimizer.init(params)), keys)
        return params, losses

    return train


def gradients(contender: Contender, params: Any, batch: Digits, num_draws: int) -> np.ndarray:
    """Estimates of the gradient in the parameters that choose the place, `[num_draws, parameters]`."""
    step = estimates(contender)

    def one(rng_key: jax.Array) -> jax.Array:
        return ravel_pytree(step(params, batch, rng_key=rng_key)[1]["place"])[0]

    return np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(jax.random.key(2), num_draws)))


class Found(NamedTuple):
    """What came of one way to learn: by seed, but for the variance."""

    losses: np.ndarray  # of every update's batch, in nats: [seeds, updates]
    accuracies: np.ndarray  # on held-out digits, at the likeliest place where that is learned
    params: list[Any]
    variance: float | None  # of the gradient for the place, summed, at the same parameters for all estimators


def draw(found: dict[str, Found], data: Digits, path: Path, window: int = 50) -> None:
    """Where it looks on six digits; learning curves, and the gradient's variance, where there is any."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(13, 4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 2])
    some = Digits(data.images[:6], data.labels[:6])
    params = list(found.values())[-1].params[0]
    named, places = jnp.argmax(read(params, some.images, "likeliest"), -1), look(params, some.images, "likeliest")
    for i, ax in enumerate(left.subplots(2, 3).ravel()):
        ax.imshow(some.images[i].reshape(CANVAS, CANVAS), cmap="gray")
        row, column = CORNERS[int(places[i])]
        corner = (column - 0.5, row - 0.5)
        ax.add_patch(Rectangle(corner, WINDOW, WINDOW, fill=False, edgecolor="orange", linewidth=2))
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{some.labels[i]}, read as {named[i]}", fontsize=8)
    curves, bars = right.subplots(1, 2)
    for name, one in found.items():
        width = min(window, one.losses.shape[1])
        smooth = np.stack([np.convolve(x, np.full(width, 1 / width), "valid") for x in one.losses])
        (line,) = curves.plot(np.arange(smooth.shape[1]) + width, smooth.mean(0), label=name)
        curves.fill_between(np.arange(smooth.shape[1]) + width, smooth.min(0), smooth.max(0), alpha=0.2)
        if one.variance is not None and name != "enumerate":  # that has none but of rounding
            bars.barh(name, one.variance, color=line.get_color())
    curves.set(xlabel="updates", ylabel="cross-entropy, nats an image", title="learning, by seeds", ylim=(0, 3.3))
    curves.legend(fontsize=8, loc="upper center", ncols=2)
    bars.set(xscale="log", xlabel="total variance", title="gradient for the place, one batch")
    bars.invert_yaxis()
    figure.savefig(path, dpi=110)


def main(
    output: Path,
    *,
    num_updates: int = 1500,
    num_seeds: int = 5,
    contenders: Sequence[str] = tuple(CONTENDERS),
    num_draws: int = 300,
) -> dict[str, Found]:
    """Learns to look with each estimator; prints held-out accuracies and variances, draws `hard_attention.png`.

    The variances are those at the parameters after a sixth of the updates by exact gradients.
    """
    data, held_out = digits()
    exact = CONTENDERS["enumerate"]
    print(autovi.stochastic_grad(loss).plan(initial_params(), Digits(*(x[:BATCH] for x in held_out))))
    point, _ = trainer(exact, "learned", data, num_updates // 6)(99)
    found = {}
    print(f"\n{'window':<24}{'accuracy':<12}{'variance':<12}")
    for name in (*POLICIES, *contenders):
        policy = name if name in POLICIES else "learned"
        contender = CONTENDERS.get(name, exact)
        train = trainer(contender, policy, data, num_updates)
        params, losses = zip(*(train(seed) for seed in range(num_seeds)), strict=True)
        shares = [accuracy(p, held_out, "likeliest" if policy == "learned" else policy) for p in params]
        variance = None
        if policy == "learned":
            drawn = gradients(contender, point, Digits(*(x[:BATCH] for x in data)), num_draws)
            variance = float(drawn.var(axis=0).sum())
        found[name] = Found(np.stack(losses), np.array(shares), list(params), variance)
        print(f"{name:<24}{np.mean(shares):<12.3f}{'-' if variance is None else f'{variance:.2g}'}", flush=True)
    output.mkdir(parents=True, exist_ok=True)
    picture = output / "hard_attention.png"
    draw(found, held_out, picture)
    print(f"wrote {picture}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Hard attention on handwritten digits.")
    parser.add_argument("--output", type=Path, default=Path("hard_attention"))
    parser.add_argument("--num-updates", type=int, default=1500)
    parser.add_argument("--num-seeds", type=int, default=5)
    args = parser.parse_args()
    main(args.output, num_updates=args.num_updates, num_seeds=args.num_seeds)
