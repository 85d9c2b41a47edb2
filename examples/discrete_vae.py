"""Variational autoencoders of handwritten digits whose codes are 200 yes-or-no numbers, by several gradient estimators.

The problem that estimators for Bernoulli sites are compared on (Tucker et al., 2017; Dong, Mnih and Tucker, 2020;
Titsias and Shi, 2022), in small: the digits that come with scikit-learn (8 x 8 pixels, black or white) and a decoder
that is linear or has one hidden layer. A draw of such a code has no derivative. What the estimators do about that shows
in the noise of the encoder's gradient, and so in how far the same number of steps comes. Run it with
`python examples/discrete_vae.py --output folder` (needs scikit-learn and matplotlib).
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from matplotlib.figure import Figure

import autovi

CODES, PIXELS, HIDDEN, BATCH, RATE = 200, 64, 200, 100, 1e-3
KINDS = ("linear", "nonlinear")


class Contender(NamedTuple):
    """An estimator of the code's gradient, and how many particles a step has."""

    estimator: Any
    particles: int


# By the evaluations of the decoder that a step makes for each image.
CONTENDERS = {
    "leave-one-out, 2": Contender("score", 2),
    "disarm, 2": Contender("disarm", 1),
    "double_cv, 2": Contender("double_cv", 2),
    "rebar, 3": Contender("rebar", 1),
    "disarm, 4": Contender("disarm", 2),
}


def digits() -> np.ndarray:
    """All images, `[1797, 64]` of 0 and 1."""
    from sklearn.datasets import load_digits

    return (load_digits().data > 7.5).astype(np.float32)


def initial_params(kind: str, seed: int = 0) -> dict[str, jax.Array]:
    """The weights of encoder and decoder, and the prior's logits."""
    sizes = {"linear": (), "nonlinear": (HIDDEN,)}[kind]
    params = {"prior": jnp.zeros(CODES)}
    for part, ends in (("encoder", (PIXELS, CODES)), ("decoder", (CODES, PIXELS))):
        widths = (ends[0], *sizes, ends[1])
        for i, (wide, narrow) in enumerate(zip(widths, widths[1:], strict=False)):
            key = jax.random.fold_in(jax.random.key(seed), 2 * i + (part == "decoder"))
            params[f"{part}_weights{i}"] = jax.random.normal(key, (wide, narrow)) / np.sqrt(wide)
            params[f"{part}_bias{i}"] = jnp.zeros(narrow)
    return params


def network(params: dict[str, jax.Array], part: str, x: jax.Array) -> jax.Array:
    """Affine layers, leaky ReLUs between them."""
    last = sum(name.startswith(f"{part}_weights") for name in params) - 1
    for i in range(last + 1):
        x = x @ params[f"{part}_weights{i}"] + params[f"{part}_bias{i}"]
        x = x if i == last else jax.nn.leaky_relu(x, 0.3)
    return x


def encoded(params: dict[str, jax.Array], images: jax.Array) -> jax.Array:
    """The logits of q(code | image)."""
    return network(params, "encoder", 2 * images - 1)


def decoded(params: dict[str, jax.Array], code: jax.Array) -> jax.Array:
    """The logits of p(image | code)."""
    return network(params, "decoder", 2 * code - 1)


def log_prob(logits: jax.Array, x: jax.Array) -> jax.Array:
    """log Bernoulli(x; logits), summed over the last axis; of values between 0 and 1 too, as relaxations ask for."""
    return jnp.sum(x * logits - jax.nn.softplus(logits), -1)


def programs(start: dict[str, jax.Array], batch: int | None = BATCH) -> tuple[Callable, Callable]:
    """Model and guide with parameters that begin at `start`; a batch of images a step."""

    def own(*parts: str) -> dict[str, jax.Array]:
        return {n: numpyro.param(n, x) for n, x in start.items() if n.startswith(parts)}

    def model(images: jax.Array) -> None:
        params = own("prior", "decoder")
        with numpyro.plate("image", len(images), subsample_size=batch) as index:
            code = numpyro.sample("code", dist.Bernoulli(logits=params["prior"]).to_event(1))
            numpyro.sample("pixels", dist.Bernoulli(logits=decoded(params, code)).to_event(1), obs=images[index])

    def guide(images: jax.Array) -> None:
        params = own("encoder")
        with numpyro.plate("image", len(images), subsample_size=batch) as index:
            numpyro.sample("code", dist.Bernoulli(logits=encoded(params, images[index])).to_event(1))

    return model, guide


def elbo(params: dict[str, Any], images: np.ndarray, num_draws: int = 50, weighted: int = 1) -> float:
    """Nats an image, averaged over all of them; of more than one draw at a time the importance-weighted bound."""

    @jax.jit
    def bound(params: dict[str, jax.Array], rng_key: jax.Array) -> jax.Array:
        logits = encoded(params, images)
        code = jax.random.bernoulli(rng_key, jax.nn.sigmoid(logits), (weighted, *logits.shape)).astype(float)
        log_w = log_prob(params["prior"], code) + log_prob(decoded(params, code), images) - log_prob(logits, code)
        return jnp.mean(jax.nn.logsumexp(log_w, axis=0) - jnp.log(weighted))

    keys = jax.random.split(jax.random.key(1), num_draws)
    return float(np.mean([bound(params, key) for key in keys]))


