"""Draws with the gradient of their parameters: time, gradient variance, error and non-finite gradients.

    python -m benchmarks.draws [--rounds 15] [--draws 100000] [--cases "Gamma(5)" ...]

All programs are timed in turn in one process, on one thread of the CPU, in float32: one compiled call makes the draws
and the gradient of their sum in every parameter. TFP's JAX substrate joins where it is installed (`tfp-nightly`).
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from benchmarks.draw_cases import CASES, PROGRAMS, Draw
from benchmarks.exact_slopes import beta_slope, gamma_slope, student_slope, von_mises_slope
from benchmarks.reporting import save, table

SHAPES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0, 1000.0)
EXTREMES = tuple(np.geomspace(1e-3, 1e4, 15))


def pin_to_one_core() -> None:
    """XLA's flags alone do not keep it on one thread."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})


def compiled(draw: Draw, parameters: dict, number: int) -> Callable:
    """`call(key)`: the draws' sum and its gradient in the parameters, compiled and run once."""
    parameters = jax.tree.map(jnp.float32, parameters)
    both = jax.jit(jax.value_and_grad(lambda p, key: jnp.sum(draw(p, key, number))))
    call = lambda key: jax.block_until_ready(both(parameters, key))  # noqa: E731
    call(jax.random.key(0))
    return call


def time_case(name: str, number: int, rounds: int) -> dict[str, list[float]]:
    """Nanoseconds per draw with gradient of every program, all rounds, in alternating order."""
    case = CASES[name]
    draws = {program: build(case) for program, build in PROGRAMS.items()}
    calls = {p: compiled(draw, case.parameters, number) for p, draw in draws.items() if draw is not None}
    times: dict[str, list[float]] = {program: [] for program in calls}
    for round_number in range(rounds):
        for program in list(calls)[:: 1 if round_number % 2 else -1]:
            start = time.perf_counter()
            calls[program](jax.random.key(round_number))
            times[program].append(1e9 * (time.perf_counter() - start) / number)
    return times


def gradient_variance(name: str, number: int = 200_000) -> dict[str, float]:
    """Variance over draws of the cost's derivative in the parameter that the case names, for NumPyro and autovi."""
    case = CASES[name]
    assert case.variance is not None
    parameter = case.variance[0]
    variances = {}
    for program in ("NumPyro", "autovi"):
        draw = PROGRAMS[program](case)
        assert draw is not None
        along = jax.jit(
            lambda value, draw=draw: jax.jvp(
                lambda v: case.cost(draw({**case.parameters, parameter: v}, jax.random.key(1), number)),
                (value,),
                (1.0,),
            )[1]
        )
        variances[program] = float(jnp.var(along(case.parameters[parameter])))
    return variances


def slopes(make: Callable, shapes: Sequence[float], number: int) -> tuple[np.ndarray, np.ndarray]:
    """Float32 draws of `autovi.implicit.sample`, one column a shape, and their derivative in that shape parameter."""
    from autovi import implicit

    draw = lambda a: implicit.sample(jax.random.key(2), make(a), (number,))  # noqa: E731
    values, along = jax.jit(lambda a: jax.jvp(draw, (a,), (jnp.ones_like(a),)))(jnp.asarray(shapes, jnp.float32))
    return np.asarray(values, np.float64), np.asarray(along, np.float64)


