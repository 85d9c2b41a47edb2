"""Distributions that a user writes: the routes by `cdf` and by `log_prob`, and the check before them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from implicit_checks import jit
from numpyro.distributions import constraints
from one_sided import gamma_slope
from scipy import integrate
from written_distributions import (
    Flat,
    Gap,
    HalfRayleigh,
    InverseGaussian,
    LogRayleigh,
    Rayleigh,
    ShiftedExponential,
    Spike,
    StoppedRayleigh,
    TwoPeaks,
    UndefinedGap,
    UnnormalizedRayleigh,
    WideRayleigh,
    Written,
    WrongRayleigh,
)

from autovi.implicit import dispatch
from autovi.implicit.attach import attach
from autovi.implicit.generic.by_log_prob import log_prob_velocity, tails_by_log_prob, unnormalized_velocity
from autovi.implicit.generic.rules import cdf_velocity, check, generic_rule, listed_rule


def moved(route, make, values, along, z):
    """The velocity by `route` of draws z of `make(*values)`, as its parameters move by `along`."""

    @jit
    def velocity(values, along, z):
        fn, moving = jax.jvp(make, values, along)
        return route(fn, z, moving)

    return velocity(tuple(map(jnp.asarray, values)), tuple(map(jnp.asarray, along)), z)


def test_the_check_finds_the_route_and_measures():
    assert check(Rayleigh(1.7)).route == "cdf"
    assert check(LogRayleigh(1.7)).route == "log_prob"
    stopped = check(StoppedRayleigh(1.7))
    assert stopped.route == "log_prob" and "derivative of F in its real parameter 0" in stopped.note
    inherited, wrong = check(HalfRayleigh(1.7)), check(WrongRayleigh(1.7))
    assert inherited.route == wrong.route == "log_prob"
    assert "the integral of log_prob" in inherited.note and "the integral of log_prob" in wrong.note
    for report in (stopped, inherited, wrong, check(InverseGaussian(jnp.array([0.5, 2.0]), 1.3))):
        assert report.draws < 0.05 and report.mass < 1e-5 and report.gradient < 1e-5


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (lambda: WideRayleigh(1.7), "WideRayleigh: its sample does not follow its log_prob"),
        (
            lambda: UnnormalizedRayleigh(1.7),
            "UnnormalizedRayleigh: its log_prob should integrate to 1.*unnormalized_velo",
        ),
        (lambda: Spike(0.01, 0.3), "Spike: a quadrature of its log_prob does not give.*register"),
        (lambda: TwoPeaks(1000.0, 0.3), "TwoPeaks: its density vanishes between its draws, .*score function.*register"),
        (lambda: UndefinedGap(0.4), "UndefinedGap: its density vanishes between its draws"),
        (lambda: Gap(0.4), "Gap: its density vanishes between its draws, .*score function.*register"),
    ],
)
def test_a_failed_check_says_which(fn, says):
    with pytest.raises(ValueError, match=says):
        check(fn())
    with pytest.raises(ValueError, match=says):
        dispatch.draw(jax.random.key(0), fn(), ())


def test_what_is_missing_is_said():
    class Opaque(Written):
        arg_constraints = {"scale": constraints.positive}

        def sample(self, key, sample_shape=()):
            return self.scale * self.noise(key, sample_shape)

    class Pair(Opaque):
        def __init__(self):
            self.scale = jnp.ones(())
            dist.Distribution.__init__(self, (), (2,))

    with pytest.raises(
        TypeError, match=r"Opaque: .*log_prob.*autovi.implicit.register\(Opaque, velocity=..., draw=...\)"
    ):
        generic_rule(Opaque(1.0))
    with pytest.raises(TypeError, match=r"Pair: multivariate.*autovi.implicit.factorized.*register\(Pair"):
        generic_rule(Pair())
    with pytest.raises(TypeError, match="discrete"):
        generic_rule(dist.Poisson(1.0))


def test_draws_that_a_user_wrote_have_their_gradient_inside_jit():
    """The parameters are traced: the check uses feasible values in their place."""

    @jit
    def gradient(scale):
        def mean(scale, kind):
            return jnp.mean(dispatch.draw(jax.random.key(1), kind(scale), (500, 2)))

        return [jax.value_and_grad(mean)(scale, kind) for kind in (Rayleigh, LogRayleigh, StoppedRayleigh)]

    for mean, slope in gradient(1.3):  # every draw is the scale times a noise
        np.testing.assert_allclose(slope, mean / 1.3, rtol=1e-5)

    draw = lambda scale, key: dispatch.draw(key, LogRayleigh(scale), ())  # noqa: E731
    scales, keys = jnp.array([0.4, 1.3, 7.0]), jax.random.split(jax.random.key(2), 3)
    value, slope = jax.vmap(jax.value_and_grad(draw))(scales, keys)
    np.testing.assert_allclose(slope, value / scales, rtol=1e-5)


def test_parameters_without_constraints_need_a_check_first():
    class OwnFlat(Flat):
        pass

    slope = jit(jax.grad(lambda low: jnp.sum(dispatch.draw(jax.random.key(0), OwnFlat(low, 3.0), (4,)))))
    with pytest.raises(TypeError, match="OwnFlat: .*(low|high).*autovi.implicit.check"):
        slope(1.0)
    assert check(OwnFlat(1.0, 3.0)).route == "log_prob"
    z = OwnFlat(1.0, 3.0).sample(jax.random.key(0), (4,))
    np.testing.assert_allclose(slope(1.0), jnp.sum((3 - z) / 2), rtol=1e-5)


def test_supports_that_move():
    with jax.enable_x64(True):
        z = jnp.array([2.0001, 2.3, 4.0, 30.0])
        got = moved(log_prob_velocity, ShiftedExponential, (2.0, 0.7), (1.0, 0.3), z)
        np.testing.assert_allclose(got, 1 - 0.3 * (z - 2) / 0.7, rtol=1e-9)
        u = jnp.array([1e-5, 0.2, 0.9, 0.9999])
        got = moved(log_prob_velocity, Flat, (1.0, 3.0), (1.0, 0.5), 1 + 2 * u)
        np.testing.assert_allclose(got, 1 - u + 0.5 * u, rtol=1e-9)


def inverse_gaussian_density(t, mean, shape):
    return np.exp(0.5 * np.log(shape / (2 * np.pi * t**3)) - shape * (t - mean) ** 2 / (2 * mean**2 * t))


def outer_integral(function, at, mean):
    """SciPy's integral over the side of `at` that does not hold the mean."""
    if at > mean:
        return integrate.quad(function, at, np.inf, epsabs=0, epsrel=1e-12, limit=400)[0]
    in_logs = lambda x: function(np.exp(x)) * np.exp(x)  # noqa: E731
    return integrate.quad(in_logs, np.log(at) - 12, np.log(at), epsabs=0, epsrel=1e-12, limit=400)[0]


