"""What autovi makes of an accelerator, in one command of at most 6 minutes; it runs on a CPU too.

    python -m benchmarks.accelerator [--minutes 6] [--output FOLDER] [--toy]

Steps of the hierarchical logistic regression at 1, 10 and 1,000 particles and of the digits autoencoder, against the
program by hand and NumPyro; draws with the gradient of their parameters, against `jax.random`; and the share of the
memory bandwidth that the steps use. All on JAX's default device, compiled ahead, in alternating rounds, medians. What
the time does not suffice for is left out, and the report says so.
"""

import argparse
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import autoencoder, programs
from benchmarks.draw_cases import CASES, Case, by_autovi, by_numpyro
from benchmarks.problem import NUM_ROWS, simulate
from benchmarks.programs import Run
from benchmarks.reporting import RESULTS, save, table
from benchmarks.timing import FIRST_UNIT, Budget, alternating, slope
from examples.digits_vae import digits

DRAWS = ("Gamma(5)", "Beta(2, 3)", "StudentT(6)", "Dirichlet(5, 5, 5)", "VonMises(2)")
PARTS = ("steps", "autoencoder", "draws")


@dataclass(frozen=True)
class Size:
    """How much of everything. `seconds` bounds the rounds of one comparison; `longest` is the time that one program
    may take before any has been seen."""

    rows: int = NUM_ROWS
    images: int = 1500
    few: int = 100  # steps of the short runs
    run_seconds: float = 0.5  # what the long runs take more, by hand
    rounds: int = 15
    seconds: float = 12.0
    draws: int = 1_000_000
    copied: int = 256 * 2**20  # numbers in the array of the copy
    longest: float = FIRST_UNIT


# A CPU makes about a hundredth of an accelerator's steps of 1,000 particles, of its draws and of its copies.
ON_CPU = Size(few=20, draws=100_000, copied=32 * 2**20)
TOY = Size(rows=200, images=200, few=5, run_seconds=0.0, rounds=3, draws=1000, copied=2**18, longest=0.0)


def copy_bandwidth(size: Size) -> float:
    """Bytes a second, read and written, of a compiled copy of one large array (plus 1, so that it is one)."""
    source = jnp.zeros(size.copied, jnp.float32)
    copy = jax.jit(lambda x: x + 1).lower(source).compile()
    call = lambda: jax.block_until_ready(copy(source))  # noqa: E731
    call()
    times = alternating({"copy": call}, size.rounds, size.seconds)["copy"]
    return 2 * source.nbytes / statistics.median(times)


def bytes_accessed(run: Any, num_steps: int) -> float | None:
    """What XLA says that one step reads and writes: it counts a loop's body once. None where it does not say."""
    cost = run.compiled(num_steps).cost_analysis()
    return None if not cost else cost.get("bytes accessed")


def warm(make: Callable[[], Run], size: Size, many: int | None) -> tuple[Run, int, float, float]:
    """A program that has done its short run and its long one, the steps of the long one, their mean loss, and about how
    many seconds both take.

    Where their number is not given, it is such that the long run takes about `run_seconds` more than the short one.
    """
    run = make()
    run(size.few)
    seconds = alternating({"run": partial(run, size.few)}, 1, 0.0)["run"][0]
    if many is None:
        many = size.few * (2 + min(300, int(size.run_seconds / seconds)))
    return run, many, float(np.mean(run(many)[size.few :])), seconds * (1 + many / size.few)


def rounds(calls: Mapping, what: str, size: Size, budget: Budget, needs: float = 0.0) -> dict | None:
    """Seconds of every call in alternating rounds, of which one needs so many; no further one begins after the end."""
    work = lambda: alternating(calls, size.rounds, size.seconds, budget.left())  # noqa: E731
    return budget.unit(f"{what}, rounds", work, needs)


def compare(makes: Mapping[str, Callable[[], Run]], what: str, size: Size, budget: Budget) -> dict[str, dict]:
    """Seconds a step, bytes a step and the loss of each program that there was time for, all with runs alike."""
    runs: dict[str, Run] = {}
    losses: dict[str, float] = {}
    many, needs = None, 0.0
    for name, make in makes.items():
        found = budget.unit(f"{what}, {name}", partial(warm, make, size, many))
        if found is not None:
            runs[name], many, losses[name], seconds = found
            needs += seconds
    if many is None:
        return {}
    calls = {(name, count): partial(run, count) for name, run in runs.items() for count in (size.few, many)}
    times = rounds(calls, what, size, budget, needs)
    if times is None:
        return {}
    return {
        name: {
            "steps": [size.few, many],
            "times": [times[name, size.few], times[name, many]],
            "seconds": slope(times[name, size.few], times[name, many], many - size.few),
            "bytes": bytes_accessed(run, size.few),
            "loss": losses[name],
        }
        for name, run in runs.items()
    }


def particles(count: int) -> str:
    """The number of them in words."""
    return f"{count} particle{'s' if count > 1 else ''}"


def steps(num_particles: int, size: Size, budget: Budget) -> dict[str, dict]:
    """Mean-field steps of the hierarchical logistic regression."""
    data = simulate(num_rows=size.rows)
    makes = {name: partial(make, data, num_particles) for name, make in programs.PROGRAMS.items()}
    return compare(makes, particles(num_particles), size, budget)


def autoencoder_steps(size: Size, budget: Budget) -> dict[str, dict]:
    """Steps of the digits autoencoder with a normal code."""
    images = digits()[0][: size.images]
    makes = {name: partial(make, images) for name, make in autoencoder.PROGRAMS.items()}
    return compare(makes, "autoencoder", size, budget)


