"""Fits killed by SIGKILL at random moments, and taken up by the next process: are the numbers those of a whole one?

    python -m benchmarks.kills [--kills 20] [--settings NAME ...] [--seed 0]

Each setting is fitted once undisturbed. Then processes that fit it, with a checkpoint after every chunk as there, are
killed, each after a random part of the time that a whole one takes, compilation and the swap of plans included, until
that many were; those that end before, and the last one, are held against the whole one. Compiled programs are kept
between processes. What differs is named in the JSON: another digest, or the exit status of a process without a fit.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import autovi
from benchmarks.reporting import RESULTS, save, table

N = 200
X = np.random.default_rng(0).normal(size=N).astype(np.float32)
Y = (1 + 2 * X + np.random.default_rng(1).normal(size=N)).astype(np.float32)
SCALES = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], np.float32)
EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], np.float32)


def regression(x: jax.Array, y: jax.Array, length: int | None = None) -> None:
    """Of all rows, or of batches."""
    a = numpyro.sample("a", dist.Normal(0.0, 10.0))
    b = numpyro.sample("b", dist.Normal(0.0, 10.0))
    scale = numpyro.sample("scale", dist.HalfNormal(5.0))
    with numpyro.plate("row", N, subsample_size=length) as i:
        numpyro.sample("y", dist.Normal(a + b * x[i], scale), obs=y[i])


def counts(x: jax.Array, y: jax.Array) -> None:
    """A count by the score function."""
    a = numpyro.sample("a", dist.Normal(0.0, 10.0))
    k = numpyro.sample("k", dist.Poisson(3.0))
    with numpyro.plate("row", N):
        numpyro.sample("y", dist.Normal(a + k * x, 1.0), obs=y)


def schools(effects: jax.Array) -> None:
    """By the ladder: the plan changes on the way."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", 8):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("effect", dist.Normal(theta, jnp.asarray(SCALES)), obs=effects)


ROWS = {"x": X, "y": Y}
STEPS = {"num_steps": 100_000, "num_restarts": 2}
SETTINGS: dict[str, tuple[Callable, dict[str, Any], dict[str, Any]]] = {
    "full data": (regression, ROWS, STEPS),
    "batches": (regression, {**ROWS, "length": 20}, STEPS),
    "score function": (counts, ROWS, STEPS),
    "ladder": (schools, {"effects": EFFECTS}, {"num_restarts": 2}),
}


def fitted(setting: str, folder: str) -> str:
    """The digest of all numbers of a fit."""
    model, data, options = SETTINGS[setting]
    place = autovi.Checkpoint(folder, seconds=0)
    fit = autovi.fit(model, data, rng_key=3, checkpoint=place, progress_bar=False, **options)
    content = hashlib.sha256(fit.losses.tobytes())
    for values in (fit.params, fit.sample(100)):
        for name, value in sorted(values.items()):
            content.update(name.encode() + np.asarray(value).tobytes())
    return content.hexdigest()


def process(setting: str, folder: str, cache: str) -> subprocess.Popen:
    """A fit in a process of its own, which prints its digest."""
    keeping = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [
        sys.executable,
        "-m",
        "benchmarks.kills",
        "--fit",
        setting,
        "--in",
        folder,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **keeping})


def survived(setting: str, kills: int, rng: random.Random, cache: str) -> dict[str, Any]:
    """How many processes were killed, and whether the last one ended as a whole one does."""
    process(setting, tempfile.mkdtemp(), cache).communicate()  # compiled programs are there from here on
    began = time.perf_counter()
    whole = process(setting, tempfile.mkdtemp(), cache).communicate()[0]
    seconds = time.perf_counter() - began
    killed, folder, ends = 0, tempfile.mkdtemp(), []

    def ended(running: subprocess.Popen, timeout: float | None = None) -> None:
        digest = running.communicate(timeout=timeout)[0]
        ends.append(digest or f"no fit: exit status {running.returncode}")

    while killed < kills:
        running = process(setting, folder, cache)
        try:
            ended(running, rng.uniform(0.0, 1.0) * seconds)
            folder = tempfile.mkdtemp()  # another fit
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.wait()
            killed += 1
    ended(process(setting, folder, cache))
    others = [end for end in ends if not whole or end != whole]
    return {"kills": killed, "ended": len(ends), "same": not others, "others": others, "seconds": seconds}


def main(argv: list[str] | None = None) -> None:
    """Parses the arguments, kills, prints the table and saves the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FOLDER", help="where kills.json is written")
    parser.add_argument("--fit", choices=list(SETTINGS), help=argparse.SUPPRESS)
    parser.add_argument("--in", dest="folder", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.fit is not None:
        print(fitted(args.fit, args.folder))
        return
    rng, cache, found = random.Random(args.seed), tempfile.mkdtemp(), {}
    for setting in args.settings:
        found[setting] = survived(setting, args.kills, rng, cache)
        save("kills", found, args.output)
    told = lambda r: [str(r["kills"]), str(r["ended"]), "yes" if r["same"] else "no", f"{r['seconds']:.1f}"]  # noqa: E731
    header = ["setting", "killed", "ended", "the same bits", "seconds of a whole one"]
    print(table(header, [[name, *told(r)] for name, r in found.items()]))


if __name__ == "__main__":
    main()
