"""Draws on the torus: expected gradients against sums over a grid, which are exact for smooth periodic functions."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from implicit_checks import jit
from jax.flatten_util import ravel_pytree
from scipy.special import i0e, i1e
from scipy.stats import kstest

from autovi import implicit
from autovi.implicit.circular.sine_bivariate import Sine, attach_phi, draw_pair

BOUND = 5.5  # standard errors
NUM = 40_000


def sine_density(z, phi_loc, psi_loc, phi_concentration, psi_concentration, correlation, skewness=(0.0, 0.0)):
    """The logarithm of the density without skewness, and the factor of the skewness."""
    phi, psi = z[..., 0] - phi_loc, z[..., 1] - psi_loc
    level = phi_concentration * jnp.cos(phi) + psi_concentration * jnp.cos(psi)
    factor = 1 + skewness[0] * jnp.sin(phi) + skewness[1] * jnp.sin(psi)
    return level + correlation * jnp.sin(phi) * jnp.sin(psi), factor


def independent_density(z, loc, concentration, skewness):
    return jnp.sum(concentration * jnp.cos(z - loc), -1), 1 + jnp.sum(skewness * jnp.sin(z - loc), -1)


def skewed_sine(skewness, **params):
    return dist.SineSkewed(dist.SineBivariateVonMises(**params), skewness)


def skewed(loc, concentration, skewness):
    return dist.SineSkewed(dist.VonMises(loc, concentration).to_event(1), skewness)


PLAIN = {"phi_loc": 0.3, "psi_loc": -2.0, "phi_concentration": 1.5, "psi_concentration": 2.0, "correlation": 1.2}
TWO_MODES = {**PLAIN, "phi_concentration": 1.0, "psi_concentration": 1.3, "correlation": -4.0}
THREE = {
    "loc": np.array([0.3, -2.0, 3.0]),
    "concentration": np.array([1.5, 0.7, 0.05]),
    "skewness": np.array([0.4, -0.3, 0.25]),
}
CASES = {
    "sine": (dist.SineBivariateVonMises, sine_density, PLAIN, 2),
    "sine with two modes": (dist.SineBivariateVonMises, sine_density, TWO_MODES, 2),
    "skewed sine": (skewed_sine, sine_density, {**PLAIN, "skewness": np.array([0.5, -0.4])}, 2),
    "skewed sine with two modes": (skewed_sine, sine_density, {**TWO_MODES, "skewness": np.array([-0.3, 0.6])}, 2),
    "skewed, three angles": (skewed, independent_density, THREE, 3),
}


def costs(z):
    """Smooth periodic costs along a new last axis."""
    a, b, c = z[..., 0], z[..., 1], z[..., -1]
    each = (
        jnp.cos(a - 0.3),
        jnp.sin(b + 0.5),
        jnp.cos(a - 2 * b),
        jnp.exp(jnp.sin(a + b)),
        jnp.sin(a) * jnp.cos(c + 1),
    )
    return jnp.stack(each, -1)


def exact(density, size, params):
    """E costs by sums over a grid, and its derivatives along the parameters in one vector; float64."""
    with jax.enable_x64(True):
        flat, unravel = ravel_pytree(jax.tree.map(jnp.float64, params))
        angles = np.linspace(-np.pi, np.pi, 96 if size == 2 else 32, endpoint=False)
        grid = jnp.stack(jnp.meshgrid(*[angles] * size, indexing="ij"), -1)

        def expected(flat):
            log_density, factor = density(grid, **unravel(flat))
            weights = jax.nn.softmax(log_density.ravel()).reshape(factor.shape) * factor
            return jnp.sum(weights[..., None] * costs(grid), range(size)) / jnp.sum(weights)

        return np.asarray(expected(flat)), np.asarray(jit(jax.jacfwd(expected))(flat))


def assert_mean(found, right):
    """The mean of the rows, with a standard error that would show a bias."""
    found = np.asarray(found, np.float64)
    assert np.isfinite(found).all()
    se = found.std(0) / np.sqrt(len(found))
    assert (se < 0.01 + 0.1 * np.abs(right)).all()
    assert (np.abs(found.mean(0) - right) < BOUND * se + 1e-5 * np.abs(right) + 1e-6).all(), (found.mean(0), right, se)


@pytest.mark.parametrize("name", CASES)
def test_expected_costs_and_their_gradients(name):
    make, density, params, size = CASES[name]
    mean, gradient = exact(density, size, params)
    flat, unravel = ravel_pytree(jax.tree.map(jnp.float32, params))

    @jit
    def estimates(flat):
        draw = lambda flat: costs(implicit.sample(jax.random.key(1), make(**unravel(flat)), (NUM,)))  # noqa: E731
        along = lambda direction: jax.jvp(draw, (flat,), (direction,))  # noqa: E731
        return jax.vmap(along, out_axes=(None, 0))(jnp.eye(flat.size, dtype=flat.dtype))  # draws once

    values, slopes = estimates(flat)
    assert_mean(values, mean)
    assert len(slopes) == flat.size
    for i, slope in enumerate(slopes):
        assert_mean(slope, gradient[:, i])


# --- phi alone -----------------------------------------------------------------------------------------------------

# Concentrations and correlation: spread out, one mode, two modes, at the edge between the two, a normal, one sharp.
SINES = np.array(
    [
        [0.5, 0.5, 0.3],
        [2.0, 3.0, 1.0],
        [2.0, 3.0, -8.0],
        [5.0, 5.0, 5.0],
        [10.0, 10.0, 50.0],
        [100.0, 50.0, 60.0],
        [1000.0, 300.0, -700.0],
        [5.0, 1000.0, 30.0],
        [1e-3, 1e-3, 500.0],
    ]
)


def phi_density(u, first, second, correlation):
    """log of phi's density, and its derivatives in the three parameters."""
    kappa = np.sqrt(second**2 + (correlation * np.sin(u)) ** 2)
    resultant = i1e(kappa) / i0e(kappa)
    scores = (np.cos(u), resultant * second / kappa, resultant * correlation * np.sin(u) ** 2 / kappa)
    return first * np.cos(u) + kappa + np.log(i0e(kappa)), np.stack(scores)


