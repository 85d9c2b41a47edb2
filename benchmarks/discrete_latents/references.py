"""The references of the cases: NUTS in double precision over a program without the discrete sites.

That is the case's `marginal`, a forward algorithm by hand, or else the model itself, which funsor enumerates.

    pip install funsor                                                  # for this alone
    python -m benchmarks.discrete_latents.references [CASE ...] [--samples 2000]

Writes `references/<case>.json`: means and standard deviations of the scored sites, and how they were made. One process
a case; a case that is there stays. Chains start from prior medians, where no two states are exchanged.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "references"
WARMUP, SAMPLES, CHAINS, SEED = 500, 2000, 2, 2026


@dataclass(frozen=True)
class Moments:
    """Means and standard deviations of one site, of its shape."""

    mean: np.ndarray
    sd: np.ndarray


def load(case: str) -> dict[str, Moments]:
    """The reference of one case."""
    parameters = json.loads((FOLDER / f"{case}.json").read_text())["parameters"]
    return {name: Moments(np.asarray(p["mean"]), np.asarray(p["sd"])) for name, p in parameters.items()}


def summary(chains: dict[str, np.ndarray]) -> dict[str, Any]:
    """Moments of draws of shape (chains, draws, *shape), and how well they mixed.

    `mean_error` and `sd_error` are the largest standard errors, in standard deviations: one over the square root of the
    effective sample size of the value, and half of that of its squared deviation, times the latter's spread.
    """
    from numpyro.diagnostics import effective_sample_size, gelman_rubin

    parameters, r_hat, mean_error, sd_error = {}, [], [], []
    for name, values in chains.items():
        mean, sd = values.mean(axis=(0, 1)), values.std(axis=(0, 1))
        squares = ((values - mean) / sd) ** 2
        parameters[name] = {"mean": mean.round(6).tolist(), "sd": sd.round(6).tolist()}
        r_hat.append(np.max(gelman_rubin(values)))
        mean_error.append(np.max(effective_sample_size(values) ** -0.5))
        sd_error.append(np.max(0.5 * squares.std(axis=(0, 1)) * effective_sample_size(squares) ** -0.5))
    worst = {"r_hat": r_hat, "mean_error": mean_error, "sd_error": sd_error}
    return {key: round(float(max(values)), 4) for key, values in worst.items()} | {"parameters": parameters}


def draw(name: str, samples: int) -> None:
    """The reference of one case, written."""
    import jax
    from numpyro.infer import MCMC, NUTS, init_to_median

    from benchmarks.discrete_latents import CASES

    jax.config.update("jax_enable_x64", True)
    case, start = CASES[name], time.perf_counter()
    program = case.marginal or case.model
    kernel = NUTS(program, target_accept_prob=case.target_accept, init_strategy=init_to_median)
    chains = {"num_chains": CHAINS, "chain_method": "sequential", "progress_bar": False}
    run = MCMC(kernel, num_warmup=WARMUP, num_samples=samples, **chains)
    run.run(jax.random.key(SEED), **case.data())
    grouped = run.get_samples(group_by_chain=True)
    found = summary({site: np.asarray(grouped[site], float) for site in case.scored})
    about = {
        "sampler": "NumPyro's NUTS, float64",
        "program": f"{program.__name__}, {'summed out by hand' if case.marginal else 'enumerated by funsor'}",
        "target_accept": case.target_accept,
        "chains": CHAINS,
        "warmup": WARMUP,
        "samples": samples,
        "seed": SEED,
        "divergences": int(np.sum(run.get_extra_fields(group_by_chain=False)["diverging"])),
        "seconds": round(time.perf_counter() - start),
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(about | found) + "\n")
    print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in (about | found).items() if key != "parameters"))


def main(argv: list[str] | None = None) -> None:
    """Draws what is missing, one case after the other."""
    from benchmarks.discrete_latents import CASES

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="draws of each of the chains")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if unknown := set(args.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if args.child:
        draw(args.cases[0], args.samples)
        return
    for name in args.cases or CASES:
        if not (FOLDER / f"{name}.json").exists():
            command = [sys.executable, "-m", "benchmarks.discrete_latents.references", name, "--child"]
            subprocess.run([*command, "--samples", str(args.samples)], check=False)


if __name__ == "__main__":
    main()
