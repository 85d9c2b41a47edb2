"""Faults put into fits at random: is anything that was fitted lost, does one pass in silence, does a NaN come back?

    python -m benchmarks.injected [--faults 200] [--seed 0]

Every fault is drawn with its place: NaN in data, in a gradient, in what an estimator learns from and in what it has
learned; errors of XLA; a full disk, a folder that is removed or read-only, a changed bit in a checkpoint; SIGINT,
SIGTERM, and SIGKILL between two chunks and within a write (in processes of their own). *Lost*: a fit that goes on, or
the next call with the same folder, does not end at the bits of a fit without the fault. *Silent*: nothing names it, or
a NaN was never met. *NaN*: a parameter or a draw is not finite.
"""

import argparse
import errno
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from unittest import mock

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.errors import JaxRuntimeError

import autovi
from autovi.estimators import Score
from autovi.result import storage
from autovi.run import faults, running
from benchmarks.reporting import RESULTS, save, table

Y = np.random.default_rng(0).normal(size=30).astype(np.float32)
STEPS, CHUNKS = 1000, 10
NEVER = 1e6  # where no gradient is NaN


@jax.custom_jvp
def poisoned_at(value: jax.Array, place: jax.Array) -> jax.Array:
    """The value, whose derivative is NaN near a place."""
    return value


@poisoned_at.defjvp
def _(primals: Any, tangents: Any) -> Any:
    (value, place), (tangent, _) = primals, tangents
    return value, tangent * jnp.where(jnp.abs(value - place) < 0.01, jnp.nan, 1.0)


@dataclass(frozen=True)
class Poisoned(Score):
    """What its baseline learns from is NaN wherever a draw is 9."""

    name: ClassVar[str] = "poisoned"

    def surrogate(self, q: Any, draw: Any, cost: Any, params: Any) -> Any:
        scored, loss = super().surrogate(q, draw, cost, params)
        poison = jnp.where(jnp.any(draw.value == 9), jnp.nan, 0.0)
        return scored, loss + sum(jnp.sum(poison * leaf) for leaf in jax.tree.leaves(params))


def model(y: jax.Array, place: jax.Array) -> None:
    """A mean, whose gradient is NaN near a place, and a count by the score function."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    k = numpyro.sample("k", dist.Poisson(3.0))
    with numpyro.plate("row", len(Y)):
        numpyro.sample("y", dist.Normal(poisoned_at(mu, place) + 0.1 * k, 1.0), obs=y)


PLAIN = {"k": {"estimator": "score", "baseline": "moving_average"}}
POISONED = {"k": Poisoned(baseline="moving_average")}


def fitted(key: int, folder: Path | None = None, **more: Any) -> autovi.Fit:
    """A fit, written after every chunk where there is a folder."""
    options = {"estimators": PLAIN, "callback": lambda report: None, **more}
    data = options.pop("data", {"y": Y, "place": np.float32(NEVER)})
    place = None if folder is None else autovi.Checkpoint(folder, seconds=0)
    return autovi.fit(
        model, data, rng_key=key, num_steps=STEPS, num_draws=50, progress_bar=False, checkpoint=place, **options
    )


@functools.cache
def whole(key: int) -> autovi.Fit:
    """The fit without a fault."""
    return fitted(key)


class Outcome(NamedTuple):
    """What became of a fault."""

    lost: bool = False
    silent: bool = False
    nan: bool = False


def same(fit: autovi.Fit, other: autovi.Fit) -> bool:
    """Are losses and parameters the same bits?"""
    pairs = [(fit.losses, other.losses), *((fit.params[n], other.params[n]) for n in other.params)]
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def has_nan(fit: autovi.Fit) -> bool:
    """Is a parameter or a draw not finite?"""
    values = [*fit.params.values(), *fit.sample(50, resample=False).values()]
    return not all(np.isfinite(np.asarray(x)).all() for x in values)


@contextmanager
def heard() -> Iterator[list[str]]:
    """What is warned of inside."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        said: list[str] = []
        yield said
        said += [str(w.message) for w in caught]


# --- NaN --------------------------------------------------------------------------------------------------------------


def in_data(rng: random.Random, key: int) -> Outcome:
    """In one observation, with NaN allowed or not."""
    y = Y.copy()
    y[rng.randrange(len(Y))] = rng.choice([np.nan, np.inf, -np.inf])
    allowed = {"y"} if np.isnan(y).any() and rng.random() < 0.5 else ()
    try:
        fit = fitted(key, data={"y": y, "place": np.float32(NEVER)}, allow_nan=allowed)
    except ValueError as error:
        return Outcome(silent="y" not in str(error))
    return Outcome(silent="y" not in fit.message, nan=has_nan(fit))


