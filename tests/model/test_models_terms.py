"""Any NumPyro model: the cost terms of its program add up to NumPyro's own log densities (see `model_checks`)."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from model_checks import check_terms
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan
from numpyro.infer.reparam import LocScaleReparam, TransformReparam

import autovi

Y = np.array([0.5, -1.2, 2.0, 0.3], np.float32)
MASK = np.array([True, False, True, True])


def test_nested_plates():
    def model(y):
        with numpyro.plate("a", 3, dim=-1):
            mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
            with numpyro.plate("b", 2, dim=-2):
                s = numpyro.sample("s", dist.HalfNormal(1.0))
                numpyro.sample("y", dist.Normal(mu, s), obs=y)

    check_terms(model, {"y": np.arange(6.0).reshape(2, 3) / 3})


def test_nested_subsampled_plates():
    """Indexed by both plates, with a latent in the outer one and two, continuous and discrete, in the inner one."""

    def model(y):
        with numpyro.plate("a", 3, subsample_size=2, dim=-1) as a:
            mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
            with numpyro.plate("b", 4, subsample_size=2, dim=-2) as b:
                s = numpyro.sample("s", dist.HalfNormal(1.0))
                z = numpyro.sample("z", dist.Bernoulli(0.3))
                numpyro.sample("y", dist.Normal(mu + z, s), obs=y[b][:, a])

    data = {"y": np.arange(12.0, dtype=np.float32).reshape(4, 3) / 4}
    engine = check_terms(model, data, {"a": [2, 0], "b": [1, 3]}, estimators={"z": "score"})
    shapes = {n: s.full(s.shape) for n, s in engine.program.sites.latents.items()}
    assert shapes == {"mu": (3,), "s": (4, 3), "z": (4, 3)}


def test_numpyro_subsample():
    def model(y):
        with numpyro.plate("a", 4, subsample_size=2):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
            w = numpyro.sample("w", dist.Gamma(2.0 + z, 1.0))
            numpyro.sample("y", dist.Normal(w, 1.0), obs=numpyro.subsample(y, event_dim=0))

    check_terms(model, {"y": Y}, {"a": [3, 1]}, estimators={"z": "score"})


def test_deterministic_and_factor():
    def model():
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        numpyro.deterministic("d", m**2)
        numpyro.factor("f", -jnp.abs(m))

    engine = check_terms(model)
    assert engine.program.sites.observed == {}


def test_params_in_the_model():
    """Constrained, from a callable, on the simplex above a discrete site, and a tree of arrays as modules have."""

    def model(x):
        scale = numpyro.param("scale", 1.5, constraint=dist.constraints.positive)
        centre = numpyro.param("centre", lambda key: jax.random.normal(key, (3,)))
        weights = numpyro.param("weights", jnp.ones(3) / 3, constraint=dist.constraints.simplex)
        layer = numpyro.param("net$params", {"w": jnp.array([0.3, -0.4]), "b": jnp.array(0.1)})
        m = numpyro.sample("m", dist.Normal(centre.sum(), scale))
        k = numpyro.sample("k", dist.Categorical(weights))
        again = numpyro.param("scale", 1.5, constraint=dist.constraints.positive)
        numpyro.sample("y", dist.Normal(m + k + x @ layer["w"] + layer["b"], again), obs=1.0)

    engine = check_terms(model, {"x": np.array([1.0, 2.0], np.float32)}, estimators={"k": "score"})
    assert list(engine.program.sites.params) == ["scale", "centre", "weights", "net$params"]


def test_module():
    init = lambda key, shape: ((*shape[:-1], 2), {"w": jax.random.normal(key, (shape[-1], 2))})  # noqa: E731

    def model(x):
        net = numpyro.module("net", (init, lambda params, x: x @ params["w"]), input_shape=(3,))
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(net(x) + m, 1.0).to_event(1), obs=jnp.ones(2))

    check_terms(model, {"x": np.ones(3, np.float32)})


def test_obs_mask():
    def model(y, missing):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        with numpyro.plate("a", 4):
            numpyro.sample("y", dist.Normal(m, 1.0), obs=y, obs_mask=~missing)

    engine = check_terms(model, {"y": Y, "missing": ~MASK}, families={"y_unobserved": "normal"})
    assert list(engine.program.sites.latents) == ["m", "y_unobserved"]


def test_improper_uniform():
    def model():
        m = numpyro.sample("m", dist.ImproperUniform(dist.constraints.real, (), ()))
        v = numpyro.sample("v", dist.ImproperUniform(dist.constraints.positive, (), (2,)))
        with numpyro.plate("p", 3):
            u = numpyro.sample("u", dist.ImproperUniform(dist.constraints.unit_interval, (), ()))
        numpyro.sample("x", dist.Normal(m, v).to_event(1), obs=jnp.ones(2))
        numpyro.sample("y", dist.Normal(u.sum(), 1.0), obs=1.0)

    check_terms(model)


def test_supports_that_depend_on_other_sites():
    """On a continuous and on a discrete one, which has to be in the guide to be told apart here."""

    def model():
        x = numpyro.sample("x", dist.HalfNormal(1.0))
        k = numpyro.sample("k", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
        z = numpyro.sample("z", dist.Uniform(0.0, x + k))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=0.3)

    check_terms(model, estimators={"k": "score"})


@pytest.mark.slow
def test_to_event_and_several_likelihoods():
    def model(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        b = numpyro.sample("b", dist.Bernoulli(0.3).expand([3]).to_event(1))
        with numpyro.plate("p", 2):
            d = numpyro.sample("d", dist.Dirichlet(jnp.ones(3)))
            c = numpyro.sample("c", dist.LKJCholesky(3, 1.0))
            numpyro.sample("y", dist.MultivariateNormal(d + m, scale_tril=c), obs=y)
            numpyro.sample("counts", dist.Poisson(jnp.exp(m + b)).to_event(1), obs=jnp.array([[1, 2, 0], [0, 0, 4]]))
            numpyro.sample("yes", dist.Bernoulli(logits=m[0]), obs=jnp.array([True, False]))

    check_terms(model, {"y": np.ones((2, 3), np.float32)})


@pytest.mark.slow
def test_distributions_of_every_kind():
    def model():
        vector = numpyro.sample("mvn", dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3)))
        vector += numpyro.sample("zero_sum", dist.ZeroSumNormal(1.0, (3,)))
        vector += numpyro.sample("batch", dist.Normal(0.0, 1.0).expand([3]))
        total = numpyro.sample("truncated", dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=2.0))
        total += numpyro.sample("inverse", dist.InverseGamma(2.0, 1.0))
        total += numpyro.sample("angle", dist.VonMises(0.0, 1.0))
        ordered = dist.TransformedDistribution(dist.Normal(0.0, 1.0).expand([3]), dist.transforms.OrderedTransform())
        vector += numpyro.sample("ordered", ordered)
        numpyro.sample("y", dist.Normal(vector + total, 1.0).to_event(1), obs=jnp.ones(3))

    check_terms(model)


def test_finite_supports_that_do_not_start_at_zero():
    def model():
        total = numpyro.sample("uniform", dist.DiscreteUniform(3, 6))
        total += numpyro.sample("binomial", dist.Binomial(4, 0.3))
        total += numpyro.sample("ordered", dist.OrderedLogistic(0.3, jnp.array([-1.0, 1.0])))
        total += numpyro.sample("poisson", dist.Poisson(3.0))
        total += numpyro.sample("geometric", dist.Geometric(0.3))
        numpyro.sample("y", dist.Normal(total, 1.0), obs=3.0)

    check_terms(model)


def test_reparam():
    def centred(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        t = numpyro.sample("t", dist.HalfNormal(1.0))
        with numpyro.plate("p", 4):
            theta = numpyro.sample("theta", dist.Normal(m, t))
            numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)
        affine = dist.transforms.AffineTransform(m, 2.0)
        numpyro.sample("w", dist.TransformedDistribution(dist.Normal(0.0, 1.0), affine))

    config = {"theta": LocScaleReparam(centered=0.0), "w": TransformReparam()}
    engine = check_terms(handlers.reparam(centred, config=config), {"y": Y})
    assert list(engine.program.sites.latents) == ["m", "t", "theta_decentered", "w_base"]
    assert list(engine.program.sites.deterministics) == ["theta", "w"]


@pytest.mark.parametrize("wrap", [lambda m: handlers.scale(m, scale=3.0), lambda m: m], ids=["scaled", "plain"])
def test_scan(wrap):
    """With a plate in the body, a constrained latent, a mask, and a scale around the whole."""

    def model(y):
        s = numpyro.sample("s", dist.HalfNormal(1.0))

        def step(x, y):
            with numpyro.plate("g", 2):
                x = numpyro.sample("x", dist.Normal(0.8 * x, s))
                e = numpyro.sample("e", dist.LogNormal(0.0, 1.0))
                with handlers.mask(mask=y > 0):
                    numpyro.sample("y", dist.Normal(x, e), obs=y)
            return x, x

        _, xs = scan(step, jnp.zeros(2), y)
        numpyro.deterministic("last", xs[-1])

    check_terms(wrap(model), {"y": np.arange(-3.0, 5.0, dtype=np.float32).reshape(4, 2)})


def chain(y):
    def step(x, y):
        x = numpyro.sample("x", dist.Normal(0.8 * x, 1.0))
        w = numpyro.sample("w", dist.Normal(x, 1.0))
        numpyro.sample("y", dist.Normal(w, 0.5), obs=y)
        return x, x

    scan(step, 0.0, y)


@pytest.mark.parametrize("handler", [handlers.substitute, handlers.condition])
def test_given_values_inside_a_scan(handler):
    engine = check_terms(handler(chain, data={"w": jnp.arange(4.0)}), {"y": Y})
    assert list(engine.program.sites.latents) == ["x"]


def test_observed_values_inside_a_scan_are_the_data():
    engine = check_terms(chain, {"y": Y})
    np.testing.assert_array_equal(engine.observed({"y": Y})["y"], Y)


def test_discrete_chain_in_a_scan():
    def model(y):
        def step(z, y):
            z = numpyro.sample("z", dist.Categorical(jnp.array([[0.9, 0.1], [0.2, 0.8]])[z]))
            numpyro.sample("y", dist.Normal(z, 0.5), obs=y)
            return z, z

        scan(step, 0, y)

    engine = check_terms(model, {"y": Y}, estimators={"z": "score"})
    assert engine.program.plan["z"].estimator == "score"
    assert autovi.plan(model, {"y": Y})["z"].estimator == "marginalize"


@pytest.mark.parametrize("inner", ["scan", "cond"])
def test_draws_in_a_loop_inside_of_a_scan_are_refused(inner):
    """NumPyro tells them no step of the outer one: the evidence of such a model came out a nat too low."""

    def model(y):
        def draw(x, _=None):
            x = numpyro.sample("x", dist.Normal(0.5 * x, 1.0))
            return (x, None) if inner == "scan" else x

        def step(x, y):
            x = scan(draw, x, None, length=2)[0] if inner == "scan" else cond(y > 0, draw, lambda x: x, x)
            return x, None

        numpyro.sample("last", dist.Normal(scan(step, 0.0, y)[0], 1.0), obs=2.0)

    with pytest.raises(ValueError, match="site 'x': it is drawn in a scan or cond inside of another"):
        autovi.fit(model, {"y": Y}, num_steps=1, progress_bar=False)


def pair(y=None):
    m = numpyro.sample("m", dist.Normal(0.0, numpyro.param("width", 1.0)))
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(m, s), obs=y)


def test_condition():
    engine = check_terms(handlers.condition(pair, {"y": 1.2}))
    assert list(engine.program.sites.latents) == ["m", "s"] and list(engine.program.sites.observed) == ["y"]


def test_substitute_fixes_a_site_or_a_parameter():
    """A substituted site is neither latent nor data, but its density counts."""
    engine = check_terms(handlers.substitute(pair, {"s": 0.7, "width": 2.0}), {"y": 1.2})
    sites = engine.program.sites
    assert (list(sites.latents), list(sites.observed), dict(sites.params)) == (["m"], ["y"], {})


def test_lift_makes_a_parameter_latent():
    engine = check_terms(handlers.lift(pair, {"width": dist.HalfNormal(1.0)}), {"y": 1.2})
    assert list(engine.program.sites.latents) == ["width", "m", "s"]


def test_prng_key():
    """A key asked for in the model is the same for the density of a draw and for nothing else."""

    def model():
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        noise = jax.random.normal(numpyro.prng_key(), ())
        numpyro.deterministic("noisy", m + noise)
        numpyro.sample("y", dist.Normal(m, 1.0), obs=1.0)

    check_terms(model)


def test_sample_shape():
    def model():
        m = numpyro.sample("m", dist.HalfNormal(1.0), sample_shape=(3,))
        numpyro.sample("y", dist.Normal(m, 1.0).to_event(1), obs=jnp.ones(3))

    check_terms(model)


@pytest.mark.parametrize("data", [([0.5, -1.2], [True, False], 2), ((0.5, -1.2), np.array([1, 0]), np.int32(2))])
def test_data_of_every_kind(data):
    """Lists and tuples of numbers, booleans, integers and scalars, as positional arguments."""

    def model(y, yes, count):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        with numpyro.plate("p", 2):
            numpyro.sample("y", dist.Normal(m, 1.0), obs=y)
            numpyro.sample("yes", dist.Bernoulli(logits=m), obs=yes)
        numpyro.sample("count", dist.Poisson(jnp.exp(m)), obs=count)

    check_terms(model, data)
