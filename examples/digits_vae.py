"""Variational autoencoders of handwritten digits whose latent codes are normal, gamma, beta or von Mises.

Figurnov, Mohamed and Mnih (2018), "Implicit Reparameterization Gradients", section 6.3, in small: the digits that come
with scikit-learn (8 x 8 pixels, black or white), an encoder and a decoder with one hidden layer each, and four priors.
The encoder is a NumPyro guide function. The normal code is reparameterized explicitly; the other three have no explicit
map from noise, and autovi gives them implicit reparameterization gradients. Run it with
`python examples/digits_vae.py` (needs scikit-learn).
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax

import autovi
from autovi import implicit

PIXELS, HIDDEN, CODE = 64, 64, 4
TRAINING, BATCH = 1500, 100


@dataclass(frozen=True)
class Latent:
    """A kind of code: its prior, its posterior from the encoder's two outputs per coordinate, and what of it the
    decoder sees."""

    prior: dist.Distribution
    posterior: Callable[[jax.Array, jax.Array], dist.Distribution]
    features: Callable[[jax.Array], jax.Array]


def positive(x: jax.Array) -> jax.Array:
    """Softplus, kept away from 0."""
    return jax.nn.softplus(x) + 1e-2


LATENTS = {
    "normal": Latent(dist.Normal(0.0, 1.0), lambda a, b: dist.Normal(a, positive(b)), lambda z: z),
    "gamma": Latent(dist.Gamma(0.3, 0.3), lambda a, b: dist.Gamma(positive(a), positive(b)), jnp.log1p),
    "beta": Latent(dist.Beta(1.0, 1.0), lambda a, b: dist.Beta(positive(a), positive(b)), lambda z: 2 * z - 1),
    "von Mises": Latent(
        # A von Mises of concentration 0 is the uniform distribution on the circle.
        dist.VonMises(0.0, 1e-3),
        lambda a, b: dist.VonMises(a, positive(b)),
        lambda z: jnp.concatenate([jnp.cos(z), jnp.sin(z)], axis=-1),
    ),
}


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Training and test images, `[number, 64]` of 0 and 1, in a fixed random order."""
    from sklearn.datasets import load_digits

    images = (load_digits().data > 7).astype(np.float32)
    images = images[np.random.default_rng(0).permutation(len(images))]
    return images[:TRAINING], images[TRAINING:]


def layer(name: str, x: jax.Array, width: int) -> jax.Array:
    """An affine layer whose weights are parameters of the program."""
    rng = np.random.default_rng(sum(name.encode()))
    start = rng.normal(size=(x.shape[-1], width)) / np.sqrt(x.shape[-1])
    weights = numpyro.param(f"{name}_weights", jnp.asarray(start, jnp.float32))
    return x @ weights + numpyro.param(f"{name}_bias", jnp.zeros(width))


def encoder(latent: Latent, images: jax.Array) -> dist.Distribution:
    """q(code | image)."""
    hidden = jnp.tanh(layer("encoder_hidden", 2 * images - 1, HIDDEN))
    first, second = layer("encoder_first", hidden, CODE), layer("encoder_second", hidden, CODE)
    return latent.posterior(first, second).to_event(1)


def decoder(latent: Latent, code: jax.Array) -> dist.Distribution:
    """p(image | code)."""
    hidden = jnp.tanh(layer("decoder_hidden", latent.features(code), HIDDEN))
    return dist.Bernoulli(logits=layer("decoder_pixels", hidden, PIXELS)).to_event(1)


def programs(latent: Latent) -> tuple[Callable, Callable]:
    """Model and guide: one code for each image, a batch of images a step."""

    def model(images: jax.Array) -> None:
        with numpyro.plate("image", len(images), subsample_size=BATCH) as index:
            code = numpyro.sample("code", latent.prior.expand([CODE]).to_event(1))
            numpyro.sample("pixels", decoder(latent, code), obs=images[index])

    def guide(images: jax.Array) -> None:
        with numpyro.plate("image", len(images), subsample_size=BATCH) as index:
            numpyro.sample("code", encoder(latent, images[index]))

    return model, guide


def held_out_elbo(latent: Latent, params: dict, images: np.ndarray, num_samples: int = 50) -> float:
    """The mean ELBO of images that were not fitted, in nats an image."""

    def elbo(rng_key: jax.Array) -> jax.Array:
        with numpyro.handlers.substitute(data=params):
            q = encoder(latent, jnp.asarray(images))
            code = implicit.sample(rng_key, q)
            likelihood = decoder(latent, code).log_prob(images)
        return jnp.mean(likelihood + latent.prior.log_prob(code).sum(-1) - q.log_prob(code))

    return float(jnp.mean(jax.jit(jax.vmap(elbo))(jax.random.split(jax.random.key(1), num_samples))))


def main(*, num_steps: int = 4000, latents: tuple[str, ...] = tuple(LATENTS), progress_bar: bool = True) -> dict:
    """Fit one autoencoder for each kind of code; print its estimator and its ELBO on the test images."""
    training, held_out = digits()
    found = {}
    for name in latents:
        model, guide = programs(LATENTS[name])
        fit = autovi.fit(
            model,
            {"images": training},
            guide=guide,
            num_particles=1,
            num_steps=num_steps,
            optimizer=optax.adam(3e-3),
            num_draws=20,
            progress_bar=progress_bar,
        )
        found[name] = held_out_elbo(LATENTS[name], fit.params, held_out)
        (site,) = fit.plan.to_dict()["sites"]
        print(f"{name:10s} {site['estimator']:9s} test ELBO {found[name]:.2f} nats an image")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000)
    main(num_steps=parser.parse_args().steps)
