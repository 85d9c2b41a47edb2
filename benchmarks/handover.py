"""What a fit saves NUTS: gradient evaluations to an effective size of 400, from a fit and from NUTS's own warm-up.

    python -m benchmarks.handover --references FOLDER [FOLDER ...] [--cases PATTERN ...]

Every case runs in a process of its own. See benchmarks/README.md for the folders and the columns.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import references
from benchmarks.accuracy.processes import ROOT
from benchmarks.reporting import RESULTS, save, table

CHAINS, DRAWS, EVERY, WANTED = 4, 1000, 25, 400.0
# NUTS by itself: with its defaults and usual warm-up, and as one would who knew that the posterior is correlated and
# that a short warm-up suffices.
OWN = {"own, dense, 300": ({"dense_mass": True}, 300), "own, 1000": ({}, 1000)}


def smallest_ess(draws: dict[str, np.ndarray]) -> float:
    """The smallest bulk effective size of all scalars that vary, of draws by chain."""
    import arviz as az

    moving = [v.reshape(*v.shape[:2], -1) for v in draws.values()]
    columns = [x[..., i] for x in moving for i in range(x.shape[-1]) if np.ptp(x[..., i]) > 0]
    return float(min(az.ess(x, method="bulk") for x in columns))


def evaluations(warmup: np.ndarray, steps: np.ndarray, draws: dict[str, np.ndarray]) -> dict[str, Any]:
    """How many gradients all chains take to the effective size, warm-up included, where they reach it.

    Args:
        warmup, steps: leapfrog steps `(chains, transitions)`, each of which takes a gradient.
        draws: name -> `(chains, draws, *shape)`.
    """
    ess = 0.0
    for count in range(EVERY, steps.shape[1] + 1, EVERY):
        ess = smallest_ess({n: v[:, :count] for n, v in draws.items()})
        if ess >= WANTED:
            break
    total = int(warmup.sum() + steps[:, :count].sum())
    return {"reached": ess >= WANTED, "draws": count, "ess": ess, "warmup": int(warmup.sum()), "gradients": total}


def sampled(
    mcmc: Any, data: dict[str, Any], seed: int, means: dict[str, Any], init_params: Any = None
) -> dict[str, Any]:
    """A run with all its leapfrog steps counted, and how far its means are from the reference, in its sds at most."""
    import jax

    extra = {"extra_fields": ("num_steps", "diverging")}
    mcmc.warmup(jax.random.key(seed), **data, init_params=init_params, collect_warmup=True, **extra)
    warmup = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["num_steps"])
    mcmc.run(jax.random.key(seed + 1000), **data, **extra)
    fields = {n: np.asarray(v) for n, v in mcmc.get_extra_fields(group_by_chain=True).items()}
    draws = {n: np.asarray(v, float) for n, v in mcmc.get_samples(group_by_chain=True).items()}
    off = [np.max(np.abs(draws[n].mean((0, 1)) - p.mean) / p.sd) for n, p in means.items() if n in draws]
    found = evaluations(warmup, fields["num_steps"], draws)
    return {**found, "divergences": int(fields["diverging"].sum()), "off": float(max(off, default=np.nan))}


def measured(folder: str, case: str, seed: int) -> dict[str, Any]:
    """A fit, NUTS from it, and NUTS by itself in each of the ways of `OWN`."""
    from numpyro.infer import MCMC, NUTS

    import autovi

    model, load_data = references.models_of(Path(folder))[case]
    data, means = load_data(), references.load(Path(folder), case).parameters
    chains = {"num_chains": CHAINS, "chain_method": "vectorized", "progress_bar": False}
    fit = autovi.fit(model, data, rng_key=seed, progress_bar=False)
    start = fit.to_nuts(CHAINS)
    found: dict[str, Any] = {"fit": sum(r.evaluations for r in fit.rungs), "khat": fit.khat, "start": repr(start)}
    mcmc = start.mcmc(DRAWS, chain_method="vectorized", progress_bar=False)
    found["from the fit"] = sampled(mcmc, data, seed, means, start.init_params)
    print(json.dumps(found), flush=True)
    for name, (settings, warmup) in OWN.items():
        mcmc = MCMC(NUTS(model, **settings), num_warmup=warmup, num_samples=DRAWS, **chains)
        found[name] = sampled(mcmc, data, seed, means)
        print(json.dumps(found), flush=True)  # what there is when the time is up
    return found


def apart(folder: str, case: str, seed: int, timeout: float) -> dict[str, Any]:
    """The last that a process of its own printed."""
    command = [sys.executable, "-m", "benchmarks.handover", "--job", folder, case, "--seed", str(seed)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
        printed, failed = done.stdout, done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except subprocess.TimeoutExpired as error:
        printed, failed = (error.stdout or b"").decode(), [f"no answer after {timeout:.0f} s"]
    lines = [line for line in printed.splitlines() if line.startswith("{")]
    return {**(json.loads(lines[-1]) if lines else {}), **({"failed": failed[0]} if failed else {})}


def best_own(found: dict[str, Any]) -> int | None:
    """The fewest gradients of NUTS by itself; None where it did not reach the effective size in any way."""
    reached = [found[name]["gradients"] for name in OWN if found.get(name, {}).get("reached")]
    return min(reached, default=None)


def report(results: dict[str, dict[str, Any]]) -> str:
    """The table, and how often half of the gradients suffice."""
    rows, half, half_with = [], 0, 0
    for case, found in results.items():
        ours, own = found.get("from the fit"), best_own(found)
        ratio = ours["gradients"] / own if ours and ours["reached"] and own else None
        with_fit = (ours["gradients"] + found["fit"]) / own if ratio is not None else None
        half += ratio is not None and ratio <= 0.5
        half_with += with_fit is not None and with_fit <= 0.5
        cells = [_cell(found.get(name)) for name in ("from the fit", *OWN)]
        shown = [f"{x:.2f}" if x is not None else "-" for x in (ratio, with_fit)]
        rows.append([case, f"{found.get('fit', 0):,}", *cells, *shown])
    header = ["case", "fit", "from the fit", *OWN, "ratio", "with the fit's"]
    told = f"At most half of the gradients: {half} of {len(results)}; with those of the fit: {half_with}."
    return f"{table(header, rows)}\n\n{told}"


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    return f"{'' if found['reached'] else 'over '}{found['gradients']:,}"


def main(argv: list[str] | None = None) -> None:
    """Parses the arguments, measures case by case, prints the table and saves the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--references", nargs="+", default=[], metavar="FOLDER", help="else those of AUTOVI_REFERENCES")
    parser.add_argument("--cases", nargs="+", default=["*"], metavar="PATTERN", help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds that one case may take")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FOLDER", help="where handover.json is written")
    parser.add_argument("--job", nargs=2, metavar=("FOLDER", "CASE"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.job:
        measured(*args.job, args.seed)
        return
    results: dict[str, dict[str, Any]] = {}
    for folder in references.folders(args.references):
        for case in references.cases_of(folder, args.cases):
            results[case] = apart(str(folder), case, args.seed, args.timeout)
            save("handover", results, args.output)
    print(report(results))


if __name__ == "__main__":
    main()
