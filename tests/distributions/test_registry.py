"""The registry against the distributions themselves: complete, and right where it can be measured cheaply."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints, transforms

from autovi.distributions.registry import is_discrete, lookup, strip
from autovi.distributions.supports import support_size, support_values
from autovi.distributions.table import ROUTES, TABLE

EXPORTED = {
    name
    for name in dist.__all__
    if isinstance(getattr(dist, name), type) and issubclass(getattr(dist, name), dist.Distribution)
}
KEY = jax.random.key(0)
EYE = jnp.eye(2)

# One instance of each class that can be made from plain numbers.
INSTANCES = [
    dist.AsymmetricLaplace(0.0, 1.0, 2.0),
    dist.AsymmetricLaplaceQuantile(0.0, 1.0, 0.3),
    dist.BernoulliLogits(0.3),
    dist.BernoulliProbs(0.3),
    dist.Beta(2.0, 3.0),
    dist.BetaBinomial(2.0, 3.0, 5),
    dist.BetaNegativeBinomial(2.0, 3.0, 4.0),
    dist.BetaProportion(0.4, 3.0),
    dist.BinomialLogits(0.3, 5),
    dist.BinomialProbs(0.3, 5),
    dist.CategoricalLogits(jnp.zeros(3)),
    dist.CategoricalProbs(jnp.ones(3) / 3),
    dist.Cauchy(0.0, 1.0),
    dist.Chi2(3.0),
    dist.Dagum(1.0, 2.0, 1.0),
    dist.Delta(1.0),
    dist.Dirichlet(jnp.ones(3)),
    dist.DirichletMultinomial(jnp.ones(3), 4),
    dist.DiscreteUniform(3, 7),
    dist.DoublyTruncatedPowerLaw(-1.5, 1.0, 2.0),
    dist.Exponential(1.0),
    dist.FoldedDistribution(dist.Normal(0.0, 1.0)),
    dist.Gamma(2.0, 1.0),
    dist.GammaPoisson(2.0, 1.0),
    dist.GaussianRandomWalk(1.0, 4),
    dist.GeometricLogits(0.3),
    dist.GeometricProbs(0.3),
    dist.Gompertz(1.0, 1.0),
    dist.Gumbel(0.0, 1.0),
    dist.HalfCauchy(1.0),
    dist.HalfNormal(1.0),
    dist.HurdleGamma(0.3, 2.0, 1.0),
    dist.HurdleLogNormal(0.3, 0.0, 1.0),
    dist.HurdleLogits(dist.Poisson(2.0), 0.1),
    dist.HurdlePoisson(0.3, 2.0),
    dist.HurdleProbs(dist.Poisson(2.0), 0.3),
    dist.InverseGamma(2.0, 1.0),
    dist.Kumaraswamy(2.0, 3.0),
    dist.LKJ(2, 1.5),
    dist.LKJCholesky(2, 1.5),
    dist.Laplace(0.0, 1.0),
    dist.LeftTruncatedDistribution(dist.Normal(0.0, 1.0), 0.5),
    dist.LeftTruncatedGamma(dist.Gamma(2.0, 1.0), 0.5),
    dist.Levy(0.0, 1.0),
    dist.LogNormal(0.0, 1.0),
    dist.LogUniform(1.0, 2.0),
    dist.Logistic(0.0, 1.0),
    dist.LowRankMultivariateNormal(jnp.zeros(2), jnp.ones((2, 1)), jnp.ones(2)),
    dist.LowerTruncatedPowerLaw(-1.5, 1.0),
    dist.MatrixNormal(jnp.zeros((2, 2)), EYE, EYE),
    dist.MixtureGeneral(dist.Categorical(jnp.ones(2) / 2), [dist.Normal(), dist.Normal(1.0)]),
    dist.MixtureSameFamily(dist.Categorical(jnp.ones(2) / 2), dist.Poisson(jnp.ones(2))),
    dist.MultinomialLogits(jnp.zeros(3), 4),
    dist.MultinomialProbs(jnp.ones(3) / 3, 4),
    dist.MultivariateNormal(jnp.zeros(2), EYE),
    dist.MultivariateStudentT(4.0, jnp.zeros(2), EYE),
    dist.NegativeBinomial2(2.0, 1.0),
    dist.NegativeBinomialLogits(3.0, 0.1),
    dist.NegativeBinomialProbs(3.0, 0.3),
    dist.Normal(0.0, 1.0),
    dist.OrderedLogistic(0.3, jnp.array([-1.0, 0.0, 1.0])),
    dist.Pareto(1.0, 2.0),
    dist.Poisson(2.0),
    dist.ProjectedNormal(jnp.ones(3)),
    dist.RelaxedBernoulliLogits(0.5, 0.1),
    dist.RightTruncatedDistribution(dist.Normal(0.0, 1.0), 0.5),
    dist.RightTruncatedGamma(dist.Gamma(2.0, 1.0), 0.5),
    dist.SineBivariateVonMises(0.0, 0.0, 2.0, 2.0, 0.5),
    dist.SoftLaplace(0.0, 1.0),
    dist.StudentT(4.0),
    dist.TruncatedPolyaGamma(),
    dist.TwoSidedTruncatedDistribution(dist.Normal(0.0, 1.0), 0.5, 1.5),
    dist.TwoSidedTruncatedGamma(dist.Gamma(2.0, 1.0), 0.5, 1.5),
    dist.Uniform(0.5, 1.5),
    dist.VonMises(0.0, 1.0),
    dist.Weibull(1.0, 2.0),
    dist.Wishart(4.0, EYE),
    dist.WishartCholesky(4.0, EYE),
    dist.ZeroInflatedLogits(dist.Poisson(2.0), 0.1),
    dist.ZeroInflatedPoisson(0.3, 2.0),
    dist.ZeroInflatedProbs(dist.Binomial(4, 0.3), 0.3),
    dist.ZeroSumNormal(1.0, (3,)),
]
by_instance = pytest.mark.parametrize("fn", INSTANCES, ids=lambda fn: type(fn).__name__)


def test_every_exported_distribution_has_a_row():
    assert EXPORTED == set(TABLE)


def test_rows_are_consistent():
    for name, row in TABLE.items():
        assert row.pathwise in ("explicit", "implicit", None), name
        assert not (row.discrete and row.pathwise), name
        assert row.discrete or not row.enumerable, name
        assert row.pathwise or not row.not_pathwise, name
        assert not (row.observation_only and (row.pathwise or row.enumerable)), name
        assert set(row.implicit.values()) <= set(ROUTES), name
        assert bool(row.implicit) == (row.pathwise == "implicit"), name
        parameters = getattr(dist, name).arg_constraints
        assert set(row.moving_support) | set(row.not_pathwise) <= set(parameters), name


@by_instance
def test_discrete_and_enumerable_agree_with_the_instance(fn):
    row = lookup(fn)
    assert row.discrete == is_discrete(fn) == bool(fn.support.is_discrete)
    assert row.enumerable == bool(fn.has_enumerate_support)


def _edges(support):
    """Where the support ends, or None for a constraint without parameters."""
    if isinstance(support, constraints.ParameterFreeConstraint):
        return None
    return [np.asarray(leaf) for leaf in jax.tree.leaves(support)]


@by_instance
def test_a_support_moves_with_the_parameters_that_say_so_and_no_other(fn):
    row = lookup(fn)
    # Exceptions: a point moves with v although its support is declared to be the real line, the density of Levy
    # vanishes at the edge that its loc moves, and TruncatedPolyaGamma is cut at a constant.
    if isinstance(fn, (dist.Delta, dist.Levy, dist.TruncatedPolyaGamma)) or row.discrete:
        return
    names = [name for name in type(fn).arg_constraints if name in fn.__dict__]
    if not row.moving_support:
        # The simplex and its relatives depend on a size, not on a value.
        floats = jax.tree.leaves(_edges(fn.support) or [])
        assert not [x for x in floats if np.issubdtype(x.dtype, np.inexact)]
        return
    assert set(row.moving_support) <= set(names)
    rebuilt = {name: _rebuild(fn, name) for name in names}
    assert {name for name, other in rebuilt.items() if _moved(fn, other)} == set(row.moving_support)


def _rebuild(fn, name):
    """The same distribution with one parameter 10 % larger."""
    arguments = {n: getattr(fn, n) for n in type(fn).arg_constraints} | {name: 1.1 * getattr(fn, name)}
    base = {} if isinstance(fn, dist.TransformedDistribution) else {"base_dist": getattr(fn, "base_dist", None)}
    return type(fn)(**arguments, **{k: v for k, v in base.items() if v is not None})


def _moved(fn, other):
    return not np.allclose(_edges(fn.support), _edges(other.support))


@pytest.mark.parametrize("name", ["Uniform", "LogUniform", "Pareto", "LeftTruncatedDistribution"])
def test_draws_follow_a_moving_support(name):
    fn = next(fn for fn in INSTANCES if type(fn).__name__ == name)
    for parameter in TABLE[name].moving_support:
        moved = _rebuild(fn, parameter)
        before, after = (np.asarray(f.sample(KEY, (1000,))) for f in (fn, moved))
        assert not np.all(fn.support(after)) or not np.all(moved.support(before))


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (dist.Normal, {"loc": 0.3, "scale": 1.2}),
        (dist.Levy, {"loc": 0.3, "scale": 1.2}),
        (dist.Gamma, {"concentration": 2.0, "rate": 1.5}),
        (lambda df: dist.WishartCholesky(df, EYE), {"df": 4.0}),
    ],
    ids=["Normal", "Levy", "Gamma", "WishartCholesky"],
)
def test_a_pathwise_draw_has_a_derivative_in_each_parameter(make, parameters):
    # `has_rsample` is false for three of these.
    assert lookup(make(**parameters)).pathwise
    draw = jax.jit(jax.jacfwd(lambda theta: make(**theta).sample(KEY, (4,))))
    assert all(np.any(np.asarray(slope) != 0) for slope in draw(parameters).values())


def test_wrappers_are_read_through():
    base = dist.Uniform(jnp.zeros(2), 1.0)
    for fn in (
        base.expand((3, 2)),
        base.to_event(1),
        base.mask(False),
        base.expand((3, 2)).mask(True).to_event(2),
    ):
        assert strip(fn) is base
        assert lookup(fn) == TABLE["Uniform"]


def test_an_event_of_many_discrete_elements_is_not_enumerable_itself():
    fn = dist.Bernoulli(jnp.full(3, 0.2)).to_event(1)
    assert lookup(fn).discrete and not lookup(fn).enumerable
    assert support_size(fn) is None and support_size(strip(fn)) == 2


def test_transformed_distributions_follow_their_base():
    shift = transforms.AffineTransform(jnp.float32(1.0), jnp.float32(2.0))
    normal = dist.TransformedDistribution(dist.Normal(), [shift, transforms.ExpTransform()])
    gamma = dist.TransformedDistribution(dist.Gamma(2.0), transforms.ExpTransform())
    assert (lookup(normal).pathwise, lookup(normal).moving_support) == ("explicit", ())
    assert (lookup(gamma).pathwise, lookup(gamma).moving_support) == ("implicit", ())
    assert lookup(dist.TransformedDistribution(dist.Exponential(), shift)).moving_support == ("transforms",)
    late = dist.TransformedDistribution(dist.Normal(), [transforms.ExpTransform(), shift])
    assert lookup(late).moving_support == ("transforms",)
    constant = dist.TransformedDistribution(dist.Exponential(), transforms.AffineTransform(1.0, 2.0))
    assert lookup(constant).moving_support == ()
    bounded = dist.TransformedDistribution(dist.Uniform(0.0, 1.0), transforms.ExpTransform())
    assert lookup(bounded).moving_support == ("low", "high")


def test_mixtures_follow_their_components():
    weights = dist.Categorical(jnp.ones(2) / 2)
    normal = lookup(dist.MixtureSameFamily(weights, dist.Normal(jnp.zeros(2))))
    assert (normal.pathwise, normal.not_pathwise, normal.discrete) == ("implicit", (), False)
    # Right, but its variance explodes: never without being asked for.
    assert normal.reserved and set(normal.implicit) == {"mixing_distribution", "components"}
    gamma = lookup(dist.MixtureGeneral(weights, [dist.Gamma(2.0), dist.LogNormal()]))
    assert gamma.pathwise == "implicit" and not gamma.periodic
    joint = lookup(dist.MixtureSameFamily(weights, dist.MultivariateNormal(jnp.zeros((2, 3)), jnp.eye(3))))
    assert joint.pathwise is None
    angles = lookup(dist.MixtureSameFamily(weights, dist.VonMises(jnp.zeros(2), 1.0)))
    assert angles.pathwise == "implicit" and angles.periodic
    poisson = lookup(dist.MixtureSameFamily(weights, dist.Poisson(jnp.ones(2))))
    assert (poisson.pathwise, poisson.not_pathwise, poisson.discrete) == (None, (), True)


def test_gates_censoring_truncation_and_copulas_follow_their_base():
    assert not lookup(dist.HurdleProbs(dist.Gamma(2.0), 0.3)).discrete
    censored = dist.RightCensoredDistribution(dist.Normal(), jnp.array(True))
    assert lookup(censored).observation_only
    assert lookup(dist.TruncatedDistribution(dist.StudentT(4.0), low=0.0)).implicit == {
        "base_dist": "analytic",
        "low": "analytic",
    }
    assert lookup(dist.GaussianCopula(dist.Gamma(jnp.ones(2)), EYE)).pathwise == "implicit"
    assert lookup(dist.GaussianCopula(dist.VonMises(jnp.zeros(2), 1.0), EYE)).pathwise is None
    assert lookup(dist.GaussianCopula(dist.Poisson(jnp.ones(2)), EYE)).pathwise is None
    assert lookup(dist.HurdleProbs(dist.Gamma(2.0), 0.3)).not_pathwise == ("gate",)
    assert lookup(dist.ImproperUniform(constraints.real, (), ())).observation_only
    assert lookup(dist.HurdleNegativeBinomial2(0.3, 2.0, 1.0).base_dist).discrete


class Plain(dist.Normal):
    pass


class Rounded(dist.Normal):
    def sample(self, key, sample_shape=()):
        return jnp.round(super().sample(key, sample_shape))


class Shifted(dist.Distribution):
    arg_constraints = {"edge": constraints.real}
    support = constraints.dependent(is_discrete=False, event_dim=0)

    def __init__(self, edge):
        self.edge = edge
        super().__init__(())


class Fixed(Shifted):
    support = constraints.positive


class Poisson(Shifted):
    """A namesake of a listed class."""


def test_subclasses_and_unknown_classes():
    assert lookup(Plain()) == TABLE["Normal"]
    assert lookup(Rounded()).reserved and lookup(Rounded()).implicit == {"loc": "cdf", "scale": "cdf"}
    assert lookup(Shifted(0.0)).moving_support == ("edge",) and "Shifted" in lookup(Shifted(0.0)).note
    assert lookup(Fixed(0.0)).moving_support == () and lookup(Fixed(0.0)).implicit == {"edge": "quadrature"}
    assert not lookup(Poisson(0.0)).discrete


FINITE = {
    "Bernoulli": (lambda x: dist.Bernoulli(logits=x), [0, 1]),
    "Binomial": (lambda x: dist.Binomial(4, logits=x), range(5)),
    "Binomial, same totals": (lambda x: dist.Binomial(np.full(3, 4), logits=x), range(5)),
    "BetaBinomial": (lambda x: dist.BetaBinomial(jnp.exp(x), 1.0, 4), range(5)),
    "Categorical": (lambda x: dist.Categorical(logits=x[:, None] * jnp.arange(6.0)), range(6)),
    "DiscreteUniform": (lambda x: dist.DiscreteUniform(3, 7), range(3, 8)),
    "DiscreteUniform, reshaped": (lambda x: dist.DiscreteUniform(-1, np.full(3, 2)), range(-1, 3)),
    "OrderedLogistic": (lambda x: dist.OrderedLogistic(x, jnp.array([-1.0, 0.0, 1.0])), range(4)),
    "ZeroInflated": (lambda x: dist.ZeroInflatedDistribution(dist.Binomial(4, 0.3), gate_logits=x), range(5)),
}


@pytest.mark.parametrize("name", FINITE)
def test_finite_supports_are_known_while_parameters_are_traced(name):
    make, values = FINITE[name]
    seen = []

    def look(x):
        for fn in (make(x), make(x).expand((2, 3)), make(x).mask(x > 0)):
            seen.extend((support_size(fn), support_values(fn)))
        return x

    jax.eval_shape(look, jnp.zeros(3))
    assert seen[0::2] == [len(values)] * 3 and all(type(size) is int for size in seen[0::2])
    for found in seen[1::2]:
        assert isinstance(found, np.ndarray) and found.dtype == jnp.result_type(int)
        np.testing.assert_array_equal(found, list(values))
    listed = np.asarray(make(jnp.zeros(3)).enumerate_support(expand=False)).ravel()
    np.testing.assert_array_equal(listed, list(values))


def test_finite_supports_inside_plates():
    def model(x):
        with numpyro.plate("rows", 3):
            numpyro.sample("uniform", dist.DiscreteUniform(3, 7))
            numpyro.sample("binomial", dist.Binomial(4, logits=x))

    found = {}

    def look(x):
        trace = numpyro.handlers.trace(numpyro.handlers.seed(model, 0)).get_trace(x)
        found.update({name: support_values(trace[name]["fn"]) for name in ("uniform", "binomial")})
        return x

    jax.eval_shape(look, 0.0)
    np.testing.assert_array_equal(found["uniform"], np.arange(3, 8))
    np.testing.assert_array_equal(found["binomial"], np.arange(5))


def test_supports_that_are_not_statically_known():
    assert support_size(dist.Poisson(2.0)) is None and support_values(dist.Normal()) is None
    assert support_size(dist.Binomial(np.array([3, 4]), 0.3)) is None
    assert support_size(dist.DiscreteUniform(np.array([0, 1]), 3)) is None
    assert support_size(dist.Multinomial(3, jnp.ones(2) / 2)) is None
    # Inflation adds a zero that NumPyro's enumeration of the base would leave out.
    assert support_size(dist.ZeroInflatedDistribution(dist.DiscreteUniform(3, 7), gate=0.2)) is None
    found = []
    jax.eval_shape(lambda n: found.append(support_size(dist.Binomial(n, 0.3))), 4)
    jax.eval_shape(lambda n: found.append(support_size(dist.DiscreteUniform(0, n))), 4)
    assert found == [None, None]
