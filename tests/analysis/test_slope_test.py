"""The derivative that JAX gives is compared with the slope, along segments, in both precisions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.lax import stop_gradient as held

from autovi.analysis.slope_test import POINTS, coarsest, slopes_along
from tests.gradient_checks import ONCE


def found_in(fn, start=-1.0, end=2.0, size=3):
    """What is found of a function along one segment, in the precision of the moment."""
    ends = (jnp.full(size, start) * jnp.linspace(0.9, 1.1, size), jnp.full(size, end) * jnp.linspace(1.1, 0.9, size))
    both = jax.value_and_grad(lambda x: jnp.sum(fn(x)))
    eps = coarsest(jax.make_jaxpr(both)(ends[0]))
    run = jax.jit(lambda a, b: slopes_along(both, a, b, eps), compiler_options=ONCE)
    return jax.tree.map(np.asarray, run(*ends))


def with_rule(fn, slope):
    """A function whose derivative is said to be `slope`."""
    own = jax.custom_jvp(lambda x: fn(x))
    own.defjvp(lambda primals, tangents: (own(primals[0]), slope(primals[0]) * tangents[0]))
    return own


CLIPPED = with_rule(lambda x: jnp.clip(x, -0.2, 0.2), jnp.ones_like)
SQUARE = with_rule(jnp.square, lambda x: 2 * x)
ROUGH = with_rule(lambda x: jnp.round(1e7 * x) / 1e7, jnp.ones_like)

WRONG = {
    "half of a square": lambda x: held(x) * x,
    "nothing is left": lambda x: held(jnp.sin(x)),
    "a part of it": lambda x: 10 * x**2 + held(x),
    "beside an offset": lambda x: held(x**2) + 1e4,
    "at the bounds of a clip": CLIPPED,
    "too large": with_rule(jnp.square, lambda x: 3 * x),
    "of the wrong sign": with_rule(jnp.exp, lambda x: -jnp.exp(x)),
    "fine stairs": lambda x: jnp.floor(1e4 * x) / 1e4,
    "a constant with a slope": lambda x: jnp.exp(x - held(x)),
    "far from the kinks of others": lambda x: jnp.abs(x) + held(jax.nn.relu(x)),
}
RIGHT = {
    "a polynomial": lambda x: x**3 - x,
    "a rule of one's own": SQUARE,
    "log-sum-exp": lambda x: jax.nn.logsumexp(x) * jnp.ones(3),
    "softmax": lambda x: jax.nn.softmax(x) ** 2,
    "kinks": lambda x: jnp.abs(x) + jax.nn.relu(x - 0.3) - jnp.maximum(x, 0.7) + jnp.clip(x, 0.1, 0.2),
    "many kinks": lambda x: jnp.abs(jnp.sin(200 * x)),
    "a steep sigmoid": lambda x: jax.nn.sigmoid(1e5 * (x - 0.3)),
    "a step of sigmoids": lambda x: jnp.sum(jax.nn.sigmoid(300 * (x[:, None] - jnp.linspace(-1, 2, 40))), 1),
    "an exponential": lambda x: jnp.exp(20 * x),
    "quick oscillations": lambda x: jnp.sin(3000 * x),
    "an offset of a million": lambda x: 1e6 + x**2,
    "terms that cancel": lambda x: (1e5 + x) ** 2 - 1e10,
    "a jump": lambda x: jnp.where(x > 0.31, 5.0, 0.0) + x,
    "a mask": lambda x: jnp.where(jnp.array([True, False, True]), x**2, 0.0),
    "infinite outside of a support": lambda x: jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1.0)), -jnp.inf),
    "NaN outside of a support": lambda x: jnp.sqrt(x),
    "constant": lambda x: 0 * x + 3.0,
    "underflow": lambda x: jnp.exp(-((40 * x) ** 2)),
    "a cancelled constant": lambda x: (x - held(x.mean())) + held(x.mean()),
    "a derivative with the rounding of half as many digits": with_rule(jnp.square, lambda x: 2 * x * (1 + 1e-4)),
    "straight through finer stairs than single precision has": ROUGH,
}


# In single precision what stands still may be rounding, and so may what changes little beside an offset.
DOUBLE_ONLY = ("beside an offset", "at the bounds of a clip", "a constant with a slope")


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_derivative(name, double):
    with jax.enable_x64(double):
        found = found_in(WRONG[name])
    assert (found.wrong >= POINTS // 2) == (double or name not in DOUBLE_ONLY), found


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("name", RIGHT)
def test_a_right_derivative(name, double):
    with jax.enable_x64(double):
        found = found_in(RIGHT[name])
    assert found.wrong == 0, found
    assert found.known >= (1 if "outside" in name else POINTS) or not double, found


def test_it_says_slope_and_derivative_per_unit_of_length():
    with jax.enable_x64(True):
        found = found_in(lambda x: 2 * x + held(x), size=1)
        assert found.wrong == POINTS and abs(found.slope - 3.0) < 1e-8 and abs(found.derivative - 2.0) < 1e-8
        # Three elements that move together: sum x / sqrt(3) = sqrt(3) of the length.
        found = found_in(lambda x: 2 * x + held(x), start=-1.0, end=1.0)
        assert abs(found.slope / found.derivative - 1.5) < 1e-8


def test_an_element_that_hardly_moves_is_held_fixed():
    both = jax.value_and_grad(lambda x: held(x[1]) ** 2 + jnp.sin(x[0]))
    start = jnp.array([1e6, 0.0])
    found = slopes_along(both, start, start + jnp.array([1.0, 1.0]), 1e-7)
    assert found.wrong == POINTS and found.derivative == 0 and abs(found.slope - 1.0) < 0.8


def test_the_coarsest_type():
    with jax.enable_x64(True):
        mixed = lambda x: (x.astype(jnp.float32) ** 2).astype(jnp.float64)  # noqa: E731
        assert coarsest(jax.make_jaxpr(mixed)(1.0)) == np.finfo(np.float32).eps
        assert coarsest(jax.make_jaxpr(jax.jit(mixed))(1.0)) == np.finfo(np.float32).eps
        # A constant in single precision is as good as any other.
        beside = lambda x: x + jnp.ones((), jnp.float32) * 3  # noqa: E731
        assert coarsest(jax.make_jaxpr(beside)(jnp.asarray(1.0, float))) == np.finfo(np.float64).eps
