"""Where the draws of composed distributions lie: parts of unequal supports are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from implicit_checks import jit
from numpyro.distributions import transforms

from autovi import implicit
from autovi.implicit.composite.supports import ends_of, somewhere_in

REAL, UNIT = dist.constraints.real, dist.constraints.unit_interval

FIRST, SCALES = np.float32([0.0, 0.5]), np.float32([1.0, 2.5])


def affine(loc, scale, base=None):
    """Declared to lie anywhere on the real line."""
    base = dist.Uniform(0.0, 1.0) if base is None else base
    return dist.TransformedDistribution(base, transforms.AffineTransform(loc, scale))


def weights(w):
    return dist.Categorical(probs=jnp.stack([w, 1 - w]))


def general(*components, **options):
    return lambda w: dist.MixtureGeneral(weights(w), list(components), **options)


def same(component):
    return lambda w: dist.MixtureSameFamily(weights(w), component)


ENDS = {
    "uniform": (lambda: dist.Uniform(-1.0, 2.0), (-1.0, 2.0)),
    "lognormal": (lambda: dist.LogNormal(0.0, 1.0), (0.0, np.inf)),
    "log-uniform": (lambda: dist.LogUniform(1.0, 2.0), (1.0, 2.0)),
    "whole line": (lambda: affine(1.0, -2.0, dist.Normal()), (-np.inf, np.inf)),
    "composed transforms": (
        lambda: dist.TransformedDistribution(
            dist.Normal(),
            transforms.ComposeTransform([transforms.AffineTransform(2.0, 1.0), transforms.ExpTransform()]),
        ),
        (0.0, np.inf),
    ),
    "folded": (lambda: dist.FoldedDistribution(dist.Uniform(-3.0, 3.0)), (0.0, 3.0)),
    "one family": (lambda: same(dist.Beta(FIRST + 1, SCALES))(jnp.array(0.5)), (0.0, 1.0)),
    "mixture": (lambda: general(dist.Gamma(2.0), dist.LogNormal())(jnp.array(0.5)), (0.0, np.inf)),
    "wrapped": (lambda: dist.Uniform(2.0, 5.0).expand([4]).mask(False), (2.0, 5.0)),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_ends_of_what_is_drawn(name):
    make, ends = ENDS[name]
    np.testing.assert_allclose([np.max(end) for end in ends_of(make())], ends, rtol=1e-6)
    jax.jit(lambda: [float(np.max(np.asarray(end))) for end in ends_of(make())])()  # raises where they are no constants
    fn = make()
    draws = jit(lambda key: fn.sample(key, (100_000,)))(jax.random.key(0))
    for values in (draws, somewhere_in(fn, draws)):
        assert (np.asarray(values) >= ends[0]).all() and (np.asarray(values) <= ends[1]).all()


UNKNOWN = {
    "shifted": lambda: affine(2.0, 3.0),
    "reflected half line": lambda: affine(1.0, -2.0, dist.Gamma(2.0)),
    "mixture": lambda: general(dist.Uniform(0.0, 1.0), dist.Uniform(0.5, 3.0))(jnp.array(0.5)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_ends_that_the_support_does_not_tell_are_not_known(name):
    """And so can be of no composition, but a value inside is known."""
    fn = UNKNOWN[name]()
    assert ends_of(fn) is None
    assert np.isfinite(fn.log_prob(somewhere_in(fn, jnp.zeros(3)))).all()


UNEQUAL = {
    "intervals that overlap": general(dist.Uniform(0.0, 1.0), dist.Uniform(0.5, 3.0)),
    "intervals that touch": general(dist.Uniform(0.0, 1.0), dist.Uniform(1.0, 3.0)),
    "one inside the other": general(dist.Uniform(0.0, 1.0), dist.Normal(), support=REAL),
    "a family with an end each": same(affine(FIRST, SCALES)),
    "normal and exponential vectors": lambda w: dist.MixtureGeneral(
        weights(w),
        [fn.expand([2]).to_event(1) for fn in (dist.Normal(), dist.Exponential())],
        support=dist.constraints.real_vector,
    ),
    "two intervals": general(dist.Uniform(0.0, 1.0), dist.Uniform(2.0, 3.0)),
    "moved by transforms": general(affine(0.0, 1.0), affine(2.0, 1.0)),
    "one family moved by a transform": same(affine(jnp.array([0.0, 2.0]), 1.0)),
    "half lines back to back": same(affine(0.0, jnp.array([-1.0, 1.0]), dist.Gamma(2.0).expand([2]))),
    "half lines apart": general(affine(0.0, -1.0, dist.Gamma(2.0)), affine(1.0, 1.0, dist.Gamma(2.0))),
    "two coordinates": same(affine(jnp.array([[0.0, 0.0], [0.0, 2.0]]), 1.0).to_event(1)),
    "moved by composed transforms": general(
        *(
            dist.TransformedDistribution(
                dist.Normal(),
                transforms.ComposeTransform([transforms.ExpTransform(), transforms.AffineTransform(end, step)]),
            )
            for end, step in ((2.0, 1.0), (-2.0, -1.0))
        )
    ),
    "a mixture of mixtures": general(general(affine(0.0, 1.0), affine(0.5, 1.0))(0.5), affine(4.0, 1.0), support=REAL),
}
REFUSED = "do not all have the same support|its log_prob is then not the density"


@pytest.mark.parametrize("name", UNEQUAL)
def test_unequal_supports_are_refused_however_they_came_about(name):
    """A derivative misses the mass that jumps over a gap, and the jumps of the density where a component ends."""
    make = UNEQUAL[name]

    def drawn(w):
        return jnp.mean(implicit.sample(0, make(w), (3,)))

    def given(w):
        return jnp.mean(implicit.reparameterize(make(w), jnp.full(make(w).event_shape, 0.5)))

    for cost in (drawn, given):
        for way in (cost, jax.grad(jax.jit(cost)), jax.jit(jax.grad(cost))):
            with pytest.raises(TypeError, match=f"({REFUSED}).*use the score function"):
                way(0.4)


EQUAL = {
    "half lines": (general(dist.Gamma(2.0), dist.LogNormal(0.0, 0.5)), 2.0, np.exp(0.125)),
    "one family": (same(dist.Beta(np.float32([2.0, 1.0]), np.float32([1.0, 3.0]))), 2 / 3, 1 / 4),
    "bounded": (
        general(dist.Beta(2.0, 1.0), dist.Uniform(0.0, 1.0), support=dist.constraints.unit_interval),
        2 / 3,
        0.5,
    ),
    "lines through transforms": (general(affine(1.0, 2.0, dist.Normal()), dist.Normal()), 1.0, 0.0),
}


@pytest.mark.parametrize("name", EQUAL)
def test_weights_of_components_of_one_support(name):
    """E z = w m_1 + (1 - w) m_2: dE/dw = m_1 - m_2, also where a caller has compiled it."""
    make, first, second = EQUAL[name]
    num, w = 40_000, 0.4

    def draws(w):
        return implicit.sample(jax.random.key(0), make(w), (num,))

    @jit
    def slopes(w):
        value, slope = jax.jvp(jax.jit(draws), (w,), (1.0,))
        given = jax.jvp(jax.jit(lambda w: implicit.reparameterize(make(w), value)), (w,), (1.0,))[1]
        mean = lambda w: jnp.mean(draws(w))  # noqa: E731
        return slope, given, (jax.grad(jax.jit(mean))(w), jax.grad(mean)(w))

    slope, given, of_mean = slopes(w)
    slope = np.asarray(slope, np.float64)
    error = slope.std() / num**0.5
    assert abs(slope.mean() - (first - second)) < 5.5 * error < 0.3
    np.testing.assert_allclose(given, slope, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(of_mean, slope.mean(), rtol=1e-4)


def test_ends_that_parameters_move():
    """Two ends that move are not known to be the same; a line that moves stays the whole line."""

    def shifted(loc, apart):
        fn = general(affine(loc, 1.0), affine(loc + apart, 1.0))(0.5)
        return jnp.mean(implicit.sample(0, fn, (10,)))

    with pytest.raises(TypeError, match="do not all have the same support"):
        jax.grad(shifted)(0.0, 0.5)

    def whole(loc):
        fn = general(affine(loc, 1.0, dist.Normal()), dist.Normal())(0.5)
        return jnp.mean(implicit.sample(0, fn, (100_000,)))

    np.testing.assert_allclose(jit(jax.grad(whole))(0.3), 0.5, atol=0.01)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_value_at_an_open_end_has_a_gradient(dtype):
    """Samplers of exponentials do give 0, where strictly taken no component has a density."""
    with jax.enable_x64(dtype == "float64"):
        at_zero, at_two = jnp.zeros((), dtype), jnp.full((), 2.0, dtype)
        cases = (
            (same(dist.Exponential(jnp.array([1.0, 2.0]))), at_zero),
            (same(dist.HalfNormal(jnp.array([1.0, 2.0]))), at_zero),
            (general(dist.LogNormal(), dist.Exponential()), at_zero),
            (general(dist.Beta(2.0, 1.0), dist.Beta(1.0, 2.0)), at_zero + 1),
            (general(dist.Pareto(2.0, 1.0), dist.Pareto(2.0, 3.0)), at_two),
        )
        each = lambda w: jnp.stack([implicit.reparameterize(make(w), value) for make, value in cases])  # noqa: E731
        moved = jit(jax.jacfwd(each))(0.4)
        assert moved.dtype == dtype and (np.abs(moved) < 1e-5).all(), moved


def test_a_mixture_of_mixtures_moves_as_the_same_mixture_written_flat():
    parts = dist.Gumbel(2.0, 1.0), dist.Normal(0.5, 1.0), dist.Laplace(-1.0, 2.0)
    value = jnp.linspace(-1.5, 4.0, 9)

    def nested(w, v):
        inner = dist.MixtureGeneral(weights(v), list(parts[:2]), support=REAL)
        return dist.MixtureGeneral(weights(w), [inner, parts[2]], support=REAL)

    def flat(w, v):
        probs = jnp.stack([w * v, w * (1 - v), 1 - w])
        return dist.MixtureGeneral(dist.Categorical(probs=probs), list(parts), support=REAL)

    def moved(w, v):
        return [implicit.reparameterize(make(w, v), value) for make in (nested, flat)]

    np.testing.assert_allclose(*jit(jax.jacfwd(moved, (0, 1)))(0.4, 0.7), rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("base", [dist.Uniform(-1.0, 3.0), dist.HalfNormal(1.0), dist.LogNormal(0.0, 1.0)])
def test_a_fold_has_one_support_on_either_side(base):
    fold = dist.FoldedDistribution(base)
    for use in (lambda: implicit.sample(0, fold), lambda: implicit.reparameterize(fold, 0.5)):
        with pytest.raises(TypeError, match="FoldedDistribution.*(one support on the left|ignores the transforms)"):
            use()


def test_second_derivatives_where_all_parts_end_together():
    """E z^2 = w E_1 + (1 - w) E_2 is linear in the weight."""
    make = general(dist.Gamma(2.0), dist.Gamma(3.0))
    cost = lambda w: jnp.mean(implicit.sample(0, make(w), (40_000,)) ** 2)  # noqa: E731
    assert abs(jit(jax.grad(jax.grad(cost)))(0.4)) < 1.0