def relative_errors(number: int = 400) -> dict[str, tuple[float, float]]:
    """Median and worst relative error of dz/dtheta against float64 quadrature, over all `SHAPES`, of draws that are
    normal numbers and inside the support."""
    shapes = [float(np.float32(shape)) for shape in SHAPES]
    found = {"Gamma": _errors(dist.Gamma, shapes, number, lambda a, z: z * gamma_slope(a, np.log(z)))}
    pairs = [
        _errors(lambda a, b=b: dist.Beta(a, b), shapes, number // 8, lambda a, x, b=b: _beta(a, b, x), 0.99)
        for b in shapes
    ]
    found["Beta"] = np.concatenate(pairs)
    found["StudentT"] = _errors(dist.StudentT, shapes, number, lambda df, t: t * student_slope(df, np.log(np.abs(t))))
    found["VonMises"] = _errors(lambda kappa: dist.VonMises(0.0, kappa), shapes, number, von_mises_slope)
    return {name: (float(np.median(errors)), float(errors.max())) for name, errors in found.items()}


def _beta(a: float, b: float, x: np.ndarray) -> np.ndarray:
    return x * (1 - x) * beta_slope(a, b, np.log(x) - np.log1p(-x))


def _errors(make: Callable, shapes: list[float], number: int, exact: Callable, end: float = 1e28) -> np.ndarray:
    """Beyond `end` float32 does not hold the draw: 1 - x of a Beta, or the gradient of the largest Student draws."""
    found = []
    for shape, z, along in zip(shapes, *(part.T for part in slopes(make, shapes, number)), strict=True):
        fine = (np.abs(z) > 1e-30) & (np.abs(z) < end)
        found.append(np.abs(along[fine] / exact(shape, z[fine]) - 1))
    return np.concatenate(found)


def non_finite(number: int = 100_000) -> dict[str, float]:
    """The share of draws or gradients that are not finite, over `EXTREMES`."""
    makes = {
        "Gamma": dist.Gamma,
        "InverseGamma": dist.InverseGamma,
        "Beta": lambda a: dist.Beta(a, 1.5),
        "Beta, equal shapes": lambda a: dist.Beta(a, a),
        "Dirichlet": lambda a: dist.Dirichlet(jnp.stack([a, a, jnp.ones_like(a)], -1)),
        "StudentT": dist.StudentT,
        "VonMises": lambda a: dist.VonMises(0.0, a),
    }
    parts = {name: slopes(make, EXTREMES, number) for name, make in makes.items()}
    return {name: max(float(np.mean(~np.isfinite(part))) for part in both) for name, both in parts.items()}


def report(times: dict[str, dict[str, list[float]]], variances: dict[str, dict[str, float]]) -> list[list[str]]:
    """One row per case: nanoseconds, how many times faster than the program of the target, and the variances' ratio."""
    rows = []
    for name, measured in times.items():
        case = CASES[name]
        typical = {program: statistics.median(values) for program, values in measured.items()}
        faster = f"{typical[case.against] / typical['autovi']:.1f}" if case.against in typical else "not installed"
        variance, target = "", ""
        if case.variance is not None:
            variance = f"{variances[name]['autovi'] / variances[name]['NumPyro']:.3f}"
            target = f"{case.variance[1]}"
        cells = [f"{typical[p]:.0f}" if p in typical else "" for p in PROGRAMS]
        rows.append([name, *cells, f"{faster} ({case.against})", f"{case.at_least:.2g}", variance, target])
    return rows


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments, measure, print the tables, save the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--draws", type=int, default=100_000)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    args = parser.parse_args(argv)
    pin_to_one_core()

    times = {name: time_case(name, args.draws, args.rounds) for name in args.cases}
    variances = {name: gradient_variance(name) for name in args.cases if CASES[name].variance is not None}
    errors, bad = relative_errors(), non_finite()
    header = ["ns per draw", *PROGRAMS, "times faster (than)", "target", "variance, part of NumPyro's", "target"]
    print(table(header, report(times, variances)))
    print()
    rows = [[name, f"{median:.1e}", f"{worst:.1e}"] for name, (median, worst) in errors.items()]
    print(table(["error of dz/dtheta, shapes 0.01 to 1000", "median (1e-5)", "worst (1e-3)"], rows))
    print()
    print(
        table(["not finite, shapes 0.001 to 10000", "worst share"], [[n, f"{100 * x:.2g} %"] for n, x in bad.items()])
    )
    results = {"nanoseconds": times, "variances": variances, "errors": errors, "non_finite": bad}
    print(f"\nSaved {save('draws', results)}")


if __name__ == "__main__":
    main()
