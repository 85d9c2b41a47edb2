"""Fast log densities against NumPyro's own and against closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats
from scipy.special import expit

from autovi.distributions.densities import log_density, relaxed_log_density, unvalidated
from autovi.distributions.formulas import softplus
from autovi.distributions.table import TABLE

ROWS, COLUMNS, CLASSES = 3, 5, 4
KEY = jax.random.key(0)
LOGITS = 4.0 * jax.random.normal(KEY, (ROWS, COLUMNS))
BITS = jnp.array([0, 1, 1, 0, 1])
COUNTS = jnp.array([0, 3, 1, 7, 2])

# name: (distribution of one parameter array, that array, observed values)
CASES = {
    "BernoulliLogits": (lambda x: dist.Bernoulli(logits=x), LOGITS, BITS),
    "BernoulliProbs": (lambda x: dist.Bernoulli(probs=x), jax.nn.sigmoid(LOGITS), BITS),
    "BinomialLogits": (lambda x: dist.Binomial(9, logits=x), LOGITS, COUNTS),
    "BinomialLogits, own totals": (
        lambda x: dist.Binomial(np.array([4, 3, 9, 7, 1000]), logits=x),
        LOGITS,
        COUNTS,
    ),
    "CategoricalLogits": (
        lambda x: dist.Categorical(logits=x),
        jax.random.normal(KEY, (ROWS, COLUMNS, CLASSES)),
        jnp.array([0, 3, 1, 2, 3]),
    ),
    "CategoricalLogits, shared": (
        lambda x: dist.Categorical(logits=x),
        jax.random.normal(KEY, (CLASSES,)),
        jnp.array([0, 3, 1, 2, 3]),
    ),
    "Normal": (lambda x: dist.Normal(x, 0.3), LOGITS, jnp.linspace(-1.0, 2.0, COLUMNS)),
    "Normal, scale": (lambda x: dist.Normal(0.5, jnp.exp(x)), LOGITS, jnp.linspace(-1.0, 2.0, COLUMNS)),
    "Poisson": (lambda x: dist.Poisson(x), jnp.exp(LOGITS), COUNTS),
    "Poisson, log link": (lambda x: dist.Poisson(jnp.exp(x)), LOGITS, COUNTS),
    "Poisson, shared": (lambda x: dist.Poisson(x), jnp.float32(2.5), COUNTS),
    "Poisson, sparse": (lambda x: dist.Poisson(x, is_sparse=True), jnp.exp(LOGITS), COUNTS),
    "no rule": (lambda x: dist.Gumbel(x, 1.3), LOGITS, jnp.linspace(0.1, 2.0, COLUMNS)),
    "Gamma": (lambda x: dist.Gamma(2.0, jnp.exp(x)), LOGITS, jnp.linspace(0.1, 2.0, COLUMNS)),
    "Gamma, concentration": (lambda x: dist.Gamma(jnp.exp(x), 0.7), LOGITS, jnp.linspace(0.1, 2.0, COLUMNS)),
    "BinomialProbs": (lambda x: dist.Binomial(9, probs=x), jax.nn.sigmoid(LOGITS), COUNTS),
    "GammaPoisson": (lambda x: dist.GammaPoisson(jnp.exp(0.2 * x), 0.7), LOGITS, COUNTS),
    "NegativeBinomial2": (lambda x: dist.NegativeBinomial2(jnp.exp(0.2 * x), 1.3), LOGITS, COUNTS),
    "NegativeBinomialProbs": (lambda x: dist.NegativeBinomialProbs(3.0, x), jax.nn.sigmoid(LOGITS), COUNTS),
    "StudentT": (lambda x: dist.StudentT(jnp.exp(0.2 * x), 0.3, 1.2), LOGITS, jnp.linspace(-1.0, 2.0, COLUMNS)),
    "StudentT, location": (lambda x: dist.StudentT(2.5, x, 1.2), LOGITS, jnp.linspace(-1.0, 2.0, COLUMNS)),
    "VonMises": (lambda x: dist.VonMises(0.3, jnp.exp(0.2 * x)), LOGITS, jnp.linspace(-1.0, 2.0, COLUMNS)),
    "Kumaraswamy": (lambda x: dist.Kumaraswamy(jnp.exp(0.3 * x), 0.7), LOGITS, jnp.linspace(0.1, 0.9, COLUMNS)),
    "Chi2": (lambda x: dist.Chi2(jnp.exp(0.2 * x)), LOGITS, jnp.linspace(0.1, 2.0, COLUMNS)),
    "InverseGamma": (lambda x: dist.InverseGamma(jnp.exp(0.2 * x), 0.7), LOGITS, jnp.linspace(0.1, 2.0, COLUMNS)),
    "Beta": (lambda x: dist.Beta(jnp.exp(x), 0.7), LOGITS, jnp.linspace(0.1, 0.9, COLUMNS)),
    "BetaProportion": (lambda x: dist.BetaProportion(jax.nn.sigmoid(x), 3.0), LOGITS, jnp.linspace(0.1, 0.9, COLUMNS)),
}

# Wrappers keep the batch shape's right end, so that values of shape (COLUMNS,) broadcast.
MASK = jnp.array([True, False, True, True, False])
WRAPPERS = {
    "bare": lambda fn: fn,
    "expand": lambda fn: fn.expand((2, ROWS, COLUMNS)),
    "mask": lambda fn: fn.mask(MASK),
    "mask off": lambda fn: fn.mask(False),
    "expand, mask": lambda fn: fn.expand((2, ROWS, COLUMNS)).mask(MASK),
    "to_event": lambda fn: fn.expand((ROWS, COLUMNS)).to_event(1),
    "mask, to_event": lambda fn: fn.expand((ROWS, COLUMNS)).mask(MASK).to_event(2),
    "to_event, mask": lambda fn: fn.expand((ROWS, COLUMNS)).to_event(1).mask(jnp.array([True, False, True])),
}


def _numpyro(fn, value):
    return fn.log_prob(value)


def _results(density, make, parameter, value, wrappers):
    """Log density and the gradient of a weighted sum of it, under each wrapper; one compilation."""

    def weighted(x, wrap):
        out = density(wrap(make(x)), value)
        return jnp.sum(out * jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape)), out

    def all_wrappers(x):
        return {name: jax.grad(weighted, has_aux=True)(x, WRAPPERS[name]) for name in wrappers}

    return jax.jit(all_wrappers)(parameter)


def _assert_same(case, tolerance, parameter, value, wrappers=("bare",)):
    """Equal to NumPyro's, with an absolute tolerance for the cancellation in NumPyro's own formulas."""
    make = CASES[case][0]
    expected = _results(_numpyro, make, parameter, value, wrappers)
    actual = _results(log_density, make, parameter, value, wrappers)
    for wrapper in expected:
        for a, e in zip(actual[wrapper], expected[wrapper], strict=True):
            assert a.shape == e.shape and a.dtype == e.dtype, wrapper
            np.testing.assert_allclose(
                a, e, rtol=tolerance, atol=tolerance * (1.0 + np.max(np.abs(e))), err_msg=wrapper
            )


# A wrapper sees of a class its support and the shape of its parameter: one class for each of these has all of them.
UNDER_ALL_WRAPPERS = {
    "BernoulliLogits",
    "BinomialLogits, own totals",
    "CategoricalLogits",
    "CategoricalLogits, shared",
    "Normal, scale",
    "Poisson, shared",
    "Gamma",
    "VonMises",
    "Beta",
    "no rule",
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_numpyro(case):
    """The last of the wrappers is made of the three there are."""
    wrappers = tuple(WRAPPERS) if case in UNDER_ALL_WRAPPERS else ("bare", "to_event, mask")
    _assert_same(case, 1e-5, *CASES[case][1:], wrappers=wrappers)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_without_validation(case):
    with numpyro.validation_enabled(False):
        _assert_same(case, 1e-5, *CASES[case][1:])


@pytest.mark.parametrize("case", CASES)
def test_values_with_leading_batch_axes(case):
    _, parameter, value = CASES[case]
    _assert_same(case, 1e-5, parameter, jnp.broadcast_to(value, (2, ROWS, COLUMNS)))


@pytest.mark.parametrize("case", CASES)
def test_double_precision(case):
    with jax.enable_x64(True):
        # JAX's log beta function, which NumPyro takes, has seven digits only where both arguments are large.
        by_betaln = case in ("GammaPoisson", "NegativeBinomial2", "NegativeBinomialProbs")
        _assert_same(
            case, 1e-6 if by_betaln else 1e-12, *(jnp.asarray(np.asarray(x, dtype=_wide(x))) for x in CASES[case][1:])
        )


def _wide(x):
    return np.float64 if jnp.issubdtype(x.dtype, jnp.floating) else np.int64


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.float32])
@pytest.mark.parametrize("name", ["BernoulliLogits", "BernoulliProbs", "BinomialLogits", "Poisson"])
def test_observed_values_of_any_type(name, dtype):
    make, parameter, _ = CASES[name]
    fn, plain = make(parameter), log_density(make(parameter), BITS)
    result = log_density(fn, np.asarray(BITS, dtype=dtype))
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, plain, rtol=1e-6)


def test_no_rank_promotion():
    with jax.numpy_rank_promotion("raise"):
        for case in set(CASES) - {"no rule", "Poisson, sparse"}:
            make, parameter, value = CASES[case]
            density = lambda x, make=make, value=value: log_density(make(x), value).sum()  # noqa: E731
            jax.eval_shape(jax.grad(density), parameter)


def test_a_rule_holds_under_jit_and_vmap():
    for make, parameter, value in CASES.values():
        batch = jnp.stack([parameter, 0.5 * parameter])
        mapped = jax.jit(jax.vmap(lambda x, make=make, value=value: log_density(make(x), value)))(batch)
        looped = jnp.stack([log_density(make(x), value) for x in batch])
        np.testing.assert_allclose(mapped, looped, rtol=2e-5, atol=2e-5)


def test_every_row_names_a_numpyro_class_and_is_tried():
    tried = {name.split(",")[0] for name in CASES} - {"no rule"} | {"Dirichlet"}  # in `test_gammas.py`
    tried |= {f"{side}TruncatedDistribution" for side in ("Left", "Right", "TwoSided")}  # in `test_truncated.py`
    gates = ("ZeroInflatedProbs", "ZeroInflatedLogits", "HurdleProbs", "HurdleLogits")
    tried |= {
        *gates,
        "ZeroInflatedPoisson",
        "HurdlePoisson",
        "HurdleGamma",
        "HurdleLogNormal",
    }  # in `families/test_counts.py`
    assert tried == {name for name, row in TABLE.items() if row.density}


def test_a_subclass_keeps_its_own_density():
    class Doubled(dist.Normal):
        def log_prob(self, value):
            return 2.0 * super().log_prob(value)

    assert log_density(Doubled(0.0, 1.0), 0.3) == Doubled(0.0, 1.0).log_prob(0.3)


def test_masked_elements_may_be_nan():
    fn = lambda loc: dist.Normal(loc, 1.0).expand((3,)).mask(jnp.array([True, False, True]))  # noqa: E731
    value = jnp.array([0.0, jnp.nan, 1.0])
    assert log_density(fn(0.0), value)[1] == 0.0
    np.testing.assert_allclose(jax.grad(lambda loc: log_density(fn(loc), value).sum())(0.0), 1.0, rtol=1e-6)


EXTREMES = np.concatenate(
    [np.linspace(-30, 30, 601), np.geomspace(1e-6, 1e4, 101), -np.geomspace(1e-6, 1e4, 101), [0.0]]
)


def test_softplus_is_accurate_for_every_float():
    x = EXTREMES.astype(np.float32)
    exact = np.logaddexp(0.0, x.astype(np.float64))
    np.testing.assert_allclose(softplus(x), exact, rtol=5e-7, atol=1e-37)
    gradient = jax.vmap(jax.grad(softplus))(x)
    np.testing.assert_allclose(gradient, expit(x.astype(np.float64)), rtol=5e-7, atol=1e-37)
    curvature = jax.vmap(jax.grad(jax.grad(softplus)))(x)
    p = expit(x.astype(np.float64))
    np.testing.assert_allclose(curvature, p * (1 - p), atol=1e-7)


@pytest.mark.parametrize("success", [0, 1])
def test_bernoulli_keeps_relative_accuracy_at_extreme_logits(success):
    logits = EXTREMES.astype(np.float32)
    wrong_way = (1 - 2 * success) * logits.astype(np.float64)
    np.testing.assert_allclose(
        log_density(dist.BernoulliLogits(logits), success),
        -np.logaddexp(0.0, wrong_way),
        rtol=5e-7,
        atol=1e-37,
    )
    gradient = jax.grad(lambda x: log_density(dist.BernoulliLogits(x), success).sum())(logits)
    np.testing.assert_allclose(gradient, (2 * success - 1) * expit(wrong_way), rtol=5e-7, atol=1e-37)


def test_bernoulli_with_infinite_logits():
    fn = dist.BernoulliLogits(jnp.array([jnp.inf, -jnp.inf, jnp.inf, -jnp.inf]), validate_args=False)
    result = log_density(fn, jnp.array([1, 0, 0, 1]))
    np.testing.assert_array_equal(result, [0.0, 0.0, -np.inf, -np.inf])


@pytest.mark.parametrize(
    ("make", "value", "slope"),
    [
        (dist.BernoulliLogits, 1, 0.5),
        (dist.BernoulliLogits, 0, -0.5),
        (lambda x: dist.BinomialLogits(x, 3), 1, -0.5),
    ],
)
def test_gradient_at_a_logit_of_zero(make, value, slope):
    # Linear predictors start here. NumPyro's gradient is that of |x|, which JAX takes to be 1 at 0.
    assert jax.grad(lambda x: log_density(make(x), value))(0.0) == slope


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_relaxed_bernoulli_is_linear_between_its_values(value):
    def densities(x):
        fn = dist.Bernoulli(logits=jnp.full(3, x), validate_args=True).mask(MASK[:3]).to_event(1)
        return relaxed_log_density(fn, jnp.full(3, value))

    for logit in (0.0, 1.7, -40.0):
        expected = 2 * (value * logit - np.logaddexp(0.0, logit))
        density, slope = jax.value_and_grad(densities)(logit)
        np.testing.assert_allclose(density, expected, rtol=1e-6)
        np.testing.assert_allclose(slope, 2 * (value - expit(logit)), rtol=1e-6)


@pytest.mark.parametrize(
    ("fn", "value"),
    [
        (dist.BernoulliProbs(0.3), 0.6),
        (dist.BinomialProbs(0.3, 4), 1.5),
        (dist.BinomialLogits(0.3, 4), 1.5),
        (dist.Poisson(2.0), 1.5),
        (dist.Geometric(0.3), 1.5),
        (dist.Poisson(2.0).expand([2]).to_event(1), jnp.array([0.5, 1.5])),
    ],
)
def test_relaxed_densities_are_numpyros_unchecked(fn, value):
    with numpyro.validation_enabled(True):
        np.testing.assert_allclose(relaxed_log_density(fn, value), unvalidated(fn).log_prob(value), rtol=1e-6)


@pytest.mark.parametrize("successes", [0, 1, 999_999, 1_000_000])
def test_binomial_with_a_large_total(successes):
    logits, trials = np.linspace(-14.0, 14.0, 57).astype(np.float32), 1_000_000
    coefficient = math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
    wide = logits.astype(np.float64)
    exact = coefficient - successes * np.logaddexp(0.0, -wide) - (trials - successes) * np.logaddexp(0.0, wide)
    actual = log_density(dist.BinomialLogits(logits, trials), successes)
    np.testing.assert_allclose(actual, exact, rtol=2e-6, atol=2e-6)
    gradient = jax.grad(lambda x: log_density(dist.BinomialLogits(x, trials), successes).sum())(logits)
    exact = successes * expit(-wide) - (trials - successes) * expit(wide)
    np.testing.assert_allclose(gradient, exact, rtol=5e-6, atol=1e-5)


def test_a_negative_binomial_is_scipys():
    with jax.enable_x64(True):
        values = np.array([0, 1, 7, 8, 40, 1000])
        found = log_density(dist.GammaPoisson(1.3, 0.7), values)
        np.testing.assert_allclose(found, stats.nbinom(1.3, 0.7 / 1.7).logpmf(values), rtol=1e-13)


@pytest.mark.parametrize("logit", [-120.0, -3.0, 0.0, 3.0, 120.0])
def test_binomial_with_any_logit(logit):
    values = np.array([0, 1, 4, 8, 9])
    found = log_density(dist.BinomialLogits(logit, 9), values)
    np.testing.assert_allclose(
        found, stats.binom.logpmf(values, 9, expit(logit)) if abs(logit) < 10 else _linear(values, logit), rtol=2e-6
    )
    nothing = log_density(dist.BinomialLogits(logit, 0), 0)
    assert nothing == 0.0


def _linear(values, logit):
    """Where one outcome is certain."""
    rare = values if logit < 0 else 9 - values
    return -abs(logit) * rare + [math.log(math.comb(9, v)) for v in values]


def test_binomial_is_differentiable_in_the_total_and_the_value():
    def total_density(density, total, value):
        return density(dist.BinomialLogits(0.3, total, validate_args=False), value).sum()

    counts = jnp.array([1.0, 2.0])
    for argument in (1, 2):
        gradient = jax.jit(jax.grad(total_density, argument), static_argnums=0)
        expected = gradient(_numpyro, 7.0, counts)
        np.testing.assert_allclose(gradient(log_density, 7.0, counts), expected, rtol=1e-5)


def test_poisson_at_a_rate_of_zero():
    # NumPyro's gradient is NaN for a count of 0, where the log density is exactly -rate.
    density = lambda rate, count: log_density(dist.Poisson(rate), count)  # noqa: E731
    assert abs(density(0.0, 0)) < 1e-6 and jax.grad(density)(0.0, 0) == -1.0
    assert density(0.0, 2) == -jnp.inf
    assert jax.grad(lambda eta: density(jnp.exp(eta), 0))(-200.0) == 0.0


def test_bernoulli_probs_at_the_edges():
    for probability in (0.0, 1.0):
        for success in (0, 1):
            fn = dist.BernoulliProbs(probability)
            np.testing.assert_allclose(log_density(fn, success), fn.log_prob(success), rtol=1e-6)


@pytest.mark.parametrize("probability", [0.0, 1.0])
@pytest.mark.parametrize(("make", "value"), [(dist.BernoulliProbs, 0), (dist.BernoulliProbs, 1)]
                         + [(lambda p: dist.BinomialProbs(p, 5), k) for k in (0, 2, 5)])  # fmt: skip
def test_derivatives_of_a_probability_that_is_held_at_a_limit(make, value, probability):
    # The probability is 0 or 1 whatever theta is, as the survival of the dead: neither derivative is NaN.
    density = lambda theta: log_density(make(probability + 0.0 * theta), value)  # noqa: E731
    assert jax.grad(density)(0.3) == 0.0 and jax.hessian(density)(0.3) == 0.0


@pytest.mark.parametrize("logit", [-60.0, -2.0, 3.0])
def test_second_derivatives_in_the_logit_of_a_probability(logit):
    # log p = logit - log(1 + e^logit) and log(1 - p) = -log(1 + e^logit) have the same one, -p (1 - p), and p of 1e-26
    # has a square that is 0 in float32.
    exact = -expit(logit) * expit(-logit)
    for success in (0, 1):
        density = lambda x: log_density(dist.BernoulliProbs(jax.nn.sigmoid(x)), success)  # noqa: B023, E731
        np.testing.assert_allclose(jax.hessian(density)(logit), exact, rtol=1e-4, atol=1e-6)


def test_impossible_categories():
    logits = jnp.array([0.0, -jnp.inf, 1.0])
    fn = dist.CategoricalLogits(logits, validate_args=False)
    np.testing.assert_allclose(log_density(fn, jnp.arange(3)), fn.log_prob(jnp.arange(3)), rtol=1e-6)