def phi_slopes(t, *params):
    """-dF/p in the three parameters by panels of Gauss-Legendre on both sides of |t|, F(0) = 1/2."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    at, scores_at = phi_density(abs(t), *params)
    sides = []
    for low, high in ((0.0, abs(t)), (abs(t), np.pi)):
        edges = np.linspace(low, high, 400)
        width = np.diff(edges)[:, None] / 2
        log_density, scores = phi_density(edges[:-1, None] + width * (1 + nodes), *params)
        mass = width * weights * np.exp(log_density - at)
        sides.append((mass.sum(), (mass * (scores - scores_at[:, None, None])).sum((1, 2))))
    (left, d_left), (right, d_right) = sides
    return -np.sign(t) * (d_left * right - d_right * left) / (left + right)


@pytest.fixture(scope="module")
def phis():
    """20,000 float64 draws of phi for each row of `SINES`."""
    with jax.enable_x64(True):
        draw = jax.jit(lambda sine: draw_pair(jax.random.key(0), sine, (20_000, len(SINES)))[0])
        return np.asarray(draw(Sine(*jnp.asarray(SINES.T))))


def test_law_of_phi(phis):
    """Also where the terms that NumPyro's sampler sums are too few."""
    edges = np.linspace(-np.pi, np.pi, 40_001)
    for column, params in zip(phis.T, SINES, strict=True):
        log_density = phi_density(edges, *params)[0]
        density = np.exp(log_density - log_density.max())
        below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
        assert kstest(column, lambda x: np.interp(x, edges, below / below[-1])).pvalue > 1e-6, params  # noqa: B023


@pytest.mark.parametrize(("dtype", "median", "worst"), [("float32", 1e-5, 1e-3), ("float64", 1e-12, 1e-9)])
def test_each_phi_against_quadrature(phis, dtype, median, worst):
    """In the first concentration and the correlation; errors relative to the slope or a hundredth of the usual one.

    What little the second concentration has to do with phi is a difference of larger terms, which float32 does not
    hold: there only the sum of the parameters' effects counts.
    """
    t = phis[:12].astype(dtype)
    with jax.enable_x64(dtype == "float64"):
        sine = Sine(*jnp.asarray(np.broadcast_to(SINES.T.astype(dtype)[:, None], (3, *t.shape))))

        @jax.jit
        def along(moving):
            return jax.jvp(lambda sine: attach_phi(sine, t), (sine,), (Sine(*(m * jnp.ones_like(t) for m in moving)),))[
                1
            ]

        found = np.stack([np.asarray(along(row)) for row in np.eye(3, dtype=dtype)], -1).astype(np.float64)
    right = [
        [phi_slopes(x, *p) for x, p in zip(r, SINES.astype(dtype).astype(float), strict=True)] for r in t.astype(float)
    ]
    right = np.array(right)
    errors = np.abs(found - right) / (np.abs(right) + 0.01 * np.median(np.abs(right), 0))
    checked = errors if dtype == "float64" else errors[..., [0, 2]]
    assert np.median(checked) < median
    assert checked.max() < worst
    assert errors[..., 1].max() < 0.01


# --- skewness ------------------------------------------------------------------------------------------------------


def test_skewness_of_uniform_angles():
    """E sin z_i = skewness_i / 2, at the edge of what skewness may be too."""
    skewness = jnp.array([[0.6, -0.4], [0.1, 0.2]])

    @jit
    def estimate(skewness):
        def draw(skewness):
            base = dist.Uniform(-np.pi, np.pi).expand([2, 2]).to_event(1)
            return jnp.sin(implicit.sample(jax.random.key(2), dist.SineSkewed(base, skewness), (NUM,)))

        return jax.jvp(draw, (skewness,), (jnp.ones((2, 2)),))

    values, slopes = estimate(skewness)
    assert_mean(values, skewness / 2)
    assert_mean(slopes[:, 1], np.array([0.5, 0.5]))


