"""Reference draws of the posteriors of this folder, by NUTS in double precision.

    python -m benchmarks.posteriors FOLDER [CASE ...] [--samples 2000]

Writes for each case what `python -m benchmarks.accuracy --references FOLDER` reads, one process a case. The seed of
the run, its draws, R-hat, effective sample sizes and divergences stand in `reference.json`. A case that is there stays.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.accuracy.processes import environment

WARMUP, SEED = 1000, 2026
MODELS = "from benchmarks.posteriors import MODELS  # noqa: F401\n"


def draw(folder: Path, case: str, samples: int) -> None:
    """The reference of one case."""
    import jax

    from benchmarks.accuracy.measuring import CHAINS, mixing, sampled
    from benchmarks.accuracy.references import store
    from benchmarks.posteriors import POSTERIORS

    jax.config.update("jax_enable_x64", True)
    posterior = POSTERIORS[case]
    settings = {"target_accept_prob": posterior.target_accept}
    run, draws, seconds = sampled(posterior.reference, posterior.data(), SEED, WARMUP, samples, **settings)
    found = mixing(run)
    about = {"seed": SEED, "warmup": WARMUP, "samples": samples, "chains": CHAINS, **settings, **found}
    about |= {"sampler": "NumPyro NUTS, float64", "seconds": seconds}
    store(folder, case, {name: np.asarray(draws[name], float) for name in posterior.scored}, about)
    told = ", ".join(f"{key} {value:.4g}" for key, value in found.items())
    print(f"{case}: {sum(draws[name][0].size for name in posterior.scored)} numbers, {seconds:.0f} s, {told}")


def main(argv: list[str] | None = None) -> None:
    """Draws what is missing, one case after the other."""
    from benchmarks.posteriors import POSTERIORS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(POSTERIORS)}; all by default")
    parser.add_argument("--samples", type=int, default=2000, help="draws of each of the chains")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if unknown := set(args.cases) - set(POSTERIORS):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if args.child:
        draw(args.folder, args.cases[0], args.samples)
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "models.py").write_text(MODELS)
    for case in args.cases or POSTERIORS:
        if (args.folder / case / "reference_draws.npz").exists():
            continue
        command = [sys.executable, "-m", "benchmarks.posteriors", str(args.folder.resolve()), case, "--child"]
        subprocess.run([*command, "--samples", str(args.samples)], check=False, env=environment(in_order=True))


if __name__ == "__main__":
    main()
