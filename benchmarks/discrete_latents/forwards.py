"""The hidden Markov and the capture models with their states summed out by hand: the programs of the references.

alpha_t(j) = log sum_i exp(alpha_(t-1)(i) + log P(j | i)) + log p(y_t | j),   evidence = log sum_j exp(alpha_T(j))
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.nn import logsumexp

from benchmarks.discrete_latents.priors import LOUDER, drawn
from benchmarks.discrete_latents.sequences import STATES

NEVER = -1e30  # the logarithm of zero, with a gradient


def evidence(moves, seen, counted, start=None):
    """Log evidence of all sequences, which start from state 0 before their first step, or from log weights `start`.

    `moves` are log probabilities (..., states, states), with a leading axis of steps or without, `seen` those of what
    is observed, (sequences, steps, states), and `counted` says which steps there are, (sequences, steps).
    """
    steps, states = seen.shape[1:]
    moves = jnp.broadcast_to(moves, (steps, *moves.shape[-3:])) if moves.ndim < 4 else moves

    def step(alpha, now):
        rows, row, counts = now
        following = logsumexp(alpha[:, :, None] + rows, axis=1) + row
        return jnp.where(counts[:, None], following, alpha), None

    start = jnp.where(jnp.arange(states) == 0, 0.0, NEVER) if start is None else start
    start = jnp.broadcast_to(start, (len(seen), states))
    alpha = jax.lax.scan(step, start, (moves, jnp.swapaxes(seen, 0, 1), jnp.swapaxes(counted, 0, 1)))[0]
    return logsumexp(alpha, axis=-1)


def _summed(sequences, lengths, probs_moves, seen):
    """The factor of the sequences. `probs_moves` is (states, states)."""
    moves = jnp.where(probs_moves > 0, jnp.log(jnp.where(probs_moves > 0, probs_moves, 1.0)), NEVER)
    counted = jnp.arange(sequences.shape[1]) < jnp.asarray(lengths)[:, None]
    numpyro.factor("sequences", evidence(moves, seen, counted).sum())


def _seen(sequences, probs_y):
    """Log probabilities of the tones in each state, (sequences, steps, states)."""
    return dist.Bernoulli(probs_y).log_prob(sequences[:, :, None]).sum(-1)


def _before(sequences):
    """The tones of the step before; silence before the first."""
    return jnp.pad(sequences, ((0, 0), (1, 0), (0, 0)))[:, :-1]


def single(sequences, lengths):
    """Model 1."""
    probs_x, probs_y = drawn("single", sequences)
    _summed(sequences, lengths, probs_x, _seen(sequences, probs_y))


def songs(songs):
    """Model 0: its sequences padded."""
    longest = max(len(song) for song in songs.values())
    padded = jnp.stack([jnp.pad(song, ((0, longest - len(song)), (0, 0))) for song in songs.values()])
    single(padded, np.array([len(song) for song in songs.values()]))


def autoregressive(sequences, lengths):
    """Model 2."""
    probs_x, probs_y = drawn("autoregressive", sequences)
    probs = jnp.where(_before(sequences)[:, :, None] == 1, probs_y[:, 1], probs_y[:, 0])
    _summed(sequences, lengths, probs_x, _seen(sequences, probs))


def _pairs(sequences, lengths, moves, probs_y):
    """Two chains as one of the pairs (w, x) = 2 w + x, whose `moves` are (w, x, next w, next x)."""
    _summed(sequences, lengths, moves.reshape(4, 4), _seen(sequences, probs_y.reshape(4, -1)))


def factorial(sequences, lengths):
    """Model 3."""
    probs_w, probs_x, probs_y = drawn("factorial", sequences)
    _pairs(sequences, lengths, jnp.einsum("ij,kl->ikjl", probs_w, probs_x), probs_y)


def feeding(sequences, lengths):
    """Model 4."""
    probs_w, probs_x, probs_y = drawn("feeding", sequences)
    _pairs(sequences, lengths, jnp.einsum("ij,jkl->ikjl", probs_w, probs_x), probs_y)


def neural(sequences, lengths, first):
    """Model 5."""
    probs_x, last, bias = drawn("neural", sequences)
    hidden = jnp.tanh(first[:STATES] + (_before(sequences) @ first[STATES:])[:, :, None])
    seen = dist.Bernoulli(logits=hidden @ last + bias + LOUDER).log_prob(sequences[:, :, None]).sum(-1)
    _summed(sequences, lengths, probs_x, seen)


def second_order(sequences, lengths):
    """Model 6, as a chain of pairs (earlier, x) = 2 earlier + x, of which x comes to be the earlier one."""
    probs_x, probs_y = drawn("second_order", sequences)
    moves = jnp.einsum("ijk,jl->ijlk", probs_x, np.eye(2))
    _summed(sequences, lengths, moves.reshape(4, 4), _seen(sequences, jnp.tile(probs_y, (2, 1))))


def captures(history, phi, rho, masked_states=False):
    """The factor of capture histories: states alive and dead, one interval a row of `phi`, (intervals, animals or 1).

    With masked states both values of the state before the first interval that counts have weight one.
    """
    y = jnp.asarray(history)
    marked = jnp.cumsum(y, axis=1)[:, :-1] > 0
    phi = jnp.broadcast_to(phi, (y.shape[1] - 1, len(y)))
    never = jnp.full_like(phi, NEVER)
    rows = [[jnp.log(phi), jnp.log1p(-phi)], [never, jnp.zeros_like(phi)]]
    moves = jnp.stack([jnp.stack(row, -1) for row in rows], -2)
    alive = jnp.where(y[:, 1:] == 1, jnp.log(rho), jnp.log1p(-rho))
    dead = jnp.where(y[:, 1:] == 1, NEVER, 0.0)
    either = jnp.where(marked[:, :1], jnp.array([0.0, NEVER]), 0.0) if masked_states else None
    numpyro.factor("histories", evidence(moves, jnp.stack([alive, dead], -1), marked, either).sum())
