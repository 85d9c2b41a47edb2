"""Log densities and their gradients in float32 against float64, over the range of the parameters.

    python -m benchmarks.densities [NAME ...] [--size 300]

For every distribution: parameters from wide ranges, a draw from each, and the density there as autovi evaluates it.
The error of a value counts relative to 1 nat and the value; that of a derivative relative to the derivative and to one
unit of what it is taken in. A density that is not finite where the exact one is counts as infinitely wrong. Printed are
the worst of all; docs/limits.md lists those worse than 1e-3.
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from autovi.distributions.densities import log_density
from benchmarks.reporting import save, table

Draw = Callable[[np.random.Generator, int], np.ndarray]
LISTED = 1e-3


def positive(low: float, high: float) -> Draw:
    """Evenly in the logarithm."""
    return lambda rng, n: 10.0 ** rng.uniform(np.log10(low), np.log10(high), n)


def real(high: float) -> Draw:
    """Either sign, evenly in the logarithm."""
    return lambda rng, n: rng.choice([-1.0, 1.0], n) * 10.0 ** rng.uniform(-3, np.log10(high), n)


def probability(rng: np.random.Generator, n: int) -> np.ndarray:
    """Evenly in the log-odds."""
    return 1 / (1 + np.exp(-rng.uniform(-9, 9, n)))


def logit(rng: np.random.Generator, n: int) -> np.ndarray:
    """Log-odds."""
    return rng.uniform(-15, 15, n)


def count(high: float) -> Draw:
    """Whole numbers, evenly in the logarithm."""
    return lambda rng, n: np.floor(10.0 ** rng.uniform(0, np.log10(high), n))


SIZE, SCALE, PLACE = positive(1e-2, 1e6), positive(1e-3, 1e3), real(1e3)

# name: (distribution of its parameters, where they come from)
CASES: dict[str, tuple[Callable, list[Draw]]] = {
    "AsymmetricLaplace": (dist.AsymmetricLaplace, [PLACE, SCALE, positive(0.1, 10)]),
    "BernoulliLogits": (dist.BernoulliLogits, [logit]),
    "BernoulliProbs": (dist.BernoulliProbs, [probability]),
    "Beta": (dist.Beta, [SIZE, SIZE]),
    "BetaBinomial": (lambda a, b: dist.BetaBinomial(a, b, 1000), [SIZE, SIZE]),
    "BetaProportion": (dist.BetaProportion, [probability, positive(0.1, 1e3)]),
    "BinomialLogits": (lambda x: dist.BinomialLogits(x, 10_000), [logit]),
    "BinomialProbs": (lambda p: dist.BinomialProbs(p, 10_000), [probability]),
    "Cauchy": (dist.Cauchy, [PLACE, SCALE]),
    "Chi2": (dist.Chi2, [SIZE]),
    "Exponential": (dist.Exponential, [SCALE]),
    "Gamma": (dist.Gamma, [SIZE, SCALE]),
    "GammaPoisson": (dist.GammaPoisson, [SIZE, SCALE]),
    "GeometricLogits": (dist.GeometricLogits, [lambda rng, n: rng.uniform(-7, 7, n)]),
    "GeometricProbs": (dist.GeometricProbs, [lambda rng, n: 1 / (1 + np.exp(-rng.uniform(-7, 7, n)))]),
    "Gompertz": (dist.Gompertz, [SCALE, SCALE]),
    "Gumbel": (dist.Gumbel, [PLACE, SCALE]),
    "HalfCauchy": (dist.HalfCauchy, [SCALE]),
    "HalfNormal": (dist.HalfNormal, [SCALE]),
    "InverseGamma": (dist.InverseGamma, [positive(1, 1e6), SCALE]),
    "Kumaraswamy": (dist.Kumaraswamy, [positive(0.1, 1e3), positive(0.1, 1e3)]),
    "Laplace": (dist.Laplace, [PLACE, SCALE]),
    "Levy": (dist.Levy, [PLACE, SCALE]),
    "LogNormal": (dist.LogNormal, [real(10), positive(1e-3, 3)]),
    "Logistic": (dist.Logistic, [PLACE, SCALE]),
    "NegativeBinomial2": (dist.NegativeBinomial2, [SCALE, SIZE]),
    "Normal": (dist.Normal, [PLACE, SCALE]),
    "Pareto": (dist.Pareto, [SCALE, positive(0.5, 1e3)]),
    "Poisson": (dist.Poisson, [positive(1e-2, 1e6)]),
    "SoftLaplace": (dist.SoftLaplace, [PLACE, SCALE]),
    "StudentT": (dist.StudentT, [positive(0.5, 1e6), PLACE, SCALE]),
    "TruncatedNormal": (lambda m, s: dist.TruncatedNormal(m, s, low=0.0, high=10.0), [real(30), positive(0.1, 10)]),
    "TruncatedCauchy": (lambda m, s: dist.TruncatedCauchy(m, s, low=0.0, high=10.0), [real(30), positive(0.1, 10)]),
    "VonMises": (dist.VonMises, [lambda rng, n: rng.uniform(-3, 3, n), positive(1e-3, 1e6)]),
    "Weibull": (dist.Weibull, [SCALE, positive(0.1, 100)]),
    "ZeroInflatedPoisson": (dist.ZeroInflatedPoisson, [probability, positive(1e-2, 1e6)]),
}


def values_of(name: str, params: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A draw from each, in double precision, as float32 has it."""
    make, _ = CASES[name]
    with jax.enable_x64(True):
        fn = make(*(jnp.asarray(p, jnp.float64) for p in params))
        if name.startswith("Truncated"):  # NumPyro's sampler fails far outside of the bounds
            return rng.uniform(0, 10, len(params[0])).astype(np.float32)
        value = np.asarray(fn.sample(jax.random.key(int(rng.integers(2**31)))))
    value = value.astype(np.float32) if value.dtype.kind == "f" else value.astype(np.int32)
    if value.dtype.kind == "f" and name not in ("Normal", "VonMises"):
        value = np.where(np.abs(value) < 1e-30, np.float32(1e-30), value)  # nothing below is a number of float32
        value = np.where(value == 1, np.float32(1 - 6e-8), value)
    inside = np.asarray(make(*map(jnp.float32, params)).support(value))
    return np.where(inside, value, np.median(value[inside])).astype(value.dtype)


