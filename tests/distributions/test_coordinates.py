"""Partly non-centred coordinates: the densities are those of the values, at every centring, and nothing is lost where
scales are small."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from as_users import jit_as_users
from numpyro.distributions import biject_to

from autovi.distributions.coordinates import Positive, PseudoData
from autovi.distributions.location_scale import LOCATION_SCALE, coordinates_of, standardized_log_density

ROWS = np.array([0.4, 1.0, 2.5])
LOC = np.array([-1.5, 0.2, 3.0])
TRIL = np.array([[0.5, 0.0, 0.0], [-0.3, 1.2, 0.0], [0.8, 0.4, 2.0]])
# Class -> an instance whose elements have different locations and scales.
EXAMPLES = {
    "AsymmetricLaplace": lambda: dist.AsymmetricLaplace(LOC, ROWS, 1.5),
    "AsymmetricLaplaceQuantile": lambda: dist.AsymmetricLaplaceQuantile(LOC, ROWS, 0.3),
    "Cauchy": lambda: dist.Cauchy(LOC, ROWS),
    "Dagum": lambda: dist.Dagum(1.5, 2.0, ROWS),
    "Exponential": lambda: dist.Exponential(ROWS),
    "Gamma": lambda: dist.Gamma(2.5, ROWS),
    "GaussianRandomWalk": lambda: dist.GaussianRandomWalk(ROWS, 3),
    "Gompertz": lambda: dist.Gompertz(0.5, ROWS),
    "Gumbel": lambda: dist.Gumbel(LOC, ROWS),
    "HalfCauchy": lambda: dist.HalfCauchy(ROWS),
    "HalfNormal": lambda: dist.HalfNormal(ROWS),
    "InverseGamma": lambda: dist.InverseGamma(2.5, ROWS),
    "Laplace": lambda: dist.Laplace(LOC, ROWS),
    "LogNormal": lambda: dist.LogNormal(LOC, ROWS),
    "Logistic": lambda: dist.Logistic(LOC, ROWS),
    "MultivariateNormal": lambda: dist.MultivariateNormal(LOC, scale_tril=TRIL * ROWS[:, None, None]),
    "MultivariateStudentT": lambda: dist.MultivariateStudentT(4.0, LOC, TRIL * ROWS[:, None, None]),
    "Normal": lambda: dist.Normal(LOC, ROWS),
    "SoftLaplace": lambda: dist.SoftLaplace(LOC, ROWS),
    "StudentT": lambda: dist.StudentT(4.0, LOC, ROWS),
    "Weibull": lambda: dist.Weibull(ROWS, 1.5),
}
WRAPPED = {
    "expanded": lambda: dist.Normal(LOC[:, None], ROWS[:, None]).expand([2, 3, 4]),
    "of vectors": lambda: dist.Normal(LOC, ROWS).expand([2, 3]).to_event(1),
    "masked": lambda: dist.StudentT(4.0, LOC, ROWS).mask(np.array([True, False, True])),
    "masked elements of vectors": lambda: dist.Normal(LOC, 2.0).mask(np.array([True, False, True])).to_event(1),
    "expanded vectors": lambda: dist.MultivariateNormal(LOC, scale_tril=TRIL).expand([2]),
}
PRECISIONS = [0.0, 0.7, np.inf]  # and, last, elements with a precision of their own


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def points(fn):
    """Nodes and pseudo-data, stacked in front; these are 0 where nodes are values."""
    rng = np.random.default_rng(0)
    precisions = np.concatenate(
        [np.full((1, *fn.shape()), c) for c in PRECISIONS] + [rng.uniform(0, 5, (1, *fn.shape()))]
    )
    data = np.where(np.isinf(precisions), 0.0, rng.normal(size=precisions.shape))
    return jnp.asarray(rng.normal(size=precisions.shape)), PseudoData(jnp.asarray(precisions), jnp.asarray(data))


def value_of(fn, node, centring):
    return biject_to(fn.support)(coordinates_of(fn).value(node, centring))


def test_each_class_of_the_table_is_tried():
    assert set(EXAMPLES) == set(LOCATION_SCALE)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_jacobian_is_that_of_the_map(name):
    """By the matrix of derivatives of each batch element, with that of the bijection."""
    fn = EXAMPLES[name]()
    nodes, pseudo_data = points(fn)
    coordinates, transform = coordinates_of(fn), biject_to(fn.support)
    claimed = coordinates.log_det(pseudo_data)
    if fn.support is dist.constraints.positive:
        plain = coordinates.value(nodes, pseudo_data)
        claimed = claimed + transform.log_abs_det_jacobian(plain, transform(plain))
    claimed = claimed.reshape(len(nodes), 3, -1).sum(-1)
    matrices = np.asarray(jax.jit(jax.vmap(jax.jacobian(partial(value_of, fn))))(nodes, pseudo_data))
    size = nodes[0].size // 3
    blocks = matrices.reshape(len(nodes), 3, size, 3, size).transpose(0, 1, 3, 2, 4)
    own = np.eye(3, dtype=bool)
    assert (blocks[:, ~own] == 0).all()  # batch elements keep to themselves
    np.testing.assert_allclose(claimed, np.linalg.slogdet(blocks[:, own])[1], atol=1e-9)


@pytest.mark.parametrize("name", {**EXAMPLES, **WRAPPED})
def test_the_density_from_the_node_is_that_of_the_value(name):
    fn = {**EXAMPLES, **WRAPPED}[name]()
    nodes, pseudo_data = points(fn)
    if isinstance(coordinates_of(fn), Positive):
        assert standardized_log_density(fn, nodes, pseudo_data) is None
        return
    both = jit_as_users(lambda n, c: (standardized_log_density(fn, n, c), fn.log_prob(value_of(fn, n, c))))
    found, expected = both(nodes, pseudo_data)
    assert found.shape == (len(nodes), *fn.batch_shape)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", EXAMPLES)
def test_nodes_at_the_ends(name):
    """Without pseudo-data standardized values, whatever location and scale; at an infinite precision the values, to the
    last bit."""
    fn = EXAMPLES[name]()
    nodes, pseudo_data = points(fn)
    coordinates = coordinates_of(fn)
    methods = coordinates.standardized, coordinates.value, coordinates.node
    standardized, value, node = jit_as_users(lambda n, c: [method(n, c) for method in methods])(nodes, pseudo_data)
    free, centred = PRECISIONS.index(0.0), PRECISIONS.index(np.inf)
    np.testing.assert_allclose(standardized[free], nodes[free], rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(value[centred], nodes[centred])
    np.testing.assert_array_equal(node[centred], nodes[centred])


@pytest.mark.parametrize("name", ["Normal", "MultivariateNormal", "GaussianRandomWalk"])
def test_nodes_are_independent_of_each_other_and_of_the_scale_under_a_normal_likelihood(name):
    """The prior's density times that of the pseudo-data is standard normal in the node, but for what depends on
    location and scale alone: the evidence."""
    fn = EXAMPLES[name]()
    nodes, pseudo_data = points(fn)
    coordinates, last = coordinates_of(fn), nodes.shape[0] - 1
    at = jax.tree.map(lambda x: x[last], pseudo_data)

    def log_density(node):
        x = coordinates.value(node, at)
        likelihood = dist.Normal(x, at.precision**-0.5).log_prob(at.value)
        return fn.log_prob(x).sum() + likelihood.sum() + coordinates.log_det(at).sum()

    rng = np.random.default_rng(1)
    left = [log_density(x) - dist.Normal(0.0, 1.0).log_prob(x).sum() for x in rng.normal(size=(3, *nodes[0].shape))]
    np.testing.assert_allclose(left, left[0], rtol=1e-9)


@pytest.mark.parametrize("name", {**EXAMPLES, **WRAPPED})
def test_the_node_of_a_value_is_found_again(name):
    fn = {**EXAMPLES, **WRAPPED}[name]()
    nodes, pseudo_data = points(fn)
    coordinates = coordinates_of(fn)
    found = jit_as_users(lambda n, c: coordinates.node(coordinates.value(n, c), c))(nodes, pseudo_data)
    np.testing.assert_allclose(found, nodes, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: dist.MultivariateNormal(LOC, scale_tril=np.diag(ROWS)), lambda: dist.Normal(LOC, ROWS)),
        (
            lambda: dist.GaussianRandomWalk(0.7, 5),
            lambda: dist.MultivariateNormal(np.zeros(5), scale_tril=0.7 * np.tril(np.ones((5, 5)))),
        ),
    ],
    ids=["a diagonal factor and independent elements", "a walk and its Cholesky factor"],
)
def test_what_is_the_same_has_the_same_coordinates(one, other):
    nodes, pseudo_data = points(one())
    methods = ("value", "node", "standardized")
    every = jax.jit(lambda n, c: [[getattr(coordinates_of(fn()), m)(n, c) for m in methods] for fn in (one, other)])
    for found, expected in zip(*every(nodes, pseudo_data), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("precision", [0.0, 1e-30, 1.0, 1e30, np.inf])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_values_and_slopes_are_finite_in_single_precision(scale, precision):
    """In all that is not a constant, at scales where s^2 w would have overflowed."""

    def both(node, loc, log_s, precision, datum):
        fn, c = dist.Normal(loc, jnp.exp(log_s)), PseudoData(precision, datum)
        coordinates = coordinates_of(fn)
        return standardized_log_density(fn, node, c) + coordinates.log_det(c), coordinates.value(node, c)

    node = 0.3 * (scale if precision == np.inf else 1.0)  # 0.3 standard deviations from the location
    at = [jnp.float32(x) for x in (node, 0.0 if precision else 5.0, np.log(scale), precision, 0.0)]
    both_and_slopes = jax.jit(lambda *a: (both(*a), jax.jacrev(both, argnums=(0, 1, 2))(*a)))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(both_and_slopes(*at)))


@pytest.mark.parametrize("name", ["Normal", "MultivariateNormal", "LogNormal"])
def test_nodes_are_the_same_in_any_unit_and_from_any_origin(name):
    """That of 1000 x + 7 is that of x. Of a logarithm the unit is that of the logarithm."""
    made = {
        "Normal": dist.Normal,
        "LogNormal": dist.LogNormal,
        "MultivariateNormal": lambda m, s: dist.MultivariateNormal(m, scale_tril=s),
    }
    scale = TRIL if name == "MultivariateNormal" else ROWS
    rng = np.random.default_rng(0)
    precision, datum, value, location = np.abs(rng.normal(size=3)), *rng.normal(size=(3, 3))

    def node(value, location, scale, precision, datum):
        at = PseudoData(jnp.asarray(precision), jnp.asarray(datum))
        return coordinates_of(made[name](location, scale)).node(value, at)

    before = node(value, location, scale, precision, datum)
    after = node(1000 * value + 7, 1000 * location + 7, 1000 * scale, 1e-6 * precision, 1000 * datum + 7)
    np.testing.assert_allclose(after, before, rtol=1e-9)


def test_no_digits_are_lost_where_the_scale_is_far_below_the_location():
    """x = 1980 + 1e-4 t in single precision keeps one digit of t at best; from the node the density is exact."""
    with jax.enable_x64(False):
        loc, scale, node = jnp.float32(1980.0), jnp.float32(1e-4), jnp.linspace(-3, 3, 7, dtype=jnp.float32)
        fn, none = dist.Normal(loc, scale), PseudoData(jnp.zeros(7, jnp.float32), jnp.zeros(7, jnp.float32))
        coordinates = coordinates_of(fn)
        found = standardized_log_density(fn, node, none) + coordinates.log_det(none)
        from_value = fn.log_prob(coordinates.value(node, none)) + coordinates.log_det(none)
        expected = dist.Normal(0.0, 1.0).log_prob(node)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.abs(from_value - expected).max() > 1.0
        slope = jax.vmap(
            jax.grad(lambda t: standardized_log_density(fn, t, PseudoData(jnp.float32(0.0), jnp.float32(0.0))))
        )(node)
        np.testing.assert_allclose(slope, -node, atol=1e-5)


def test_a_scale_that_has_underflowed_does_not_matter_where_nodes_are_free_of_it():
    fn = dist.Normal(0.5, 0.0, validate_args=False)
    node, none = jnp.asarray(0.7), PseudoData(jnp.asarray(0.0), jnp.asarray(0.0))
    coordinates = coordinates_of(fn)
    assert coordinates.value(node, none) == pytest.approx(0.5)
    total = standardized_log_density(fn, node, none) + coordinates.log_det(none)
    assert total == pytest.approx(float(dist.Normal(0.0, 1.0).log_prob(node)), rel=1e-12)


@pytest.mark.parametrize(
    "fn",
    [
        dist.Beta(1.0, 2.0),
        dist.Uniform(0.0, 1.0),
        dist.TruncatedNormal(0.0, 1.0, low=0.0),
        dist.Poisson(2.0),
        type("Normal", (dist.Normal,), {})(0.0, 1.0),
    ],
    ids=lambda fn: type(fn).__name__,
)
def test_other_classes_have_none(fn):
    assert coordinates_of(fn) is None
    assert standardized_log_density(fn, jnp.zeros(()), PseudoData(jnp.zeros(()), jnp.zeros(()))) is None
