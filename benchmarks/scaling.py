"""How costs grow with a model: many sites, many branches, many groups, many rows.

    python -m benchmarks.scaling [CASE ...]

Every case runs in a process of its own, and prints seconds of CPU, peak memory and what else it counts.

- `bernoullis`: 16 enumerated Bernoulli sites; how often Python runs the model, and CPU seconds to 100 steps done.
- `scalars`: 300 scalar sites; first fit of 500 steps and 200 draws.
- `groups`: local latents of 1e3, 1e4, 1e5, 1e6 groups at batch 100; microseconds per step, and the ratio to 1e3.
- `change_point`: one scalar site of 1,000 values over 1e6 rows; peak memory.
- `draws`: three scalars over 1e6 rows; peak memory of 1,000 draws, the ELBO and the summary above that of the fit.
- `gamma`, `beta`: one site; CPU seconds to compile the chunk.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

from benchmarks.reporting import save, table


def used() -> tuple[float, float]:
    """CPU seconds of this process, and its peak memory in GB."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9


def bernoullis() -> dict:
    """16 Bernoullis in one linear predictor, each with its own site, enumerated by mean field."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    import autovi

    runs = []
    x = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    y = x[:, :4].sum(1) + 0.3

    def model(x, y):
        runs.append(None)
        z = [numpyro.sample(f"z{i}", dist.Bernoulli(0.3)) for i in range(16)]
        numpyro.sample("y", dist.Normal(x @ jnp.stack(z).astype(float), 1.0).to_event(1), obs=y)

    before = used()[0]
    autovi.fit(model, {"x": x, "y": y}, estimators={"*": "enumerate"}, num_steps=100, progress_bar=False)
    return {"cpu_s": used()[0] - before, "model_runs": len(runs)}


def scalars() -> dict:
    """300 scalar sites, as a Python loop makes them."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    import autovi

    y = np.random.default_rng(0).normal(size=300).astype(np.float32)

    def model(y):
        z = [numpyro.sample(f"z{i}", dist.Normal(0.0, 1.0)) for i in range(300)]
        numpyro.sample("y", dist.Normal(jnp.stack(z), 1.0).to_event(1), obs=y)

    before, start = used()[0], time.perf_counter()
    fit = autovi.fit(model, {"y": y}, num_steps=500, num_draws=200, progress_bar=False)
    fitted = used()[0] - before
    fit.sample(200)
    return {"cpu_s": used()[0] - before, "fit_cpu_s": fitted, "wall_s": time.perf_counter() - start}


def groups(count: int) -> dict:
    """A latent for each group of a plate, of which a step sees 100."""
    import numpyro
    import numpyro.distributions as dist

    import autovi
    from autovi.preparation import Options, prepare
    from autovi.run.stopping import CHUNK, Progress

    y = np.random.default_rng(0).normal(size=count).astype(np.float32)

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("group", len(y), subsample_size=100) as index:
            z = numpyro.sample("z", dist.Normal(mu, 1.0))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y[index])

    engine, inputs = prepare(model, {"y": y}, Options())
    start, chunk = engine.compile(inputs.traced(), 0)
    state = start(inputs.traced(), 0)[0]
    progress = Progress(100_000, 100_000)
    times = []
    for i in range(12):
        before = time.perf_counter()
        state, losses = chunk(state, inputs.traced(), progress.schedule(i * CHUNK))
        np.asarray(losses)
        times.append((time.perf_counter() - before) / CHUNK)
    assert autovi.__version__
    return {"us_per_step": 1e6 * float(np.median(times[2:]))}


