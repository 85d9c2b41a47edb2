"""The end of a process at the worst moments: within a write, and where the plan changes. `benchmarks/kills.py` and
`benchmarks/injected.py` have SIGKILL itself, at random moments."""

import os

import numpyro
import numpyro.distributions as dist
import pytest
from checkpoints.kept_models import X, Y, digest, regression

import autovi
from autovi.checkpoints.journal import KeptLeg, OnDisk
from autovi.run.engine import FEW_STEPS, Engine

DATA = {"x": X, "y": Y}


class Killed(BaseException):
    """The end of a process: nothing in a fit catches it."""


def dies(*args, **kwargs):
    raise Killed


def fit(folder):
    place = autovi.Checkpoint(folder, seconds=0)
    return autovi.fit(regression, DATA, num_steps=500, num_draws=10, checkpoint=place, progress_bar=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return digest(fit(tmp_path_factory.mktemp("whole")))


# The first is the file that says whose the folder is, the last one the end of the leg.
@pytest.mark.parametrize("number", [1, 2, 4, 6])
@pytest.mark.parametrize("moment", ["before the bytes are safe", "before the name", "after the name"])
def test_within_a_write(number, moment, whole, tmp_path, monkeypatch):
    count, fsync, replace, remove = [], os.fsync, os.replace, os.remove

    def counted(done):
        def call(*args):
            if str(args[0]).endswith(".tmp") or isinstance(args[0], int):
                count.append(1)
            last = len(count) == number
            if moment == "after the name" and last:
                done(*args)
            if last:
                raise Killed
            return done(*args)

        return call

    with monkeypatch.context() as patched:
        if moment == "before the bytes are safe":
            # A folder is synchronized after each file: every other call is that of a file.
            number = 2 * number - 1
            patched.setattr(os, "fsync", counted(fsync))
        else:
            patched.setattr(os, "replace", counted(replace))
        patched.setattr(os, "remove", lambda path: None if str(path).endswith(".tmp") else remove(path))
        with pytest.raises(Killed):
            fit(tmp_path)
    left = list(tmp_path.glob("*.tmp"))
    assert len(left) == (0 if moment == "after the name" else 1)  # as SIGKILL leaves it
    assert digest(fit(tmp_path)) == whole
    assert not list(tmp_path.glob("*.tmp"))


def test_what_is_compiled_for_a_kept_leg_is_what_was_compiled_for_the_whole(tmp_path, monkeypatch):
    """For few steps a program may be compiled quickly, and round otherwise: how many are left is not asked."""
    asked, chunk, keep = [], Engine.chunk, KeptLeg.keep
    monkeypatch.setattr(
        Engine, "chunk", lambda s, x, a, steps, *more: asked.append(steps) or chunk(s, x, a, steps, *more)
    )
    num_steps = FEW_STEPS + 300

    def late(leg, state, progress, ended=False):
        keep(leg, state, progress, ended)
        if progress.step >= num_steps - 200:
            raise Killed

    def fit():
        place = autovi.Checkpoint(tmp_path, seconds=0)
        return autovi.fit(regression, DATA, num_steps=num_steps, num_draws=10, checkpoint=place, progress_bar=False)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(KeptLeg, "keep", late)
        fit()
    assert fit().progress.step == num_steps
    assert set(asked) == {num_steps}


def banana(x, y):
    """What no normal follows: the ladder goes on to a flow by two legs of steps."""
    across = numpyro.sample("across", dist.Normal(0.0, 1.0))
    along = numpyro.sample("along", dist.Normal(0.0, 3.0))
    numpyro.sample("bend", dist.Normal(along - 2.0 * across**2, 0.1), obs=0.0)


@pytest.mark.slow
def test_where_the_plan_changes(tmp_path, monkeypatch):
    def climbed(folder):
        place = autovi.Checkpoint(folder, seconds=0)
        return autovi.fit(banana, DATA, checkpoint=place, progress_bar=False)

    expected = digest(climbed(tmp_path / "whole"))
    assert len(list((tmp_path / "whole").glob("*leg*"))) >= 2
    keep, next_leg = KeptLeg.keep, OnDisk.next_leg
    moments = {
        "before the first leg of the richer family": (OnDisk, "next_leg", dies),
        "as the first leg has ended": (
            KeptLeg,
            "keep",
            lambda self, state, progress, ended=False: dies() if ended else keep(self, state, progress),
        ),
        "between two legs": (OnDisk, "next_leg", lambda self: dies() if self.count == 1 else next_leg(self)),
    }
    for owner, name, changed in moments.values():
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, changed)
            with pytest.raises(Killed):
                climbed(tmp_path / "run")
    assert digest(climbed(tmp_path / "run")) == expected
