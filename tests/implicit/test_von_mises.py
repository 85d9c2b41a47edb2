"""Von Mises draws: the gradient of each against quadrature, expectations against closed forms, any concentration."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from as_users import jit_as_users
from implicit_checks import jit
from scipy.integrate import quad
from scipy.special import ive
from scipy.stats import kstest, vonmises

import autovi
from autovi import implicit
from autovi.implicit.circular.von_mises import angle_slope, draw_angle, envelope, propose, resultant_gap

KAPPAS = np.array([1e-3, 0.01, 0.1, 0.5, 1.1, 1.3, 2.0, 5.0, 20.0, 100.0, 1e3, 1e4])
BOUND = 5.5  # standard errors
NUM = 20_000


def exact_gap(kappa: float) -> float:
    """1 - I1/I0, of whose digits the difference loses some: 12 are left for 1e4."""
    return 1 - ive(1, kappa) / ive(0, kappa)


def exact_slope(t: float, kappa: float) -> float:
    """-dF/dkappa / p by adaptive quadrature, over the side of the draw where the integrand keeps its sign."""
    gap, sign, t = exact_gap(kappa), np.sign(t), abs(t)
    inside = 1 - np.cos(t) < gap
    far = 0.0 if inside else min(np.pi, t + 12 / np.sqrt(kappa))

    def integrand(u):
        return (gap - 2 * np.sin(u / 2) ** 2) * np.exp(2 * kappa * np.sin((t - u) / 2) * np.sin((t + u) / 2))

    return sign * quad(integrand, t, far, epsabs=0, epsrel=1e-11, limit=200)[0]


@pytest.fixture(scope="module")
def cases():
    """Angles, concentrations and slopes: draws, points beside the zero of the score, where the route changes, and the
    neighbourhood of both ends."""
    rows = []
    for i, kappa in enumerate(KAPPAS):
        drawn = vonmises.rvs(kappa, size=12, random_state=i)
        zero = 2 * np.arcsin(np.sqrt(exact_gap(kappa) / 2))
        end = min(3.1, 5 / np.sqrt(kappa))
        for t in np.float32([*drawn, zero * 0.999, -zero * 1.001, 1e-3 * end, -end]).astype(np.float64):
            rows.append((t, np.float32(kappa), exact_slope(t, float(np.float32(kappa)))))
    return np.array(rows, np.float64).T


@pytest.mark.parametrize(("dtype", "median", "worst"), [("float32", 1e-6, 1e-3), ("float64", 1e-12, 1e-9)])
def test_each_draw_against_quadrature(cases, dtype, median, worst):
    t, kappa, slope = cases
    with jax.enable_x64(dtype == "float64"):
        found = jit_as_users(angle_slope)(t.astype(dtype), kappa.astype(dtype))
    assert found.dtype == dtype
    errors = np.abs(np.asarray(found, np.float64) / slope - 1)
    assert np.median(errors) < median
    assert errors.max() < worst


def test_resultant_keeps_its_digits():
    kappa = np.float32([0.0, *KAPPAS, 1e5])
    right = [float(1 - ive(1, k) / ive(0, k)) for k in kappa[:-1].astype(float)] + [0.5e-5 * (1 + 0.25e-5)]
    np.testing.assert_allclose(jit(resultant_gap)(kappa), right, rtol=2e-6)


def batch(function, num=NUM):
    """`function(draws)` and its derivative in the concentration, each `[draws, concentrations]`, float32."""

    def values(kappa):
        return function(draw_angle(jax.random.key(1), kappa, (num, *KAPPAS.shape)))

    kappa = jnp.broadcast_to(jnp.float32(KAPPAS), (num, *KAPPAS.shape))
    return jit(lambda k: jax.jvp(values, (k,), (jnp.ones_like(k),)))(kappa)


def test_expected_gradient_at_every_concentration():
    """d E cos z / d kappa = 1 - A/kappa - A^2."""
    versine, slopes = (np.asarray(x, np.float64) for x in batch(lambda t: 2 * jnp.sin(t / 2) ** 2))
    assert np.isfinite(slopes).all()
    resultant = 1 - np.array([exact_gap(k) for k in KAPPAS])
    # 1 - A/k - A^2 with most of its leading terms gone: gap (1 + A) - A/k.
    exact = (1 - resultant) * (1 + resultant) - resultant / KAPPAS
    z = np.abs(-slopes.mean(0) - exact) / (slopes.std(0) / np.sqrt(NUM))
    assert z.max() < BOUND
    z = np.abs(versine.mean(0) - (1 - resultant)) / (versine.std(0) / np.sqrt(NUM))
    assert z.max() < BOUND


def test_no_gradient_is_infinite():
    kappa = jnp.array([0.0, 1e-30, 1e-6, 1e-3, 1.0, 1e4, 1e6], jnp.float32)
    t = jnp.array([-np.pi, -3.0, -1e-3, 0.0, 1e-20, 2.0, np.pi], jnp.float32)[:, None]
    assert np.isfinite(jit(angle_slope)(t, kappa)).all()
    along = jit(lambda k: jax.jvp(lambda k: draw_angle(jax.random.key(0), k, (1000, 7)), (k,), (jnp.ones(7),)))
    drawn, slopes = along(kappa)
    assert np.isfinite(drawn).all() and np.isfinite(slopes).all()
    np.testing.assert_allclose(slopes[:, 0], -np.sin(drawn[:, 0]), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kappa", [1e-3, 0.5, 1.15, 1.25, 2.0, 20.0, 1e3])
def test_law_of_the_draws(kappa):
    with jax.enable_x64(True):
        drawn = np.asarray(draw_angle(jax.random.key(0), jnp.float64(kappa), (NUM,)))
    assert kstest(drawn, vonmises(kappa).cdf).pvalue > 1e-6


def test_envelope_lies_above_the_density():
    """A proposal's probability to be accepted is at most 1, and 0.78 or more on average."""
    with jax.enable_x64(True):
        kappa = jnp.concatenate([jnp.zeros(1), jnp.logspace(-6, 6, 400), jnp.linspace(0.01, 3.0, 300)])
        noise = jax.random.uniform(jax.random.key(0), (5000, 701), minval=-1.0)
        _, exponent = jit(propose)(noise, kappa, *envelope(kappa))
        exponent = np.asarray(exponent)
    assert exponent.max() < 1e-9
    assert np.exp(exponent).mean(0).min() > 0.78