def gradient_variance(
    params: dict[str, Any], images: np.ndarray, contender: Contender, num_draws: int = 300, trained: int = 500
) -> float:
    """The summed variance of the encoder's gradient at these parameters, of the ELBO of these images together;
    estimators that learn have learned for `trained` draws before."""
    params = jax.tree.map(jnp.asarray, params)
    encoder = {n: x for n, x in params.items() if n.startswith("encoder")}

    def loss(encoder: dict[str, jax.Array]) -> jax.Array:
        logits = encoded(encoder, images)
        with numpyro.plate("image", len(images)):
            code = numpyro.sample("code", dist.Bernoulli(logits=logits).to_event(1))
        # The derivative of log q itself has mean zero: here it would be nothing but noise.
        log_q = log_prob(jax.lax.stop_gradient(logits), code)
        return log_q - log_prob(params["prior"], code) - log_prob(decoded(params, code), images)

    gradient = autovi.stochastic_grad(
        loss, estimators={"code": contender.estimator}, num_samples=contender.particles, allow_bias=True
    )

    @jax.jit
    def run(state: Any, rng_keys: jax.Array) -> tuple[Any, jax.Array]:
        def one(carry: Any, rng_key: jax.Array) -> tuple[Any, jax.Array]:
            state, number, mean, squares = carry
            found, state = gradient(encoder, rng_key=rng_key, estimator_state=state)
            away = jax.tree.map(jnp.subtract, found, mean)
            mean = jax.tree.map(lambda m, a: m + a / (number + 1), mean, away)
            squares += sum(
                jnp.sum(a * (f - m)) for a, f, m in zip(*map(jax.tree.leaves, (away, found, mean)), strict=True)
            )
            return (state, number + 1, mean, squares), None

        zero = jax.tree.map(jnp.zeros_like, encoder)
        (state, number, _, squares), _ = jax.lax.scan(one, (state, 0.0, zero, 0.0), rng_keys)
        return state, squares / (number - 1)

    state = gradient.init(encoder)
    learn, measure = jax.random.split(jax.random.key(2))
    if jax.tree.leaves(state.params):
        state, _ = run(state, jax.random.split(learn, trained))
    return float(run(state, jax.random.split(measure, num_draws))[1])


class Trained(NamedTuple):
    """What a fit of one estimator came to."""

    losses: np.ndarray  # nats an image, of every step's batch
    elbo: float  # of all images
    variance: float  # of the encoder's gradient, at the same parameters for all estimators
    seconds: float
    params: dict[str, Any]


def train(
    kind: str,
    contender: Contender,
    images: np.ndarray,
    num_steps: int,
    seed: int = 0,
    rate: float = RATE,
    **options: Any,
) -> tuple[dict[str, Any], np.ndarray, float]:
    """Parameters, losses in nats an image, and seconds; Adam at one `rate`, or autovi's own optimizer for None."""
    model, guide = programs(initial_params(kind, seed))
    started = time.perf_counter()
    fit = autovi.fit(
        model,
        {"images": images},
        rng_key=seed,
        guide=guide,
        estimators={"code": contender.estimator},
        num_particles=contender.particles,
        num_steps=num_steps,
        optimizer=None if rate is None else optax.adam(rate),
        num_draws=1,
        **options,
    )
    return fit.params, np.asarray(fit.losses) / len(images), time.perf_counter() - started


def figure(kind: str, found: dict[str, Trained], window: int = 50) -> Figure:
    """Learning curves, and the noise that is behind them."""
    canvas = Figure(figsize=(11.0, 4.5), layout="constrained")
    left, right = canvas.subplots(1, 2)
    for name, trained in found.items():
        width = max(1, min(window, len(trained.losses) // 4))
        smooth = np.convolve(trained.losses, np.ones(width) / width, "valid")
        left.plot(np.arange(len(smooth)) + width, -smooth, label=name, linewidth=1.2)
    best = max(t.elbo for t in found.values())
    left.set(
        xlabel="step", ylabel="ELBO, nats an image", title=f"{kind} decoder: learning", ylim=(best - 6, best + 0.5)
    )
    left.legend(fontsize=8)
    right.barh(list(found), [t.variance for t in found.values()], color="#1b6ca8")
    right.invert_yaxis()
    right.set(xscale="log", xlabel="summed variance of the encoder's gradient", title="noise at the same parameters")
    return canvas


def main(
    output: Path | None = None,
    *,
    num_steps: int = 2000,
    kinds: Sequence[str] = KINDS,
    contenders: Sequence[str] = tuple(CONTENDERS),
    progress_bar: bool = True,
) -> dict[str, dict[str, Trained]]:
    """Fit every decoder with every estimator; print and draw what came of it.

    The noise is compared at the parameters halfway through a fit with `disarm`, on the first batch of images.
    """
    images = digits()
    found: dict[str, dict[str, Trained]] = {}
    for kind in kinds:
        point, _, _ = train(kind, CONTENDERS["disarm, 2"], images, num_steps // 2, seed=7, progress_bar=progress_bar)
        found[kind] = {}
        for name in contenders:
            params, losses, seconds = train(kind, CONTENDERS[name], images, num_steps, progress_bar=progress_bar)
            variance = gradient_variance(point, images[:BATCH], CONTENDERS[name])
            found[kind][name] = trained = Trained(losses, elbo(params, images), variance, seconds, params)
            print(f"{kind:10s} {name:18s} ELBO {trained.elbo:.2f} nats an image, variance {trained.variance:.3g}")
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            figure(kind, found[kind]).savefig(output / f"discrete_vae_{kind}.png", dpi=130)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=Path("."), help="folder of the figures")
    arguments = parser.parse_args()
    main(arguments.output, num_steps=arguments.steps)
