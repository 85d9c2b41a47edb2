"""Compositions whose density is not that of the draws: refused in models, and as parts of what is differentiated."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from implicit_checks import jit
from numpyro.distributions import constraints, transforms

import autovi
from autovi import implicit
from autovi.distributions.registry import lookup
from autovi.implicit.composite.supports import composition_fault

REAL = constraints.real
HALF = dist.Categorical(probs=jnp.array([0.5, 0.5]))


def affine(loc, scale, base=None, **options):
    base = dist.Uniform(0.0, 1.0) if base is None else base
    return dist.TransformedDistribution(base, transforms.AffineTransform(loc, scale), **options)


def general(*components, **options):
    return dist.MixtureGeneral(HALF, list(components), **options)


def same(component):
    return dist.MixtureSameFamily(HALF, component)


class OwnMixture(dist.MixtureGeneral):
    pass


class Odd(constraints.Constraint):
    """Not an interval."""

    event_dim = 0

    def __call__(self, x):
        return x != 0


class Scattered(dist.Laplace):
    support = Odd()


AROUND = {
    "mixture": lambda part: general(part, dist.Normal(), support=REAL),
    "one family": lambda part: same(part.expand([2])),
    "fold": dist.FoldedDistribution,
    "copula": lambda part: dist.GaussianCopula(part.expand([2]), correlation_cholesky=jnp.eye(2)),
}
UNEVEN = dist.Uniform(0.0, 1.0), dist.Uniform(0.5, 3.0)
PARTS = {
    "uneven mixture": (lambda: general(*UNEVEN), "do not all have the same support"),
    "a subclass of it": (lambda: OwnMixture(HALF, list(UNEVEN)), "do not all have the same support"),
    "uneven family": (lambda: same(affine(0.0, jnp.array([1.0, 2.0]))), "do not all have the same support"),
    "censored": (lambda: dist.RightCensoredDistribution(dist.Normal(), 1), "not the density of its draws"),
    "point": (lambda: dist.Delta(0.5), "a value of its own has a probability"),
    "absolute value": (lambda: dist.TransformedDistribution(dist.Normal(), transforms.AbsTransform()), "AbsTransform"),
    "half a fold": (
        lambda: dist.FoldedDistribution(dist.Uniform(-1.0, 3.0)),
        "one support on the left and on the right",
    ),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("part", PARTS)
def test_what_cannot_be_a_part_is_named(part, around):
    make, fault = PARTS[part]
    try:
        fn = AROUND[around](make())
    except AssertionError as refused:  # NumPyro's own
        assert "support that does not depend on their parameters" in str(refused)
        return
    if around == "fold" and isinstance(fn.base_dist, dist.Normal):
        assert np.isfinite(implicit.sample(0, fn, (3,))).all()  # NumPyro has made one distribution of the two
        return
    for use in (lambda: implicit.sample(0, fn), lambda: implicit.reparameterize(fn, jnp.full(fn.event_shape, 0.5))):
        with pytest.raises(TypeError, match=fault):
            use()


@pytest.mark.parametrize("around", AROUND)
def test_what_can_be_a_part(around):
    for part in (
        dist.Normal(),
        general(dist.Laplace(0.0, 1.0), dist.Normal(0.0, 1.0), support=REAL),
        same(affine(0.0, jnp.array([1.0, 2.0]), dist.Normal())),
    ):
        try:
            fn = AROUND[around](part)
        except AssertionError as refused:
            assert "support that does not depend on their parameters" in str(refused)
            continue
        assert np.isfinite(jit(lambda fn=fn: implicit.sample(0, fn, (3,)))()).all()


def test_a_fold_of_a_transformed_distribution_is_refused():
    with pytest.raises(TypeError, match="FoldedDistribution: its log_prob ignores the transforms"):
        implicit.sample(0, dist.FoldedDistribution(dist.LogNormal(0.0, 1.0)))


def test_a_copula_of_folds():
    """E |x| of a normal moves with its location by 1 - 2 Phi(-loc)."""
    num = 10_000

    def draws(loc):
        fn = dist.GaussianCopula(dist.FoldedDistribution(dist.Normal(loc)).expand([2]), correlation_cholesky=jnp.eye(2))
        return implicit.sample(jax.random.key(0), fn, (num,))

    value, slope = (np.asarray(x, np.float64) for x in jax.jit(lambda loc: jax.jvp(draws, (loc,), (1.0,)))(0.5))
    exact = 1 - 2 * 0.3085375387
    assert (value >= 0).all()
    error = slope.std(0) / num**0.5
    assert (np.abs(slope.mean(0) - exact) < 5.5 * error).all() and (error < 0.01).all()


def test_points_and_absolute_values():
    assert jax.grad(lambda v: implicit.reparameterize(dist.Delta(v), 1.0))(1.0) == 1.0
    assert jax.grad(lambda v: implicit.sample(0, dist.Delta(v), (3,)).sum())(1.0) == 3.0
    magnitude = lambda loc: dist.TransformedDistribution(dist.Normal(loc), transforms.AbsTransform())  # noqa: E731
    with pytest.raises(TypeError, match="AbsTransform has no inverse, use FoldedDistribution"):
        jax.grad(lambda loc: implicit.reparameterize(magnitude(loc), 1.0))(0.5)


MODELS = {  # is it planned, and is NumPyro's density right: with its checks of values, without them
    "mixture": (lambda: general(*UNEVEN), False, False, False),
    "inside another": (lambda: general(*UNEVEN).expand([1]), False, False, False),
    "subclass": (lambda: OwnMixture(HALF, list(UNEVEN)), False, False, False),
    "mixture that is told": (lambda: general(dist.Uniform(0.0, 1.0), dist.Normal(), support=REAL), True, True, True),
    "of transforms": (lambda: general(affine(0.0, 1.0), affine(0.5, 1.0), support=REAL), False, True, False),
    "one family": (lambda: same(affine(0.0, jnp.array([1.0, 2.0]))), False, True, False),
    "fold of one side": (lambda: dist.FoldedDistribution(dist.HalfNormal(1.0)), False, True, False),
    "fold of transforms": (lambda: dist.FoldedDistribution(dist.LogNormal(0.0, 1.0)), False, False, False),
    "fold": (lambda: dist.FoldedDistribution(dist.Normal(1.0)), True, True, True),
    "equal supports": (lambda: general(dist.Gamma(2.0), dist.LogNormal()), True, True, True),
}


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_planned_only_where_a_density_is_that_of_its_draws(name, checked):
    make, planned, *right = MODELS[name]
    shape = (1,) if name == "inside another" else ()
    with numpyro.validation_enabled(checked):
        fn = make()
        grid = np.linspace(-24.0, 24.0, 48_001).reshape((-1, *shape))
        density = np.exp(np.asarray(jit(fn.log_prob)(grid), np.float64))
        inside = (grid > 0) | (name not in ("equal supports", "fold", "fold of one side", "fold of transforms"))
        by_density = np.sum((grid * density)[inside & np.isfinite(density)]) * 1e-3
        error = abs(by_density - np.mean(np.asarray(fn.sample(jax.random.key(0), (100_000,)), np.float64)))
        assert (error < 0.03) if right[0 if checked else 1] else (error > 0.1)
        if planned:
            assert plan(make, np.full(shape, 0.7))["w"].estimator == "implicit"
        else:
            with pytest.raises(ValueError, match="site 'x': .*(log_prob is then not|log_prob ignores|one support on)"):
                plan(make, np.full(shape, 0.7))


def plan(make, value):
    def model(x):
        numpyro.sample("w", dist.Beta(2.0, 2.0))
        numpyro.sample("x", make(), obs=x)

    return autovi.plan(model, {"x": value})


def sticks(loc):
    return dist.TransformedDistribution(dist.Normal(loc * jnp.ones(2)).to_event(1), transforms.StickBreakingTransform())


UNTOUCHED = {
    "vectors through a transform": (lambda s: general(sticks(s), sticks(1.0)), np.ones(3) / 3),
    "the same end, moved": (lambda s: general(dist.Pareto(s, 1.0), dist.Pareto(s, 2.0)), np.array(5.0)),
    "counts": (lambda s: general(dist.Poisson(s), dist.Poisson(2 * s)), np.array(3)),
    "normal vectors": (
        lambda s: general(*(dist.MultivariateNormal(jnp.full(2, x), s * jnp.eye(2)) for x in (0.0, 1.0))),
        np.ones(2),
    ),
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_models_of_which_no_fault_is_known_are_planned(name):
    make, value = UNTOUCHED[name]

    def model(x):
        s = numpyro.sample("s", dist.LogNormal(0.0, 1.0))
        numpyro.sample("x", make(s), obs=x)

    assert autovi.plan(model, {"x": value})["s"].estimator == "explicit"


@pytest.mark.parametrize("observed", [True, False])
@pytest.mark.parametrize(
    "mixture",
    [
        lambda s: general(dist.Uniform(0.0, s), dist.Uniform(0.0, 2 * s)),
        lambda s: general(affine(s, 1.0, dist.Gamma(2.0)), affine(s, 1.0, dist.Gamma(3.0)), support=REAL),
    ],
)
def test_ends_that_parameters_move_apart_are_refused(mixture, observed):
    def model(x=None):
        s = numpyro.sample("s", dist.LogNormal(0.0, 1.0))
        numpyro.sample("x", mixture(s), obs=x)

    with pytest.raises(ValueError, match="site 'x': .*do not all have the same support"):
        autovi.plan(model, {"x": np.array(0.3)} if observed else {})


def test_a_support_that_is_no_interval():
    assert "one support" in composition_fault(dist.FoldedDistribution(Scattered(validate_args=False)))
    with pytest.raises(TypeError, match="none that is known to be it"):
        implicit.sample(0, general(Scattered(), dist.Normal(), support=REAL))
    assert lookup(same(dist.Normal(jnp.zeros(2)))).pathwise == "implicit"


class Labelled(dist.Distribution):
    """Holds another distribution, and something that is no leaf."""

    arg_constraints = {}
    support = constraints.nonnegative
    pytree_data_fields = ("base",)

    def __init__(self, base):
        self.base, self.label = base, 3
        super().__init__(base.batch_shape)

    def sample(self, key, sample_shape=()):
        return self.base.sample(key, sample_shape)


def test_a_guard_leaves_the_other_attributes():
    def drawn(rng_key, fn, shape):
        return fn.label * implicit.sample(rng_key, fn.base, shape)

    implicit.register(Labelled, lambda fn, value, moving: value, drawn)
    gate = lambda gate: implicit.sample(0, Labelled(dist.HurdleGamma(gate, 2.0)), (50,)).mean()  # noqa: E731
    assert gate(0.3) > 0
    with pytest.raises(TypeError, match="no gradient in 'gate'"):
        jax.grad(gate)(0.3)


def test_refusals_name_the_argument():
    with pytest.raises(TypeError, match="sample_shape: expected a tuple of integers, got 5"):
        implicit.sample(0, dist.Normal(), 5)
    with pytest.raises(TypeError, match="ImproperUniform: no sampler"):
        implicit.sample(0, dist.ImproperUniform(REAL, (), ()))
    with pytest.raises(TypeError, match="distribution: expected a NumPyro distribution, got int"):
        implicit.check(3)
    with pytest.raises(TypeError, match="MultivariateNormal: .*use sample"):
        jax.grad(lambda m: implicit.reparameterize(dist.MultivariateNormal(m, jnp.eye(2)), jnp.ones(2)).sum())(
            jnp.zeros(2)
        )
    with pytest.raises(ValueError, match=r"a shape that Gamma.s, \(3,\), broadcasts to, got \(\)"):
        implicit.reparameterize(dist.Gamma(jnp.ones(3)), 1.0)
    for use in (lambda: implicit.sample(0, dist.Poisson(2.0)), lambda: implicit.reparameterize(dist.Poisson(2.0), 1.0)):
        with pytest.raises(ValueError, match="Poisson: its values are discrete"):
            use()


def test_a_guide_is_told_which_of_its_sites_cannot_be_drawn():
    def model():
        numpyro.sample("x", dist.Normal().expand([2]).to_event(1))

    def guide():
        weight = numpyro.param("weight", 0.4, constraint=constraints.unit_interval)
        parts = [fn.expand([2]).to_event(1) for fn in (dist.Normal(), dist.Exponential())]
        mixing = dist.Categorical(probs=jnp.stack([weight, 1 - weight]))
        numpyro.sample("x", dist.MixtureGeneral(mixing, parts, support=constraints.real_vector))

    with pytest.raises(TypeError, match="site 'x': MixtureGeneral: .*use the score function"):
        autovi.fit(model, guide=guide, estimators={"x": "implicit"}, num_steps=2, progress_bar=False)


MASKED = {
    "fold": lambda fn: dist.FoldedDistribution(fn(0.3)),
    "mixture": lambda fn: same(fn(jnp.array([0.3, -0.5]))),
    "transformed": lambda fn: general(
        dist.TransformedDistribution(fn(0.3), transforms.ExpTransform()), dist.Gamma(2.0, 1.0)
    ),
    "copula": lambda fn: dist.GaussianCopula(
        dist.TransformedDistribution(fn(0.3), transforms.ExpTransform()).expand([2]), correlation_cholesky=jnp.eye(2)
    ),
}


@pytest.mark.parametrize("around", MASKED)
def test_draws_do_not_know_of_masks(around):
    def drawn(scale, mask):
        def fn(loc):
            return dist.Normal(loc, scale) if mask is None else dist.Normal(loc, scale).mask(mask)

        return implicit.sample(0, MASKED[around](fn), (50,))

    def each(scale):
        return [drawn(scale, mask) for mask in (None, False, jnp.array(False), jnp.array(True))]

    for found in jit(lambda scale: jax.jvp(each, (scale,), (1.0,)))(1.3):
        np.testing.assert_allclose(found[1:], [found[0]] * 3, rtol=1e-5, atol=1e-6)


def test_weights_that_do_not_add_up_to_one_inside_another_mixture():
    """NumPyro takes them in proportion where it does not check them, as under jit."""

    @jit
    def slopes(probs):
        def draws(w):
            inner = dist.MixtureSameFamily(dist.Categorical(probs=probs), dist.Normal(jnp.array([0.0, 1.0]), 1.0))
            outer = dist.Categorical(probs=jnp.stack([w, 1 - w]))
            return implicit.sample(0, dist.MixtureGeneral(outer, [inner, dist.Normal(0.5, 2.0)]), (200,))

        return jax.jvp(draws, (0.4,), (1.0,))[1]

    np.testing.assert_allclose(slopes(jnp.array([1.0, 3.0])), slopes(jnp.array([0.25, 0.75])), rtol=1e-4, atol=1e-5)


def pair(x):
    return jnp.stack([x, x / 2])


NARROW = {
    "mixture": lambda p: same(dist.Normal(pair(p), jnp.float32(1.0))),
    "rows": lambda p: same(dist.Normal(jnp.stack([pair(p), pair(p) + 1]), jnp.float32(1.0)).to_event(1)),
    "truncated": lambda p: dist.TruncatedNormal(p, jnp.float32(1.0), low=jnp.float32(0.0)),
    "skewed": lambda p: dist.SineSkewed(dist.VonMises(jnp.zeros(2, "f"), jnp.ones(2, "f")).to_event(1), pair(p)),
    "copula": lambda p: dist.GaussianCopula(
        dist.Weibull(jnp.float32(2.0) * jnp.ones(2, "f"), jnp.float32(1.0)),
        correlation_cholesky=jnp.stack([jnp.array([1.0, 0.0], "f"), jnp.stack([p, jnp.sqrt(1 - p * p)])]),
    ),
    "fold": lambda p: dist.FoldedDistribution(dist.Normal(p, jnp.float32(1.0))),
    "hurdle": lambda p: dist.HurdleLogNormal(jnp.float32(0.3), p, jnp.float32(1.0)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NARROW)
def test_single_precision_parameters_where_double_is_enabled(name, dtype):
    """One parameter of either type, the others single: draws have the type that all have in common."""
    with jax.enable_x64(True):
        p, make = jnp.asarray(0.3, dtype), NARROW[name]

        @jit
        def slopes(p):
            drawn, slope = jax.jvp(lambda p: implicit.sample(0, make(p)), (p,), (jnp.ones((), dtype),))
            return (
                drawn,
                slope,
                jax.jvp(lambda p: implicit.reparameterize(make(p), drawn), (p,), (jnp.ones_like(p),))[1],
            )

        drawn, slope, given = slopes(p)
        # NumPyro makes some parameters itself, in double precision.
        leaves = jax.tree.leaves(jax.eval_shape(make, p))
        common = jnp.result_type(*(x for x in leaves if jnp.issubdtype(jnp.result_type(x), jnp.inexact)))
        assert drawn.dtype == slope.dtype == given.dtype == common
        assert np.isfinite(slope).all()
        np.testing.assert_allclose(given, slope, rtol=1e-3, atol=1e-4)
