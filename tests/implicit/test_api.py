"""What `autovi.implicit` promises as a whole: shapes, routes, registration, refusals."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from implicit_checks import jit
from numpyro.distributions import constraints

import autovi
from autovi import implicit
from autovi.distributions.registry import lookup


def test_shapes_are_those_of_numpyro():
    shapes = (), (5,), (2, 3)
    for fn in (
        dist.Gamma(jnp.ones(3), 2.0),
        dist.Dirichlet(jnp.ones((2, 4))),
        dist.Normal(jnp.zeros((3, 1)), jnp.ones(2)),
    ):
        each = jit(lambda fn: [implicit.sample(0, fn, sample_shape) for sample_shape in shapes])(fn)
        for sample_shape, drawn in zip(shapes, each, strict=True):
            assert drawn.shape == fn.shape(sample_shape)
            assert np.unique(drawn).size == drawn.size


def test_integers_among_the_parameters_are_numbers():
    at = lambda make: lambda s: implicit.reparameterize(make(s), jnp.array(2.5))  # noqa: E731
    np.testing.assert_allclose(jax.grad(at(lambda s: dist.Normal(1, s)))(2.0), (2.5 - 1) / 2, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(at(lambda s: dist.StudentT(5, jnp.array(1), s)))(2.0), (2.5 - 1) / 2, rtol=1e-6)
    by_kappa = [jax.grad(at(lambda s, loc=loc: dist.VonMises(loc, s)))(2.0) for loc in (0, 0.0)]
    assert by_kappa[0] == by_kappa[1] < 0  # an angle comes closer to its location


def test_values_and_parameters_have_one_number_type():
    def moved(scale, value):
        made = lambda scale: implicit.reparameterize(dist.StudentT(jnp.array(5), 1, scale), value)  # noqa: E731
        return jax.jvp(made, (scale,), (jnp.ones_like(scale),))

    with jax.enable_x64(True):
        values = jnp.float32(2.5), 2.5, jnp.float64(2.5), np.float32([2.5])
        scales = jnp.float64(2.0), jnp.float32(2.0), 2.0
        for made, along in jit(lambda: [moved(scale, value) for value in values for scale in scales])():
            assert made.dtype == along.dtype
            np.testing.assert_allclose(along, 0.75)
    whole = jax.grad(lambda s: implicit.reparameterize(dist.Normal(0.0, s), 3))(2.0)
    assert whole == 1.5


def test_keys_of_every_kind():
    keys = (3, np.int64(3), jax.random.key(3), jax.random.PRNGKey(3), np.asarray(jax.random.PRNGKey(3)))
    drawn = jit(lambda: [implicit.sample(key, dist.Gamma(2.0), (4,)) for key in keys])()
    for other in drawn[1:]:
        np.testing.assert_array_equal(other, drawn[0])
    for wrong in (3.0, "3", True, jax.random.split(jax.random.key(3), 2)):
        with pytest.raises(ValueError, match="rng_key: expected an integer or a jax key, got"):
            implicit.sample(wrong, dist.Gamma(2.0), (4,))


NOT_NUMBERS = """
import jax, jax.numpy as jnp, numpyro.distributions as dist
from autovi import implicit

def angles(a):
    return dist.VonMises(0.0, a).expand((1,)).to_event(1)

