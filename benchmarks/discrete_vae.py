"""The autoencoders with 200 yes-or-no codes of `examples/discrete_vae.py`, beside NumPyro's TraceGraph_ELBO.

    python -m benchmarks.discrete_vae [--kinds linear nonlinear] [--parts variance training iwae] [--steps 2000]

`variance`: the summed variance of the encoder's gradient at one fixed point, and how many times less it is than
NumPyro's with two particles. `training`: ELBO after the steps, CPU time a step, and after which part of NumPyro's time
its final value is passed. `iwae`: the bound of 5 samples after training on it (VIMCO), and after training on the ELBO.
"""

import argparse
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
from numpyro.infer import SVI, TraceGraph_ELBO

from benchmarks.reporting import RESULTS, save, table
from examples import discrete_vae as example
from examples.discrete_vae import BATCH, KINDS, RATE, Contender

CONTENDERS = {
    **example.CONTENDERS,
    "leave-one-out, 4": Contender("score", 4),
    "rodeo, 2": Contender("rodeo", 2),
    "rodeo, 3": Contender("rodeo", 3),
    "double_cv, 3": Contender("double_cv", 3),
    "arms, 3": Contender({"estimator": "arms", "evaluations": 3}, 1),
    "double_cv, 4": Contender("double_cv", 4),
    "arms, 4": Contender("arms", 1),
}
PARTICLES = 2
SAMPLES = 5


def numpyro_gradient(params: dict[str, Any], images: np.ndarray) -> Callable[[jax.Array], jax.Array]:
    """`gradient(key)`: NumPyro's estimate of the encoder's gradient for these images together, one vector."""
    model, guide = example.programs(params, batch=None)
    loss = TraceGraph_ELBO(num_particles=PARTICLES).loss
    encoder = {n: jnp.asarray(x) for n, x in params.items() if n.startswith("encoder")}
    rest = {n: jnp.asarray(x) for n, x in params.items() if n not in encoder}

    def gradient(key: jax.Array) -> jax.Array:
        found = jax.grad(lambda e: loss(key, {**rest, **e}, model, guide, jnp.asarray(images)))(encoder)
        return jnp.concatenate([jnp.ravel(x) for x in found.values()])

    return gradient


def numpyro_variance(params: dict[str, Any], images: np.ndarray, num_draws: int = 300) -> float:
    """The sum of the coordinates' variances."""
    keys = jax.random.split(jax.random.key(2), num_draws)
    return float(
        jax.jit(lambda ks: jnp.sum(jnp.var(jax.lax.map(numpyro_gradient(params, images), ks), 0, ddof=1)))(keys)
    )


def numpyro_training(kind: str, images: np.ndarray, num_steps: int, rate: float = RATE) -> tuple[dict[str, Any], float]:
    """Parameters after the steps, and CPU seconds a step. Batches are rows drawn at random, passed as data: in a plate
    that is subsampled TraceGraph_ELBO scales the scores too."""
    start = example.initial_params(kind)
    svi = SVI(*example.programs(start, batch=None), numpyro.optim.Adam(rate), TraceGraph_ELBO(num_particles=PARTICLES))
    data = jnp.asarray(images)
    state = svi.init(jax.random.key(0), data[:BATCH])

    @partial(jax.jit, static_argnums=1)
    def run(state: Any, number: int) -> Any:
        def step(state: Any, key: jax.Array) -> tuple[Any, None]:
            return svi.update(state, data[jax.random.randint(key, (BATCH,), 0, len(data))])[0], None

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), number))[0]

    final = jax.block_until_ready(run(state, num_steps))
    timed = num_steps // 4
    jax.block_until_ready(run(state, timed))
    before = time.process_time()
    jax.block_until_ready(run(state, timed))
    return svi.get_params(final), (time.process_time() - before) / timed


def step_seconds(kind: str, contender: Contender, images: np.ndarray, few: int, many: int) -> float:
    """CPU seconds a step of `autovi.fit`: the slope between two warm fits."""

    def cpu(steps: int) -> float:
        before = time.process_time()
        example.train(kind, contender, images, steps, progress_bar=False)
        return time.process_time() - before

    cpu(few)
    return (cpu(many) - cpu(few)) / (many - few)