def test_second_derivative():
    """d^2 E cos z / d kappa^2 = -A'/kappa + A/kappa^2 - 2 A A'."""
    kappa = np.array([0.3, 2.0, 30.0])
    num = 100_000

    def first(k):
        return jax.jvp(lambda k: jnp.cos(draw_angle(jax.random.key(2), k, k.shape)), (k,), (jnp.ones_like(k),))[1]

    each = jnp.broadcast_to(jnp.float32(kappa), (num, 3))
    second = np.asarray(jit(lambda k: jax.jvp(first, (k,), (jnp.ones_like(k),))[1])(each), np.float64)
    resultant = ive(1, kappa) / ive(0, kappa)
    slope = 1 - resultant / kappa - resultant**2
    exact = -slope / kappa + resultant / kappa**2 - 2 * resultant * slope
    se = second.std(0) / np.sqrt(num)
    assert (se < 0.05 * np.abs(exact)).all()
    assert (np.abs(second.mean(0) - exact) / se).max() < BOUND


def test_location_is_explicit_and_the_circle_closes():
    loc = jnp.array([0.0, 3.1, -3.1, 50.0, -1e4])
    fn = dist.VonMises(loc, 0.7)
    draw = lambda m: implicit.sample(jax.random.key(3), dist.VonMises(m, 0.7), (5000,))  # noqa: E731
    drawn, moved = jit(lambda m: jax.jvp(draw, (m,), (m,)))(loc)
    np.testing.assert_array_equal(moved, jnp.broadcast_to(loc, drawn.shape))
    assert fn.support(drawn).all()
    resultant = ive(1, 0.7) / ive(0, 0.7)
    apart = np.cos(np.asarray(drawn, np.float64) - np.asarray(loc, np.float64))
    assert (np.abs(apart.mean(0) - resultant) / (apart.std(0) / np.sqrt(5000)) < BOUND).all()
    near = implicit.sample(jax.random.key(3), dist.VonMises(0.0, 1e8), (1000,))
    assert np.unique(near).size > 990  # no digits are lost on the way around the circle


def test_reparameterized_values_have_the_gradient_of_draws():
    def made(loc, kappa):
        return dist.VonMises(loc, kappa).expand([4]).to_event(1)

    at = (jnp.array([2.9]), jnp.array([0.3, 1.0, 3.0, 40.0]))
    along = (jnp.array([0.5]), jnp.array([1.0, 2.0, -1.0, 3.0]))

    @jit
    def both(at, along):
        drawn, slopes = jax.jvp(lambda *p: implicit.sample(jax.random.key(4), made(*p), (200,)), at, along)
        return slopes, jax.jvp(lambda *p: implicit.reparameterize(made(*p), drawn), at, along)[1]

    slopes, again = both(at, along)
    np.testing.assert_allclose(again, slopes, rtol=1e-3, atol=1e-4)


def test_vmap_and_reverse_mode():
    keys, kappa = jax.random.split(jax.random.key(5), 3), jnp.array([0.2, 2.0, 200.0])
    one = jax.jit(jax.value_and_grad(lambda k, key: jnp.sum(jnp.cos(draw_angle(key, k, (50,))))))
    together = jit(jax.vmap(one))(kappa, keys)
    apart = [one(k, key) for k, key in zip(kappa, keys, strict=True)]
    np.testing.assert_allclose(together, np.transpose(apart), rtol=1e-4)


def test_family_recovers_a_conjugate_posterior():
    """A von Mises prior and von Mises observations of known concentration: the posterior adds up their vectors."""
    prior, kappa, y = (0.5, 1.5), 2.0, np.array([2.8, -3.0, 2.5, 3.1, -2.2, 2.0], np.float32)

    def model(y):
        direction = numpyro.sample("direction", dist.VonMises(*prior))
        with numpyro.plate("n", y.size):
            numpyro.sample("y", dist.VonMises(direction, kappa), obs=y)

    fit = autovi.fit(model, {"y": y})
    choice = fit.plan.choices[0]
    assert (choice.family, choice.estimator) == ("von_mises", "implicit")
    vector = prior[1] * np.exp(1j * prior[0]) + kappa * np.exp(1j * y).sum()
    loc, log_concentration = (float(fit.params[f"direction.{n}"]) for n in ("loc", "log_concentration"))
    assert abs(np.angle(np.exp(1j * loc) / vector)) < 0.1 / np.sqrt(abs(vector))
    assert np.exp(log_concentration) == pytest.approx(abs(vector), rel=0.1)
