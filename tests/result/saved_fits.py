"""Fits of many kinds whose files every later version reads. Before a release its own files are added:

    python tests/result/saved_fits.py

writes tests/result/saved/VERSION/: a file for each case, and numbers.json with what the fits said. Files of a released
version are never written again. A case that is added here is read from the versions that have it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax

import autovi

SAVED = Path(__file__).parent / "saved"
NUM_DRAWS = 4000
RNG = np.random.default_rng(0)
X = RNG.normal(size=24).astype(np.float32)
Y = (1 + 2 * X + RNG.normal(size=24)).astype(np.float32)
COUNTS = RNG.poisson(3.0, size=24)
EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], np.float32)
SCALES = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], np.float32)


def regression(x, y=None):
    a = numpyro.sample("a", dist.Normal(0.0, 10.0))
    b = numpyro.sample("b", dist.Normal(0.0, 10.0))
    scale = numpyro.sample("scale", dist.HalfNormal(5.0))
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("y", dist.Normal(a + b * x, scale), obs=y)


def regression_guide(x, y=None):
    a = numpyro.param("a_loc", 0.0)
    numpyro.sample("a", dist.Normal(a, numpyro.param("a_scale", 0.5, constraint=dist.constraints.positive)))
    numpyro.sample("b", dist.Normal(numpyro.param("b_loc", 0.0), 0.2))
    numpyro.sample("scale", dist.LogNormal(numpyro.param("scale_loc", 0.0), 0.1))


def schools(effects):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", 8):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("effect", dist.Normal(theta, jnp.asarray(SCALES)), obs=effects)


def own_effects(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    with numpyro.plate("row", 24) as i:
        own = numpyro.sample("own", dist.Normal(mu, 1.0))
        numpyro.sample("y", dist.Normal(own, 1.0), obs=y[i])


def mixture(y):
    weight = numpyro.sample("weight", dist.Beta(2.0, 2.0))
    means = numpyro.sample("means", dist.Normal(jnp.array([-2.0, 3.0]), 1.0).to_event(1))
    with numpyro.plate("row", y.shape[0]):
        z = numpyro.sample("z", dist.Bernoulli(weight))
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)


def counts(y):
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    k = numpyro.sample("k", dist.Poisson(3.0))
    with numpyro.plate("row", y.shape[0]):
        numpyro.sample("y", dist.Poisson(rate + 0.1 * k), obs=y)


LINE, STEPS = {"x": X, "y": Y}, {"num_steps": 300}
SCORE = {"k": {"estimator": "score", "baseline": "moving_average"}}
# name -> (model, data, options of the fit, what `load` is told besides)
CASES = {
    "mean_field": (regression, LINE, {**STEPS, "guide": "mean_field"}, {}),
    "low_rank": (regression, LINE, {**STEPS, "guide": "low_rank"}, {}),
    "full_rank": (regression, LINE, {**STEPS, "guide": "full_rank", "num_particles": 2}, {}),
    "flow": (regression, LINE, {**STEPS, "guide": "flow"}, {}),
    "ladder": (schools, {"effects": EFFECTS}, {}, {}),
    "rows": (own_effects, {"y": Y}, {**STEPS, "batch_size": 6}, {}),
    "summed_out": (mixture, {"y": Y}, {}, {}),
    "score": (counts, {"y": COUNTS}, {**STEPS, "estimators": SCORE, "num_restarts": 2}, {}),
    "guide_function": (regression, LINE, {**STEPS, "guide": regression_guide}, {"guide": regression_guide}),
    "importance_weighted": (regression, LINE, {**STEPS, "objective": "iwae", "num_particles": 4}, {}),
    "own_optimizer": (regression, LINE, {**STEPS, "optimizer": optax.adam(0.05)}, {}),
    "float64": (regression, LINE, {**STEPS, "guide": "mean_field"}, {}),
}


def fitted(name):
    """The fit of a case."""
    model, data, options, _ = CASES[name]
    return autovi.fit(model, data, rng_key=7, num_draws=200, progress_bar=False, **options)


def numbers_of(fit):
    """What a file is held against: parameters, ELBO, and means and sds of draws of q of what needs no data."""
    drawn = {n: v.astype(np.float64) for n, v in fit.sample(NUM_DRAWS, rng_key=1, resample=False).items()}
    return {
        "params": {n: np.asarray(p, np.float64).tolist() for n, p in fit.params.items()},
        "elbo": [fit.elbo, fit.elbo_se],
        "mean": {n: v.mean(0).tolist() for n, v in drawn.items()},
        "sd": {n: v.std(0).tolist() for n, v in drawn.items()},
    }


def write(name, folder):
    """The file of a case, and its numbers."""
    fit = fitted(name)
    fit.save(folder / f"{name}.autovi")
    return numbers_of(fit)


def main():
    folder = SAVED / autovi.__version__
    if len(sys.argv) == 3:  # of a case whose precision is that of a process
        print(json.dumps(write(sys.argv[1], Path(sys.argv[2]))))
        return
    folder.mkdir(parents=True)  # an error where it is there: these files are what that version wrote
    numbers = {name: write(name, folder) for name in CASES if name != "float64"}
    command, precise = [sys.executable, __file__, "float64", str(folder)], {**os.environ, "JAX_ENABLE_X64": "1"}
    numbers["float64"] = json.loads(subprocess.run(command, env=precise, check=True, stdout=subprocess.PIPE).stdout)
    (folder / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