@pytest.mark.parametrize(("bits", "tolerance"), [(64, 1e-9), (32, 1e-5)])
def test_the_log_density_route_against_scipy(bits, tolerance):
    """dz = -int s p / p with the scores of the inverse Gaussian by hand, out to draws as rare as 1e-8."""
    mean, shape = 1.5, 0.8
    z = np.array([0.03, 0.2, 0.7, 1.6, 4.0, 20.0, 60.0], np.float32).astype(float)
    scores = [
        lambda t: shape * (t - mean) / mean**3,
        lambda t: 0.5 / shape - (t - mean) ** 2 / (2 * mean**2 * t),
    ]
    with jax.enable_x64(bits == 64):
        values = jnp.asarray(z, float)
        parameters = (jnp.asarray(mean, float), jnp.asarray(shape, float))

        @jit
        def velocity(along):
            fn, tangent = jax.jvp(InverseGaussian, parameters, along)
            return log_prob_velocity(fn, values, tangent)

        below, above = jit(lambda values: tails_by_log_prob(InverseGaussian(*parameters), values))(values)
        got = [velocity(tuple(jnp.asarray(float(j == k), float) for j in range(2))) for k in range(2)]
    for i, at in enumerate(z):
        density = inverse_gaussian_density(at, mean, shape)
        sign = 1 if at > mean else -1
        for k, score in enumerate(scores):
            weighed = lambda t, score=score: score(t) * inverse_gaussian_density(t, mean, shape)  # noqa: E731
            np.testing.assert_allclose(got[k][i], sign * outer_integral(weighed, at, mean) / density, rtol=tolerance)
        mass = outer_integral(lambda t: inverse_gaussian_density(t, mean, shape), at, mean)
        np.testing.assert_allclose((above if at > mean else below)[i], mass, rtol=tolerance)


