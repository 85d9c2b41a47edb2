"""The priors of the hidden Markov models: rows of transition probabilities, and tones that a state favours."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from benchmarks.discrete_latents.sequences import HIDDEN, STATES, TONES, loud

LOUDER = np.where(loud(STATES, TONES), 1.5, -1.5)  # what a state adds to the tones' logits, in the network


def _moves(*shape):
    """Transition probabilities, one row a state (or a pair of them): a state lasts."""
    rows = jnp.broadcast_to(1.0 + 3.0 * jnp.eye(shape[-1]), (*shape, shape[-1]))
    return dist.Dirichlet(rows).to_event(len(shape))


def _tones(favoured):
    """Beta(5, 2) for favoured tones, Beta(2, 5) for others, one event."""
    a = jnp.where(jnp.asarray(favoured), 5.0, 2.0)
    return dist.Beta(a, 7.0 - a).to_event(a.ndim)


def _pairs(tones):
    """Of two chains of two states: even tones are favoured where the first is 1, odd ones where the second is."""
    w, x = np.arange(2)[:, None, None], np.arange(2)[:, None]
    return _tones(np.where(np.arange(tones) % 2 == 0, w == 1, x == 1))


def _before(tones):
    return np.broadcast_to(loud(STATES, tones)[:, None], (STATES, 2, tones))


def _network(tones):
    weights, bias = dist.Normal(0.0, 1.0).expand([HIDDEN, tones]), dist.Normal(0.0, 1.0).expand([tones])
    return {"probs_x": _moves(STATES), "last": weights.to_event(2), "bias": bias.to_event(1)}


PRIORS = {
    "single": lambda tones: {"probs_x": _moves(STATES), "probs_y": _tones(loud(STATES, tones))},
    "autoregressive": lambda tones: {"probs_x": _moves(STATES), "probs_y": _tones(_before(tones))},
    "factorial": lambda tones: {"probs_w": _moves(2), "probs_x": _moves(2), "probs_y": _pairs(tones)},
    "feeding": lambda tones: {"probs_w": _moves(2), "probs_x": _moves(2, 2), "probs_y": _pairs(tones)},
    "neural": _network,
    "second_order": lambda tones: {"probs_x": _moves(2, 2), "probs_y": _tones(loud(2, tones))},
}


def drawn(name, sequences, *_):
    """The parameters of the model of that name, for as many tones as the last axis of the sequences has."""
    return [numpyro.sample(site, prior) for site, prior in PRIORS[name](sequences.shape[-1]).items()]
