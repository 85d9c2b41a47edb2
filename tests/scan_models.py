"""Models that draw discrete sites in a scan, and how far back the steps of each look."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import cond, scan
from numpyro.contrib.module import flax_module

Y = np.linspace(-1.3, 1.7, 6, dtype=np.float32)
K = 3


def transitions(name="P", *batch):
    return jax.nn.softmax(numpyro.sample(name, dist.Normal(0, 1).expand([*batch, K]).to_event(len(batch) + 1)))


def emission():
    return numpyro.sample("mu", dist.Normal(0, 1).expand([K]).to_event(1))


def chain(y):
    P, mu = transitions("P", K), emission()

    def step(x, y):
        x = numpyro.sample("x", dist.Categorical(P[x]))
        numpyro.sample("y", dist.Normal(mu[x], 1), obs=y)
        return x, None

    scan(step, 0, y)


def backward(y):
    P, mu = transitions("P", K), emission()

    def step(carry, y):
        x, t, z_then = carry
        x = numpyro.sample("x", dist.Categorical(P[x]))
        z = numpyro.sample("z", dist.Normal(0.3 * z_then, 1.0 + 0.1 * t))
        numpyro.sample("y", dist.Normal(mu[x] + z, 1), obs=y)
        return (x, t + 1, z), None

    scan(step, (1, 0, 0.5), y, reverse=True)


def no_carry(y):
    w, mu = transitions("P"), emission()

    def step(carry, y):
        x = numpyro.sample("x", dist.Categorical(w))
        numpyro.sample("y", dist.Normal(mu[x], 1), obs=y)
        return carry, None

    scan(step, None, y)


def second_order(y):
    P, mu = transitions("P", K, K), emission()

    def step(carry, y):
        before, then, t = carry
        x = numpyro.sample("x", dist.Categorical(P[before, then]))
        numpyro.sample("y", dist.Normal(mu[x] + 0.1 * t, 1), obs=y)
        return (then, x, t + 1), None

    scan(step, (0, 2, 0), y)


def last_values(y):
    """An array of the last three values, beside a value that is made of one of them."""
    P, mu = transitions("P", K), emission()

    def step(carry, y):
        last, of_oldest = carry
        x = numpyro.sample("x", dist.Categorical(P[last[0]]))
        numpyro.sample("y", dist.Normal(mu[last].sum() + mu[x] + of_oldest, 1), obs=y)
        return (jnp.concatenate([x[None], last[:-1]]), mu[last[2]]), None

    scan(step, (jnp.array([0, 1, 2]), 0.3), y)


def factorial(y):
    P, Q, mu = transitions("P", K), transitions("Q", K, K), emission()

    def step(carry, y):
        w = numpyro.sample("w", dist.Categorical(P[carry["w"]]))
        x = numpyro.sample("x", dist.Categorical(Q[w, carry["state"]["x"]]))
        v = numpyro.sample("v", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(mu[x] * w - v, 1), obs=y)
        return {"w": w, "state": {"x": x}}, None

    scan(step, {"w": 0, "state": {"x": 1}}, y)


def sequences(y, lengths):
    """Masked sequences of unequal length, as in NumPyro's example of hidden Markov models."""
    P, mu = transitions("P", K), emission()

    def step(carry, y):
        x_then, t = carry
        with numpyro.plate("sequences", 2, dim=-2), numpyro.handlers.mask(mask=(t < lengths)[..., None]):
            x = numpyro.sample("x", dist.Categorical(P[x_then]))
            with numpyro.plate("tones", 4, dim=-1):
                numpyro.sample("y", dist.Normal(mu[x.squeeze(-1)][:, None], 1), obs=y)
        return (x, t + 1), None

    scan(step, (jnp.zeros((2, 1), int), 0), y)


