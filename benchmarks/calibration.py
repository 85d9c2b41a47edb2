"""Simulation-based calibration: right posteriors pass, wrong ones are found, and how long it takes.

    python -m benchmarks.calibration [--cases NAME ...] [--simulations N]

Three conjugate models over 1,000 simulations each, whose posteriors are known to be right, and eight schools over 200,
timed. Models fitted with normals without a correlation, and one with a wrong likelihood, are to be found; of the two
dimensional one that is so of draws of q, since proposals wider than q correct it.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

import autovi
from benchmarks.reporting import RESULTS, save, table

SCALES = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], np.float32)
X = np.array([4.0, 5.0, 6.0, 7.0], np.float32)


def normal_mean(y: jax.Array | None = None) -> None:
    """A normal mean with a normal prior."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("row", 5):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def gamma_poisson(y: jax.Array | None = None) -> None:
    """The rate of counts with a gamma prior."""
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    with numpyro.plate("row", 5):
        numpyro.sample("y", dist.Poisson(rate), obs=y)


def beta_binomial(y: jax.Array | None = None) -> None:
    """A probability with a beta prior."""
    p = numpyro.sample("p", dist.Beta(2.0, 3.0))
    with numpyro.plate("row", 5):
        numpyro.sample("y", dist.Binomial(10, p), obs=y)


def schools(effects: jax.Array) -> None:
    """Eight schools, centred, the spread as in the literature."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", 8):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("effect", dist.Normal(theta, SCALES), obs=effects)


def line(x: jax.Array, y: jax.Array | None = None) -> None:
    """Level and slope are correlated, with -0.95."""
    level = numpyro.sample("level", dist.Normal(0.0, 2.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("row", len(X)):
        numpyro.sample("y", dist.Normal(level + slope * x, 1.0), obs=y)


def heavy(x: jax.Array, y: jax.Array | None = None) -> None:
    """The same with the errors of a t distribution."""
    level = numpyro.sample("level", dist.Normal(0.0, 2.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("row", len(X)):
        numpyro.sample("y", dist.StudentT(3.0, level + slope * x, 1.0), obs=y)


def total(y: jax.Array | None = None) -> None:
    """Twenty numbers whose sum is known far better than any of them."""
    z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([20]).to_event(1))
    numpyro.sample("y", dist.Normal(z.sum(), 0.2), obs=y)


class Case(NamedTuple):
    """A calibration, and the word that the verdict should have: of draws as a user gets them, or of plain ones."""

    model: Callable
    data: Any
    simulations: int
    expected: str
    options: dict[str, Any] = {}
    plain: bool = False


NARROW = {"guide": "mean_field", "num_steps": 1000}
CASES = {
    "normal mean": Case(normal_mean, None, 1000, "calibrated"),
    "gamma and Poisson": Case(gamma_poisson, None, 1000, "calibrated"),
    "beta and binomial": Case(beta_binomial, None, 1000, "calibrated"),
    "eight schools": Case(schools, {"effects": np.zeros(8, np.float32)}, 200, "calibrated"),
    "too narrow": Case(line, {"x": X}, 200, "calibrated", NARROW),
    "too narrow, draws of q": Case(line, {"x": X}, 200, "miscalibrated", NARROW, plain=True),
    "too narrow, 20 dimensions": Case(total, None, 200, "miscalibrated", NARROW),
    "wrong likelihood": Case(line, {"x": X}, 200, "miscalibrated", {"generator": heavy}),
}


def run(case: Case, simulations: int | None) -> tuple[autovi.Calibration, dict[str, Any]]:
    """One calibration and its figures: wall and processor seconds, of the whole and of what two simulations take."""
    first = time.perf_counter()
    autovi.calibrate(case.model, case.data, num_simulations=2, progress_bar=False, **case.options)
    start, spent = time.perf_counter(), time.process_time()
    found = autovi.calibrate(
        case.model, case.data, num_simulations=simulations or case.simulations, progress_bar=False, **case.options
    )
    seconds, spent = time.perf_counter() - start, time.process_time() - spent
    found = found.plain if case.plain else found
    figures = {"first": start - first, "seconds": seconds, "processor": spent, "load": os.getloadavg()[0]}
    rows = {
        row.quantity: [row.bias.mean, row.bias.se, row.p_value, *(c.share for c in row.coverage)] for row in found.rows
    }
    return found, {**figures, **found.to_dict(), "figures": rows, "expected": case.expected}


def line_of(name: str, result: dict[str, Any]) -> list[str]:
    """A row of the table."""
    least = min(row[2] for row in result["figures"].values())
    worst = max(result["figures"].values(), key=lambda row: abs(row[0]))
    return [
        name,
        f"{result['num_simulations']:,}",
        result["verdict"],
        f"{least:.2g}",
        f"{worst[0]:.3f} ± {worst[1]:.3f}",
        f"{len(result['lost'])}",
        f"{result['first']:.0f} s",
        f"{result['seconds']:.0f} s",
        f"{result['processor']:.0f} s",
        f"{result['load']:.1f}",
    ]


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--simulations", type=int, default=None)
    asked = parser.parse_args()
    kept = RESULTS / "calibration.json"
    results = json.loads(kept.read_text())["results"] if kept.exists() else {}
    for name in asked.cases:
        found, results[name] = run(CASES[name], asked.simulations)
        print(
            f"\n{name}\n{found}\nplain draws: {found.plain.verdict}\ntrusted fits: {found.trusted.verdict}", flush=True
        )
        save("calibration", results)
    header = [
        "",
        "simulations",
        "verdict",
        "least p",
        "largest bias, sds",
        "lost",
        "first two",
        "all",
        "processor",
        "load",
    ]
    print("\n" + table(header, [line_of(name, results[name]) for name in CASES if name in results]))


if __name__ == "__main__":
    main()
