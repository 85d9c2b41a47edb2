"""What it costs to keep a fit: on disk by `checkpoint=`, and in memory for errors of XLA.

    python -m benchmarks.checkpoint_cost [--seconds 60] [--repeats 1]

Of fits of about a minute, with a checkpoint as it is by default and without, one after the other: the share of the time
between the first step and the last that went into writing the state, and into copying it to the host, as measured
around the two, and the ratio of the times as a whole, which holds what neither sees and the noise of the machine.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import autovi
from autovi.checkpoints.journal import KeptLeg
from autovi.run.faults import LastState
from benchmarks.reporting import RESULTS, save, table

TRIED = 3000  # steps, by which it is found how many are made in so many seconds
X = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
ROWS = 500_000


def few(y: jax.Array) -> None:
    """A handful of parameters: many steps a second."""
    slopes = numpyro.sample("slopes", dist.Normal(0.0, 1.0).expand([5]).to_event(1))
    numpyro.sample("y", dist.StudentT(4.0, X @ slopes, 1.0).to_event(1), obs=y)


def rows(y: jax.Array) -> None:
    """A table with a row for each of half a million elements: a state of 16 MB."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("row", ROWS, subsample_size=1000) as i:
        own = numpyro.sample("own", dist.Normal(mu, 1.0))
        numpyro.sample("y", dist.Normal(own, 1.0), obs=jnp.asarray(y)[i])


SETTINGS: dict[str, tuple[Callable, dict[str, Any]]] = {
    "few parameters": (few, {"y": X.sum(1)}),
    "a table of rows": (rows, {"y": np.random.default_rng(1).normal(size=ROWS).astype(np.float32)}),
}


class Timed:
    """A method in its place, and the time that it takes."""

    def __init__(self, owner: type, name: str):
        self.seconds, self.calls, method = 0.0, 0, getattr(owner, name)

        def timed(own: Any, *args: Any, **more: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(own, *args, **more)
            finally:
                self.seconds, self.calls = self.seconds + time.perf_counter() - began, self.calls + 1

        self.patch = mock.patch.object(owner, name, timed)


def measured(setting: str, steps: int, folder: str | None) -> dict[str, float]:
    """Seconds of the steps of a fit, and of what keeps it."""
    model, data = SETTINGS[setting]
    written, copied = Timed(KeptLeg, "keep"), Timed(LastState, "keep")
    with written.patch, copied.patch:
        fit = autovi.fit(model, data, num_steps=steps, num_draws=10, checkpoint=folder, progress_bar=False)
    size = sum(x.nbytes for x in jax.tree.leaves(fit.state))
    return {
        "seconds": fit.seconds.run,
        "written": written.seconds,
        "writes": written.calls,
        "copied": copied.seconds,
        "copies": copied.calls,
        "bytes": size,
    }


def both(setting: str, seconds: float, repeats: int) -> dict[str, float]:
    """Sums over fits with a checkpoint, and the ratio to those without."""
    measured(setting, TRIED, None)  # compiled from here on
    steps = int(TRIED * seconds / measured(setting, TRIED, None)["seconds"])
    kept, plain = [], 0.0
    for _ in range(repeats):
        folder = tempfile.mkdtemp()
        kept.append(measured(setting, steps, folder))
        plain += measured(setting, steps, None)["seconds"]
        shutil.rmtree(folder)
    total = {name: float(sum(one[name] for one in kept)) for name in kept[0]}
    return {**total, "bytes": kept[0]["bytes"], "plain": plain}


def main(argv: list[str] | None = None) -> None:
    """Parses the arguments, measures, prints the table and saves the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FOLDER", help="where its JSON is written")
    args = parser.parse_args(argv)
    found = {setting: both(setting, args.seconds, args.repeats) for setting in SETTINGS}
    save("checkpoint_cost", found, args.output)

    def row(r: dict[str, float]) -> list[str]:
        share = lambda part: f"{100 * r[part] / r['seconds']:.3f} %"  # noqa: E731
        size = f"{r['bytes'] / 1e6:.3g} MB"
        counts = f"{r['writes']:.0f}", f"{r['copies']:.0f}"
        ratio = f"{r['seconds'] / r['plain']:.3f}"
        return [size, f"{r['seconds']:.1f}", counts[0], share("written"), counts[1], share("copied"), ratio]

    header = ["setting", "state", "seconds", "writes", "of the time", "copies", "of the time", "with / without"]
    print(table(header, [[name, *row(r)] for name, r in found.items()]))


if __name__ == "__main__":
    main()
