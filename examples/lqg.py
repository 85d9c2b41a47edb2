"""Control under noise: a cart that is pushed to the origin, of which only noisy measurements are seen.

The state (position, velocity) moves by x' = A x + B u + w, a measurement is y = x + v, and the controller draws its
action around a linear law, u ~ Normal(-K y, s). The cost of a run is the sum of x' Q x + R u^2. All of it is linear,
quadratic and normal, so that the expected cost is a recursion of covariances, and its gradient in K is known exactly.

Two estimates of that gradient are compared: explicit reparameterization, which differentiates through the dynamics, and
the score function, which never does, and which a policy gradient is. Adam then follows the better one. Run it with
`python examples/lqg.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.contrib.control_flow import scan

import autovi

STEPS = 10
A = jnp.array([[1.0, 0.2], [0.0, 0.95]])
B = jnp.array([0.0, 0.5])
Q, R = jnp.diag(jnp.array([1.0, 0.1])), 0.2
START = jnp.array([1.0, 0.0])
PROCESS, MEASUREMENT, EXPLORATION = 0.05, 0.1, 0.2  # standard deviations of w, v and u
GAIN = jnp.array([0.5, 0.2])  # to begin with


def loss(gain):
    """The costs of one run, step by step: each action is charged with what comes after it."""
    with numpyro.plate("component", 2), numpyro.plate("step", STEPS):
        w = numpyro.sample("w", dist.Normal(0.0, PROCESS))
        v = numpyro.sample("v", dist.Normal(0.0, MEASUREMENT))

    def move(x, noise):
        w, v = noise
        u = numpyro.sample("u", dist.Normal(-gain @ (x + v), EXPLORATION))
        return A @ x + B * u + w, x @ Q @ x + R * u**2

    return scan(move, START, (w, v))[1]


def exact_loss(gain):
    """The expected cost, from E x x' = P: u has the second moment K (P + V) K' + s^2."""
    moment = jnp.outer(START, START)
    closed, total = A - jnp.outer(B, gain), 0.0
    for _ in range(STEPS):
        noise = gain @ gain * MEASUREMENT**2 + EXPLORATION**2
        total += jnp.sum(Q * moment) + R * (gain @ moment @ gain + noise)
        moment = closed @ moment @ closed.T + jnp.outer(B, B) * noise + PROCESS**2 * jnp.eye(2)
    return total


def gradients(estimator: str, *, num_samples: int = 8, repeats: int = 2000, rng_key: int = 1) -> Any:
    """Mean, standard error and total variance of many estimates of the gradient at the first gain."""
    grad = autovi.stochastic_grad(loss, estimators={"u*": estimator}, num_samples=num_samples)
    drawn = jax.jit(jax.vmap(lambda key: grad(GAIN, rng_key=key)))(jax.random.split(jax.random.key(rng_key), repeats))
    return np.mean(drawn, 0), np.std(drawn, 0) / repeats**0.5, float(np.sum(np.var(drawn, 0)))


def descend(gradient: Any, num_steps: int) -> jax.Array:
    """Adam along a gradient, which is given the gain and a key."""
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, num_steps))

    def one(carry: Any, key: jax.Array) -> Any:
        gain, state = carry
        updates, state = optimizer.update(gradient(gain, key), state)
        return (optax.apply_updates(gain, updates), state), None

    keys = jax.random.split(jax.random.key(0), num_steps)
    return jax.jit(lambda g: jax.lax.scan(one, (g, optimizer.init(g)), keys)[0][0])(GAIN)


def main(*, num_steps: int = 600) -> dict[str, Any]:
    """Compare both estimates with the exact gradient, follow the better one, and print the costs."""
    exact = np.asarray(jax.grad(exact_loss)(GAIN))
    print(f"exact gradient {exact.round(3)}")
    found: dict[str, Any] = {"exact": exact}
    for estimator in ("explicit", "score"):
        mean, error, variance = found[estimator] = gradients(estimator)
        print(f"{estimator}: {mean.round(3)} +- {error.round(3)}, variance of one estimate {variance:.3g}")
    grad = autovi.stochastic_grad(loss, num_samples=8)
    gain = descend(lambda gain, key: grad(gain, rng_key=key), num_steps)
    best = descend(lambda gain, key: jax.grad(exact_loss)(gain), num_steps)
    found["costs"] = tuple(float(exact_loss(g)) for g in (GAIN, gain, best))
    print("expected cost: {:.4f} at the start, {:.4f} found, {:.4f} by the exact gradient".format(*found["costs"]))
    return found


if __name__ == "__main__":
    main()
