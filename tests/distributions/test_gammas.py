"""Densities with concentrations from 1e-3 to 1e9, value and gradient in float32, against NumPyro's in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from as_users import jit_as_users
from scipy import special

from autovi.distributions.densities import log_density
from autovi.distributions.deviance import gamma_remainder

SIZE = 400
SMALL, LARGE = 1e-3, 1e9


def sizes(rng, shape):
    return 10.0 ** rng.uniform(-3, 9, shape)


def gammas(rng):
    concentration, rate = sizes(rng, SIZE), 10.0 ** rng.uniform(-3, 3, SIZE)
    return np.maximum(rng.gamma(concentration) / rate, 1e-30), concentration, rate


def inverse_gammas(rng):
    value, concentration, rate = gammas(rng)
    return np.minimum(1 / value, 1e30), concentration, rate


def chi2s(rng):
    value, concentration, _ = gammas(rng)
    return np.maximum(2 * rng.gamma(concentration), 1e-30), 2 * concentration


def betas(rng):
    first = sizes(rng, SIZE)
    near = np.clip(first * 10.0 ** rng.uniform(-1, 1, SIZE), SMALL, LARGE)
    second = np.where(rng.random(SIZE) < 0.5, sizes(rng, SIZE), near)
    return np.clip(rng.beta(first, second), 1e-30, 1 - 6e-8), first, second


def proportions(rng):
    """Up to 100: NumPyro rounds the concentrations that it makes of a mean."""
    value, first, second = betas(rng)
    first, second = np.minimum(first, 100.0), np.minimum(second, 100.0)
    value = np.clip(rng.beta(first, second), 1e-30, 1 - 6e-8)
    return value, np.clip(first / (first + second), 1e-6, 1 - 1e-6), first + second


def simplices(rng):
    shares = rng.dirichlet(5 * np.ones(5), SIZE)
    concentration = np.maximum(sizes(rng, (SIZE, 1)) * shares, SMALL)
    value = np.array([rng.dirichlet(c) for c in concentration])
    return np.maximum(value, 1e-12), concentration


def on_the_simplex(value, concentration):
    return dist.Dirichlet(concentration).log_prob(value / jnp.sum(value, -1, keepdims=True))


CASES = {
    "Gamma": (gammas, dist.Gamma, None),
    "InverseGamma": (inverse_gammas, dist.InverseGamma, None),
    "Chi2": (chi2s, dist.Chi2, None),
    "Beta": (betas, dist.Beta, None),
    "BetaProportion": (proportions, dist.BetaProportion, None),
    "Dirichlet": (simplices, dist.Dirichlet, on_the_simplex),
}


def value_and_gradients(fn, args):
    """The density at every argument, and its derivatives in each of them."""
    gradient = jax.grad(lambda *args: jnp.sum(fn(*args)), argnums=tuple(range(len(args))))
    return jax.tree.map(
        lambda x: np.asarray(x, np.float64), jit_as_users(lambda *args: (fn(*args), *gradient(*args)))(*args)
    )


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_in_float32(name):
    """Within 1e-5 of what the terms are made of; beside it, NumPyro's own is hundreds of nats off."""
    make, distribution, oracle = CASES[name]
    args = [np.asarray(x, np.float32) for x in make(np.random.default_rng(1))]
    found = value_and_gradients(lambda value, *params: log_density(distribution(*params), value), args)
    with jax.enable_x64(True):
        exact = oracle or (lambda value, *params: distribution(*params).log_prob(value))
        right = value_and_gradients(exact, [jnp.asarray(x, jnp.float64) for x in args])
    for place, (mine, theirs) in enumerate(zip(found, right, strict=True)):
        if place == 1 and name == "Dirichlet":  # a value moves within the simplex only
            mine, theirs = (g - np.sum(g * args[0], -1, keepdims=True) for g in (mine, theirs))
        seen = np.isfinite(theirs)
        assert seen.mean() > 0.99
        # Of a derivative that is itself a small difference, the digits of its terms count.
        floor = 1.0 if place == 0 else terms(name, place, args)
        error = np.abs(mine - theirs)[seen] / (np.abs(theirs) + floor)[seen]
        worst = np.unravel_index(np.argmax(error), error.shape)
        assert error.max() < 2e-5, (place, error.max(), [x[worst] for x in args], mine[worst], theirs[worst])


def terms(name, place, args):
    """The size of what a derivative is a difference of where nothing large cancels: one unit of the argument."""
    return 1 / np.abs(args[place - 1])


@pytest.mark.parametrize("name", ["Gamma", "Beta", "Dirichlet"])
def test_second_derivatives_in_float64(name):
    """Along a line in all arguments, against NumPyro's."""
    make, distribution, oracle = CASES[name]
    with jax.enable_x64(True):
        args = [jnp.asarray(x[:50], jnp.float64) for x in make(np.random.default_rng(2))]
        ways = [0.1 * x * np.random.default_rng(3).normal(size=x.shape) for x in args]
        if name == "Dirichlet":
            ways[0] = ways[0] - args[0] * jnp.sum(ways[0], -1, keepdims=True)
        mine = lambda value, *params: log_density(distribution(*params), value)  # noqa: E731
        theirs = oracle or (lambda value, *params: distribution(*params).log_prob(value))

        def curvature(fn):
            along = lambda t: fn(*(x + t * way for x, way in zip(args, ways, strict=True)))  # noqa: E731
            return jax.jvp(lambda t: jax.jvp(along, (t,), (1.0,))[1], (0.0,), (1.0,))[1]

        found, right = jit_as_users(lambda: (curvature(mine), curvature(theirs)))()
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6)


def test_at_the_edges_of_the_support():
    """A power of 0 is infinite, 1 or 0."""
    edge = [np.inf, np.log(3.0), -np.inf]
    shapes = jnp.array([0.5, 1.0, 2.0])
    np.testing.assert_allclose(log_density(dist.Gamma(shapes, 3.0), jnp.zeros(())), edge, rtol=1e-6)
    np.testing.assert_allclose(log_density(dist.Beta(shapes, 3.0), jnp.zeros(())), edge, rtol=1e-6)
    np.testing.assert_allclose(log_density(dist.Beta(3.0, shapes), jnp.ones(())), edge, rtol=1e-6)
    gradient = jax.grad(lambda x: log_density(dist.Gamma(1.0, 3.0), x))(0.0)
    assert gradient == -3.0


def test_the_remainder_of_stirlings_formula():
    a = np.concatenate([10.0 ** np.linspace(-3, 9, 200), [3.9, 4.0, 4.1, 15.9, 16.0, 16.1]])
    with np.errstate(all="ignore"):
        right = special.gammaln(a) - (a * np.log(a) - a)
    right[a > 1e3] = 0.5 * np.log(2 * np.pi / a[a > 1e3]) + 1 / (12 * a[a > 1e3])
    np.testing.assert_allclose(jit_as_users(gamma_remainder)(a.astype(np.float32)), right, rtol=1e-6, atol=5e-7)


def test_constants_keep_their_digits():
    """XLA adds up constants, and must not do so where the rounding of a sum is what counts."""
    first, value = np.float32(5e8 + 32), np.float32(0.4545)

    @jit_as_users
    def density(second):
        return log_density(dist.Beta(first, second), value)

    with jax.enable_x64(True):
        right = dist.Beta(jnp.float64(first), 6e8).log_prob(jnp.float64(value))
    assert float(density(jnp.float32(6e8))) == pytest.approx(float(right), rel=1e-5)
