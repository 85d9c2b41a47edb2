"""Truncated densities in float32 against quadrature in float64, however far out and narrow."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from as_users import jit_as_users
from scipy import stats

from autovi.distributions.densities import log_density

BASES = {
    "Normal": (dist.Normal, stats.norm),
    "Laplace": (dist.Laplace, stats.laplace),
    "Logistic": (dist.Logistic, stats.logistic),
    "Cauchy": (dist.Cauchy, stats.cauchy),
}
NODES, WEIGHTS = np.polynomial.legendre.leggauss(60)


def log_mass(law, low, high):
    """log of the integral of the density, relative to its highest value there, by panels that halve towards that."""
    near = np.clip(0.0, low, high)
    total = 0.0
    for end in (low, high):
        length = end - near
        edges = near + length * np.concatenate([[0.0], 2.0 ** np.arange(-40, 1)])
        for a, b in zip(edges[:-1], edges[1:], strict=True):
            x = a + (b - a) * (1 + NODES) / 2
            total += np.sum(np.exp(law.logpdf(x) - law.logpdf(near)) * WEIGHTS) * abs(b - a) / 2
    return law.logpdf(near) + np.log(total)


def exact(law, value, loc, scale, low, high):
    """The log density, its one-sided bounds at 1e6 scales."""
    below, above = (low - loc) / scale, (high - loc) / scale
    below, above = max(below, -1e6), min(above, 1e6)
    return law.logpdf((value - loc) / scale) - np.log(scale) - log_mass(law, below, above)


# (value, loc, scale, low, high)
POINTS = [
    (0.3, 0.0, 1.0, -1.0, 2.0),
    (0.01, -2.1, 0.3, 0.0, 10.0),  # 7 scales outside
    (0.01, -12.0, 0.3, 0.0, 10.0),  # 40
    (9.99, 30.0, 0.5, 0.0, 10.0),  # the same on the other side
    (0.50004, -3.0, 0.7, 0.5, 0.5001),  # narrow, and outside
    (0.50004, 0.5, 0.7, 0.5, 0.5001),
    (2.3, 0.4, 1.3, 2.0, np.inf),
    (9.0, 0.4, 0.2, 8.9, np.inf),
    (-2.3, 0.4, 1.3, -np.inf, -2.0),
    (1.3, 0.4, 1.3, -np.inf, 2.0),
    (-1.3, 0.4, 1.3, -2.0, np.inf),
    (0.2, 0.4, 1.3, -np.inf, np.inf),
]


def distribution(base, loc, scale, low, high):
    fn = base(loc, scale, validate_args=False)
    if np.isneginf(low) and np.isfinite(high):
        return dist.RightTruncatedDistribution(fn, high, validate_args=False)
    if np.isposinf(high) and np.isfinite(low):
        return dist.LeftTruncatedDistribution(fn, low, validate_args=False)
    return dist.TwoSidedTruncatedDistribution(fn, low, high, validate_args=False)


def values_and_slopes(base, points):
    """Of points whose bounds are infinite on the same sides: one compilation."""
    low_at_infinity, high_at_infinity = (bool(np.isinf(points[0][place])) for place in (3, 4))

    def density(value, loc, scale, low, high):
        made = distribution(base, loc, scale, *points[0][3:])
        made = made if low_at_infinity else _with(made, low=low)
        made = made if high_at_infinity else _with(made, high=high)
        return log_density(made, value)

    every = jit_as_users(jax.vmap(jax.value_and_grad(density, argnums=(0, 1, 2, 3, 4))))
    return every(*np.asarray(points, np.float32).T)


@pytest.mark.parametrize("name", BASES)
def test_value_and_gradient_in_float32(name):
    """Value, and derivatives in value, location, scale and bounds, by differences of the exact density."""
    base, law = BASES[name]
    alike = {}
    for point in POINTS:
        alike.setdefault((np.isinf(point[3]), np.isinf(point[4])), []).append([float(np.float32(x)) for x in point])
    for points in alike.values():
        values, slopes = values_and_slopes(base, points)
        for i, point in enumerate(points):
            check_point(law, point, float(values[i]), [float(slope[i]) for slope in slopes])


def check_point(law, point, found, slopes):
    _, _, scale, low, high = point
    assert found == pytest.approx(exact(law, *point), rel=2e-5, abs=2e-5), point
    for place, slope in enumerate(slopes):
        if np.isinf(point[place]):
            continue
        width = high - low if np.isfinite(high - low) else scale
        step = 1e-4 * (min(width, scale) if place != 2 else scale)
        moved = [[x + k * step * (i == place) for i, x in enumerate(point)] for k in (-2, -1, 1, 2)]
        values = [exact(law, *m) for m in moved]
        difference = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
        lost = 2e-4 / scale + 1e-6 / width  # of two derivatives of 1 / width each
        assert slope == pytest.approx(difference, rel=1e-3, abs=lost), (point, place)


def _with(fn, **bounds):
    leaves, tree = jax.tree.flatten(fn)
    made = jax.tree.unflatten(tree, leaves)
    for name, bound in bounds.items():
        setattr(made, name, bound)
    return made


def test_every_distance_from_the_bounds():
    """No gap between the ways to compute a tail."""
    loc = np.linspace(-40.0, 0.0, 4001)
    fn = dist.TwoSidedTruncatedDistribution(dist.Normal(loc.astype(np.float32), 1.0), 0.0, 3.0)
    right = [exact(stats.norm, 0.1, m, 1.0, 0.0, 3.0) for m in loc[::40]]
    density, slope = jit_as_users(jax.vmap(jax.value_and_grad(_density)))(jnp.asarray(loc, jnp.float32))
    np.testing.assert_allclose(density[::40], right, rtol=1e-5, atol=1e-5)
    # Differences of the density as it is in float32, over a tenth.
    rise = (np.asarray(density[10:]) - density[:-10]) / (loc[10:] - loc[:-10])
    np.testing.assert_allclose(slope[5:-5], rise, atol=2e-3)
    assert fn.batch_shape == density.shape


def _density(loc):
    return log_density(dist.TwoSidedTruncatedDistribution(dist.Normal(loc, 1.0), 0.0, 3.0), 0.1)


def test_a_base_without_a_formula_is_numpyros():
    fn = dist.LeftTruncatedDistribution(dist.StudentT(3.0, 0.5, 1.3), jnp.array([0.2, 1.0]))
    np.testing.assert_allclose(log_density(fn, 1.4), fn.log_prob(1.4), rtol=1e-6)


@pytest.mark.parametrize("name", BASES)
def test_shapes(name):
    base, _ = BASES[name]
    fn = dist.TwoSidedTruncatedDistribution(base(jnp.zeros((3, 1)), 1.0), -1.0, jnp.array([0.5, 2.0]))
    low, high = -jnp.ones((3, 2)), jnp.array([[0.5, 2.0]] * 3)
    whole = dist.TwoSidedTruncatedDistribution(base(jnp.zeros((3, 2)), 1.0), low, high)
    value = jnp.array([0.1, 0.2])
    right = whole.log_prob(value)
    np.testing.assert_allclose(log_density(fn, value), right, rtol=1e-5)
    np.testing.assert_allclose(log_density(fn.expand((4, 3, 2)), value), jnp.broadcast_to(right, (4, 3, 2)), rtol=1e-5)
