"""Time before and around the steps: a fresh process to 1,000 steps done, and a second fit in a warm one.

    python -m benchmarks.startup [--rounds 5] [--particles 1] [--programs "by hand" NumPyro autovi]

Fresh: each program in a new process, in turn, from the process's start (all imports included) to the losses
of 1,000 steps on the host. For autovi that is a whole call of `autovi.fit`, with what it does after the last
step. These processes use no persistent compilation cache. Libraries are byte-compiled, as they are when installed:
a process before the first round sees to it.

Second process: the same for autovi with `autovi.use_compilation_cache(folder)`, where another process has fitted the
model before.

Warm: in one process, a first fit, then fits of new data of the same shapes. What such a fit adds to its steps
is the intercept of its time over the number of steps: `t(few) - few * (t(many) - t(few)) / (many - few)`, the
median over rounds. It holds what comes before the first step and after the last: a bound on the former.
NumPyro's is a warm `svi.run`, the way its users call it; the hand-written program has no such part.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.problem import LEARNING_RATE, model, simulate
from benchmarks.programs import INITIAL_SCALE, PROGRAMS, by_autovi
from benchmarks.reporting import save, table

NUM_STEPS = 1000
SECOND = "autovi, second process"
ROOT = Path(__file__).resolve().parents[1]


def fresh_seconds(name: str, num_particles: int, cache: str | None = None) -> float:
    """Seconds from the start of a new process to its 1,000 steps done, a folder of compiled programs or none."""
    command = [sys.executable, "-m", "benchmarks.startup", "--child", name, "--particles", str(num_particles)]
    command += [] if cache is None else ["--cache", cache]
    left_out = ("JAX_COMPILATION_CACHE_DIR", "PYTHONDONTWRITEBYTECODE")
    variables = {key: value for key, value in os.environ.items() if key not in left_out}
    start = time.time()
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} failed in a fresh process:\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1]) - start


def child(name: str, num_particles: int, cache: str | None) -> None:
    """Run one program for 1,000 steps and print the clock."""
    if cache is not None:
        import autovi

        autovi.use_compilation_cache(cache)
    losses = PROGRAMS[name](simulate(), num_particles)(NUM_STEPS)
    if len(losses) != NUM_STEPS or not np.isfinite(losses).all():
        raise RuntimeError(f"expected {NUM_STEPS} finite losses, got {len(losses)}")
    print(time.time())


def numpyro_fit(num_particles: int) -> Callable[[dict[str, Any], int], Any]:
    """`svi.run` on given data for a number of steps, one SVI object for all calls."""
    import jax
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoDiagonalNormal
    from numpyro.optim import Adam

    guide = AutoDiagonalNormal(model, init_scale=INITIAL_SCALE)
    svi = SVI(model, guide, Adam(LEARNING_RATE), Trace_ELBO(num_particles=num_particles))

    def fit(data: dict[str, Any], num_steps: int) -> Any:
        return np.asarray(svi.run(jax.random.key(0), num_steps, **data, progress_bar=False).losses)

    return fit


def autovi_fit(num_particles: int) -> Callable[[dict[str, Any], int], Any]:
    """`autovi.fit` on given data for a number of steps."""
    return lambda data, num_steps: by_autovi(data, num_particles)(num_steps)


WARM = {"NumPyro": numpyro_fit, "autovi": autovi_fit}


def warm_seconds(name: str, num_particles: int, rounds: int, few: int = 500, many: int = 2500) -> list[float]:
    """Seconds that a warm fit adds to its steps, one per round, each on new data of the same shapes."""
    fit = WARM[name](num_particles)
    for num_steps in (few, many):
        fit(simulate(seed=0), num_steps)
    overheads = []
    for seed in range(1, rounds + 1):
        data, times = simulate(seed=seed), []
        for num_steps in (few, many):
            start = time.perf_counter()
            fit(data, num_steps)
            times.append(time.perf_counter() - start)
        per_step = (times[1] - times[0]) / (many - few)
        overheads.append(times[0] - few * per_step)
    return overheads


def fresh_rounds(programs: list[str], num_particles: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of every program in a fresh process, in turn; of autovi also as the second process of its kind."""
    with tempfile.TemporaryDirectory() as cache:
        folders: dict[str, str | None] = dict.fromkeys(programs)
        if "autovi" in programs:
            folders[SECOND] = cache
        run = lambda name: fresh_seconds("autovi" if name == SECOND else name, num_particles, folders[name])  # noqa: E731
        for name in folders:
            run(name)  # compiles the libraries' modules, and fills the folder
        turns = [[run(name) for name in folders] for _ in range(rounds)]
    return {name: [turn[i] for turn in turns] for i, name in enumerate(folders)}


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments, measure, print the tables, save the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--particles", type=int, default=1)
    parser.add_argument("--programs", nargs="+", choices=list(PROGRAMS), default=list(PROGRAMS))
    parser.add_argument("--child", choices=list(PROGRAMS), help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        child(args.child, args.particles, args.cache)
        return

    warm = {n: warm_seconds(n, args.particles, args.rounds) for n in args.programs if n in WARM}
    fresh = fresh_rounds(args.programs, args.particles, args.rounds)

    floor = fresh[args.programs[0]]
    rows = []
    for name, times in fresh.items():
        median, best = statistics.median(times), min(times)
        overhead = f"{1000 * statistics.median(warm[name]):.0f}" if name in warm else ""
        ratios = [f"{best / min(floor):.2f}", f"{median / statistics.median(floor):.2f}"]
        rows.append([name, f"{best:.2f}", f"{median:.2f}", *ratios, overhead])
    header = [
        "program",
        "fresh, min s",
        "fresh, median s",
        "ratio of min",
        "ratio of median",
        "warm fit adds, ms",
    ]
    print(table(header, rows))
    print(f"\nSaved {save('startup', {'fresh_seconds': fresh, 'warm_added_seconds': warm})}")


if __name__ == "__main__":
    main()
