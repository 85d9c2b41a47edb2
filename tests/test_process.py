"""Compilation that is turned off, and processes that were forked."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi

ROOT = Path(__file__).resolve().parents[1]
Y = np.array([1.0, 2.0])


def model(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    numpyro.deterministic("twice", 2.0 * mu)
    numpyro.sample("y", dist.Normal(mu + numpyro.param("shift", 0.1), 1.0), obs=y)


def in_a_process_of_its_own(source: str, **environment: str) -> str:
    """What a script prints; one that hangs is an error after two minutes."""
    there = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), **environment}
    done = subprocess.run([sys.executable, "-c", source], env=there, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


FIT = """
import numpy as np, numpyro, numpyro.distributions as dist, autovi, sys

def model(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    numpyro.deterministic("twice", 2.0 * mu)
    numpyro.sample("y", dist.Normal(mu + numpyro.param("shift", 0.1), 1.0), obs=y)

def fitted():
    return autovi.fit(model, {"y": np.array([1.0, 2.0])}, num_steps=20, num_draws=40, progress_bar=False)
"""


# --- jax.disable_jit --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled():
    return autovi.fit(model, {"y": Y}, num_steps=20, num_draws=40, progress_bar=False)


@pytest.mark.slow
def test_a_fit_where_compilation_is_turned_off(compiled, tmp_path):
    autovi.clear_cache()  # nothing is left from before
    with jax.disable_jit():
        fit = autovi.fit(model, {"y": Y}, num_steps=20, num_draws=40, progress_bar=False)
        np.testing.assert_array_equal(fit.losses, compiled.losses)
        assert fit.elbo == compiled.elbo and fit.khat == compiled.khat
        for name, values in fit.sample(7).items():
            np.testing.assert_array_equal(values, compiled.sample(7)[name])
        np.testing.assert_array_equal(fit.predict(rng_key=4)["y"], compiled.predict(rng_key=4)["y"])
        assert fit.gradients == compiled.gradients and fit.params["shift"] == compiled.params["shift"]
        fit.save(tmp_path / "fit", with_data=True)
        again = autovi.load(tmp_path / "fit", model)
        assert str(again.plan) == str(fit.plan)
        assert set(again.to_arviz(groups=["observed_data"])["observed_data"].data_vars) == {"y"}
        assert jax.config.jax_disable_jit  # and the user's own code is left as it was
    assert not jax.config.jax_disable_jit


@pytest.mark.slow
def test_the_environment_variable(compiled):
    script = FIT + "fit = fitted(); print(repr(fit.elbo), repr(float(fit.sample(3)['twice'][2])))"
    expected = [repr(compiled.elbo), repr(float(compiled.sample(3)["twice"][2]))]
    assert in_a_process_of_its_own(script, JAX_DISABLE_JIT="1").split() == expected


# --- fork -------------------------------------------------------------------------------------------------------------

# A child says what it got, and ends without what JAX does at the end of a process.
CHILD = """
import os, pickle, warnings
warnings.simplefilter("ignore")  # JAX warns of every fork

def say(name, call):
    try:
        call()
        print(name, "ran", flush=True)
    except RuntimeError as error:
        print(name, "RuntimeError", str(error)[:30], "spawn" in str(error), flush=True)

def in_child(calls):
    child = os.fork()
    if child == 0:
        for name, call in calls.items():
            say(name, call)
        os._exit(0)
    os.waitpid(child, 0)
"""

AFTER = """
fit = fitted()
in_child({
    "fit": fitted,
    "plan": lambda: autovi.plan(model, {"y": np.zeros(2)}),
    "sample": lambda: fit.sample(3),
    "predict": fit.predict,
    "elbo": lambda: fit.elbo,
    "khat": lambda: fit.khat,
    "draws": lambda: fit.draws,
    "params": lambda: fit.params,
    "gradients": lambda: fit.gradients,
    "summary": fit.summary,
    "save": lambda: fit.save("nowhere/fit", with_data=True),
    "load": lambda: autovi.load("nowhere/fit", model),
    "prior": lambda: autovi.prior_predictive(model, {"y": np.zeros(2)}),
    "pickle": lambda: pickle.dumps(fit),
    "to_arviz": lambda: fit.to_arviz(groups=["observed_data"]),
})
in_child({"told": lambda: (repr(fit), fit.status, fit.message, fit.skipped_steps, fit.losses, str(fit.plan))})
say("parent", lambda: fit.sample(3))
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@needs_fork
@pytest.mark.slow
def test_after_a_fork_everything_that_computes_is_refused():
    *lines, told, last = in_a_process_of_its_own(FIT + CHILD + AFTER).splitlines()
    names = "fit plan sample predict elbo khat draws params gradients summary save load prior pickle to_arviz".split()
    assert lines == [f"{name} RuntimeError this process was forked from o True" for name in names]
    assert (told, last) == ("told ran", "parent ran")  # what is known without JAX is still said


@needs_fork
def test_arrays_that_were_put_on_the_device_count_as_use():
    script = FIT + CHILD + "import jax.numpy as jnp\nx = jnp.asarray(np.zeros(2))\nin_child({'fit': fitted})"
    assert in_a_process_of_its_own(script).startswith("fit RuntimeError this process was forked")


@needs_fork
@pytest.mark.slow
def test_a_fork_before_jax_is_used_is_fine():
    """In the child, and in the parent after it; what the child forks in turn is refused."""
    nested = "in_child({'first': lambda: (fitted().sample(3), in_child({'second': fitted}))})\nsay('parent', fitted)"
    assert [line.split()[:2] for line in in_a_process_of_its_own(FIT + CHILD + nested).splitlines()] == [
        ["second", "RuntimeError"],
        ["first", "ran"],
        ["parent", "ran"],
    ]
