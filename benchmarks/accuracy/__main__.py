"""How close a fit without settings comes to the posterior, beside NUTS.

    python -m benchmarks.accuracy --references FOLDER [FOLDER ...] [--parts PART ...] [--cases PATTERN ...] [--nuts]

Every fit runs in a process of its own. See benchmarks/README.md for the parts, the columns and the folders.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.accuracy import references, report
from benchmarks.accuracy.parts import PARTS
from benchmarks.reporting import RESULTS, save


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """The arguments; folders of references are looked at before anything runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--references", nargs="+", default=[], metavar="FOLDER", help="else those of AUTOVI_REFERENCES")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="default: all")
    parser.add_argument("--cases", nargs="+", default=["*"], metavar="PATTERN", help="references; default: all")
    parser.add_argument("--nuts", action="store_true", help="run NumPyro's NUTS too, 4 chains of 1,000 + 1,000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds that one process may take")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="a former run's JSON: print what changed since")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FOLDER", help="where accuracy.json is written")
    args = parser.parse_args(argv)
    try:
        found = references.folders(args.references)
    except ValueError as error:
        parser.error(str(error))
    if "references" in args.parts and not found:
        parser.error("expected folders by --references or AUTOVI_REFERENCES, or --parts without references, got none")
    return args


def main(argv: list[str] | None = None) -> None:
    """Parses the arguments, measures, prints the tables and saves the figures case by case."""
    args = parsed(argv)
    former = json.loads(args.compare.read_text())["results"] if args.compare else {}
    results: dict[str, Any] = {}
    for part in args.parts:
        keep = lambda found, part=part: save("accuracy", results | {part: found}, args.output)  # noqa: E731
        results[part], told = PARTS[part](args, keep)
        print(f"\n{told}\n")
    if "references" in results and "references" in former:
        changes = report.changes(former["references"]["fits"], results["references"]["fits"])
        print("Changed since the former run:\n" + ("\n".join(changes) or "nothing"))
    print(f"\nSaved {save('accuracy', results, args.output)}")


if __name__ == "__main__":
    main()
