"""Simulated sequences of tones, silent after their ends, for the hidden Markov models."""

import numpy as np

from benchmarks.discrete_latents.base import Data

STATES, TONES, HIDDEN = 3, 6, 4


def loud(states: int, tones: int) -> np.ndarray:
    """Which tones a state favours, (states, tones): each tone one state."""
    return np.arange(tones) % states == np.arange(states)[:, None]


def _walk(rng, lengths, longest, rows):
    """States of shape (sequences, longest) of chains that start from state 0; `rows(before, t)` are probabilities."""
    states = np.zeros((len(lengths), longest + 2), int)
    for t in range(longest):
        cumulative = rows(states[:, t + 1], states[:, t]).cumsum(-1)
        states[:, t + 2] = (rng.random((len(lengths), 1)) > cumulative).sum(-1)
    return states[:, 2:]


def _lasting(states: int, stay: float) -> np.ndarray:
    return np.where(np.eye(states), stay, (1 - stay) / (states - 1))


def _simulate(seed, count, longest, tones, states=STATES) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(longest // 2, longest + 1, count)
    lengths[0] = longest
    moves = _lasting(states, 0.75)
    return rng, lengths, _walk(rng, lengths, longest, lambda x, _: moves[x])


def _data(rng, lengths, probability) -> Data:
    """Tones drawn with these probabilities of shape (sequences, steps, tones); silence after a sequence's end."""
    playing = np.arange(probability.shape[1]) < lengths[:, None]
    y = (rng.random(probability.shape) < probability) & playing[..., None]
    return {"sequences": y.astype(np.int32), "lengths": lengths}


def _tones(rng, favoured):
    return np.where(favoured, rng.uniform(0.55, 0.9, favoured.shape), rng.uniform(0.08, 0.4, favoured.shape))


def few() -> Data:
    """Three sequences of four to eight steps, each an array of its own."""
    rng, lengths, x = _simulate(40, 3, 8, TONES)
    padded = _data(rng, lengths, _tones(rng, loud(STATES, TONES))[x])["sequences"]
    return {"songs": {name: padded[i, : lengths[i]] for i, name in enumerate("abc")}}


def several() -> Data:
    """Ten sequences of 10 to 20 steps."""
    rng, lengths, x = _simulate(41, 10, 20, TONES)
    return _data(rng, lengths, _tones(rng, loud(STATES, TONES))[x])


def autoregressive() -> Data:
    """Twelve sequences of 10 to 20 steps; a tone that was on stays on more often."""
    rng, lengths, x = _simulate(42, 12, 20, TONES)
    base = _tones(rng, loud(STATES, TONES))
    y = np.zeros((len(lengths), 21, TONES), int)
    for t in range(20):
        chance = np.clip(base[x[:, t]] + 0.15 * (2 * y[:, t] - 1), 0.05, 0.95)
        y[:, t + 1] = rng.random(chance.shape) < chance
    return _data(rng, lengths, y[:, 1:])


def pairs(seed: int, feeds: float) -> Data:
    """Twelve sequences of 10 to 20 steps of two chains; the second changes more often where the first is 1."""
    rng, lengths, w = _simulate(seed, 12, 20, TONES, states=2)
    x = np.zeros((len(lengths), 21), int)
    for t in range(20):
        x[:, t + 1] = np.where(rng.random(len(lengths)) < 0.2 + feeds * w[:, t], 1 - x[:, t], x[:, t])
    which = np.where(np.arange(TONES) % 2 == 0, w[..., None], x[:, 1:, None])
    loudness = _tones(rng, np.stack([np.zeros(TONES, bool), np.ones(TONES, bool)]))
    return _data(rng, lengths, loudness[which, np.arange(TONES)])


def neural() -> Data:
    """Twelve sequences of 10 to 20 steps; the first layer of the network."""
    rng, lengths, x = _simulate(45, 12, 20, TONES)
    first = rng.normal(size=(STATES + TONES, HIDDEN)).astype(np.float32)
    last, bias = rng.normal(0, 0.6, (HIDDEN, TONES)), rng.normal(0, 0.5, TONES)
    offset = np.where(loud(STATES, TONES), 1.5, -1.5)
    y = np.zeros((len(lengths), 21, TONES), int)
    for t in range(20):
        hidden = np.tanh(first[x[:, t]] + y[:, t] @ first[STATES:])
        chance = 1 / (1 + np.exp(-(hidden @ last + bias + offset[x[:, t]])))
        y[:, t + 1] = rng.random(chance.shape) < chance
    return _data(rng, lengths, y[:, 1:]) | {"first": first}


def second_order() -> Data:
    """Twelve sequences of 10 to 20 steps of a state that lasts longer the longer it has lasted."""
    rng = np.random.default_rng(46)
    lengths = rng.integers(10, 21, 12)
    stay = np.array([[0.85, 0.6], [0.55, 0.8]])
    rows = lambda x, earlier: np.where(np.eye(2)[x] > 0, stay[earlier, x][:, None], 1 - stay[earlier, x][:, None])  # noqa: E731
    x = _walk(rng, lengths, 20, rows)
    return _data(rng, lengths, _tones(rng, loud(2, TONES))[x])
