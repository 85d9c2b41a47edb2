"""Mixtures: every draw's derivative against closed forms and SciPy, and expected gradients of all parameters."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from implicit_checks import jit
from jax.scipy.special import ndtr
from jax.scipy.stats import norm
from scipy import integrate, stats
from scipy.special import psi

from autovi import implicit
from autovi.implicit.attach import attach
from autovi.implicit.composite.mixture import draw_mixture, mixture_velocity

BOUND = 5.5  # standard errors: a false alarm has probability 4e-8


def normals(p):
    return dist.MixtureSameFamily(dist.Categorical(logits=p["logits"]), dist.Normal(p["loc"], p["scale"]))


def different(p):
    components = [dist.Normal(p["loc"][..., k], p["scale"][..., k]) for k in range(p["loc"].shape[-1])]
    return dist.MixtureGeneral(dist.Categorical(probs=jax.nn.softmax(p["logits"])), components)


def rows(p):
    """Two coordinates, independent in each component."""
    components = dist.Normal(p["loc"], p["scale"]).to_event(1)
    return dist.MixtureSameFamily(dist.Categorical(logits=p["logits"]), components)


def given(make, z):
    """p -> the values z with their gradient."""
    return lambda p: attach(z, make(p), mixture_velocity)


def three(dtype):
    values = {"logits": np.log([0.2, 0.5, 0.3]) + 1.3, "loc": [-2.0, 0.5, 3.0], "scale": [0.5, 1.0, 2.0]}
    return {name: jnp.asarray(value, dtype) for name, value in values.items()}


def rows_of_three():
    p = three(float)
    return p | {
        "loc": jnp.array([[-1.0, 0.5], [0.3, -0.4], [1.2, 2.0]]),
        "scale": jnp.array([[0.5, 1.0], [0.8, 0.6], [1.0, 1.5]]),
    }


@pytest.mark.parametrize(("bits", "tolerance"), [(64, 1e-9), (32, 1e-4)])
@pytest.mark.parametrize("make", [normals, different])
def test_each_draw_against_closed_forms(make, bits, tolerance):
    """dz = -dF / p with SciPy's normals, into both tails, where the smaller of F and 1 - F has the digits."""
    z = np.linspace(-6, 14, 41)
    with jax.enable_x64(bits == 64):
        p = three(float)
        got = jit(jax.jacobian(given(make, jnp.asarray(z, float))))(p)
    w, loc, scale = np.array([0.2, 0.5, 0.3]), np.array([-2.0, 0.5, 3.0]), np.array([0.5, 1.0, 2.0])
    each = stats.norm.pdf(z[:, None], loc, scale)
    density = (each @ w)[:, None]
    below, above = stats.norm.cdf(z[:, None], loc, scale), stats.norm.sf(z[:, None], loc, scale)
    side = np.where((below @ w)[:, None] < 0.5, -below, above)
    share = w * each / density
    np.testing.assert_allclose(
        got["logits"], w * (side - (side @ w)[:, None]) / density, rtol=tolerance, atol=tolerance
    )
    np.testing.assert_allclose(got["loc"], share, rtol=tolerance, atol=tolerance / 1e3)
    np.testing.assert_allclose(got["scale"], share * (z[:, None] - loc) / scale, rtol=tolerance, atol=tolerance / 1e3)


def test_components_without_a_differentiable_cdf_against_scipy():
    """A mixture of betas in log-odds, of which NumPyro's cdf has no derivative, and of a normal and a Gumbel."""
    a, b, w = np.array([2.0, 0.6]), np.array([3.0, 1.5]), np.array([0.4, 0.6])
    with jax.enable_x64(True):

        def betas(p):
            components = dist.Beta(p["a"], jnp.array(b)).mask(True).expand([2])
            return dist.MixtureSameFamily(dist.Categorical(probs=p["w"]), components)

        z = np.array([0.003, 0.2, 0.5, 0.97])
        got = jit(jax.jacobian(given(betas, jnp.array(z))))({"a": jnp.array(a), "w": jnp.array(w)})

        def halves(p):
            components = [dist.Normal(0.3, p["scale"]), dist.Gumbel(0.0, 2.0)]
            return dist.MixtureGeneral(dist.Categorical(probs=p["w"]), components)

        x = np.array([-3.0, -0.1, 0.2, 4.0])
        other = jit(jax.jacobian(given(halves, jnp.array(x))))({"scale": jnp.array(1.5), "w": jnp.array(w)})
    density = stats.beta.pdf(z[:, None], a, b) @ w
    for i, at in enumerate(z):
        for k in range(2):
            weighed = lambda t, a, b: (np.log(t) - psi(a) + psi(a + b)) * stats.beta.pdf(t, a, b)  # noqa: E731
            low, high, sign = (0, at, -1) if at < 0.5 else (at, 1, 1)
            moved = sign * integrate.quad(weighed, low, high, args=(a[k], b[k]), epsabs=1e-14, epsrel=1e-11)[0]
            np.testing.assert_allclose(got["a"][i, k], w[k] * moved / density[i], rtol=1e-8)
    both = stats.beta.cdf(z[:, None], a, b)
    np.testing.assert_allclose(got["w"], -(both - (both @ w)[:, None]) / density[:, None], rtol=1e-9)
    both = np.stack([stats.norm.cdf(x, 0.3, 1.5), stats.gumbel_r.cdf(x, scale=2.0)], axis=1)
    first = stats.norm.pdf(x, 0.3, 1.5)
    density = w[0] * first + w[1] * stats.gumbel_r.pdf(x, scale=2.0)
    np.testing.assert_allclose(other["w"], -(both - (both @ w)[:, None]) / density[:, None], rtol=1e-9)
    np.testing.assert_allclose(other["scale"], w[0] * first / density * (x - 0.3) / 1.5, rtol=1e-9)


