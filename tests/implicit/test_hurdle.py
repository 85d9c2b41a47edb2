"""Hurdles, censored and folded distributions: what their draws do, draw by draw."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from implicit_checks import exact_velocity, jit
from scipy import stats

from autovi import implicit
from autovi.distributions.registry import lookup
from autovi.implicit.dispatch import velocity

POSITIVE = dist.constraints.nonnegative

HURDLES = {
    "HurdleGamma": (lambda gate, a: dist.HurdleGamma(gate, a, 2.0), lambda a: dist.Gamma(a, 2.0)),
    "HurdleLogNormal": (lambda gate, a: dist.HurdleLogNormal(gate, a, 0.5), lambda a: dist.LogNormal(a, 0.5)),
    "HurdleProbs": (
        lambda gate, a: dist.HurdleProbs(dist.Weibull(1.0, a), gate),
        lambda a: dist.Weibull(1.0, a),
    ),
    "HurdleLogits": (
        lambda gate, a: dist.HurdleLogits(dist.Gamma(a, 2.0), jnp.log(gate / (1 - gate))),
        lambda a: dist.Gamma(a, 2.0),
    ),
}


@pytest.mark.parametrize("name", HURDLES)
def test_hurdles_draw_zeros_and_move_the_rest(name):
    make, base = HURDLES[name]

    @jit
    def draws(a):
        fn = lambda a: make(jnp.full(3, 0.3), a)  # noqa: E731
        value, slope = jax.jvp(lambda a: implicit.sample(jax.random.key(0), fn(a), (20_000,)), (a,), (1.0,))
        given = jax.jvp(lambda a: implicit.reparameterize(fn(a), value), (a,), (1.0,))[1]
        alone = velocity(base(a), jnp.where(value == 0, 1.0, value), jax.jvp(base, (a,), (1.0,))[1])
        return value, slope, given, alone

    value, slope, given, alone = (np.asarray(x) for x in draws(1.5))
    zero = value == 0
    assert value.shape == (20_000, 3)
    assert stats.binomtest(int(zero.sum()), zero.size, 0.3).pvalue > 1e-6
    assert (slope[zero] == 0).all()
    assert (given[zero] == 0).all()
    np.testing.assert_allclose(slope[~zero], alone[~zero], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(given[~zero], alone[~zero], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "gate", "named"),
    [
        (lambda gate: dist.HurdleLogNormal(gate, 2.0, 1.0), 0.3, "HurdleLogNormal.*'gate'.*score function.*Bernoulli"),
        (lambda gate: dist.HurdleLogits(dist.LogNormal(0.0, 1.0), gate), 0.1, "HurdleLogits.*'gate_logits'"),
    ],
)
def test_the_gate_has_no_gradient_and_says_so(make, gate, named):
    given = jnp.array([0.0, 1.5])
    costs = (
        lambda gate: implicit.sample(jax.random.key(0), make(gate), (5,)).sum(),
        lambda gate: implicit.reparameterize(make(gate), given).sum(),
        lambda gate: implicit.reparameterize(scaled(make(gate).expand([2]).to_event(1)), given).sum(),
    )
    for cost in costs:
        assert np.isfinite(cost(gate))
        for derivative in (jax.grad(cost), jax.jit(jax.grad(cost)), jax.grad(jax.jit(cost)), jax.jacfwd(cost)):
            with pytest.raises(TypeError, match=named):
                derivative(gate)


def scaled(fn):
    return dist.TransformedDistribution(fn, dist.transforms.AffineTransform(0.0, 2.0))


def test_beside_the_gate_other_parameters_have_their_gradient():
    """HurdleLogNormal's draws are exp(loc + ...) or 0: each moves with loc by itself."""
    draw = lambda gate, loc: implicit.sample(jax.random.key(0), dist.HurdleLogNormal(gate, loc), (100,))  # noqa: E731
    value, slope = jax.jvp(lambda loc: draw(0.3, loc), (2.0,), (1.0,))
    assert 10 < np.sum(np.asarray(value) == 0) < 60
    np.testing.assert_allclose(slope, value, rtol=1e-5)


