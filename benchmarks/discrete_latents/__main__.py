"""Discrete latents: how close fits come to their references, and what a step costs against other ways to sum out.

    python -m benchmarks.discrete_latents [PART ...] [--rows NAME-OR-GLOB ...] [--output FOLDER]

- `fits`: every case by `autovi.fit` without settings, against the references of this folder.
- `forward`: a hidden Markov model of 200 and of 2,000 steps, against its forward algorithm by hand.
- `enumerated`: time per step against NumPyro's `TraceEnum_ELBO` where there is no `scan`; needs funsor.
- `large`: 1e5 points of a mixture of ten, 1e4 persons of latent classes with 30 items.

Every row runs in a process of its own.
"""

import argparse
import json
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from benchmarks.discrete_latents.jobs import PARTS
from benchmarks.discrete_latents.report import TABLES
from benchmarks.reporting import RESULTS, save


def measure(part: str, row: str, timeout: float) -> dict[str, Any]:
    """One row in a fresh process, or {"failed": why}."""
    command = [sys.executable, "-m", "benchmarks.discrete_latents.jobs", part, row]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer after {timeout:.0f} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:300]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(argv: list[str] | None = None) -> None:
    """Runs the parts asked for, prints a table of each, and keeps the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all of them by default")
    parser.add_argument("--rows", nargs="+", default=["*"], help="names of rows, or globs")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds of a row")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the figures")
    args = parser.parse_args(argv)
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    results = {}
    for part in args.parts or PARTS:
        rows = [row for row in PARTS[part][0] if any(fnmatch(row, pattern) for pattern in args.rows)]
        if not rows:
            continue
        results[part] = {}
        for row in rows:
            results[part][row] = measure(part, row, args.timeout)
            print(f"{part} {row}: {json.dumps(results[part][row])}", file=sys.stderr, flush=True)
        print(TABLES[part](results[part]), flush=True)
        save("discrete_latents", results, args.output)


if __name__ == "__main__":
    main()