def test_several_coordinates_against_the_standardization():
    """dz = -(dS/dz)^-1 dS, S written down anew, with JAX's Jacobians of it."""
    with jax.enable_x64(True):
        p = rows_of_three()
        z = jnp.array([[0.1, 0.2], [-1.5, 1.0], [2.0, 3.0], [0.5, -1.0]])

        def standardization(p, z):
            w = jax.nn.softmax(p["logits"])
            first = jnp.sum(w * ndtr((z[0] - p["loc"][:, 0]) / p["scale"][:, 0]))
            w = w * norm.pdf(z[0], p["loc"][:, 0], p["scale"][:, 0])
            second = jnp.sum(w * ndtr((z[1] - p["loc"][:, 1]) / p["scale"][:, 1])) / jnp.sum(w)
            return jnp.stack([first, second])

        got = jit(jax.jacobian(given(rows, z)))(p)
        by_parameters, by_value = jit(jax.vmap(jax.jacobian(standardization, (0, 1)), (None, 0)))(p, z)
        for name in p:
            flat = by_parameters[name].reshape(4, 2, -1)
            exact = -np.linalg.solve(by_value, flat)
            np.testing.assert_allclose(got[name].reshape(4, 2, -1), exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bits", [32, 64])
def test_gradients_of_mean_variance_and_products(bits):
    """E x, E x^2 and, of two coordinates, E x1 x2 and E x1^2 x2^2: closed forms in weights, locations and scales."""
    num = 100_000

    def moments(p):
        w, loc, scale = jax.nn.softmax(p["logits"]), p["loc"], p["scale"]
        square = loc**2 + scale**2
        if loc.ndim == 1:
            return jnp.stack([w @ loc, w @ square])
        return jnp.stack([w @ (loc[:, 0] * loc[:, 1]), w @ (square[:, 0] * square[:, 1])])

    def costs(x):
        return jnp.stack([x, x**2]) if x.ndim == 1 else jnp.stack([x[:, 0] * x[:, 1], (x[:, 0] * x[:, 1]) ** 2])

    @partial(jit, static_argnums=1)
    def along(key, make, p, directions):
        def each(direction):
            drawn = lambda p: costs(draw_mixture(key, make(p), (num,)))  # noqa: E731
            return [jax.jvp(of, (p,), (direction,))[1] for of in (drawn, moments)]

        return jax.vmap(each)(directions)  # draws once

    with jax.enable_x64(bits == 64):
        near = {"logits": jnp.array([0.3, -0.2]), "loc": jnp.array([-0.6, 0.8]), "scale": jnp.array([1.0, 0.7])}
        for make, p in ((normals, near), (different, near), (rows, rows_of_three())):
            rng = np.random.default_rng(0)
            directions = []  # one for each parameter
            for name in p:
                speed = rng.uniform(0.5, 1.5, p[name].shape) * rng.choice([-1, 1], p[name].shape)
                directions.append({**jax.tree.map(np.zeros_like, p), name: speed})
            stacked = jax.tree.map(lambda *speeds: jnp.asarray(np.stack(speeds), float), *directions)
            for name, found, exact in zip(p, *along(jax.random.key(3), make, p, stacked), strict=True):
                found = np.asarray(found, np.float64)
                assert np.isfinite(found).all()
                error = found.std(axis=1) / num**0.5
                assert (np.abs(found.mean(axis=1) - exact) < BOUND * error).all(), (make, name)
                assert (error < 0.05 * np.abs(exact).max()).all(), (make, name)


@pytest.mark.parametrize(("distance", "published"), [(0.5, 0.0006), (1.0, 0.024), (2.0, 0.916)])
def test_the_variance_grows_with_the_distance_as_published(distance, published):
    """Of the gradient of E x in the difference of the logits of two unit normals of weight 1/2, at +-distance.

    Exactly, by SciPy: x moves by -(1/4) (F_1 - F_2) / p for a unit move of one logit.
    """

    def moved(x):
        apart = stats.norm.cdf(x + distance) - stats.norm.cdf(x - distance)
        return 0.25 * apart / density(x)

    def density(x):
        return (stats.norm.pdf(x + distance) + stats.norm.pdf(x - distance)) / 2

    mean, square = (integrate.quad(lambda x, k=k: moved(x) ** k * density(x), -12, 12, limit=200)[0] for k in (1, 2))
    exact = square - mean**2
    fourth = integrate.quad(lambda x: (moved(x) - mean) ** 4 * density(x), -12, 12, limit=200)[0]
    assert abs(exact - published) < 0.06 * published + 5e-5
    num = 100_000

    @jit
    def gradient(key):
        def draws(logit):
            logits = jnp.stack([jnp.zeros(()), logit])
            return draw_mixture(
                key, normals({"logits": logits, "loc": jnp.array([-distance, distance]), "scale": 1.0}), (num,)
            )

        return jax.jvp(draws, (0.0,), (1.0,))[1]

    found = np.asarray(gradient(jax.random.key(5)), np.float64)
    assert abs(found.mean() - mean) < BOUND * (exact / num) ** 0.5
    assert abs(found.var() - exact) < BOUND * ((fourth - exact**2) / num) ** 0.5


def test_second_derivatives():
    """Against the derivative, along its own path, of -dF / p written down anew."""
    with jax.enable_x64(True):
        p = three(float)
        z = jnp.array([-2.4, 0.0, 1.4, 6.0])

        def velocity(p, z, moving):
            law = lambda p: jax.nn.softmax(p["logits"]) @ ndtr((z - p["loc"]) / p["scale"])  # noqa: E731
            density = jax.nn.softmax(p["logits"]) @ norm.pdf(z, p["loc"], p["scale"])
            return -jax.jvp(law, (p,), (moving,))[1] / density

        first = {
            "logits": jnp.array([1.0, 0.3, -0.5]),
            "loc": jnp.array([0.2, 1.0, 0.7]),
            "scale": jnp.array([0.5, -0.3, 1.0]),
        }
        second = {
            "logits": jnp.array([-0.4, 1.0, 0.2]),
            "loc": jnp.array([1.0, -0.6, 0.1]),
            "scale": jnp.array([0.1, 0.9, -0.2]),
        }
        for make in (normals, different):
            once = lambda p, make=make: jax.jvp(given(make, z), (p,), (first,))[1]  # noqa: E731
            got = jit(lambda p, once=once: jax.jvp(once, (p,), (second,))[1])(p)
            reverse = jit(jax.grad(lambda p, once=once: jnp.sum(once(p))))(p)
            exact = jit(
                jax.vmap(
                    lambda z: jax.jvp(lambda p, z: velocity(p, z, first), (p, z), (second, velocity(p, z, second)))[1]
                )
            )(z)
            np.testing.assert_allclose(got, exact, rtol=1e-8)
            np.testing.assert_allclose(sum(jnp.vdot(reverse[k], second[k]) for k in p), jnp.sum(exact), rtol=1e-8)


def test_draws_follow_the_mixture_with_its_shapes():
    p = {
        "logits": jnp.array([[0.5, -0.3, 0.1]] * 2),
        "loc": jnp.array([[-2.0, 0.5, 3.0]] * 2),
        "scale": jnp.array([0.5, 1.0, 2.0]),
    }
    num = 40_000
    law = lambda x: stats.norm.cdf(np.asarray(x)[..., None], p["loc"][0], p["scale"]) @ jax.nn.softmax(p["logits"][0])  # noqa: E731
    for make in (normals, different):
        draws = jit(lambda p, make=make: draw_mixture(jax.random.key(2), make(p), (num, 2)))(p)
        assert draws.shape == (num, 2)
        for column in np.asarray(draws, np.float64).T:
            assert stats.kstest(column, law).pvalue > 1e-7
    blocks = dist.MixtureSameFamily(
        dist.Categorical(logits=jnp.zeros(2)), dist.Normal(jnp.zeros((2, 3, 4)), 1.0).to_event(2)
    )
    value, slopes = jax.value_and_grad(lambda s: jnp.sum(draw_mixture(jax.random.key(0), blocks, (5,)) * s))(1.0)
    assert draw_mixture(jax.random.key(0), blocks, (5,)).shape == (5, 3, 4)
    np.testing.assert_allclose(value, slopes, rtol=1e-5)


@pytest.mark.parametrize("make", [normals, different])
@pytest.mark.parametrize(("bits", "representable"), [(32, 5.0), (64, 20.0)])
def test_far_components_give_large_but_finite_gradients(make, bits, representable):
    """Halfway between, x moves by (1/4) / p, as long as that is a number; at the modes by its ordinary value."""
    with jax.enable_x64(bits == 64):

        @jit
        def moved(distance):
            z = jnp.stack([0.0 * distance, distance, -distance, distance + 4])
            p = {"logits": jnp.zeros(2), "loc": jnp.stack([-distance, distance]), "scale": jnp.ones(2)}
            return jax.jacobian(given(make, z))(p)

        for distance in (representable, 300.0):
            got = moved(distance)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(got))
            np.testing.assert_allclose(got["logits"][1:3, 1], 0.25 / stats.norm.pdf(0), rtol=1e-5)
            if distance == representable:
                np.testing.assert_allclose(got["logits"][0, 1], 0.25 / stats.norm.pdf(distance), rtol=1e-4)


