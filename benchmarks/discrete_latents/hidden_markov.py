"""Seven hidden Markov models of the shapes of NumPyro's `hmm_enum`: sequences of tones, on or off.

The examples' priors are the same for all states, so that any permutation of them is a mode. Here each state is said to
favour tones of its own (`loud`), and to last: other permutations are lower by tens of nats. Every chain starts from
state 0 before its first step, and steps from a sequence's length on are masked, as in the examples.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.nn import one_hot
from numpyro.contrib.control_flow import scan
from numpyro.handlers import mask

from benchmarks.discrete_latents import forwards, sequences
from benchmarks.discrete_latents.base import Case
from benchmarks.discrete_latents.priors import LOUDER, drawn
from benchmarks.discrete_latents.sequences import STATES


def _along(sequences, lengths, start, step):
    """Runs `step(state, y) -> state` along all sequences at once, masked from their lengths on, in `scan`."""

    def body(carry, y):
        state, t = carry
        with numpyro.plate("sequences", len(sequences), dim=-2), mask(mask=(t < lengths)[:, None]):
            state = step(state, y)
        return (state, t + 1), None

    return body, (start, 0), jnp.swapaxes(sequences, 0, 1)


def _zeros(sequences):
    return jnp.zeros((len(sequences), 1), int)


def _silence(sequences):
    return jnp.zeros((len(sequences), sequences.shape[-1]), sequences.dtype)


def _play(y, probability):
    """The tones of one step, in their plate; `probability(tone)` of them."""
    with numpyro.plate("tones", y.shape[-1], dim=-1) as tone:
        numpyro.sample("y", dist.Bernoulli(probability(tone)), obs=y)


def loops(songs):
    """Model 0: sequences and steps in Python loops, so that a sequence ends where it ends."""
    probs_x, probs_y = drawn("single", *songs.values())
    for name, song in songs.items():
        x = 0
        for t, tones in enumerate(song):
            x = numpyro.sample(f"x_{name}_{t}", dist.Categorical(probs_x[x]))
            numpyro.sample(f"y_{name}_{t}", dist.Bernoulli(probs_y[x]).to_event(1), obs=tones)


def plates(sequences, lengths):
    """Model 1: the same in plates of sequences and tones."""
    probs_x, probs_y = drawn("single", sequences)

    def step(x, y):
        x = numpyro.sample("x", dist.Categorical(probs_x[x]))
        _play(y, lambda tone: probs_y[x, tone])
        return x

    scan(*_along(sequences, lengths, _zeros(sequences), step))


def autoregressive(sequences, lengths):
    """Model 2: a tone depends on its previous value, too."""
    probs_x, probs_y = drawn("autoregressive", sequences)

    def step(state, y):
        x, before = state
        x = numpyro.sample("x", dist.Categorical(probs_x[x]))
        _play(y, lambda tone: probs_y[x, before, tone])
        return x, y

    scan(*_along(sequences, lengths, (_zeros(sequences), _silence(sequences)), step))


def _two_chains(sequences, lengths, probs_w, x_given, probs_y):
    def step(state, y):
        w, x = state
        w = numpyro.sample("w", dist.Categorical(probs_w[w]))
        x = numpyro.sample("x", dist.Categorical(x_given(w, x)))
        _play(y, lambda tone: probs_y[w, x, tone])
        return w, x

    scan(*_along(sequences, lengths, (_zeros(sequences), _zeros(sequences)), step))


def factorial(sequences, lengths):
    """Model 3: two chains, which share their tones."""
    probs_w, probs_x, probs_y = drawn("factorial", sequences)
    _two_chains(sequences, lengths, probs_w, lambda w, x: probs_x[x], probs_y)


def feeding(sequences, lengths):
    """Model 4: two chains, of which the first feeds the second."""
    probs_w, probs_x, probs_y = drawn("feeding", sequences)
    _two_chains(sequences, lengths, probs_w, lambda w, x: probs_x[w, x], probs_y)


def neural(sequences, lengths, first):
    """Model 5: the tones' logits are a network of the state and the tones before.

    Its first layer is given and its last has a prior: hidden units cannot change places.
    """
    probs_x, last, bias = drawn("neural", sequences)

    def step(state, y):
        x, before = state
        x = numpyro.sample("x", dist.Categorical(probs_x[x]))
        state_of = one_hot(x[..., 0], STATES)
        hidden = jnp.tanh(state_of @ first[:STATES] + before.astype(first.dtype) @ first[STATES:])
        logits = hidden @ last + bias + jnp.asarray(LOUDER)[x[..., 0]]
        with numpyro.plate("tones", y.shape[-1], dim=-1):
            numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y)
        return x, y

    scan(*_along(sequences, lengths, (_zeros(sequences), _silence(sequences)), step))


def second_order(sequences, lengths):
    """Model 6: a state depends on the two before it."""
    probs_x, probs_y = drawn("second_order", sequences)

    def step(state, y):
        earlier, x = state
        following = numpyro.sample("x", dist.Categorical(probs_x[earlier, x]))
        _play(y, lambda tone: probs_y[following, tone])
        return x, following

    scan(*_along(sequences, lengths, (_zeros(sequences), _zeros(sequences)), step), history=2)


def _case(model, data, scored, marginal, discrete=("x",)):
    return Case(model, data, scored, discrete, marginal, loops=model is not loops)


_PROBS, _WX = ("probs_x", "probs_y"), ("w", "x")
CASES = {
    "hmm_0": _case(loops, sequences.few, _PROBS, forwards.songs, ("x_*",)),
    "hmm_1": _case(plates, sequences.several, _PROBS, forwards.single),
    "hmm_2": _case(autoregressive, sequences.autoregressive, _PROBS, forwards.autoregressive),
    "hmm_3": _case(factorial, lambda: sequences.pairs(43, 0.0), ("probs_w", *_PROBS), forwards.factorial, _WX),
    "hmm_4": _case(feeding, lambda: sequences.pairs(44, 0.3), ("probs_w", *_PROBS), forwards.feeding, _WX),
    "hmm_5": _case(neural, sequences.neural, ("probs_x", "last", "bias"), forwards.neural),
    "hmm_6": _case(second_order, sequences.second_order, _PROBS, forwards.second_order),
}