def switching(y):
    """A recurrent state, an autoregression on data and on a latent, a transition by the step's covariate."""
    P, mu = transitions("P", K), emission()
    a = numpyro.sample("a", dist.Normal(0, 1))
    start = numpyro.sample("start", dist.Categorical(jnp.ones(K) / K))

    def step(carry, xs):
        x, h, y_then, z_then, (level, one) = carry
        h = jnp.tanh(a * h + xs["u"])
        logits = jnp.log(P[x]) + h * jnp.arange(K) + xs["u"]
        x = numpyro.sample("x", dist.Categorical(logits=logits))
        z = numpyro.sample("z", dist.Normal(0.5 * z_then * one, 1))
        mean = cond(xs["u"] > 0, lambda _: mu[x] * y_then, lambda _: z_then + z, None)
        numpyro.sample("y", dist.Normal(mean + h + level, 1), obs=xs["y"])
        return (x, h, xs["y"], z, (a * mu[x], one)), mean

    u = jnp.cos(jnp.arange(y.shape[0]) * 2.0)
    last, means = scan(step, (start, 0.1, 0.0, 0.2, (mu[0], 0.9)), {"y": y, "u": u})
    numpyro.sample("e", dist.Normal(means, 1), obs=y)
    numpyro.sample("end", dist.Normal(mu[last[0]] + last[1] + last[3] + last[4][0], 1), obs=0.3)


def a_level_below(y):
    """What is carried is made of the site's last two values, with the data of the step before."""
    P, mu = transitions("P", K), emission()

    def step(carry, y):
        blend, score, x_then = carry
        x = numpyro.sample("x", dist.Categorical(P[x_then]))
        numpyro.sample("y", dist.Normal(mu[x] + blend, 1), obs=y)
        return (score * y + x, mu[x] * y, x), None

    scan(step, (0.3, 0.1, 0), y)


def two_scans(y):
    P, mu = transitions("P", K), emission()

    def first(x, y):
        x = numpyro.sample("x", dist.Categorical(P[x]))
        return x, numpyro.sample("y", dist.Normal(mu[x], 1), obs=y)

    def second(carry, _):
        w_then, t = carry
        w = numpyro.sample("w", dist.Categorical(P[w_then]))
        numpyro.sample("v", dist.Normal(mu[w] * t, 1), obs=y[t])
        return (w, t + 1), None

    last, _ = scan(first, 0, y)
    scan(second, (last, 0), None, length=y.shape[0])


def network(y):
    P = transitions("P", K)
    net = flax_module("net", nn.Dense(2), input_shape=(K,))

    def step(x, y):
        x = numpyro.sample("x", dist.Categorical(P[x]))
        out = jax.nn.softplus(net(jax.nn.one_hot(x, K)))
        numpyro.sample("y", dist.Normal(out[0], 0.1 + out[1]), obs=y)
        return x, None

    scan(step, 0, y)


DATA = {"y": Y}
SEQUENCES = {
    "y": np.stack([np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4) * s for s in (1, 2, 3)]),
    "lengths": np.array([3, 2]),
}
# Name -> model, data, sites with how far back they are seen, outputs that are elementwise in the steps.
CASES = {
    "chain": (chain, DATA, {"x": 1}, ["p:x", "p:y"]),
    "backward": (backward, DATA, {"x": 1}, ["p:x", "p:y"]),
    "no carry": (no_carry, DATA, {"x": 0}, ["p:x", "p:y"]),
    "second order": (second_order, DATA, {"x": 2}, ["p:x", "p:y"]),
    "second order, one step": (second_order, {"y": Y[:1]}, {"x": 2}, ["p:x", "p:y"]),
    "second order, two steps": (second_order, {"y": Y[:2]}, {"x": 2}, ["p:x", "p:y"]),
    "last values": (last_values, DATA, {"x": 4}, ["p:x", "p:y"]),
    "factorial": (factorial, DATA, {"w": 1, "x": 1, "v": 0}, ["p:w", "p:x", "p:v", "p:y"]),
    "one of several": (factorial, DATA, {"w": 1}, ["p:w", "p:x", "p:v", "p:y"]),
    "sequences": (sequences, SEQUENCES, {"x": 1}, ["p:x", "p:y"]),
    "switching": (switching, DATA, {"x": 1}, ["p:x", "p:y", "p:e"]),
    "a level below": (a_level_below, DATA, {"x": 2}, ["p:x", "p:y"]),
    "two scans": (two_scans, DATA, {"x": 1, "w": 1}, ["p:x", "p:y", "p:w", "p:v"]),
    "network": (network, DATA, {"x": 1}, ["p:x", "p:y"]),
}