def test_a_weight_of_zero():
    """Its derivative is there: the first step of the component into the mixture."""
    z = jnp.array([-1.0, 0.4, 2.0])
    make = lambda p: dist.MixtureSameFamily(dist.Categorical(probs=p), dist.Normal(jnp.array([0.0, 1.0]), 1.0))  # noqa: E731
    got = jit(jax.jacobian(given(make, z)))(jnp.array([1.0, 0.0]))
    exact = -(stats.norm.cdf(z, 1.0) - stats.norm.cdf(z)) / stats.norm.pdf(z)
    np.testing.assert_allclose(got[:, 1], exact, rtol=1e-4)
    np.testing.assert_allclose(got[:, 0], 0.0, atol=1e-5)


def test_what_has_no_implicit_gradient_is_said():
    weights = dist.Categorical(logits=jnp.zeros(2))
    with pytest.raises(TypeError, match="MixtureSameFamily of Poisson: its values are discrete; enumerate"):
        implicit.sample(0, dist.MixtureSameFamily(weights, dist.Poisson(jnp.ones(2))))
    joint = dist.MixtureSameFamily(weights, dist.MultivariateNormal(jnp.zeros((2, 3)), jnp.eye(3)))
    with pytest.raises(
        TypeError, match="of MultivariateNormal: .*independent.*enumerate the component, or use the score"
    ):
        implicit.sample(0, joint)