def compiled_draws(case: Case, make: Callable[[Case], Any], number: int) -> Callable[[], Any] | None:
    """`call()`: the draws' sum and its gradient in the parameters; None where the program has no gradient."""
    draw = make(case)
    if draw is None:
        return None
    parameters, key = jax.tree.map(jnp.float32, case.parameters), jax.random.key(0)
    both = jax.jit(jax.value_and_grad(lambda p, k: jnp.sum(draw(p, k, number)))).lower(parameters, key).compile()
    call = lambda: jax.block_until_ready(both(parameters, key))  # noqa: E731
    value, gradient = call()
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradient))):
        raise FloatingPointError("the draws' sum or its gradient is not finite")
    return call


def draws(name: str, size: Size, budget: Budget) -> dict[str, float | None]:
    """Seconds a draw with gradient, by autovi and by NumPyro's sampler, which is that of `jax.random`."""
    calls = {}
    for program, make in {"autovi": by_autovi, "jax.random": by_numpyro}.items():
        call = budget.unit(f"{name}, {program}", partial(compiled_draws, CASES[name], make, size.draws))
        if call is not None:
            calls[program] = call
    if not calls:
        return {}
    times = rounds(calls, name, size, budget)
    return {program: statistics.median(values) / size.draws for program, values in (times or {}).items()}


def figure(value: float | None, unit: float = 1.0, digits: int = 0) -> str:
    """A number in its unit, or nothing."""
    return "" if value is None else f"{value / unit:.{digits}f}"


def ratio(one: float | None, other: float | None) -> str:
    """`one / other`, or nothing where either is missing."""
    return f"{one / other:.2f}" if one is not None and other else ""


def step_rows(what: str, found: Mapping[str, dict], bandwidth: float | None) -> list[list[str]]:
    """A line a program: time, steps a second, ratio to the program by hand, bytes, share of the bandwidth, loss."""
    floor = found.get("by hand", {}).get("seconds")
    rows = []
    for name, result in found.items():
        seconds, moved = result["seconds"], result["bytes"]
        share = 100 * moved / seconds / bandwidth if seconds and moved and bandwidth else None
        rows.append(
            [
                what,
                name,
                figure(seconds, 1e-6, 1) or "noise outweighs the steps",
                figure(1 / seconds if seconds else None),
                ratio(seconds, floor),
                figure(moved, 2**20, 1),
                figure(share, 1, 1),
                f"{result['loss']:.4g}",
            ]
        )
    return rows


def draw_rows(found: Mapping[str, dict]) -> list[list[str]]:
    """A line a distribution: nanoseconds a draw, and how many times faster autovi is."""
    rows = []
    for name, seconds in found.items():
        ours, theirs = seconds.get("autovi"), seconds.get("jax.random")
        none = "no gradient" if by_numpyro(CASES[name]) is None else ""
        rows.append([name, figure(ours, 1e-9, 2), figure(theirs, 1e-9, 2) or none, ratio(theirs, ours)])
    return rows


def report(results: dict[str, Any]) -> str:
    """The device, the tables, and what is missing from them."""
    bandwidth = results["copy_bytes_per_second"]
    measured = f"{bandwidth / 1e9:.0f} GB/s, read and written" if bandwidth else "not measured"
    lines = [f"Device: {results['device']}; a copy moves {measured}"]
    found = {particles(count): result for count, result in results["steps"].items()}
    found |= {"autoencoder": results["autoencoder"]} if results["autoencoder"] else {}
    rows = [row for what, result in found.items() for row in step_rows(what, result, bandwidth)]
    header = ["steps", "program", "us a step", "steps a second", "ratio to by hand", "MiB a step", "% of copy", "loss"]
    if rows:
        lines += ["", table(header, rows)]
    if results["draws"]:
        header = ["ns a draw with gradient", "autovi", "jax.random", "times faster"]
        lines += ["", table(header, draw_rows(results["draws"]))]
    missing = [f"- {name}: {reason}" for name, reason in results["missing"].items()]
    lines += ["", *(["Missing:", *missing] if missing else ["Nothing was left out."])]
    return "\n".join(lines)


def measure(args: argparse.Namespace, size: Size, budget: Budget) -> dict[str, Any]:
    """Every part asked for; saved after each, so that a run which is cut off leaves what it has."""
    device = jax.devices()[0]
    results: dict[str, Any] = {
        "device": f"{device.device_kind} ({device.platform})",
        "size": asdict(size),
        "copy_bytes_per_second": budget.unit("copy", partial(copy_bandwidth, size)),
        "steps": {},
        "autoencoder": {},
        "draws": {},
        "missing": budget.missing,
    }
    if "steps" in args.parts:
        for count in args.particles:
            results["steps"][count] = steps(count, size, budget)
            save("accelerator", results, args.output)
    if "autoencoder" in args.parts:
        results["autoencoder"] = autoencoder_steps(size, budget)
        save("accelerator", results, args.output)
    if "draws" in args.parts:
        for name in args.cases:
            results["draws"][name] = draws(name, size, budget)
            save("accelerator", results, args.output)
    return results


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, measure, print the tables, save the figures; 1 if some program failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=6.0, help="no program starts that would end after them")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the folder of accelerator.json")
    parser.add_argument("--toy", action="store_true", help="small sizes: that it runs, not how fast")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--particles", type=int, nargs="+", default=[1, 10, 1000])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(DRAWS))
    args = parser.parse_args(argv)

    size = TOY if args.toy else ON_CPU if jax.default_backend() == "cpu" else Size()
    budget = Budget(60 * args.minutes, longest=size.longest)
    results = measure(args, size, budget)
    print(report(results))
    print(f"\nSaved {save('accelerator', results, args.output)}")
    return int(budget.failed)


if __name__ == "__main__":
    raise SystemExit(main())