def change_point() -> dict:
    """A scalar site of 1,000 values over 1e6 rows, summed out."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    import autovi

    y = np.where(np.arange(1_000_000) < 450_000, 0.5, -0.5) + np.random.default_rng(0).normal(size=1_000_000)

    def model(y):
        s = numpyro.sample("s", dist.DiscreteUniform(0, 999))
        a, b = numpyro.sample("a", dist.Normal(0, 1)), numpyro.sample("b", dist.Normal(0, 1))
        with numpyro.plate("n", len(y)):
            numpyro.sample("y", dist.Normal(jnp.where(jnp.arange(len(y)) // 1000 < s, a, b), 1.0), obs=y)

    fit = autovi.fit(model, {"y": y.astype(np.float32)}, num_steps=2, num_particles=1, progress_bar=False)
    cpu, peak = used()
    return {"cpu_s": cpu, "peak_gb": peak, "estimator": fit.plan["s"].estimator}


def draws() -> dict:
    """Three scalars, 1e6 rows: memory of the draws, the ELBO, k-hat and the summary, above that of the fit."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    import autovi

    rng = np.random.default_rng(0)
    x = rng.normal(size=1_000_000).astype(np.float32)
    y = (1 + 2 * x + rng.normal(size=x.size)).astype(np.float32)

    def model(x, y):
        a, b = numpyro.sample("a", dist.Normal(0, 5)), numpyro.sample("b", dist.Normal(0, 5))
        s = numpyro.sample("s", dist.HalfNormal(2))
        with numpyro.plate("n", len(x), subsample_size=1000) as i:
            numpyro.sample("y", dist.Normal(a + b * jnp.asarray(x)[i], s), obs=jnp.asarray(y)[i])

    fit = autovi.fit(model, {"x": x, "y": y}, num_steps=500, progress_bar=False)
    _, before = used()
    start = time.perf_counter()
    fit.sample(1000)
    sampled = time.perf_counter() - start
    _, after_sample = used()
    assert np.isfinite(fit.elbo) and fit.khat > -np.inf
    fit.summary()
    return {"sample_s": sampled, "sample_gb": after_sample - before, "all_gb": used()[1] - before}


def one_site(family: str) -> dict:
    """CPU seconds of lowering and compiling start and chunk of a model with one Gamma or Beta site."""
    import jax
    import numpyro
    import numpyro.distributions as dist

    from autovi.preparation import Options, prepare

    def model(y):
        if family == "gamma":
            z = numpyro.sample("z", dist.Gamma(2.0, 1.0))
            numpyro.sample("y", dist.Poisson(z).expand([5]).to_event(1), obs=y)
        else:
            z = numpyro.sample("z", dist.Beta(2.0, 3.0))
            numpyro.sample("y", dist.Binomial(10, z).expand([5]).to_event(1), obs=y)

    jax.numpy.zeros(1).block_until_ready()
    engine, inputs = prepare(model, {"y": np.array([3, 1, 4, 2, 2])}, Options())
    before = used()[0]
    engine.compile(inputs.traced(), 0)
    return {"compile_cpu_s": used()[0] - before}


CASES = {
    "bernoullis": bernoullis,
    "scalars": scalars,
    **{f"groups_{n}": lambda n=n: groups(n) for n in (1_000, 10_000, 100_000, 1_000_000)},
    "change_point": change_point,
    "draws": draws,
    "gamma": lambda: one_site("gamma"),
    "beta": lambda: one_site("beta"),
}


def main(argv: list[str] | None = None) -> None:
    """Runs every case asked for in a process of its own and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all of them by default")
    parser.add_argument("--child", choices=list(CASES), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if unknown := set(args.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if args.child:
        print(json.dumps(CASES[args.child]()))
        return
    results = {}
    for case in args.cases or list(CASES):
        command = [sys.executable, "-m", "benchmarks.scaling", "--child", case]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results[case] = json.loads(done.stdout.strip().splitlines()[-1])
    told = lambda figures: ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())  # noqa: E731
    print(table(["case", "figures"], [[case, told(figures)] for case, figures in results.items()]))
    print(f"\nSaved {save('scaling', results)}")


if __name__ == "__main__":
    main()
