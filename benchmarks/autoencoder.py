"""The digits autoencoder with a normal code (`examples/digits_vae.py`): by hand, by NumPyro, and by autovi.

Each returns `run(num_steps) -> losses`, as the contenders of `programs.py` do: the loss is the negative ELBO of all
images, estimated from a batch of 100 and one code an image, and the optimizer is Adam with step size 0.003.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax

from benchmarks.programs import Fits, Run, Scan
from examples.digits_vae import BATCH, CODE, LATENTS, positive, programs

LEARNING_RATE = 3e-3


def initial_params(images: np.ndarray) -> dict[str, jax.Array]:
    """The weights that the example starts from, by name."""
    params = {}
    for program in programs(LATENTS["normal"]):
        trace = numpyro.handlers.trace(numpyro.handlers.seed(program, 0)).get_trace(images)
        params |= {name: site["value"] for name, site in trace.items() if site["type"] == "param"}
    return params


def loss_by_hand(params: dict[str, jax.Array], key: jax.Array, images: jax.Array) -> jax.Array:
    """-(N / B) sum over a batch of [log p(x | z) + log p(z) - log q(z | x)], z = m(x) + s(x) * noise."""

    def layer(name: str, x: jax.Array) -> jax.Array:
        return x @ params[f"{name}_weights"] + params[f"{name}_bias"]

    batch_key, noise_key = jax.random.split(key)
    batch = images[jax.random.choice(batch_key, len(images), (BATCH,), replace=False)]
    hidden = jnp.tanh(layer("encoder_hidden", 2 * batch - 1))
    loc, scale = layer("encoder_first", hidden), positive(layer("encoder_second", hidden))
    noise = jax.random.normal(noise_key, (BATCH, CODE))
    code = loc + scale * noise
    logits = layer("decoder_pixels", jnp.tanh(layer("decoder_hidden", code)))
    likelihood = jnp.sum(batch * logits - jax.nn.softplus(logits))
    # The normalizing constants of log p(z) and log q(z | x) cancel.
    ratio = jnp.sum(0.5 * (noise**2 - code**2) + jnp.log(scale))
    return -len(images) / BATCH * (likelihood + ratio)


def by_hand(images: np.ndarray) -> Scan:
    """The floor: the loss above, Optax's Adam, one scan."""
    optimizer = optax.adam(LEARNING_RATE)
    data = jnp.asarray(images)

    def step(carry: tuple, _: None) -> tuple[tuple, jax.Array]:
        params, state, key = carry
        key, subkey = jax.random.split(key)
        loss, gradient = jax.value_and_grad(loss_by_hand)(params, subkey, data)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state, key), loss

    @partial(jax.jit, static_argnums=1)
    def scan(carry: tuple, num_steps: int) -> jax.Array:
        return jax.lax.scan(step, carry, length=num_steps)[1]

    params = initial_params(images)
    return Scan(scan, (params, optimizer.init(params), jax.random.key(0)))


def by_numpyro(images: np.ndarray) -> Scan:
    """NumPyro's SVI of the example's model and guide; `svi.update` in a scan."""
    from numpyro.infer import SVI, Trace_ELBO

    svi = SVI(*programs(LATENTS["normal"]), numpyro.optim.Adam(LEARNING_RATE), Trace_ELBO())
    data = jnp.asarray(images)

    @partial(jax.jit, static_argnums=1)
    def scan(state: Any, num_steps: int) -> jax.Array:
        return jax.lax.scan(lambda s, _: svi.update(s, data), state, length=num_steps)[1]

    return Scan(scan, svi.init(jax.random.key(0), data))


def by_autovi(images: np.ndarray) -> Fits:
    """`autovi.fit` of the example's model and guide, as the example calls it."""
    model, guide = programs(LATENTS["normal"])
    return Fits(model, {"images": images}, guide=guide, num_particles=1, optimizer=optax.adam(LEARNING_RATE))


PROGRAMS: dict[str, Callable[[np.ndarray], Run]] = {"by hand": by_hand, "NumPyro": by_numpyro, "autovi": by_autovi}
