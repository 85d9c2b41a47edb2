"""A Gaussian mixture with 500 assignments written out, K = 3: ELBO and time a step beside NumPyro's.

    python -m benchmarks.assignments [--steps 3000] [--seeds 3]

All have the same q (a normal for each mean, a Dirichlet for the weights), start and optimizer (Adam, 0.02), and one
particle; the ELBO is that with the assignments summed out. NumPyro's TraceEnum_ELBO needs `funsor`: it has no row where
that is not installed; its TraceGraph_ELBO draws the assignments, from a free categorical each.
"""

import argparse
import importlib.util
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import SVI, TraceEnum_ELBO, TraceGraph_ELBO

import autovi
from benchmarks.reporting import RESULTS, save, table

POINTS, PARTS, RATE = 500, 3, 0.02
FEW, MANY = 6_000, 30_000
CENTRES = np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, 2.5]])


def simulate() -> np.ndarray:
    """Points of three unit normals in the plane."""
    rng = np.random.default_rng(0)
    part = rng.integers(0, PARTS, POINTS)
    return (CENTRES[part] + rng.normal(size=(POINTS, 2))).astype(np.float32)


def model(points: jax.Array) -> None:
    """Every point has a site of its own for its component."""
    means = numpyro.sample("means", dist.Normal(0.0, 5.0).expand([PARTS, 2]).to_event(2))
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(PARTS)))
    with numpyro.plate("point", POINTS):
        part = numpyro.sample("part", dist.Categorical(weights), infer={"enumerate": "parallel"})
        numpyro.sample("x", dist.Normal(means[part], 1.0).to_event(1), obs=points)


def start(seed: int) -> dict[str, jax.Array]:
    """Where all of them begin."""
    loc = jax.random.normal(jax.random.key(seed), (PARTS, 2))
    zero = jnp.zeros((POINTS, PARTS))
    return {"loc": loc, "log_scale": jnp.full((PARTS, 2), -1.0), "log_weights": jnp.ones(PARTS), "logits": zero}


def guide(begin: dict[str, jax.Array], summed: bool) -> Callable:
    """q; the assignments are in it where they are not summed out."""

    def program(points: jax.Array) -> None:
        own = {n: numpyro.param(n, x) for n, x in begin.items() if n != "logits" or not summed}
        numpyro.sample("means", dist.Normal(own["loc"], jnp.exp(own["log_scale"])).to_event(2))
        numpyro.sample("weights", dist.Dirichlet(jnp.exp(own["log_weights"])))
        if not summed:
            with numpyro.plate("point", POINTS):
                numpyro.sample("part", dist.Categorical(logits=own["logits"]))

    return program


def elbo(params: dict[str, Any], points: np.ndarray, num_draws: int = 4000) -> float:
    """With the assignments summed out."""
    q = dist.Normal(params["loc"], jnp.exp(params["log_scale"])).to_event(2)
    r = dist.Dirichlet(jnp.exp(params["log_weights"]))

    def one(key: jax.Array) -> jax.Array:
        first, second = jax.random.split(key)
        means, weights = q.sample(first), r.sample(second)
        apart = -0.5 * jnp.sum((points[:, None] - means) ** 2, -1) - np.log(2 * np.pi)
        likelihood = jnp.sum(jax.nn.logsumexp(apart + jnp.log(weights), -1))
        prior = dist.Normal(0.0, 5.0).log_prob(means).sum() + dist.Dirichlet(jnp.ones(PARTS)).log_prob(weights)
        return likelihood + prior - q.log_prob(means) - r.log_prob(weights)

    keys = jax.random.split(jax.random.key(5), num_draws)
    return float(jnp.mean(jax.jit(lambda ks: jax.lax.map(one, ks, batch_size=100))(keys)))


def by_numpyro(loss: Any, summed: bool, points: np.ndarray, seed: int, steps: int) -> tuple[dict, float]:
    """Parameters, and CPU seconds a step of `svi.update` in a scan."""
    svi = SVI(model, guide(start(seed), summed), numpyro.optim.Adam(RATE), loss)
    state = svi.init(jax.random.key(seed), points)

    @partial(jax.jit, static_argnums=1)
    def run(state: Any, number: int) -> Any:
        return jax.lax.scan(lambda s, _: (svi.update(s, points)[0], None), state, length=number)[0]

    final = jax.block_until_ready(run(state, steps))
    before = time.process_time()
    jax.block_until_ready(run(state, steps))
    return svi.get_params(final), (time.process_time() - before) / steps


def by_autovi(estimator: Any, particles: int, points: np.ndarray, seed: int, steps: int) -> tuple[dict, float]:
    """Parameters, and CPU seconds a step: the slope between two warm fits, both long enough for well compiled steps."""
    program = guide(start(seed), estimator == "marginalize")

    def fit(number: int) -> tuple[Any, float]:
        before = time.process_time()
        found = autovi.fit(
            model,
            {"points": points},
            rng_key=seed,
            guide=program,
            estimators={"part": estimator},
            num_particles=particles,
            num_steps=number,
            optimizer=optax.adam(RATE),
            num_draws=1,
            progress_bar=False,
        )
        return found, time.process_time() - before

    params = fit(steps)[0].params
    fit(FEW), fit(MANY)
    return params, (fit(MANY)[1] - fit(FEW)[1]) / (MANY - FEW)


def contenders() -> dict[str, Callable]:
    """By name; each gives parameters and seconds for points, seed and steps."""
    found: dict[str, Callable] = {
        "autovi, marginalize": partial(by_autovi, "marginalize", 1),
        "autovi, enumerate": partial(by_autovi, "enumerate", 1),
        "autovi, score of 2": partial(by_autovi, "score", 2),
        "NumPyro, TraceGraph of 2": partial(by_numpyro, TraceGraph_ELBO(num_particles=2), False),
    }
    if importlib.util.find_spec("funsor") is not None:
        found["NumPyro, TraceEnum"] = partial(by_numpyro, TraceEnum_ELBO(), True)
    return found


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments, measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    points = simulate()
    results: dict[str, Any] = {}
    for name, train in contenders().items():
        ran = [train(points, seed, args.steps) for seed in range(args.seeds)]
        elbos = [elbo(params, points) for params, _ in ran]
        results[name] = {"elbo": elbos, "us": [1e6 * seconds for _, seconds in ran]}
    rows = [[n, *(f"{e:.1f}" for e in r["elbo"]), f"{np.median(r['us']):.0f}"] for n, r in results.items()]
    print(table(["", *(f"ELBO, seed {i}" for i in range(args.seeds)), "us a step"], rows))
    print(f"\nSaved {save('assignments', results, args.output)}")


if __name__ == "__main__":
    main()
