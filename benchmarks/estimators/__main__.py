"""Bias, variance, time and evaluations of every estimator of the table on every problem where it does not refuse.

    python -m benchmarks.estimators                          # all, with figures: minutes
    python -m benchmarks.estimators --only NAME [NAME ...]   # one against what autovi chooses: under 3 minutes
    python -m benchmarks.estimators --problems toy vae --no-curves

`z` is the largest coordinate of the mean's distance from the exact gradient, in standard errors. Exit status 1 where an
estimator is found biased that does not say so of itself, or fails.
"""

import argparse
import dataclasses
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

from autovi.estimators import ESTIMATORS
from benchmarks.estimators import report
from benchmarks.estimators.measuring import Budget, Row, measure, variants
from benchmarks.estimators.problems import problems
from benchmarks.estimators.training import curve
from benchmarks.reporting import RESULTS, save

CHOICE = "(autovi's choice)"


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables, draw, save; 1 where a bias was found that nobody told of, or something failed."""
    known = problems()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(ESTIMATORS), help="rows of the table")
    parser.add_argument("--problems", nargs="+", metavar="NAME", choices=list(known), default=list(known))
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the figures and of estimators.json")
    parser.add_argument("--no-curves", action="store_true", help="leave the trainings out")
    parser.add_argument("--seconds", type=float, default=1.0, help="of CPU for the gradients of one row")
    args = parser.parse_args(argv)
    kinds = {ESTIMATORS[name] for name in args.only or ESTIMATORS}  # some have two names
    asked = [(label, made) for label, made in variants(ESTIMATORS) if type(made) in kinds]
    candidates = [*asked, (CHOICE, None)]
    labels = [label for label, _ in candidates]
    budget = Budget(training=2 * args.seconds, measuring=args.seconds)

    rows: list[Row] = []
    for name in args.problems:
        problem = known[name]
        found = [measure(problem, label, made, budget) for label, made in asked]
        if all(row.refused is not None for row in found):
            rows += found
            continue
        found.append(measure(problem, CHOICE, None, budget))
        rows += found
        print(f"\n## {name}: {problem.says}\n\n{report.problem_table(found)}", flush=True)
        if not problem.group:
            report.save_figure(report.scatter(problem, found), args.output, name)
    for group in sorted({known[p].group for p in args.problems} - {""}):
        members = [known[p] for p in args.problems if known[p].group == group]
        own = [r for r in rows if r.problem in {p.name for p in members}]
        if any(r.refused is None for r in own):
            report.save_figure(report.over_distance(members, own), args.output, group)

    trainings = {}
    for problem in [known[p] for p in args.problems if known[p].steps and not args.no_curves]:
        there = {r.estimator for r in rows if r.problem == problem.name and r.refused is None}
        ran = {label: curve(problem, made) for label, made in candidates if label in there}
        if ran:
            trainings[problem.name] = ran
            report.save_figure(report.curves(problem, ran), args.output, f"{problem.name}_training")

    print(f"\n## In short\n\n{report.summary(rows, labels)}")
    print(f"\n## Refused\n\n{report.refusals(rows, labels)}")
    results = {"rows": [dataclasses.asdict(row) for row in rows], "trainings": trainings}
    print(f"\nSaved {save('estimators', results, args.output)}, and the figures beside it")
    failed = [f"{r.estimator} on {r.problem}: {r.refused}" for r in rows if r.failed]
    print("".join(f"\nFailed: {line}" for line in failed))
    untold = [f"{r.estimator} on {r.problem}" for r in rows if not r.as_said]
    print(f"\nFound biased, and not said to be: {', '.join(untold) or 'none'}")
    return 1 if untold or failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
