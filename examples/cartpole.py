"""Policy gradients: a cart balances a pole, with three ways to take the gradient of its expected return.

The environment is written in JAX as one function with a sample site for the action of each step, and
`autovi.stochastic_value_and_grad` does the rest. What it needs of the environment are its rewards alone, no derivative:

- REINFORCE: the score function, each action charged with the rewards that come after it;
- a critic: the same with a network of the state as baseline, trained beside the policy (actor and critic);
- RELAX: a network of the state and of a relaxed action as control variate, trained on the gradient's square.

With `--forces` an action is no push to one side but a force, normal around what the policy says, and LAX takes the
place of RELAX. Published with one episode an update: solved after 1,152 episodes by the critic, 472 by RELAX (Grathwohl
et al. 2018, table 1).

    python examples/cartpole.py --output cartpole
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax.flatten_util import ravel_pytree
from numpyro.contrib.control_flow import scan

import autovi

HORIZON = 200  # steps, after which an episode ends
SOLVED = 195.0  # mean return of a hundred episodes
SCORED = {
    "REINFORCE": {"estimator": "score", "baseline": "none"},
    "critic": {"estimator": "score", "baseline": "network", "inputs": "state"},
}
ESTIMATORS = {
    "pushes": {**SCORED, "RELAX": {"estimator": "relax", "through_model": False, "inputs": "state"}},
    "forces": {**SCORED, "LAX": {"estimator": "lax", "inputs": "state"}},
}


def moved(state: jax.Array, force: jax.Array | float) -> jax.Array:
    """The cart's place and speed, the pole's angle and speed, after 0.02 s of a force in newtons.

    Barto, Sutton and Anderson (1983), "Neuronlike adaptive elements that can solve difficult learning control
    problems": a cart of 1 kg, a pole of 0.1 kg and 1 m.
    """
    place, speed, angle, turning = state
    pulled = (force + 0.05 * turning**2 * jnp.sin(angle)) / 1.1
    falling = 9.8 * jnp.sin(angle) - jnp.cos(angle) * pulled
    falling = falling / (0.5 * (4.0 / 3.0 - 0.1 * jnp.cos(angle) ** 2 / 1.1))
    speeding = pulled - 0.05 * falling * jnp.cos(angle) / 1.1
    return state + 0.02 * jnp.stack([speed, speeding, turning, falling])


def policy(params: Any, state: jax.Array) -> jax.Array:
    """The logit of a push to the right, or the mean of the force in units of 10 N."""
    hidden = jnp.tanh(state * jnp.array([1.0, 1.0, 10.0, 2.0]) @ params["in"] + params["bias"])
    return hidden @ params["out"]


def init_policy(rng_key: jax.Array, width: int = 32) -> dict[str, jax.Array]:
    """A network with one hidden layer; both pushes are equally likely at first. Forces have a spread of their own."""
    hidden = jax.random.normal(rng_key, (4, width)) / 2.0
    return {"in": hidden, "bias": jnp.zeros(width), "out": jnp.zeros(width), "log_sd": jnp.zeros(())}


def act(params: Any, state: jax.Array, kind: str) -> jax.Array:
    """The force of an action in newtons."""
    at = policy(params, state)
    if kind == "pushes":
        return jnp.where(numpyro.sample("action", dist.Bernoulli(logits=at)), 10.0, -10.0)
    return jnp.clip(10.0 * numpyro.sample("action", dist.Normal(at, jnp.exp(params["log_sd"]))), -10.0, 10.0)


def episode(params: Any, start: jax.Array, horizon: int, kind: str) -> jax.Array:
    """Minus the reward of each step of an episode: 1 as long as the pole stands and the cart is on its track."""

    def step(carry: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        state, standing = carry
        numpyro.deterministic("state", jnp.append(state, 1.0) * standing)
        force = act(params, state, kind)
        state = jnp.where(standing > 0, moved(state, force), state)
        standing = standing * (jnp.abs(state[0]) < 2.4) * (jnp.abs(state[2]) < 0.2095)
        return (state, standing), -standing

    return scan(step, (start, jnp.ones(())), None, length=horizon)[1]


class Curve(NamedTuple):
    """The return of the episode of every update, and the gradient's variance at equal distances on the way."""

    returns: np.ndarray
    variances: np.ndarray

    @property
    def solved_after(self) -> int | None:
        """How many episodes it took until the mean return of a hundred was `SOLVED`; None where that never was."""
        means = np.convolve(self.returns, np.full(100, 0.01), "valid")
        return int(np.argmax(means >= SOLVED)) + 100 if means.size and means.max() >= SOLVED else None


