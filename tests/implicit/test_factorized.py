"""Multivariate draws by their conditional distributions, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from implicit_checks import jit

from autovi.implicit.multivariate.factorized import draw_sequential, factorized, sequential

BOUND = 5.5


def explicit(p, noise):
    """z1 = e1 / rate, z2 = z1 e2^(1 / shape), z3 = z2 + scale e3: an exponential, a Weibull and a Laplace chain."""
    first = noise[..., 0] / p["rate"]
    second = first * noise[..., 1] ** (1 / p["shape"])
    return jnp.stack([first, second, second + p["scale"] * noise[..., 2]], axis=-1)


def standardize(p, z):
    """Monotone functions of the conditional distribution functions of `explicit`."""
    second = p["shape"] * jnp.log(z[..., 1] / z[..., 0])
    return jnp.stack([p["rate"] * z[..., 0], second, (z[..., 2] - z[..., 1]) / p["scale"]], axis=-1)


def conditional_of(p):
    def conditional(i, prefix):
        if i == 0:
            return dist.Exponential(p["rate"])
        return dist.Weibull(prefix[..., 0], p["shape"]) if i == 1 else dist.Laplace(prefix[..., 1], p["scale"])

    return conditional


PARAMETERS = {"rate": 1.3, "shape": 0.8, "scale": 0.6}


def exact_case():
    p = {name: jnp.asarray(value) for name, value in PARAMETERS.items()}
    noise = jnp.array([[0.3, 1.2, -0.7], [2.0, 0.1, 0.4], [0.01, 3.0, 5.0]])
    return p, noise, explicit(p, noise)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["factorized", "sequential"])
def test_first_and_second_derivatives_of_each_draw(way):
    with jax.enable_x64(True):
        p, noise, z = exact_case()

        def attached(p):
            return factorized(z, standardize, p) if way == "factorized" else sequential(z, conditional_of(p))

        for derivative in (jax.jacfwd, jax.jacrev, jax.hessian):
            got, exact = jit(derivative(attached))(p), jit(derivative(lambda p: explicit(p, noise)))(p)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10), got, exact)
        np.testing.assert_array_equal(attached(p), z)
        alone = jit(jax.vmap(lambda row: factorized(row, standardize, p)))(z)
        np.testing.assert_array_equal(alone, z)


def test_a_correlated_normal_by_its_cholesky_factor():
    """dz = dmu + dL e; one parameter for each of many draws too."""
    with jax.enable_x64(True):
        key = jax.random.key(0)
        scale = jnp.tril(jax.random.normal(key, (3, 3))) + 3 * jnp.eye(3)
        noise = jax.random.normal(key, (5, 3))
        p = {"loc": jnp.ones((5, 3)), "scale": scale}
        direction = {"loc": noise + 1, "scale": jnp.tril(jnp.ones((3, 3)))}
        draw = lambda p: p["loc"] + noise @ p["scale"].T  # noqa: E731

        def normal_scores(p, z):
            return jnp.vectorize(
                lambda x: jax.scipy.linalg.solve_triangular(p["scale"], x, lower=True), signature="(d)->(d)"
            )(z - p["loc"])

        got = jax.jvp(lambda p: factorized(draw(p), normal_scores, p), (p,), (direction,))[1]
        np.testing.assert_allclose(got, jax.jvp(draw, (p,), (direction,))[1], rtol=1e-9)


def test_what_is_wrong_is_said():
    z = jnp.ones((4, 3))
    with pytest.raises(ValueError, match=r"keep the shape \(4, 3\), and returns \(4,\)"):
        factorized(z, lambda p, z: z[..., 0] * p, 1.0)
    with pytest.raises(ValueError, match="is a scalar"):
        factorized(z[0, 0], lambda p, z: z * p, 1.0)
    with pytest.raises(TypeError, match="floating-point"):
        factorized(z, lambda p, z: (z > p).astype(int), 1.0)
    with pytest.raises(TypeError, match="conditional of coordinate 1, a Dirichlet, should be univariate"):
        sequential(z, lambda i, prefix: dist.Normal() if i == 0 else dist.Dirichlet(jnp.ones(3)))
    with pytest.raises(TypeError, match="conditional of coordinate 0 should be a distribution, not 3.0"):
        sequential(z, lambda i, prefix: 3.0)
    with pytest.raises(ValueError, match="sequential: .*is a scalar"):
        sequential(z[0, 0], lambda i, prefix: dist.Normal())
    with pytest.raises(ValueError, match="num_coordinates should be at least 1, and is 0"):
        draw_sequential(0, lambda i, prefix: dist.Normal(), 0)
    # Coordinates out of order: the matrix is not triangular, which shows only as numbers.
    wrong = jax.grad(lambda p: jnp.sum(factorized(z, lambda p, z: p * jnp.cumsum(z[..., ::-1], -1), p)))(1.0)
    assert np.isnan(wrong)


def test_draws_one_after_the_other():
    """A gamma chain, z_i ~ Gamma(a, a / z_{i-1}) with mean z_{i-1}, from z_0 ~ Gamma(a, rate): E z_i = a / rate.

    And E z_2 z_1 = E z_1^2 = (1 + 1/a) E z_0^2.
    """
    num, a, rate = 100_000, 3.0, 1.5

    def second_moment(a, rate):
        return (1 + 1 / a) * a * (a + 1) / rate**2

    @jit
    def both(key):
        def cost(a, rate):
            def conditional(i, prefix):
                return dist.Gamma(a, rate if i == 0 else a / prefix[..., -1])

            z = draw_sequential(key, conditional, 3, (num,))
            assert z.shape == (num, 3)
            return jnp.stack([z[:, 2], z[:, 2] * z[:, 1]])

        return [jax.jvp(cost, (a, rate), along)[1] for along in ((1.0, 0.0), (0.0, 1.0))]

    exact = [[1 / rate, jax.grad(second_moment)(a, rate)], [-a / rate**2, jax.grad(second_moment, 1)(a, rate)]]
    for found, expected in zip(both(jax.random.key(1)), exact, strict=True):
        found = np.asarray(found, np.float64)
        error = found.std(axis=1) / num**0.5
        assert (np.abs(found.mean(axis=1) - expected) < BOUND * error).all()
        assert (error < 0.03 * np.abs(expected)).all()
