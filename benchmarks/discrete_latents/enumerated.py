"""Time per step against NumPyro's `TraceEnum_ELBO`, on the cases that it gets right: those without `scan`.

Needs funsor. Both have independent normals, one particle, Adam with one step size; all steps in one compiled loop. Fits
of up to 5,000 steps are compiled in less time where that is more than their steps would save; those
timed here are longer. NumPyro starts at the median of its prior: from its own random start it
ends with classes exchanged.
"""

from functools import partial
from typing import Any

from benchmarks.discrete_latents.base import Case

RATE = 0.01


def by_numpyro(case: Case) -> Any:
    """`run(num_steps) -> losses` of NumPyro's `SVI` with `TraceEnum_ELBO`, no discrete site in the guide."""
    import jax
    from numpyro.contrib.funsor import config_enumerate
    from numpyro.handlers import block, seed, trace
    from numpyro.infer import SVI, TraceEnum_ELBO, init_to_median
    from numpyro.infer.autoguide import AutoNormal
    from numpyro.optim import Adam

    from benchmarks.programs import Scan

    data = case.data()
    sites = trace(seed(case.model, 0)).get_trace(**data).values()
    latent = [s for s in sites if s["type"] == "sample" and not s["is_observed"]]
    discrete = [s["name"] for s in latent if s["fn"].is_discrete]
    nesting = max(len(s["cond_indep_stack"]) for s in sites if s["type"] == "sample")
    dims = max([nesting, *(-f.dim for s in sites if s["type"] == "sample" for f in s["cond_indep_stack"])])
    guide = AutoNormal(block(case.model, hide=discrete), init_loc_fn=init_to_median(num_samples=101))
    svi = SVI(config_enumerate(case.model), guide, Adam(RATE), TraceEnum_ELBO(max_plate_nesting=dims))
    state = svi.init(jax.random.key(0), **data)

    @partial(jax.jit, static_argnums=1)
    def scan(state: Any, num_steps: int) -> jax.Array:
        return jax.lax.scan(lambda s, _: svi.update(s, **data), state, length=num_steps)[1]

    return Scan(scan, state)


def measured(name: str, timed: tuple[int, int] = (6_000, 12_000)) -> dict[str, Any]:
    """Microseconds a step of both, and their mean losses after the longer run, in nats."""
    import optax

    from benchmarks.discrete_latents import CASES
    from benchmarks.programs import Fits
    from benchmarks.timing import alternating, slope

    case, found = CASES[name], {}
    options = {"guide": "mean_field", "num_particles": 1, "optimizer": optax.adam(RATE)}
    makers = {"numpyro": lambda: by_numpyro(case), "fit": lambda: Fits(case.model, case.data(), **options)}
    runs = {}
    for who, make in makers.items():
        try:
            runs[who] = make()
            found[f"{who}_loss"] = float(runs[who](timed[1])[-500:].mean())
            runs[who](timed[0])
        except Exception as error:
            runs.pop(who, None)
            found[f"{who}_failed"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    calls = {(who, n): (lambda run=run, n=n: run(n)) for who, run in runs.items() for n in timed}
    times = alternating(calls, rounds=5, seconds=30.0, limit=90.0)
    for who in runs:
        step = slope(*(times[who, n] for n in timed), timed[1] - timed[0])
        found[f"{who}_us"] = None if step is None else 1e6 * step
    return found