def test_poles_and_heavy_tails():
    """Against a quadrature in SciPy, and the exact derivative of a Cauchy scale, z / scale, out to 1e6 scales."""
    with jax.enable_x64(True):
        shapes = jnp.array([0.05, 0.3, 3.0])
        z = jnp.array([[1e-100, 1e-9, 0.2], [1e-30, 1e-3, 2.0], [0.01, 1.0, 12.0]])
        got = moved(log_prob_velocity, dist.Gamma, (shapes, 1.0), (jnp.ones(3), 0.0), z)
        exact = z * np.vectorize(gamma_slope)(np.log(z), shapes)
        np.testing.assert_allclose(got, exact, rtol=1e-7)
        z = jnp.array([-1e6, -30.0, -1e-3, 2.0, 4e4])
        got = moved(log_prob_velocity, dist.Cauchy, (0.0, 1.0), (0.0, 1.0), z)
        np.testing.assert_allclose(got, z, rtol=1e-7)


def test_a_density_without_its_constant():
    with jax.enable_x64(True):
        z = jnp.array([0.01, 0.5, 1.7, 3.0, 9.0])
        got = moved(unnormalized_velocity, UnnormalizedRayleigh, (1.7,), (1.0,), z)
        np.testing.assert_allclose(got, z / 1.7, rtol=1e-8)


def test_the_cdf_route_is_finite_in_every_tail():
    z = jnp.array([-40.0, -14.0, -9.0, 0.5, 9.0, 14.0, 40.0])

    @jit
    def velocity(z):
        fn, moving = jax.jvp(dist.Normal, (0.0, 1.0), (0.0, 1.0))
        return jax.jvp(lambda z: cdf_velocity(fn, z, moving), (z,), (jnp.ones_like(z),))

    value, slope = velocity(z)
    np.testing.assert_allclose(value[2:5], z[2:5], rtol=1e-5)
    assert np.isfinite(value).all() and np.isfinite(slope).all()


@pytest.mark.parametrize("route", [cdf_velocity, log_prob_velocity])
def test_second_derivatives(route):
    """z = 1 + e / rate: d2z / drate2 = 2 (z - 1) / rate^2, also batched by vmap and through jit."""

    class Exponential(ShiftedExponential):
        def cdf(self, value):
            return -jnp.expm1(-self.rate * (value - self.low))

    with jax.enable_x64(True):
        z = jnp.array([1.05, 1.8, 6.0])
        draw = lambda rate, z: attach(z, Exponential(1.0, rate), route)  # noqa: E731
        first = jit(jax.vmap(jax.grad(draw), (None, 0)))(0.7, z)
        second = jit(jax.vmap(jax.grad(jax.grad(draw)), (None, 0)))(0.7, z)
        np.testing.assert_allclose(first, -(z - 1) / 0.7, rtol=1e-9)
        np.testing.assert_allclose(second, 2 * (z - 1) / 0.49, rtol=1e-8)


def test_numpyro_classes_go_by_their_cdf_where_that_has_derivatives():
    assert listed_rule(dist.SoftLaplace(0.0, 1.0)).velocity is cdf_velocity
    assert listed_rule(dist.Beta(2.0, 3.0)).velocity is log_prob_velocity
    assert listed_rule(dist.VonMises(0.0, 2.0)).velocity is log_prob_velocity
