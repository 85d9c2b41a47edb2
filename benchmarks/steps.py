"""Time per step of mean-field ADVI, side by side in one process: by hand, NumPyro, autovi.

    python -m benchmarks.steps [--rounds 20] [--particles 1 10] [--programs "by hand" NumPyro autovi]

Every program is run warm, in turn, `rounds` times over. All are timed alike: runs of few steps and runs of
many, and the difference of their times divided by the steps between them, so that what a call does beside its
steps cancels. "min" is the difference of the two shortest times, to which other work on the machine adds
least; "median" that of the two medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from benchmarks.problem import simulate
from benchmarks.programs import PROGRAMS, Run
from benchmarks.reporting import save, table


def seconds(run: Run, num_steps: int) -> float:
    """Wall time of one run, losses on the host."""
    start = time.perf_counter()
    losses = run(num_steps)
    elapsed = time.perf_counter() - start
    if len(losses) != num_steps:
        raise RuntimeError(f"expected {num_steps} losses, got {len(losses)}: the run ended early")
    return elapsed


def measure(names: list[str], num_particles: int, rounds: int, lengths: list[int]) -> dict[str, dict]:
    """Seconds of every program's runs of each length, from alternating rounds, and its final loss."""
    data = simulate()
    runs = {name: PROGRAMS[name](data, num_particles) for name in names}
    # The first run of each length compiles.
    losses = {name: [run(num_steps) for num_steps in lengths][-1] for name, run in runs.items()}
    times: dict[str, list[list[float]]] = {name: [] for name in names}
    for round_number in range(rounds):
        # The order alternates, so that no program always follows the same other one.
        for name in names if round_number % 2 == 0 else names[::-1]:
            times[name].append([seconds(runs[name], num_steps) for num_steps in lengths])
    return {
        name: {
            "lengths": lengths,
            "seconds": times[name],
            "microseconds_min": microseconds_per_step(times[name], lengths, min),
            "microseconds_median": microseconds_per_step(times[name], lengths, statistics.median),
            "final_loss": float(losses[name][-lengths[0] // 2 :].mean()),
        }
        for name in names
    }


def microseconds_per_step(times: list[list[float]], lengths: list[int], typical: Callable) -> float:
    """The slope of typical time over number of steps."""
    few, many = (typical(column) for column in zip(*times, strict=True))
    if many <= few:
        raise RuntimeError("more steps took less time: noise outweighs the steps; give longer runs by --steps")
    return 1e6 * (many - few) / (lengths[1] - lengths[0])


def report(results: dict[str, dict], num_particles: int) -> list[list[str]]:
    """One row per program; ratios are to the first."""
    floor = next(iter(results.values()))
    rows = []
    for name, result in results.items():
        figures = [f"{result[key]:.0f}" for key in ("microseconds_min", "microseconds_median")]
        ratios = [f"{result[key] / floor[key]:.2f}" for key in ("microseconds_min", "microseconds_median")]
        rows.append([str(num_particles), name, *figures, *ratios, f"{result['final_loss']:.1f}"])
    return rows


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments, measure, print the table, save the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--particles", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--steps", type=int, nargs=2, default=[200, 1000], metavar=("FEW", "MANY"))
    parser.add_argument("--programs", nargs="+", choices=list(PROGRAMS), default=list(PROGRAMS))
    args = parser.parse_args(argv)

    rows, results = [], {}
    for num_particles in args.particles:
        measured = measure(args.programs, num_particles, args.rounds, args.steps)
        results[num_particles] = measured
        rows += report(measured, num_particles)
    header = ["particles", "program", "min us", "median us", "ratio of min", "ratio of median", "loss"]
    print(table(header, rows))
    print(f"\nSaved {save('steps', results)}")


if __name__ == "__main__":
    main()