def learn(estimator: Any, kind: str, seed: int, num_updates: int, horizon: int, points: int = 5) -> Curve:
    """One policy, trained by one episode an update."""
    loss = partial(episode, horizon=horizon, kind=kind)
    grad = autovi.stochastic_value_and_grad(loss, estimators={"action": estimator})
    key, start_key = jax.random.split(jax.random.key(seed))
    params = init_policy(start_key)
    state = grad.init(params, jnp.zeros(4))  # of what the estimators learn: nothing with REINFORCE
    optimizer = optax.chain(optax.clip_by_global_norm(50.0), optax.adam(0.01))

    def estimate(params: Any, state: Any, rng_key: jax.Array) -> Any:
        where, own = jax.random.split(rng_key)
        start = jax.random.uniform(where, (4,), minval=-0.05, maxval=0.05)
        return grad(params, start, rng_key=own, estimator_state=state)

    def update(carry: Any, rng_key: jax.Array) -> Any:
        params, memory, state = carry
        loss, grads, state = estimate(params, state, rng_key)
        updates, memory = optimizer.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory, state), -loss

    @jax.jit
    def chapter(carry: Any, rng_keys: jax.Array) -> Any:
        """So many updates, and the total variance of the gradient after them."""
        carry, returns = jax.lax.scan(update, carry, rng_keys)
        one = lambda k: ravel_pytree(estimate(carry[0], carry[2], k)[1])[0]  # noqa: E731
        grads = jax.lax.map(one, jax.vmap(partial(jax.random.fold_in, data=1))(rng_keys[:50]))
        return carry, (returns, jnp.sum(jnp.var(grads, 0)))

    keys = jax.random.split(key, (points, num_updates // points))
    _, (returns, variances) = jax.lax.scan(chapter, (params, optimizer.init(params), state), keys)
    return Curve(np.ravel(returns), np.asarray(variances))


def draw(curves: dict[str, list[Curve]], path: Path) -> None:
    """Learning curves with the band of their seeds, and the gradient's variance beside them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, of_seeds in curves.items():
        returns = np.stack([c.returns for c in of_seeds])
        width = min(50, returns.shape[1])
        smooth = np.stack([np.convolve(r, np.full(width, 1 / width), "valid") for r in returns])
        episodes = np.arange(smooth.shape[1]) + width
        (line,) = left.plot(episodes, smooth.mean(0), label=name)
        left.fill_between(episodes, smooth.min(0), smooth.max(0), alpha=0.2, color=line.get_color())
        variances = np.stack([c.variances for c in of_seeds])
        places = (1 + np.arange(variances.shape[1])) * returns.shape[1] // variances.shape[1]
        right.plot(places, np.exp(np.log(variances).mean(0)), "o-", color=line.get_color(), label=name)
    left.axhline(SOLVED, color="gray", linewidth=0.8)
    left.set(xlabel="episodes", ylabel="return, mean of 50 episodes")
    right.set(xlabel="episodes", ylabel="total variance of the gradient", yscale="log")
    left.legend()
    figure.savefig(path)


def main(output: Path, kind: str, num_updates: int, num_seeds: int, horizon: int) -> dict[str, list[Curve]]:
    """Trains every policy, prints how many episodes each took, and draws `cartpole_<kind>.png` into `output`."""
    some = range(num_seeds)
    curves = {n: [learn(e, kind, s, num_updates, horizon) for s in some] for n, e in ESTIMATORS[kind].items()}
    print("policy gradient   solved after (episodes, by seed)      return of the last hundred")
    for name, of_seeds in curves.items():
        solved = ", ".join("-" if c.solved_after is None else str(c.solved_after) for c in of_seeds)
        last = np.mean([c.returns[-100:].mean() for c in of_seeds])
        print(f"{name:<18}{solved:<38}{last:.1f}")
    output.mkdir(parents=True, exist_ok=True)
    picture = output / f"cartpole_{kind}.png"
    draw(curves, picture)
    print(f"wrote {picture}")
    return curves


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Policy gradients on the cart with a pole.")
    parser.add_argument("--output", type=Path, default=Path("cartpole"))
    parser.add_argument("--forces", action="store_true", help="forces of any size in the place of two pushes")
    parser.add_argument("--num-updates", type=int, default=600)
    parser.add_argument("--num-seeds", type=int, default=5)
    parser.add_argument("--horizon", type=int, default=HORIZON)
    args = parser.parse_args()
    main(args.output, "forces" if args.forces else "pushes", args.num_updates, args.num_seeds, args.horizon)
