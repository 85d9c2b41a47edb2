"""Families that are maps of standard normal noise: exact inverse, log determinant and log q, normals held exactly,
gradients at extreme parameters."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_checks import ONCE
from scipy import stats

from autovi.distributions.layouts import Above, Index, Level, Structure
from autovi.distributions.noise import Mapped, from_noise
from autovi.families import FAMILIES
from autovi.families.base import Layout, NoiseFamily

once = partial(jax.jit, compiler_options=ONCE)
MAPS = [name for name, family in FAMILIES.items() if issubclass(family, NoiseFamily)]
# Three coordinates in common, scattered; five elements of two coordinates each, first all first ones and then all
# second ones; under each of them three elements of one coordinate, given the element's noise.
STRUCTURE = Structure(
    Index([1, 0, 15]),
    (
        Level(Index(np.stack([2 + np.arange(5), 7 + np.arange(5)], 1))),
        Level(Index([[i] for i in (12, 13, 14, *range(16, 28))]), (Above(0, Index(np.tile(np.arange(5), 3))),)),
    ),
)
SIZE = STRUCTURE.size
LAYOUT = Layout((), (SIZE,), structure=STRUCTURE)


def moved(name, amount=0.4, seed=0, dtype=jnp.float32):
    """A member that is not normal: every parameter away from where it starts, matrices by as much as their rows."""
    family = FAMILIES[name]()
    params = family.init(jnp.linspace(-2.0, 2.0, SIZE, dtype=dtype), LAYOUT)
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    steps = [amount * rng.normal(size=x.shape) / np.sqrt(x.shape[-2] if x.ndim > 1 else 1) for x in leaves]
    return family, jax.tree.unflatten(tree, [x + jnp.asarray(d, dtype) for x, d in zip(leaves, steps, strict=True)])


def noises(count, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(1).normal(size=(count, SIZE)), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MAPS)
def test_the_inverse_is_exact(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        family, params = moved(name, dtype=dtype)
        noise = noises(20, dtype)
        value, log_det = once(jax.vmap(lambda x: family.forward(params, x, LAYOUT)))(noise)
        back, log_det_back = once(jax.vmap(lambda x: family.inverse(params, x, LAYOUT)))(value)
        tolerance = 2e-4 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(back, noise, atol=tolerance)
        np.testing.assert_allclose(log_det_back, log_det, atol=5 * tolerance)


@pytest.mark.parametrize("name", MAPS)
def test_the_log_determinant_is_that_of_the_jacobian(name):
    with jax.enable_x64(True):
        family, params = moved(name, dtype=jnp.float64)
        noise = noises(5, jnp.float64)
        forward = lambda x: family.forward(params, x, LAYOUT)  # noqa: E731
        jacobians, log_det = once(jax.vmap(lambda x: (jax.jacfwd(lambda y: forward(y)[0])(x), forward(x)[1])))(noise)
        np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobians)[1], rtol=1e-11)


@pytest.mark.parametrize("name", MAPS)
def test_log_q_of_a_draw_is_the_log_density_of_its_value(name):
    family, params = moved(name)
    q = family.member(params, LAYOUT)
    draws, (log_q,) = once(lambda key: q.sample_with_intermediates(key, (3, 4)))(jax.random.key(0))
    assert draws.shape == (3, 4, SIZE) and log_q.shape == (3, 4)
    np.testing.assert_allclose(once(q.log_prob)(draws), log_q, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", MAPS)
def test_normals_are_held_exactly(name):
    with jax.enable_x64(True):
        rng = np.random.default_rng(2)
        loc, scale = rng.normal(size=SIZE), rng.uniform(0.01, 100.0, SIZE)
        family = FAMILIES[name]()
        q = family.member(family.from_normal(jnp.asarray(loc), jnp.asarray(scale), LAYOUT), LAYOUT)
        at = loc + scale * rng.normal(size=(10, SIZE))
        np.testing.assert_allclose(
            once(q.log_prob)(jnp.asarray(at)), stats.norm(loc, scale).logpdf(at).sum(1), rtol=1e-10
        )


@pytest.mark.parametrize("name", [name for name in MAPS if FAMILIES[name].rotates])
def test_a_normal_of_full_rank_is_held_exactly(name):
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        loc, scale = rng.normal(size=4), np.tril(rng.normal(size=(4, 4))) + 3 * np.eye(4)
        family, layout = FAMILIES[name](), Layout((), (4,))
        q = family.member(family.from_normal(jnp.asarray(loc), jnp.asarray(scale), layout), layout)
        at = loc + rng.normal(size=(10, 4)) @ scale.T
        right = stats.multivariate_normal(loc, scale @ scale.T).logpdf(at)
        np.testing.assert_allclose(once(q.log_prob)(jnp.asarray(at)), right, rtol=1e-10)


@pytest.mark.parametrize("shift", [-20.0, 20.0])
@pytest.mark.parametrize("name", MAPS)
def test_gradients_at_extreme_parameters_are_right(name, shift):
    """Scales of e^-20 and e^20, skew of 3: the gradient of log q in single precision is that in double precision."""
    family, params = moved(name, 0.2)
    params |= {n: x + shift for n, x in params.items() if n.startswith("log_scale")}
    params |= {n: jnp.full_like(x, 3.0) for n, x in params.items() if n == "skew"}
    noise = noises(1)[0]

    def loss(params, noise):
        value, log_q = family.member(params, LAYOUT).from_noise(noise)
        return log_q + jnp.sum(jnp.tanh(value))

    found = jax.tree.map(np.asarray, once(jax.grad(loss))(params, noise))
    with jax.enable_x64(True):
        double = lambda x: jnp.asarray(np.asarray(x, np.float64))  # noqa: E731
        right = jax.tree.map(np.asarray, once(jax.grad(loss))(jax.tree.map(double, params), double(noise)))
    for key, value in right.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-3, atol=1e-3 * (1 + np.abs(value).max()), err_msg=key)


@pytest.mark.parametrize("name", ["normal", "full_rank", *MAPS])
def test_held_fixed_the_gradient_of_log_q_goes_through_the_draw(name):
    """Against the log density of the value with its parameters held, differentiated as it stands."""
    with jax.enable_x64(True):
        family, params = moved(name, dtype=jnp.float64)
        noise = noises(1, jnp.float64)[0]

        def held(params):
            return from_noise(family.member(params, LAYOUT), noise, held=True)[1]

        def written_out(params):
            value = from_noise(family.member(params, LAYOUT), noise)[0]
            return family.member(jax.lax.stop_gradient(params), LAYOUT).log_prob(value)

        (at, found), (right_at, right) = (once(jax.value_and_grad(f))(params) for f in (held, written_out))
        np.testing.assert_allclose(at, right_at, rtol=1e-10)
        for key, value in right.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-8, atol=1e-8, err_msg=key)


@pytest.mark.parametrize("name", ["normal", "full_rank", "low_rank", *MAPS])
def test_far_from_zero_log_q_keeps_its_digits(name):
    """A mean of 1e4 and scales of 1e-3: the value has no digit left of the noise, and log q all of them."""
    loc, scale = jnp.full(SIZE, 1e4), 1e-3
    family = FAMILIES[name]()
    params = family.init(loc, LAYOUT)
    params |= {n: jnp.full_like(x, jnp.log(scale)) for n, x in params.items() if n.startswith("log_")}
    zero = ("factor", "log_lengths")
    params |= {n: jnp.zeros_like(x) for n, x in params.items() if n in zero or "log_tail" in n}
    q = family.member(params, LAYOUT)
    _, intermediates = once(lambda key: q.sample_with_intermediates(key, (4000,)))(jax.random.key(0))
    log_q = q.log_prob(jnp.zeros(SIZE), intermediates)
    entropy = SIZE * (0.5 * np.log(2 * np.pi * np.e) + np.log(scale))
    assert abs(float(jnp.mean(log_q)) + entropy) < 6 * np.sqrt(SIZE / 2 / 4000)
    np.testing.assert_allclose(np.std(log_q), np.sqrt(SIZE / 2), rtol=0.1)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("name", ["normal", "full_rank", "low_rank", *MAPS])
def test_behind_a_fixed_map(name, diagonal):
    family, params = moved(name, 0.2)
    rng = np.random.default_rng(4)
    scale = rng.uniform(0.5, 2.0, SIZE).astype(np.float32)
    factor = scale if diagonal else (np.tril(rng.normal(size=(SIZE, SIZE)), -1) * 0.1 + np.diag(scale)).astype("f")
    base = family.member(params, LAYOUT)
    q = Mapped(base, jnp.arange(SIZE, dtype=jnp.float32), jnp.asarray(factor))
    key = jax.random.key(0)
    u, log_q, again = once(lambda key: _drawn(q, key))(key)
    v, log_q_v, _ = once(lambda key: _drawn(base, key))(key)
    np.testing.assert_allclose(u, np.arange(SIZE) + (v * factor if diagonal else v @ factor.T), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(log_q, log_q_v - np.log(scale).sum(), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(again, log_q, rtol=1e-3, atol=1e-3)
    if name != "low_rank":
        one = noises(1)[0]
        held, plain = once(lambda x: (from_noise(q, x, held=True), from_noise(q, x)))(one)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), held, plain)


@pytest.mark.parametrize("name", ["normal", "structured", "stretched"])
def test_behind_a_map_with_directions(name):
    """u = loc + scale (v + V (l - 1) V' v): its density is that of v less the log determinant, by the draw and back."""
    family, params = moved(name, 0.2)
    rng = np.random.default_rng(5)
    vectors = np.linalg.qr(rng.normal(size=(SIZE, 3)))[0].astype("f")
    scale, lengths = rng.uniform(0.5, 2.0, SIZE).astype("f"), np.array([0.1, 3.0, 20.0], "f")
    matrix = scale[:, None] * (np.eye(SIZE) + (vectors * (lengths - 1)) @ vectors.T)
    base = family.member(params, LAYOUT)
    q = Mapped(base, jnp.ones(SIZE), jnp.asarray(scale), jnp.asarray(vectors), jnp.asarray(lengths))
    u, log_q, again = once(lambda key: _drawn(q, key))(jax.random.key(0))
    v, log_q_v, _ = once(lambda key: _drawn(base, key))(jax.random.key(0))
    np.testing.assert_allclose(u, 1 + v @ matrix.T, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(log_q, log_q_v - np.linalg.slogdet(matrix)[1], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(again, log_q, rtol=1e-3, atol=2e-3)


def _drawn(q, key):
    """Draws, their log q from the noise, and from their values."""
    value, intermediates = q.sample_with_intermediates(key, (6,))
    return value, q.log_prob(value, intermediates), q.log_prob(value)
