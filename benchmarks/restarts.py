"""Restarts side by side against one after another: seconds of one call, and where it is worth it.

    python -m benchmarks.restarts [--restarts 8] [--rounds 3] [--problems NAME ...]

For each problem `autovi.fit(..., num_restarts=N)` is called with the legs of stochastic steps in lanes, and with the
rule that decides turned off so that they run one after another; in alternating order, in one process, each first once
to compile, then `--rounds` times. "first" is the first call, compilation included and JAX's compilation cache off;
"then" the median of the others. Both compile the steps for as many as there are.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import autovi
from autovi.run import lanes, together
from benchmarks import problem
from benchmarks.reporting import save, table
from examples import eight_schools

SCHOOLS = {"standard_errors": eight_schools.STANDARD_ERRORS, "effects": eight_schools.EFFECTS}
MEAN_FIELD = {"guide": "mean_field", "num_steps": 2000}
PROBLEMS: dict[str, tuple[Callable, Any, dict[str, Any]]] = {
    "eight schools": (eight_schools.model, SCHOOLS, {}),
    "eight schools, mean field": (eight_schools.model, SCHOOLS, MEAN_FIELD),
    "1,000 rows, mean field": (problem.model, problem.simulate(0, 1_000), MEAN_FIELD),
    "10,000 rows, mean field": (problem.model, problem.simulate(0, 10_000), MEAN_FIELD),
}
RULE = lanes.SAVED_SECONDS
WAYS = {"side by side": 1.0, "one after another": 0.0}  # seconds that a lane is taken to save for each number


def seconds_of(name: str, way: str, restarts: int, key: int) -> tuple[float, float]:
    """Wall seconds of a call, and those of its steps and their compilation."""
    model, data, options = PROBLEMS[name]
    lanes.SAVED_SECONDS = WAYS[way]
    began = time.perf_counter()
    fit = autovi.fit(model, data, num_restarts=restarts, rng_key=key, progress_bar=False, **options)
    return time.perf_counter() - began, fit.seconds.run


def decided(name: str, restarts: int) -> str:
    """What the rule says of a problem, unasked."""
    model, data, options = PROBLEMS[name]
    lanes.SAVED_SECONDS = RULE
    seen: list[int] = []
    original = lanes.count_of_lanes

    def watched(legs: Any) -> int:
        seen.append(original(legs))
        return seen[-1]

    together.count_of_lanes = watched
    try:
        autovi.fit(model, data, num_restarts=restarts, progress_bar=False, **options)
    finally:
        together.count_of_lanes = original
    return "none" if not seen else f"{max(seen)}"


def main() -> None:
    """Prints the table, and writes every time to `results/`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--restarts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    asked = parser.parse_args()
    rows, single = [], []
    for name in asked.problems:
        autovi.clear_cache()
        first = {way: seconds_of(name, way, asked.restarts, 0) for way in WAYS}
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for key in range(asked.rounds):
            for way in WAYS:
                times[way].append(seconds_of(name, way, asked.restarts, key))
        then = {way: np.median(np.array(times[way]), axis=0) for way in WAYS}
        ratio = then["one after another"][1] / then["side by side"][1]
        rows.append(
            [
                name,
                *(f"{first[way][0]:.1f}" for way in WAYS),
                *(f"{then[way][1]:.2f}" for way in WAYS),
                f"{ratio:.2f}",
                decided(name, asked.restarts),
            ]
        )
        single.append({"problem": name, "first": first, "then": times})
        print(f"{name}: done", flush=True)
    head = ["problem", "first call, side by side", "one after another", "steps, side by side", "one after another"]
    print(table([*head, "ratio", "lanes by the rule"], rows))
    save("restarts", {"restarts": asked.restarts, "problems": single})


if __name__ == "__main__":
    main()
