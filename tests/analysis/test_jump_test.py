"""The numeric jump test on functions whose continuity is known, in both directions and both precisions."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from autovi.analysis.jump_test import Jumps, jumps_between

TIMES = np.linspace(-2, 2, 60)
COUNTS = np.random.default_rng(0).poisson(3, 60)


def change_point(x: jax.Array) -> jax.Array:
    return dist.Poisson(jnp.where(TIMES < x[0], 2.0, 5.0)).log_prob(COUNTS).sum()


def gaps(x: jax.Array) -> jax.Array:
    return jnp.where(x[0] > 0.3137, 0.02, 0.0)


# Of a vector of three with elements of order one.
JUMPING: dict[str, Callable[[jax.Array], Any]] = {
    "where": lambda x: jnp.where(x[0] > 0.3, 1.0, 0.0) + x.sum(),
    "step against the slope": lambda x: 3 * x.sum() - jnp.where(x[0] > 0.3, 1.0, 0.0),
    "floor": lambda x: jnp.floor(2 * x[0] + 0.1) * x[1],
    "ceil": lambda x: jnp.ceil(x[0] * 3) + x[2] ** 2,
    "round": lambda x: jnp.round(x).sum() - x.sum(),
    "sign": lambda x: jnp.sign(x[1]),
    "remainder": lambda x: (x[0] % 0.7) ** 2,
    "argmax": lambda x: jnp.asarray([1.0, 2.0, 4.0])[jnp.argmax(x)] + x[0],
    "integer cast": lambda x: (10 * x[0]).astype(int) * 1.0,
    "change point": change_point,
    "cond": lambda x: jax.lax.cond(x[0] + x[1] > 0.1, jnp.sin, lambda t: 2 + jnp.cos(t), x[0]),
    "argsort": lambda x: (jnp.argsort(x) * jnp.asarray([1.0, 0.0, 3.0])).sum(),
    "jump of the slope's size": lambda x: jnp.where(x[0] > 0.3, 0.01, 0.0) + 0.1 * jnp.sin(x[1]),
    "jump beside a kink": lambda x: 5 * jnp.abs(x[1]) + jnp.where(x[0] > 0.3, 0.5, 0.0),
    "jump on a steep parabola": lambda x: 200 * (x**2).sum() + jnp.where(x[0] > 0.25, 1.0, 0.0),
    "far from zero": lambda x: jnp.where(x[0] + 500.0 > 500.3, 1.0, 0.0) * 3,
    "threshold of a likelihood": lambda x: dist.Normal(jnp.where(x[0] > 0.2, 1.0, -1.0), 1.0).log_prob(0.5),
    "small and alone": lambda x: {"small": gaps(x), "large": 5000 * x.sum()},
    "one of many": lambda x: (
        5000 * jnp.sin(x[0] * jnp.arange(100.0)) + jnp.where(x[0] > 0.2, 1e3, 0) * (jnp.arange(100) == 7)
    ),
    "rounded likelihood": lambda x: dist.Poisson(3.0).log_prob(jnp.floor(jnp.exp(2 * x[0]))),
}
SMOOTH: dict[str, Callable[[jax.Array], Any]] = {
    "linear": lambda x: x.sum(),
    "constant": lambda x: jnp.float32(3.0),
    "relu": lambda x: jax.nn.relu(x).sum(),
    "leaky relu": lambda x: jax.nn.leaky_relu(x),
    "abs": lambda x: 100 * jnp.abs(x).sum(),
    "clip": lambda x: jnp.clip(x, -0.5, 0.3),
    "sort": lambda x: jnp.sort(x),
    "max": lambda x: x.max() * 10,
    "triangle wave": lambda x: jnp.abs((7 * x) % 1.0 - 0.5),
    "steep sigmoid": lambda x: jax.nn.sigmoid(1000 * (x - 0.1)),
    "steeper sigmoid": lambda x: jax.nn.sigmoid(5000 * (x - 0.1)),
    "steep tanh": lambda x: jnp.tanh(300 * x.sum()),
    "sharp likelihood": lambda x: dist.Normal(x, 1e-3).log_prob(0.1),
    "sharp likelihood far from zero": lambda x: dist.Normal(x + 100.0, 1e-3).log_prob(100.1),
    "many observations": lambda x: dist.Normal(x[0], 1e-1).log_prob(jnp.linspace(-1, 1, 3000)).sum(),
    "quantile": lambda x: jnp.quantile(x, 0.4),
    "logistic regression": lambda x: dist.Bernoulli(logits=x * 50).log_prob(1),
    "fast oscillation": lambda x: jnp.sin(300 * x),
    "square root": lambda x: jnp.sqrt(jnp.abs(x)),
    "logarithm of a normal": lambda x: jnp.log(jnp.abs(x)),
    "pieces that meet": lambda x: jnp.where(x > 0.2, x**2, 0.4 * x - 0.04),
    "elu": lambda x: jax.nn.elu(x),
    "cancelling rounding": lambda x: (x + 3e3) - 3e3,
    "cancelling gammas": lambda x: jax.scipy.special.gammaln(jnp.exp(x) + 1e2) - jax.scipy.special.gammaln(1e2),
    "negative binomial": lambda x: dist.NegativeBinomial2(jnp.exp(x), 3e2).log_prob(4.0),
    "outside the support": lambda x: dist.Uniform(-0.5, 0.5).log_prob(x[0]),
    "undefined": lambda x: jnp.log(x),
    "heavy tail": lambda x: dist.StudentT(1.0, x, 1e-3).log_prob(0.1),
    "von Mises": lambda x: dist.VonMises(x, 30.0).log_prob(0.3),
    "matrix": lambda x: dist.MultivariateNormal(x, jnp.eye(3) * 1e-2).log_prob(jnp.zeros(3)),
}


def segments(dtype: str, pairs: int = 16) -> tuple[jax.Array, jax.Array]:
    draws = np.random.default_rng(3).normal(size=(2, pairs, 3))
    starts, ends = draws[0], draws[1]
    starts[0], ends[0] = (-1.03, -0.97, -1.21), (1.11, 1.02, 0.98)
    return jnp.asarray(starts, dtype), jnp.asarray(ends, dtype)


def found_in(fn: Callable[[jax.Array], Any], dtype: str, **options: Any) -> Jumps:
    with jax.enable_x64(dtype == "float64"):
        return jumps_between(fn, *segments(dtype), **options)


# Also in float64: what depends on rounding, and one of each other kind.
ALSO_IN_64 = (
    "where round argmax cond relu sort undefined".split()
    + [
        "change point",
        "jump on a steep parabola",
        "small and alone",
        "far from zero",
        "step against the slope",
    ]
    + [
        "steeper sigmoid",
        "sharp likelihood",
        "sharp likelihood far from zero",
        "fast oscillation",
        "square root",
    ]
    + ["cancelling rounding", "cancelling gammas", "logistic regression", "outside the support"]
)


def both_precisions(names: Iterable[str]) -> list[tuple[str, str]]:
    return [(n, "float32") for n in names] + [(n, "float64") for n in names if n in ALSO_IN_64]


@pytest.mark.parametrize(("name", "dtype"), both_precisions(JUMPING))
def test_jumps_are_found(name: str, dtype: str) -> None:
    assert found_in(JUMPING[name], dtype).found.any()


def test_float64_settles_what_is_rounding() -> None:
    def staircase(x: jax.Array) -> jax.Array:
        return jax.scipy.special.gammaln(jnp.exp(x) + 1e4) - jax.scipy.special.gammaln(1e4)

    assert found_in(staircase, "float32").found.any()
    assert not found_in(staircase, "float64").found.any()


@pytest.mark.parametrize(("name", "dtype"), both_precisions(SMOOTH))
def test_continuous_functions_pass(name: str, dtype: str) -> None:
    result = found_in(SMOOTH[name], dtype)
    assert not result.found.any(), result


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_crossing_is_found_and_no_other(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        starts, ends = map(np.asarray, segments(dtype, 64))
        found = jumps_between(lambda x: jnp.where(x[0] > 0.3, 1.0, 0.0) + x.sum(), starts, ends)
    found = Jumps(*map(np.asarray, found))
    place = (0.3 - starts[:, 0]) / (ends - starts)[:, 0]
    searched = (place > 1 / 32) & (place < 31 / 32)
    np.testing.assert_array_equal(found.found, searched)
    np.testing.assert_allclose(found.size[searched], 1.0, atol=1e-4)
    np.testing.assert_allclose(found.location[searched], place[searched], atol=1e-5)
    assert (found.size[~searched] == 0).all()


def test_the_jumping_term_is_named_among_large_ones() -> None:
    def terms(x: jax.Array) -> dict[str, jax.Array]:
        return {"large": 5000 * jnp.cos(x * jnp.arange(1, 4)), "step": jnp.where(x[0] > 0.1, 0.02, 0.0)}

    found = jumps_between(terms, -jnp.ones((1, 3)), jnp.ones((1, 3)))
    assert found.found[0] and found.term[0] == 3
    np.testing.assert_allclose(found.size, 0.02, rtol=1e-4)


def test_values_of_any_shape_compiled_and_in_batches() -> None:
    def fn(x: jax.Array) -> jax.Array:
        return jnp.floor(x.sum())

    starts, ends = jnp.zeros((5, 2, 2)), jnp.ones((5, 2, 2))
    whole = jumps_between(fn, starts, ends)
    compiled = jax.jit(lambda a, b: jumps_between(fn, a, b, batch_size=2))(starts, ends)
    assert whole.found.all() and whole.found.shape == (5,)
    np.testing.assert_allclose(compiled.location, whole.location, atol=1e-5)
    assert jumps_between(fn, jnp.zeros(4), jnp.ones(4) * 3.3).found.all()  # scalars
    assert not jumps_between(fn, starts[:0], ends[:0]).found.any()
    assert not jumps_between(lambda x: {}, starts, ends).found.any()


def test_draws_that_agree_in_some_elements() -> None:
    starts = jnp.asarray([[1000.0, 0.0], [1000.0, 0.0]])
    ends = jnp.asarray([[1000.0, 1.0], [1000.001, 1.0]])
    sharp = jumps_between(lambda x: dist.Normal(x[0], 1e-3).log_prob(999.0) + x[1], starts, ends)
    assert not sharp.found.any()
    assert jumps_between(lambda x: x[0] + jnp.where(x[1] > 0.4, 1.0, 0.0), starts, ends).found.all()


@pytest.mark.parametrize(
    ("starts", "ends", "options", "error", "message"),
    [
        (jnp.zeros((2, 3)), jnp.zeros(2), {}, ValueError, "of one shape"),
        (jnp.zeros((2, 3), int), jnp.ones((2, 3), int), {}, TypeError, "floating-point values"),
        (jnp.zeros((2, 3)), jnp.ones((2, 3)), {"num_points": 5}, ValueError, "num_points: expected at least 8"),
    ],
)
def test_wrong_arguments(starts: Any, ends: Any, options: dict[str, int], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        jumps_between(lambda x: x, starts, ends, **options)


def test_terms_must_be_floating_point() -> None:
    with pytest.raises(TypeError, match="floating-point terms"):
        jumps_between(lambda x: x > 0, jnp.zeros((2, 3)), jnp.ones((2, 3)))
