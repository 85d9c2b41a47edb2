"""How close a fit without settings comes to reference posteriors, beside NUTS.

    python -m benchmarks.accuracy --references FOLDER [FOLDER ...] [--cases PATTERN ...] [--nuts] [--compare FILE]

Every case runs in a process of its own. See benchmarks/README.md for the columns and for the folders.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.accuracy import references, report
from benchmarks.accuracy.processes import apart
from benchmarks.reporting import RESULTS, save


def run_references(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fits, and where asked for the runs of NUTS, of all cases of all folders, one after the other."""
    fits: dict[str, Any] = {}
    nuts: dict[str, Any] = {}
    for folder in references.folders(args.references):
        for case in references.cases_of(folder, args.cases):
            job = (str(folder), case, str(args.seed))
            fits[case] = apart("fit", *job, timeout=args.timeout)
            if args.nuts:
                nuts[case] = apart("nuts", *job, timeout=args.timeout)
            print("| " + " | ".join(report.row(case, fits[case], nuts.get(case))) + " |", flush=True)
    return fits, nuts


def main(argv: list[str] | None = None) -> None:
    """Parses the arguments, measures, prints the tables and saves the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--references", nargs="+", default=[], metavar="FOLDER", help="else those of AUTOVI_REFERENCES")
    parser.add_argument("--cases", nargs="+", default=["*"], metavar="PATTERN", help="names or globs; default: all")
    parser.add_argument("--nuts", action="store_true", help="run NumPyro's NUTS too, 4 chains of 1,000 + 1,000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds that one process may take")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="a former run's JSON: print what changed since")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FOLDER", help="where accuracy.json is written")
    args = parser.parse_args(argv)
    former = json.loads(args.compare.read_text())["results"] if args.compare else None
    if not references.folders(args.references):
        parser.error("expected folders of reference posteriors by --references or AUTOVI_REFERENCES, got none")
    fits, nuts = run_references(args)
    print("\n" + report.references_table(fits, nuts))
    if former is not None:
        print("\nChanged since the former run:")
        print("\n".join(report.changes(former["fits"], fits)) or "nothing")
    print(f"\nSaved {save('accuracy', {'fits': fits, 'nuts': nuts}, args.output)}")


if __name__ == "__main__":
    main()