def test_components_must_have_one_support():
    """The mean of a mixture of two uniforms moves with the weight, but no draw near a gap does: refused."""
    half = dist.Categorical(probs=jnp.array([0.5, 0.5]))
    mixed = lambda *components, **options: dist.MixtureGeneral(half, list(components), **options)  # noqa: E731
    low, high = dist.TruncatedNormal(0.0, 1.0, high=-1.0), dist.TruncatedNormal(0.0, 1.0, low=1.0)
    for fn in (
        mixed(dist.Uniform(0.0, 1.0), dist.Uniform(2.0, 3.0)),
        mixed(low, high, support=dist.constraints.real),
        mixed(dist.Uniform(0.0, jnp.array([1.0, 2.5])), dist.Uniform(0.0, 1.0)),
        mixed(dist.Gamma(2.0), dist.Normal(0.0, 1.0), support=dist.constraints.real),
    ):
        with pytest.raises(TypeError, match="MixtureGeneral: .* the same support.*use the score function"):
            implicit.sample(0, fn)
    with pytest.raises(TypeError, match="the same support, or none that is known.*use the score function"):
        jax.jit(lambda end: implicit.sample(0, mixed(dist.Uniform(0.0, end), dist.Uniform(0.0, 3.0))))(2.5)
    for fn in (
        mixed(dist.Uniform(0.0, 1.0), dist.Uniform(0.0, 1.0)),
        mixed(dist.TruncatedNormal(0.0, 1.0, low=1.0), dist.TruncatedNormal(3.0, 1.0, low=1.0)),
        mixed(dist.Gamma(2.0), dist.LogNormal(0.0, 1.0)),
    ):
        assert np.isfinite(implicit.sample(0, fn, (3,))).all()
