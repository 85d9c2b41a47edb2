"""The draws whose gradients are timed and checked: one distribution a row, by NumPyro, by TFP and by autovi."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

Draw = Callable[[dict[str, Any], jax.Array, int], jax.Array]  # (parameters, key, number) -> draws


@dataclass(frozen=True)
class Case:
    """One row: `make` and `tfp` build the distribution from the parameters, of which all are differentiated.

    `against` names the program that the target compares with, `at_least` how many times faster than it autovi is to
    be; `variance` the gradient's variance that it may have at most, as a part of NumPyro's, and of which parameter, for
    the expectation of `cost`: the ratio depends on that.
    """

    parameters: dict[str, Any]
    make: Callable[..., Any]
    tfp: Callable[..., Any] | None = None
    against: str = "NumPyro"
    at_least: float = 1.0
    variance: tuple[str, float] | None = None
    cost: Callable[[jax.Array], jax.Array] = lambda z: z


def _mixture(logit: Any, loc: Any, scale: Any) -> Any:
    components = dist.Normal(jnp.stack([-loc, loc]), jnp.stack([scale, scale]))
    return dist.MixtureSameFamily(dist.Categorical(logits=jnp.stack([logit, 0.0])), components)


def _tfp_mixture(tfd: Any, logit: Any, loc: Any, scale: Any) -> Any:
    components = tfd.Normal(jnp.stack([-loc, loc]), jnp.stack([scale, scale]))
    weights = tfd.Categorical(logits=jnp.stack([logit, 0.0]))
    return tfd.MixtureSameFamily(weights, components, reparameterize=True)


CASES: dict[str, Case] = {
    "Gamma(5)": Case(
        {"concentration": 5.0}, dist.Gamma, lambda tfd, concentration: tfd.Gamma(concentration, 1.0), at_least=15
    ),
    "Gamma(0.3)": Case(
        {"concentration": 0.3}, dist.Gamma, lambda tfd, concentration: tfd.Gamma(concentration, 1.0), at_least=10
    ),
    "Beta(2, 3)": Case(
        {"concentration1": 2.0, "concentration0": 3.0},
        dist.Beta,
        lambda tfd, concentration1, concentration0: tfd.Beta(concentration1, concentration0),
        at_least=12,
        variance=("concentration1", 0.55),
    ),
    "StudentT(6)": Case(
        {"df": 6.0},
        dist.StudentT,
        lambda tfd, df: tfd.StudentT(df, 0.0, 1.0),
        at_least=12,
        variance=("df", 0.15),
        cost=lambda z: 1 / (1 + z * z),
    ),
    "Dirichlet(5, 5, 5)": Case(
        {"concentration": jnp.full(3, 5.0)},
        dist.Dirichlet,
        lambda tfd, concentration: tfd.Dirichlet(concentration),
        at_least=10,
    ),
    "Dirichlet of 5 elements": Case(
        {"concentration": jnp.linspace(0.5, 2.5, 5)},
        dist.Dirichlet,
        lambda tfd, concentration: tfd.Dirichlet(concentration),
        at_least=10,
    ),
    "VonMises(2)": Case(
        {"concentration": 2.0},
        lambda concentration: dist.VonMises(0.0, concentration),
        lambda tfd, concentration: tfd.VonMises(0.0, concentration),
        against="TFP",
        at_least=1 / 1.5,
    ),
    "two-normal mixture": Case(
        {"logit": 0.3, "loc": 1.0, "scale": 1.0}, _mixture, _tfp_mixture, against="TFP", at_least=1 / 1.5
    ),
}


def by_numpyro(case: Case) -> Draw | None:
    """NumPyro's own sampler; None where it has no gradient, or a wrong one."""
    if case.against == "TFP":
        return None
    return lambda parameters, key, number: case.make(**parameters).sample(key, (number,))


def by_autovi(case: Case) -> Draw:
    """`autovi.implicit.sample`."""
    from autovi import implicit

    return lambda parameters, key, number: implicit.sample(key, case.make(**parameters), (number,))


def by_tfp(case: Case) -> Draw | None:
    """TFP's sampler on its JAX substrate; None where that is not installed."""
    try:
        from tensorflow_probability.substrates.jax import distributions as tfd
    except ImportError:
        return None
    build = case.tfp
    if build is None:
        return None
    return lambda parameters, key, number: build(tfd, **parameters).sample(number, seed=key)


PROGRAMS: dict[str, Callable[[Case], Draw | None]] = {"NumPyro": by_numpyro, "TFP": by_tfp, "autovi": by_autovi}
