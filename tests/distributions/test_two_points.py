"""Expectations at two points: against quadrature, gradients too, and at the ends of what the numbers hold."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from gradient_checks import ONCE

from autovi.distributions.densities import log_density
from autovi.distributions.two_points import POINTS, serves, two_points
from autovi.program.closed_form import entropy_of

LINE = np.linspace(-60.0, 60.0, 6001)
ANGLES = np.linspace(-np.pi, np.pi, 401)[:-1]
U, V = (x.ravel() for x in np.meshgrid(np.linspace(-45.0, 45.0, 601), np.linspace(-45.0, 45.0, 601)))


def positive():
    """Nodes and the logarithms of their weights, by the trapezoidal rule in log x."""
    return np.exp(LINE), LINE + np.log(LINE[1] - LINE[0])


def unit():
    x = 1 / (1 + np.exp(-LINE[(LINE > -36) & (LINE < 36)]))
    return x, np.log(x * (1 - x) * (LINE[1] - LINE[0]))


def circle():
    return ANGLES, np.full(400, np.log(2 * np.pi / 400))


def simplex():
    """Sticks broken at two logits."""
    (s, t), (rest, last) = ([1 / (1 + np.exp(-sign * x)) for x in (U, V)] for sign in (1, -1))
    return np.stack([s, rest * t, rest * last], -1), np.log(s * rest**2 * t * last * 0.15**2)


PAIRS = {
    "gamma": (dist.Gamma, (0.6, 1.4), dist.Gamma(2.0, 1.0), positive),
    "gamma and exponential": (dist.Gamma, (3.0, 0.4), dist.Exponential(1.7), positive),
    "gamma and chi2": (dist.Gamma, (0.9, 2.0), dist.Chi2(3.0), positive),
    "exponential": (dist.Exponential, (0.7,), dist.Gamma(2.5, 1.2), positive),
    "inverse gamma": (dist.InverseGamma, (1.6, 0.8), dist.InverseGamma(3.0, 2.0), positive),
    "log-normal": (dist.LogNormal, (0.3, 0.7), dist.LogNormal(-0.5, 1.3), positive),
    "beta": (dist.Beta, (2.0, 0.8), dist.Beta(1.0, 1.5), unit),
    "beta by its mean": (dist.BetaProportion, (0.3, 6.0), dist.Beta(0.7, 3.0), unit),
    "dirichlet": (dist.Dirichlet, (np.array([0.8, 1.5, 3.0]),), dist.Dirichlet(np.array([2.0, 0.7, 1.3])), simplex),
    "von mises": (dist.VonMises, (0.4, 2.0), dist.VonMises(-0.5, 0.7), circle),
    "nearly uniform on the circle": (dist.VonMises, (0.4, 1e-3), dist.VonMises(2.0, 3.0), circle),
}


@pytest.mark.parametrize("name", PAIRS)
def test_against_quadrature(name):
    """E_q log p and the entropy of q, with their gradients in q's parameters."""
    make, params, p, rule = PAIRS[name]
    with jax.enable_x64(True):
        x, log_weights = rule()
        params = tuple(jnp.asarray(value, float) for value in params)

        def by_quadrature(params):
            q = make(*params)
            density = log_density(q, x)
            weights = jnp.exp(density + log_weights)
            known = log_density(p, x)
            return jnp.array([jnp.sum(weights), jnp.sum(weights * known), -jnp.sum(weights * density)])

        def by_points(params):
            q = make(*params)
            return jnp.array([1.0, sum(log_density(p, x) for x in two_points(q)) / 2, entropy_of(q)])

        both = [
            jax.jit(lambda a, f=f: (f(a), jax.jacobian(f)(a)), compiler_options=ONCE)(params)
            for f in (by_quadrature, by_points)
        ]
        assert serves(make.__name__, type(p).__name__)
    for one, other in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-7)


def test_every_row_is_tried():
    tried = {make.__name__ for make, *_ in PAIRS.values()}
    assert set(POINTS) == tried | {"Normal", "MultivariateNormal", "LowRankMultivariateNormal", "Chi2"}
    chi2 = two_points(dist.Chi2(3.0))
    np.testing.assert_allclose(chi2, two_points(dist.Gamma(1.5, 0.5)), rtol=1e-6)


def test_shapes_are_those_of_draws():
    q = dist.Dirichlet(jnp.array([1.0, 2.0])).expand([4, 3]).to_event(1)
    assert [x.shape for x in two_points(q)] == [(4, 3, 2)] * 2
    assert two_points(dist.StudentT(3.0)) is None and not serves("Normal", "Gamma")


LARGE = [
    (dist.Gamma(1e6, 1e3), 0.5 * np.log(2 * np.pi * np.e * 1e6) - np.log(1e3)),
    (dist.Beta(4e6, 6e6), 0.5 * np.log(2 * np.pi * np.e * 0.24 / 1e7)),
    (dist.Dirichlet(jnp.array([4e6, 6e6])), 0.5 * np.log(2 * np.pi * np.e * 0.24 / 1e7)),
]


@pytest.mark.parametrize(("q", "normal"), LARGE, ids=lambda x: type(x).__name__)
def test_large_concentrations_in_single_precision(q, normal):
    """The entropy there is that of a normal to 1e-6; NumPyro's own of this gamma has an error of 0.5."""
    assert float(entropy_of(q)) == pytest.approx(normal, abs=2e-3)


def test_what_single_precision_cannot_hold_is_finite():
    def entropies(scale):
        betas = dist.Beta(scale * jnp.array([3.0, 0.03]), scale * jnp.array([0.05, 2.0]))
        return jnp.append(entropy_of(betas), entropy_of(dist.Dirichlet(scale * jnp.array([0.02, 3.0, 0.02]))))

    values, slopes = jax.jit(lambda x: (entropies(x), jax.jacobian(entropies)(x)), compiler_options=ONCE)(1.0)
    assert np.isfinite(values).all() and np.isfinite(slopes).all()
