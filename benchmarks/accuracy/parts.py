"""The parts of the benchmark: each runs its jobs, one process after the other, and makes a table of what came back."""

import math
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from benchmarks.accuracy import conjugate, evidence, large, references, report
from benchmarks.accuracy.processes import apart
from benchmarks.reporting import table

Results = dict[str, Any]
Keep = Callable[[Results], Any]  # called with what there is so far: a whole run takes long, and may be cut off
MEAN_AIM, SD_AIM = 0.1, 0.1  # of the globals of a large hierarchy: in sds of the reference, and relative


def _told(line: list[str]) -> None:
    """A line as soon as it is there."""
    print("| " + " | ".join(line) + " |", flush=True)


def run_references(args: Namespace, keep: Keep) -> tuple[Results, str]:
    """The fits, and where asked for the runs of NUTS, of all cases of all folders."""
    fits: Results = {}
    nuts: Results = {}
    for folder in references.folders(args.references):
        for case in references.cases_of(folder, args.cases):
            job = (str(folder), case, str(args.seed))
            fits[case] = apart("fit", *job, timeout=args.timeout)
            if args.nuts:
                nuts[case] = apart("nuts", *job, timeout=args.timeout)
            _told(report.row(case, fits[case], nuts.get(case)))
            keep({"fits": fits, "nuts": nuts})
    return {"fits": fits, "nuts": nuts}, report.references_table(fits, nuts)


def run_evidence(args: Namespace, keep: Keep) -> tuple[Results, str]:
    """What the ELBO misses of the log evidence."""
    results: Results = {}
    rows = []
    for name, target in evidence.TARGETS.items():
        exact = apart("log_evidence", name, timeout=args.timeout)
        fits = {g: apart("fit_target", name, g, str(args.seed), timeout=args.timeout) for g in target.guides}
        results[name] = {"log_evidence": exact, "fits": fits}
        for guide, fit in fits.items():
            rows.append(_evidence_row(name, guide, exact, fit, target.aim))
            _told(rows[-1])
        keep(results)
    header = ["target", "guide", "log evidence", "ELBO", "missing, nats", "aim", "k-hat", "verdict", "rung", "first, s"]
    return results, table(header, rows)


def _evidence_row(name: str, guide: str, exact: Results, fit: Results, aim: float) -> list[str]:
    if "failed" in exact or "failed" in fit or "absent" in fit:
        why = "-" if "absent" in fit else exact.get("failed") or fit.get("failed")
        return [name, guide, f"{exact.get('value', float('nan')):.3f}", str(why), *["-"] * 6]
    error = math.hypot(exact["se"], fit["elbo_se"])
    return [
        *(name, guide, f"{exact['value']:.3f} ± {exact['se']:.3f}", f"{fit['elbo']:.3f} ± {fit['elbo_se']:.3f}"),
        *(f"{exact['value'] - fit['elbo']:.3f} ± {error:.3f}", f"{aim}", f"{fit['khat']:.2f}", fit["verdict"]),
        *(fit["rung"] or "-", f"{fit['first_s']:.1f}"),
    ]


def run_large(args: Namespace, keep: Keep) -> tuple[Results, str]:
    """The globals of two large hierarchies against NUTS."""
    results: Results = {}
    rows = []
    for case in large.CASES:
        exact = apart("large_reference", case, timeout=args.timeout)
        fit = apart("fit_large", case, str(args.seed), timeout=args.timeout)
        results[case] = {"nuts": exact, "fit": fit}
        rows.append(_large_row(case, exact, fit))
        _told(rows[-1])
        keep(results)
    header = ["hierarchy", *large.GLOBALS, "k-hat", "verdict", "rung", "first, s", "NUTS: R-hat", f"within {MEAN_AIM}"]
    return results, table(header, rows)


def _large_row(case: str, exact: Results, fit: Results) -> list[str]:
    """Of each global (mean - mean of NUTS) / sd of NUTS, and sd / sd of NUTS."""
    if "failed" in exact or "failed" in fit:
        return [case, exact.get("failed") or fit["failed"], *["-"] * 9]
    cells, within = [], True
    for name in large.GLOBALS:
        (mean, sd), (ours, our_sd) = exact["moments"][name], fit["moments"][name]
        cells.append(f"{(ours - mean) / sd:+.3f}, {our_sd / sd:.3f}")
        within &= abs(ours - mean) <= MEAN_AIM * sd and abs(our_sd / sd - 1) <= SD_AIM
    said = [f"{fit['khat']:.2f}", fit["verdict"], fit["rung"] or "-", f"{fit['first_s']:.1f}"]
    return [case, *cells, *said, f"{exact['r_hat']:.3f}", "yes" if within else "no"]


def run_conjugate(args: Namespace, keep: Keep) -> tuple[Results, str]:
    """Warnings where there is nothing to warn of."""
    results = {case: apart("fit_conjugate", case, timeout=args.timeout) for case in conjugate.MODELS}
    keep(results)
    rows = []
    for case, found in results.items():
        warned = found.get("warned", {})
        told = "; ".join(f"seed {seed}: {said}" for seed, said in warned.items())
        rows.append([case, str(found.get("fits", 0)), str(len(warned)), found.get("failed", told)])
    return results, table(["conjugate model", "fits", "warnings", "which"], rows)


PARTS: dict[str, Callable[[Namespace, Keep], tuple[Results, str]]] = {
    "references": run_references,
    "evidence": run_evidence,
    "large": run_large,
    "conjugate": run_conjugate,
}
