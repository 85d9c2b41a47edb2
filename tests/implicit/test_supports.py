"""Where the draws of composed distributions lie: gaps in mixtures are refused, and what has none is differentiated."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import transforms

from autovi import implicit
from autovi.implicit.composite.supports import ends_of, lies_in, somewhere_in

REAL = dist.constraints.real

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
    "shifted": (lambda: affine(2.0, 3.0), (2.0, 5.0)),
    "reflected": (lambda: affine(2.0, -3.0), (-1.0, 2.0)),
    "reflected half line": (lambda: affine(1.0, -2.0, dist.Gamma(2.0)), (-np.inf, 1.0)),
    "whole line": (lambda: affine(1.0, -2.0, dist.Normal()), (-np.inf, np.inf)),
    "transforms one after the other": (
        lambda: dist.TransformedDistribution(affine(0.0, 2.0), transforms.ExpTransform()),
        (1.0, np.exp(2.0)),
    ),
    "folded on one side": (lambda: dist.FoldedDistribution(dist.Uniform(-3.0, -2.0)), (2.0, 3.0)),
    "folded on both": (lambda: dist.FoldedDistribution(dist.Uniform(-1.0, 3.0)), (0.0, 3.0)),
    "composed transforms": (
        lambda: dist.TransformedDistribution(
            dist.Normal(),
            transforms.ComposeTransform([transforms.ExpTransform(), transforms.AffineTransform(2.0, 1.0)]),
        ),
        (2.0, np.inf),
    ),
    "one family": (lambda: same(affine(FIRST, SCALES))(jnp.array(0.5)), (0.0, 3.0)),
    "mixture": (lambda: general(dist.Uniform(0.0, 1.0), dist.Uniform(0.5, 3.0))(jnp.array(0.5)), (0.0, 3.0)),
    "wrapped": (lambda: affine(2.0, 3.0).expand([4]).mask(False), (2.0, 5.0)),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_ends_of_what_is_drawn(name):
    make, ends = ENDS[name]
    np.testing.assert_allclose([np.max(end) for end in ends_of(make())], ends, rtol=1e-6)
    jax.jit(lambda: [float(np.max(np.asarray(end))) for end in ends_of(make())])()  # raises where they are no constants
    fn = make()
    draws = fn.sample(jax.random.key(0), (100_000,))
    assert bool(jnp.all(lies_in(fn, draws)))
    assert bool(jnp.all(lies_in(fn, somewhere_in(fn, draws))))
    for end, beyond in zip(ends, (-1e-3, 1e-3), strict=True):
        if np.isfinite(end):
            assert not bool(jnp.any(lies_in(fn, jnp.full_like(draws, end + beyond))))


def test_no_draw_falls_out_by_rounding():
    fn = affine(jnp.float32(100.1), jnp.float32(0.37))
    draws = jax.jit(lambda loc: affine(loc, 0.37).sample(jax.random.key(0), (1_000_000,)))(100.1)
    assert bool(jnp.all(lies_in(fn, draws)))


GAPS = {
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
REFUSED = "gap between the supports|do not all end at the same values|its components end at"
JOINED = "half lines back to back"  # both reach 0


@pytest.mark.parametrize("name", GAPS)
def test_a_gap_is_refused_however_it_came_about(name):
    """The mean moves with the weight, but no draw near a gap does."""
    make = GAPS[name]

    def drawn(w):
        return jnp.mean(implicit.sample(0, make(w), (3,)))

    def given(w):
        return jnp.mean(implicit.reparameterize(make(w), jnp.full(make(w).event_shape, 0.5)))

    for cost in (drawn, given):
        for way in (cost, jax.grad(jax.jit(cost)), jax.jit(jax.grad(cost))):
            if name == JOINED:
                assert np.isfinite(way(0.4))
                continue
            with pytest.raises(TypeError, match=REFUSED):
                way(0.4)


COVERED = {
    "intervals that overlap": (general(dist.Uniform(0.0, 1.0), dist.Uniform(0.5, 3.0)), 0.5, 1.75),
    "intervals that touch": (general(dist.Uniform(0.0, 1.0), dist.Uniform(1.0, 3.0)), 0.5, 2.0),
    "moved by transforms": (general(affine(0.0, 1.0), affine(3.0, -2.5)), 0.5, 1.75),
    "one family": (same(affine(jnp.array([0.0, 0.5]), jnp.array([1.0, 2.5]))), 0.5, 1.75),
    "one inside the other": (general(dist.Uniform(0.0, 1.0), dist.Normal(), support=REAL), 0.5, 0.0),
}


@pytest.mark.parametrize("name", COVERED)
def test_weights_of_components_that_end_at_different_values(name):
    """E z = w m_1 + (1 - w) m_2, and dz/dw = -(F_1 - F_2) / p at each draw; also where a caller has compiled it."""
    make, first, second = COVERED[name]
    num, w = 40_000, 0.4

    def draws(w):
        return implicit.sample(jax.random.key(0), make(w), (num,))

    value, slope = (np.asarray(x, np.float64) for x in jax.jvp(jax.jit(draws), (w,), (1.0,)))
    error = slope.std() / num**0.5
    assert abs(slope.mean() - (first - second)) < 5.5 * error < 0.3
    given = jax.jvp(jax.jit(lambda w: implicit.reparameterize(make(w), jnp.asarray(value, jnp.float32))), (w,), (1.0,))
    np.testing.assert_allclose(given[1], slope, rtol=1e-4, atol=1e-5)
    mean = jax.grad(jax.jit(lambda w: jnp.mean(draws(w))))(w)
    np.testing.assert_allclose(mean, slope.mean(), rtol=1e-4)
    if "overlap" in name:
        below = np.clip(value, 0, 1) - np.clip((value - 0.5) / 2.5, 0, 1)
        density = w * (value < 1) + (1 - w) * (value > 0.5) / 2.5
        inside = (np.abs(value - 1) > 1e-5) & (np.abs(value - 0.5) > 1e-5)
        np.testing.assert_allclose(slope[inside], (-below / density)[inside], rtol=1e-3, atol=1e-5)


def test_ends_that_parameters_move():
    """A shift of both components together: the whole mixture moves, E z by 1. Each by itself: there may be a gap."""

    def shifted(loc, apart):
        fn = general(affine(loc, 1.0), affine(loc + apart, 1.0))(0.5)
        return jnp.mean(implicit.sample(0, fn, (10,)))

    with pytest.raises(TypeError, match="end where parameters say"):
        jax.grad(shifted)(0.0, 0.5)

    def whole(loc):
        fn = general(affine(loc, 1.0, dist.Normal()), dist.Normal())(0.5)
        return jnp.mean(implicit.sample(0, fn, (100_000,)))

    np.testing.assert_allclose(jax.jit(jax.grad(whole))(0.3), 0.5, atol=0.01)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_value_at_an_open_end_has_a_gradient(dtype):
    """Samplers of exponentials do give 0, where strictly taken no component has a density."""
    with jax.enable_x64(dtype == "float64"):
        at_zero, at_two = jnp.zeros((), dtype), jnp.full((), 2.0, dtype)
        for make, value in (
            (same(dist.Exponential(jnp.array([1.0, 2.0]))), at_zero),
            (same(dist.HalfNormal(jnp.array([1.0, 2.0]))), at_zero),
            (general(dist.LogNormal(), dist.Exponential()), at_zero),
            (general(dist.Beta(2.0, 1.0), dist.Beta(1.0, 2.0)), at_zero + 1),
            (general(dist.Pareto(2.0, 1.0), dist.Pareto(2.0, 3.0)), at_two),
        ):
            moved = jax.grad(lambda w, make=make, value=value: implicit.reparameterize(make(w), value))(0.4)
            assert abs(moved) < 1e-5, (make(0.4), moved)


def test_a_mixture_of_mixtures_moves_as_the_same_mixture_written_flat():
    parts = dist.Gamma(2.0, 1.0), dist.Normal(0.5, 1.0), dist.Uniform(-1.0, 2.0)
    value = jnp.linspace(-1.5, 4.0, 9)

    def nested(w, v):
        inner = dist.MixtureGeneral(weights(v), list(parts[:2]), support=REAL)
        return dist.MixtureGeneral(weights(w), [inner, parts[2]], support=REAL)

    def flat(w, v):
        probs = jnp.stack([w * v, w * (1 - v), 1 - w])
        return dist.MixtureGeneral(dist.Categorical(probs=probs), list(parts), support=REAL)

    for k in range(2):
        along = [
            jax.jvp(lambda *p, make=make: implicit.reparameterize(make(*p), value), (0.4, 0.7), tuple(np.eye(2)[k]))[1]
            for make in (nested, flat)
        ]
        np.testing.assert_allclose(*along, rtol=2e-4, atol=1e-5)


COORDINATES = {
    "normal and exponential": lambda w: dist.MixtureGeneral(
        weights(w),
        [fn.expand([2]).to_event(1) for fn in (dist.Normal(), dist.Exponential())],
        support=dist.constraints.real_vector,
    ),
    "boxes that overlap": same(affine(np.float32([[0, 0], [1, 1]]), np.float32([[2, 1], [2, 1]])).to_event(1)),
    "a gap in the second given the first": same(
        affine(np.float32([[0, 0], [0, 2]]), np.float32([[1, 1], [1, 3]])).to_event(1)
    ),
}


@pytest.mark.parametrize("name", COORDINATES)
def test_components_of_several_coordinates_end_at_the_same_values(name):
    """Else the weights of the second coordinate jump where the first crosses an end, and dz_2 misses that."""
    with pytest.raises(TypeError, match="do not all end at the same values.*use the score function"):
        implicit.sample(0, COORDINATES[name](0.4), (3,))


JUMPING = {
    "mixture": (COVERED["intervals that overlap"][0], 0.4),
    "fold": (lambda low: dist.FoldedDistribution(dist.Uniform(low, 3.0)), -1.0),
}


@pytest.mark.parametrize("name", JUMPING)
def test_second_derivatives_do_not_see_the_jumps_of_a_density(name):
    make, at = JUMPING[name]
    cost = lambda x: jnp.mean(implicit.sample(0, make(x), (100,)) ** 2)  # noqa: E731
    for first in (jax.grad(cost), jax.grad(jax.jit(cost)), jax.jacfwd(cost)):
        assert np.isfinite(first(at))
        for second in (jax.grad(first), jax.jit(jax.grad(first)), jax.jacfwd(first)):
            with pytest.raises(TypeError, match="the density jumps where a part of it ends"):
                second(at)


def test_second_derivatives_where_all_parts_end_together():
    """E z^2 = w E_1 + (1 - w) E_2 is linear in the weight."""
    make = general(dist.Gamma(2.0), dist.Gamma(3.0))
    cost = lambda w: jnp.mean(implicit.sample(0, make(w), (40_000,)) ** 2)  # noqa: E731
    assert abs(jax.grad(jax.grad(cost))(0.4)) < 1.0