def _counted(fit: autovi.Fit, site: str) -> Outcome:
    told = f"{fit.skipped_steps:,} of" in fit.message and repr(site) in fit.message
    return Outcome(silent=not (fit.skipped_steps and told), nan=has_nan(fit))


def in_a_gradient(rng: random.Random, key: int) -> Outcome:
    """Near a value that q gives weight to."""
    middle = float(np.mean(whole(key).sample(200, resample=False)["mu"]))
    place = np.float32(middle + rng.uniform(-0.2, 0.2))
    return _counted(fitted(key, data={"y": Y, "place": place}), "mu")


def in_what_is_learned_from(rng: random.Random, key: int) -> Outcome:
    """In the gradient of a baseline."""
    return _counted(fitted(key, estimators=POISONED), "k")


@contextmanager
def between_chunks(change: Callable[[int, Callable, tuple], Any]) -> Iterator[None]:
    """`change(number, chunk, args)` in the place of every chunk."""
    optimize, count = running.optimize, [0]

    def changed(chunk: Callable, *args: Any) -> Any:
        count[0] += 1
        return change(count[0], chunk, args)

    wrapped = lambda chunk, *args, **more: optimize(functools.partial(changed, chunk), *args, **more)  # noqa: E731
    with mock.patch.object(running, "optimize", wrapped):
        yield


def in_what_is_learned(rng: random.Random, key: int) -> Outcome:
    """In a baseline, from a chunk on."""
    at = rng.randrange(1, CHUNKS + 1)

    def change(number: int, chunk: Callable, args: tuple) -> Any:
        state, *rest = args
        if number == at:
            state = state._replace(estimators=jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), state.estimators))
        return chunk(state, *rest)

    with between_chunks(change):
        fit = fitted(key)
    made = fit.losses.size - (at - 1) * (STEPS // CHUNKS)
    return Outcome(lost=fit.skipped_steps != made, silent="'k'" not in fit.message, nan=has_nan(fit))


# --- XLA, signals -----------------------------------------------------------------------------------------------------


def of_xla(rng: random.Random, key: int) -> Outcome:
    """In a chunk, which has used up its state."""
    at, text = rng.randrange(2, CHUNKS + 1), rng.choice(["RESOURCE_EXHAUSTED: Out of memory", "INTERNAL: a fault"])

    def change(number: int, chunk: Callable, args: tuple) -> Any:
        made = chunk(*args)
        if number == at:
            jax.tree.map(lambda x: x.delete(), made)
            raise JaxRuntimeError(text)
        return made

    always = {"OFTEN": 0.0, "SHARE": float("inf")}
    with between_chunks(change), mock.patch.multiple(faults, **always):
        fit = fitted(key)
    silent = fit.status != "stopped" or text not in fit.message
    return Outcome(lost=not same(fit.resume(), whole(key)), silent=silent, nan=has_nan(fit))


def by_signal(number: signal.Signals, rng: random.Random, key: int) -> Outcome:
    """After a chunk."""
    folder, at, came = Path(tempfile.mkdtemp()), rng.randrange(1, CHUNKS) * 100, []
    stop = lambda report: signal.raise_signal(number) if report.step == at else None  # noqa: E731
    before = signal.signal(number, lambda *_: came.append(1)) if number == signal.SIGTERM else None
    try:
        fit = fitted(key, folder, callback=stop)
    finally:
        if before is not None:
            signal.signal(number, before)
    passed_on = number != signal.SIGTERM or came == [1]
    silent = fit.status != "stopped" or "stopped by" not in fit.message or not passed_on
    return Outcome(lost=not same(fitted(key, folder), whole(key)), silent=silent, nan=has_nan(fit))


def by_kill(rng: random.Random, key: int) -> Outcome:
    """Of a process of its own, whose fit this one takes up."""
    folder, within = tempfile.mkdtemp(), rng.random() < 0.5
    at = rng.randrange(1, CHUNKS + 1)
    command = [sys.executable, "-m", "benchmarks.injected", "--dying", folder, str(key), str(at), str(int(within))]
    ended = subprocess.run(command, check=False).returncode
    return Outcome(lost=ended != -signal.SIGKILL or not same(fitted(key, Path(folder)), whole(key)))


def dying(folder: str, key: str, at: str, within: str) -> None:
    """A fit that is killed in its callback, or between a file's last byte and its name."""
    replace, count = os.replace, [0]

    def die(*args: Any) -> None:
        count[0] += 1
        if count[0] == int(at):
            os.kill(os.getpid(), signal.SIGKILL)

    if int(within):
        with mock.patch.object(storage.os, "replace", lambda *args: (die(), replace(*args))):
            fitted(int(key), Path(folder))
    fitted(int(key), Path(folder), callback=die)


# --- disks ------------------------------------------------------------------------------------------------------------


def of_disk(number: int, rng: random.Random, key: int) -> Outcome:
    """At a random write, and at all after it."""
    folder, at, count = Path(tempfile.mkdtemp()), rng.randrange(1, CHUNKS + 2), [0]
    where = rng.choice(["fsync", "replace"])
    done = getattr(os, where)

    def failing(*args: Any) -> Any:
        count[0] += 1
        if count[0] >= at:
            raise OSError(number, os.strerror(number))
        return done(*args)

    with heard() as said, mock.patch.object(storage.os, where, failing):
        fit = fitted(key, folder)
    lost = not (same(fit, whole(key)) and same(fitted(key, folder), whole(key)))
    return Outcome(lost=lost, silent=not any("nothing more is saved" in text for text in said))


def of_a_removed_folder(rng: random.Random, key: int) -> Outcome:
    """After a chunk."""
    folder, at = Path(tempfile.mkdtemp()) / "run", rng.randrange(1, CHUNKS) * 100
    gone = lambda report: shutil.rmtree(folder) if report.step == at else None  # noqa: E731
    with heard() as said:
        fit = fitted(key, folder, callback=gone)
    return Outcome(lost=not same(fit, whole(key)), silent=not any("nothing more is saved" in text for text in said))


class Killed(BaseException):
    """The end of a process."""


def of_a_bit(rng: random.Random, key: int) -> Outcome:
    """In a file of a fit that was killed."""
    folder, at = Path(tempfile.mkdtemp()), rng.randrange(2, CHUNKS) * 100

    def end(report: Any) -> None:
        if report.step == at:
            raise Killed

    try:
        fitted(key, folder, callback=end)
    except Killed:
        pass
    file = rng.choice(sorted(folder.glob("*.autovi")))
    content = file.read_bytes()
    place = rng.randrange(len(content))
    file.write_bytes(content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :])
    try:
        fitted(key, folder)
        silent = True
    except ValueError as error:
        silent = str(file) not in str(error)
    file.write_bytes(content)
    return Outcome(lost=not same(fitted(key, folder), whole(key)), silent=silent)