def test_values_that_are_zero_disturb_no_second_derivative():
    """Zero may lie outside of the base's support, where its velocity is not a number."""
    value = jnp.array([0.0, 2.5, 4.0])

    def shifted(a):
        return dist.TransformedDistribution(
            dist.Normal(0.3, a), [dist.transforms.ExpTransform(), dist.transforms.AffineTransform(2.0, 1.0)]
        )

    def second(make, value):
        return jit(jax.jacfwd(jax.jacrev(lambda a: implicit.reparameterize(make(a), value))))(1.5)

    found = second(lambda a: dist.HurdleProbs(shifted(a), 0.3), value)
    np.testing.assert_allclose(found[1:], second(shifted, value[1:]), rtol=1e-5)
    assert found[0] == 0


@pytest.mark.parametrize(
    "around",
    [
        lambda fn: dist.MixtureSameFamily(dist.Categorical(logits=jnp.zeros(2)), fn.expand([2])),
        lambda fn: dist.MixtureGeneral(dist.Categorical(logits=jnp.zeros(2)), [fn, dist.LogNormal()], support=POSITIVE),
        lambda fn: dist.GaussianCopula(fn.expand([2]), correlation_cholesky=jnp.eye(2)),
    ],
)
def test_an_atom_has_no_place_in_a_mixture_or_a_copula(around):
    fn = around(dist.HurdleLogNormal(0.3, 0.0, 1.0))
    with pytest.raises(TypeError, match="of HurdleLogNormal: .*a probability.*use the score function"):
        implicit.sample(0, fn)
    assert set(implicit.routes(fn).values()) <= {None} and lookup(fn).pathwise is None


def test_a_discrete_base_is_refused():
    with pytest.raises(ValueError, match="discrete"):
        implicit.sample(jax.random.key(0), dist.HurdlePoisson(0.3, 2.0), (5,))


@pytest.mark.parametrize(
    "make",
    [
        lambda base: dist.LeftCensoredDistribution(base, jnp.array([True, False])),
        lambda base: dist.RightCensoredDistribution(base, jnp.array([True, False])),
        lambda base: dist.IntervalCensoredDistribution(base, jnp.array([True, False]), jnp.array([True, False])),
    ],
)
def test_censored_draws_are_draws_of_the_base(make):
    @jit
    def both(a):
        fn = lambda a: dist.Gamma(a, 2.0)  # noqa: E731
        value, slope = jax.jvp(lambda a: implicit.sample(jax.random.key(0), make(fn(a)), (9,)), (a,), (1.0,))
        given = jax.jvp(lambda a: implicit.reparameterize(make(fn(a)), value), (a,), (1.0,))[1]
        return value, slope, given, velocity(fn(a), value, jax.jvp(fn, (a,), (1.0,))[1])

    value, slope, given, base = both(1.5)
    assert value.shape == (9, 2)
    np.testing.assert_allclose(slope, base, rtol=1e-4)
    np.testing.assert_allclose(given, base, rtol=1e-5)


FOLDED = {
    "Normal": (lambda loc, scale: dist.FoldedDistribution(dist.Normal(loc, scale)), {"loc": 0.7, "scale": 1.3}),
    "StudentT": (lambda df, loc: dist.FoldedDistribution(dist.StudentT(df, loc)), {"df": 4.0, "loc": -1.5}),
}


@pytest.mark.parametrize("name", FOLDED)
def test_folded_draws_move_as_their_distribution_function_says(name):
    make, params = FOLDED[name]
    names, point = list(params), list(params.values())

    @jit
    def slopes(point, values):
        moved = lambda point: implicit.reparameterize(make(**dict(zip(names, point, strict=True))), values)  # noqa: E731
        return jnp.stack(jax.jacfwd(moved)(point), 0)

    with jax.enable_x64(True):
        values = jnp.array([0.05, 0.8, 4.0])
        exact = [exact_velocity(make, params, parameter, values) for parameter in names]
        np.testing.assert_allclose(slopes(point, values), exact, rtol=1e-8)
    draws = np.asarray(implicit.sample(jax.random.key(0), make(**params), (20_000,)), np.float64)
    law = stats.foldnorm(0.7 / 1.3, scale=1.3).cdf if name == "Normal" else folded_student
    assert stats.kstest(draws, law).pvalue > 1e-6


def folded_student(z):
    return stats.t(4.0, -1.5).cdf(z) - stats.t(4.0, -1.5).cdf(-z)


def test_a_value_of_zero_stays_where_both_signs_meet():
    """F(z) - F(-z) is 0 at 0 whatever the parameters."""
    moved = jax.grad(lambda loc: implicit.reparameterize(dist.FoldedDistribution(dist.Normal(loc)), jnp.array(0.0)))
    assert moved(0.7) == 0