def test_bases_that_are_refused():
    skewness = jnp.array([0.1])
    with pytest.raises(TypeError, match="its base Normal is not one"):
        implicit.sample(jax.random.key(0), dist.SineSkewed(dist.Normal(jnp.zeros(1)).to_event(1), skewness))
    with pytest.raises(ValueError, match="covers a length of 2.0, not the circle"):
        implicit.sample(jax.random.key(0), dist.SineSkewed(dist.Uniform(-1.0, 1.0).expand([1]).to_event(1), skewness))

    def moved(low, given=None):
        base = dist.Uniform(low * jnp.ones(1), np.pi, validate_args=False).to_event(1)
        fn = dist.SineSkewed(base, skewness, validate_args=False)
        return (implicit.sample(0, fn) if given is None else implicit.reparameterize(fn, given)).sum()

    for cost in (moved, lambda low: moved(low, jnp.array([0.5]))):
        for gradient in (jax.grad(cost), jax.jit(jax.grad(cost)), jax.grad(jax.jit(cost))):
            with pytest.raises(TypeError, match="ends of a circle"):
                gradient(-np.pi)


def test_a_circle_of_another_length_has_no_draws():
    def draws(half):
        base = dist.Uniform(-half * jnp.ones(1), half * jnp.ones(1)).to_event(1)
        return implicit.sample(0, dist.SineSkewed(base, jnp.array([0.2])), (3,))

    assert np.isnan(jit(draws)(1.0)).all()
    assert np.isfinite(jit(draws)(np.pi)).all()


def test_given_uniform_angles_move_with_the_skewness():
    """p = (1 + s sin t) / 2 pi, so that dt/ds = -(dF/ds) / p = (cos t + 1) / (1 + s sin t)."""
    t, s = 0.3, 0.2
    base = dist.Uniform(-np.pi, np.pi).expand([1]).to_event(1)
    cost = lambda s: implicit.reparameterize(dist.SineSkewed(base, s[None]), jnp.array([t]))[0]  # noqa: E731
    for gradient in (jax.grad(cost), jax.jit(jax.grad(cost))):
        np.testing.assert_allclose(gradient(jnp.array(s)), (np.cos(t) + 1) / (1 + s * np.sin(t)), rtol=1e-5)


# --- shapes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["skewed sine", "skewed, three angles"])
def test_batches_wrappers_and_given_values(name):
    """Draws of a batch under `expand`, in reverse mode; the same values given have the same gradient."""
    make, _, params, size = CASES[name]
    flat, unravel = ravel_pytree(jax.tree.map(jnp.float32, params))

    def fn(flat):
        return make(**unravel(flat)).expand([4, 3]).to_event(1)

    @jit
    def gradients(flat, weights):
        draw = lambda flat: implicit.sample(jax.random.key(3), fn(flat), (5,))  # noqa: E731
        drawn, pull = jax.vjp(draw, flat)
        again = jax.vjp(lambda flat: implicit.reparameterize(fn(flat), drawn), flat)[1]
        return drawn, pull(weights)[0], again(weights)[0]

    weights = jax.random.normal(jax.random.key(4), (5, 4, 3, size))
    drawn, once, again = gradients(flat, weights)
    assert drawn.shape == weights.shape and np.unique(drawn).size == drawn.size
    assert (np.abs(drawn) <= np.float32(np.pi)).all()
    np.testing.assert_allclose(once, again, rtol=2e-4, atol=2e-4)


def test_second_derivatives_under_vmap():
    """Of one skewed angle, E sin z = skewness A / kappa, A = I1/I0: twice in kappa, and in kappa and skewness."""
    kappa, skewness = np.array([0.4, 2.0, 9.0]), np.array([0.5, -0.8, 0.9])
    resultant = i1e(kappa) / i0e(kappa)
    slope = 1 - resultant / kappa - resultant**2
    bend = -slope / kappa + resultant / kappa**2 - 2 * resultant * slope
    once = slope / kappa - resultant / kappa**2
    twice = bend / kappa - 2 * slope / kappa**2 + 2 * resultant / kappa**3

    def draw(kappa, skewness):
        fn = dist.SineSkewed(dist.VonMises(jnp.zeros(1), kappa).to_event(1), skewness[None], validate_args=False)
        return jnp.sin(implicit.sample(jax.random.key(6), fn, (NUM,))[:, 0])

    def first(kappa, skewness):
        return jax.jvp(lambda kappa: draw(kappa, skewness), (kappa,), (1.0,))[1]

    @jit
    @jax.vmap
    def second(kappa, skewness):
        return [jax.jvp(first, (kappa, skewness), along)[1] for along in ((1.0, 0.0), (0.0, 1.0))]

    found = second(jnp.float32(kappa), jnp.float32(skewness))
    assert_mean(found[0].T, skewness * twice)
    assert_mean(found[1].T, once)