KINDS: dict[str, Callable[[random.Random, int], Outcome]] = {
    "NaN or infinity in data": in_data,
    "NaN in a gradient": in_a_gradient,
    "NaN in what an estimator learns from": in_what_is_learned_from,
    "NaN in what an estimator has learned": in_what_is_learned,
    "an error of XLA": of_xla,
    "SIGINT": functools.partial(by_signal, signal.SIGINT),
    "SIGTERM": functools.partial(by_signal, signal.SIGTERM),
    "SIGKILL": by_kill,
    "a full disk": functools.partial(of_disk, errno.ENOSPC),
    "a read-only folder": functools.partial(of_disk, errno.EROFS),
    "a folder that is removed": of_a_removed_folder,
    "a bit of a checkpoint": of_a_bit,
}


def main(argv: list[str] | None = None) -> None:
    """Parses the arguments, injects, prints the table and saves the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FOLDER", help="where injected.json is written")
    parser.add_argument("--dying", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.dying is not None:
        dying(*args.dying)
        return
    rng = random.Random(args.seed)
    found: dict[str, list[int]] = {kind: [0, 0, 0, 0] for kind in KINDS}
    for number in range(args.faults):
        kind = list(KINDS)[number % len(KINDS)]
        outcome = KINDS[kind](rng, rng.randrange(5))
        found[kind] = [n + more for n, more in zip(found[kind], (1, *outcome), strict=True)]
        if any(outcome):
            print(f"fault {number}, {kind}: {outcome}", flush=True)
    save("injected", found, args.output)
    rows = [[kind, *map(str, counts)] for kind, counts in found.items()]
    rows.append(["all", *map(str, np.sum(list(found.values()), axis=0))])
    print(table(["fault", "injected", "lost", "silent", "NaN"], rows))


if __name__ == "__main__":
    main()