def errors_of(name: str, size: int) -> dict[str, float]:
    """The largest error of the value, and of the derivatives in the value (if it is continuous) and the parameters."""
    make, draws = CASES[name]
    rng = np.random.default_rng(0)
    params = [np.asarray(np.float32(draw(rng, size))) for draw in draws]
    value = values_of(name, params, rng)
    continuous = value.dtype.kind == "f"

    def density(value: jax.Array, *params: jax.Array) -> jax.Array:
        return log_density(make(*params, validate_args=False) if name not in _LAMBDAS else make(*params), value)

    def run(dtype: type) -> list[np.ndarray]:
        args = [jnp.asarray(value, dtype if continuous else jnp.int32), *(jnp.asarray(p, dtype) for p in params)]
        taken = tuple(range(0 if continuous else 1, len(args)))
        gradient = jax.grad(lambda *a: jnp.sum(density(*a)), argnums=taken)
        return [np.asarray(x, np.float64) for x in (jax.jit(density)(*args), *jax.jit(gradient)(*args))]

    found = run(jnp.float32)
    with jax.enable_x64(True):
        right = run(jnp.float64)
    units = [np.ones(size), *(1 / np.maximum(np.abs(x), 1e-30) for x in ([value] if continuous else []) + params)]
    worst = [_worst(f, r, u) for f, r, u in zip(found, right, units, strict=True)]
    return {"value": worst[0], "gradient": max(worst[1:])}


_LAMBDAS = {name for name, (make, _) in CASES.items() if not isinstance(make, type)}


def _worst(found: np.ndarray, right: np.ndarray, unit: np.ndarray) -> float:
    seen = np.isfinite(right)
    error = np.abs(found - right)[seen] / (np.abs(right) + unit)[seen]
    return float(np.max(np.nan_to_num(error, nan=np.inf, posinf=np.inf), initial=0.0))


def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, save the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*CASES, []], help="all by default")
    parser.add_argument("--size", type=int, default=300)
    args = parser.parse_args(argv)
    found = {name: errors_of(name, args.size) for name in args.names or CASES}
    rows = [
        [name, f"{e['value']:.0e}", f"{e['gradient']:.0e}", "listed" if max(e.values()) > LISTED else ""]
        for name, e in found.items()
    ]
    print(table(["distribution", "value", "gradient", ""], rows))
    save("densities", {"size": args.size, "errors": found})


if __name__ == "__main__":
    main()