def variances(kind: str, images: np.ndarray, point: dict[str, Any]) -> dict[str, float]:
    """By contender, NumPyro among them, at one point."""
    batch = images[:BATCH]
    found = {"NumPyro, 2": numpyro_variance(point, batch)}
    return found | {name: example.gradient_variance(point, batch, c) for name, c in CONTENDERS.items()}


def trainings(kind: str, images: np.ndarray, num_steps: int, names: list[str]) -> dict[str, dict[str, float]]:
    """ELBO and microseconds a step of NumPyro and of the contenders; of the first of them also the share of NumPyro's
    time after which its final ELBO is passed."""
    params, seconds = numpyro_training(kind, images, num_steps)
    found = {"NumPyro, 2": {"elbo": example.elbo(params, images), "us": 1e6 * seconds}}
    for name in names:
        params, _, _ = example.train(kind, CONTENDERS[name], images, num_steps, progress_bar=False)
        us = 1e6 * step_seconds(kind, CONTENDERS[name], images, num_steps // 10, num_steps // 2)
        found[name] = {"elbo": example.elbo(params, images), "us": us}
    first = found[names[0]]
    for steps in range(num_steps // 20, num_steps + 1, num_steps // 20):
        params, _, _ = example.train(kind, CONTENDERS[names[0]], images, steps, progress_bar=False)
        if example.elbo(params, images) > found["NumPyro, 2"]["elbo"]:
            first |= {"passed after": steps, "share of time": steps * first["us"] / (num_steps * 1e6 * seconds)}
            break
    return found


def bounds(kind: str, images: np.ndarray, num_steps: int) -> dict[str, float]:
    """The bound of `SAMPLES` draws after training on it, by VIMCO, and after training on the ELBO with as many."""
    vimco = Contender({"estimator": "score", "baseline": "none"}, SAMPLES)
    weighted, _, _ = example.train(kind, vimco, images, num_steps, progress_bar=False, objective="iwae")
    plain, _, _ = example.train(kind, Contender("score", SAMPLES), images, num_steps, progress_bar=False)
    return {
        "trained on the bound": example.elbo(weighted, images, weighted=SAMPLES),
        "trained on the ELBO": example.elbo(plain, images, weighted=SAMPLES),
        "ELBO of the first": example.elbo(weighted, images),
        "ELBO of the second": example.elbo(plain, images),
    }


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments, measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--parts", nargs="+", default=["variance", "training", "iwae"])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument(
        "--train", nargs="+", choices=list(CONTENDERS), default=["disarm, 2", "double_cv, 2", "disarm, 4"]
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    images = example.digits()
    results: dict[str, Any] = {}
    for kind in args.kinds:
        found: dict[str, Any] = {}
        if "variance" in args.parts:
            start = CONTENDERS["disarm, 2"]
            point, _, _ = example.train(kind, start, images, args.steps // 2, seed=7, progress_bar=False)
            found["variance"] = variances(kind, images, point)
            most = found["variance"]["NumPyro, 2"]
            rows = [[n, f"{v / BATCH**2:.3g}", f"{most / v:.1f}"] for n, v in found["variance"].items()]
            print(
                f"\n{table([f'{kind}: estimator, evaluations', 'variance', 'times less than NumPyro'], rows)}",
                flush=True,
            )
        if "training" in args.parts:
            found["training"] = trainings(kind, images, args.steps, args.train)
            rows = [[n, f"{f['elbo']:.2f}", f"{f['us']:.0f}"] for n, f in found["training"].items()]
            print(f"\n{table([f'{kind}: estimator, evaluations', 'ELBO', 'us a step'], rows)}")
            first = found["training"][args.train[0]]
            if "passed after" in first:
                steps, share = first["passed after"], first["share of time"]
                print(
                    f"NumPyro's ELBO is passed after {steps} steps of {args.train[0]}: {100 * share:.0f} % of its time"
                )
        if "iwae" in args.parts:
            found["iwae"] = bounds(kind, images, args.steps)
            rows = [[n, f"{v:.2f}"] for n, v in found["iwae"].items()]
            print(f"\n{table([f'{kind}: {SAMPLES} samples', 'nats'], rows)}")
        results[kind] = found
    print(f"\nSaved {save('discrete_vae', results, args.output)}")


if __name__ == "__main__":
    main()