makes = [
    lambda a: dist.Gamma(a), lambda a: dist.Beta(a, 1.0), lambda a: dist.StudentT(a), lambda a: dist.VonMises(0.0, a),
    lambda a: dist.Dirichlet(jnp.stack([a, a])), lambda a: dist.SineBivariateVonMises(0.0, 0.0, a, 1.0, 0.5),
    lambda a: dist.SineSkewed(angles(a), jnp.array([0.5])), lambda a: dist.LKJCholesky(3, a),
    lambda a: dist.WishartCholesky(a, scale_tril=jnp.eye(2)),
    lambda a: dist.LeftTruncatedDistribution(dist.Normal(a), 1.0),
]
each = jax.jit(lambda a: [jnp.sum(implicit.sample(0, make(a), (3,))) for make in makes])
finite = lambda a: [bool(jnp.isfinite(x)) for x in each(a)]
assert all(finite(2.0)) and not any(finite(jnp.nan)), (finite(2.0), finite(jnp.nan))
each(jnp.inf)
each(-1.0)
"""


def test_no_draw_waits_forever_for_a_parameter_that_is_not_a_number():
    """Rejection never accepts for a NaN. In a process of its own, as nothing else would end the wait."""
    found = subprocess.run(
        [sys.executable, "-c", NOT_NUMBERS], capture_output=True, text=True, timeout=300, check=False
    )
    assert found.returncode == 0, found.stderr


WITHOUT_ANGLES = """
import sys, jax, numpyro.distributions as dist
from autovi import implicit
jax.grad(lambda a: implicit.sample(0, dist.Gamma(a)))(2.0)
implicit.routes(dist.VonMises(0.0, 1.0))
loaded = lambda: any("implicit.circular" in name for name in sys.modules)
assert not loaded()
implicit.sample(0, dist.VonMises(0.0, 1.0))
assert loaded()
"""


def test_what_angles_need_is_imported_with_the_first_of_them():
    found = subprocess.run([sys.executable, "-c", WITHOUT_ANGLES], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_routes_name_every_parameter():
    assert implicit.routes(dist.StudentT(4.0)) == {"df": "quadrature", "loc": "explicit", "scale": "explicit"}
    assert implicit.routes(dist.Gamma(2.0).expand([3]).to_event(1)) == {
        "concentration": "quadrature",
        "rate": "explicit",
    }
    assert implicit.routes(dist.HurdleGamma(0.3, 2.0, 1.0))["gate"] is None
    assert implicit.routes(dist.Poisson(2.0)) == {"rate": None}
    mixture = dist.MixtureSameFamily(dist.Categorical(jnp.ones(2) / 2), dist.Normal(jnp.zeros(2)))
    assert implicit.routes(mixture) == {"mixing_distribution": "analytic", "components": "analytic"}
    assert implicit.routes(dist.TruncatedDistribution(dist.StudentT(3.0), low=0.0)) == {
        "low": "analytic",
        "base_dist": "analytic",
    }


class Rayleigh(dist.Distribution):
    """Drawn by a sampler that has no gradient."""

    arg_constraints = {"scale": constraints.positive}
    support = constraints.positive

    def __init__(self, scale, validate_args=None):
        self.scale = scale
        super().__init__(batch_shape=jnp.shape(scale), validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        noise = jax.random.exponential(key, sample_shape + self.batch_shape)
        return jax.lax.stop_gradient(self.scale * jnp.sqrt(2 * noise))

    def log_prob(self, value):
        return jnp.log(value) - 2 * jnp.log(self.scale) - value**2 / (2 * self.scale**2)


class Known(Rayleigh):
    pass


def test_a_registered_class_has_its_rule_and_its_routes():
    implicit.register(Known, lambda fn, value, moving: value / fn.scale * moving.scale)
    draws, slopes = jax.jvp(lambda s: implicit.sample(0, Known(s), (10,)), (1.5,), (1.0,))
    np.testing.assert_allclose(slopes, draws / 1.5, rtol=1e-6)
    assert implicit.routes(Known(1.5)) == {"scale": "analytic"} and lookup(Known(1.5)).reserved is None


def test_an_unknown_class_is_taken_only_when_asked_for():
    def model():
        numpyro.sample("x", dist.LogNormal(0.0, 1.0))

    def guide():
        numpyro.sample("x", Rayleigh(numpyro.param("scale", 1.0, constraint=constraints.positive)))

    assert autovi.plan(model, guide=guide)["x"].estimator == "score"
    fit = autovi.fit(model, guide=guide, estimators={"x": "implicit"}, num_steps=1500, num_draws=10, progress_bar=False)
    assert fit.plan["x"].estimator == "implicit"
    grid = np.linspace(0.2, 5.0, 4801)
    euler, spread = 0.5772156649, np.pi**2 / 24
    mean_log = np.log(grid) + 0.5 * (np.log(2) - euler)
    # E log q - log p, where log q - log p = log x - 2 log s - x^2 / 2s^2 + log x + (log x)^2 / 2 + constant
    divergence = 2 * mean_log - 2 * np.log(grid) + 0.5 * (mean_log**2 + spread)
    assert abs(float(fit.params["scale"]) - grid[divergence.argmin()]) < 0.05


def test_refusals_say_what_to_do():
    for refused in (
        lambda: implicit.sample(0, 3.0),
        lambda: implicit.reparameterize(3.0, jnp.ones(2)),
        lambda: implicit.routes(3.0),
    ):
        with pytest.raises(TypeError, match="expected a NumPyro distribution, got float"):
            refused()
    with pytest.raises(ValueError, match="discrete"):
        implicit.sample(0, dist.Poisson(2.0))
    with pytest.raises(TypeError, match="distribution class"):
        implicit.register("Rayleigh", None)
    with pytest.raises(ValueError, match="NumPyro's own"):
        implicit.register(dist.Gamma, None)
    with pytest.raises(ValueError, match="routes"):
        implicit.register(Known, None, routes={"scale": "guess"})
