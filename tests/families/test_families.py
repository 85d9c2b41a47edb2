"""Every family of the table: where it starts, its shapes, its support, its gradients at extreme parameters, and its
place in plates, subsampled plates and under to_event."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.special import ive

from autovi.distributions import PlackettLuce, PlackettLuceMatrix
from autovi.distributions.densities import log_density
from autovi.families import FAMILIES
from autovi.families.base import Layout, NoiseFamily
from autovi.preparation import Options, prepare

JOINT = [n for n, f in FAMILIES.items() if f.joint]
WITHOUT_PARENTS = [n for n, f in FAMILIES.items() if not f.conditional]  # the others: `program/test_parents.py`
PARENTS = jnp.array([0.3, -0.2])

# A value to start from, and a prior that the family is right for.
STARTS = {
    "normal": [-1.5, 0.3, 2.0],
    "delta": [-1.5, 0.3, 2.0],
    "full_rank": [-1.5, 0.3, 2.0],
    "low_rank": [-1.5, 0.3, 2.0],
    "stretched": [-1.5, 0.3, 2.0],
    "conditional_normal": [-1.5, 0.3, 2.0],
    "sinh_arcsinh": [-1.5, 0.3, 2.0],
    "structured": [-1.5, 0.3, 2.0],
    "conditional_affine": [-1.5, 0.3, 2.0],
    "flow": [-1.5, 0.3, 2.0],
    "gamma": [0.05, 1.0, 30.0],
    "beta": [0.1, 0.5, 0.8],
    "dirichlet": [0.1, 0.3, 0.6],
    "von_mises": [-1.5, 0.3, 2.0],
}
PRIORS = {
    "normal": dist.LogNormal(0.0, 1.0),
    "delta": dist.LogNormal(0.0, 1.0),
    "full_rank": dist.LogNormal(0.0, 1.0),
    "low_rank": dist.LogNormal(0.0, 1.0),
    "stretched": dist.LogNormal(0.0, 1.0),
    "conditional_normal": dist.LogNormal(0.0, 1.0),
    "sinh_arcsinh": dist.LogNormal(0.0, 1.0),
    "structured": dist.LogNormal(0.0, 1.0),
    "conditional_affine": dist.LogNormal(0.0, 1.0),
    "flow": dist.LogNormal(0.0, 1.0),
    "gamma": dist.Gamma(2.0, 1.0),
    "beta": dist.Beta(2.0, 3.0),
    "dirichlet": dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])),
    "von_mises": dist.VonMises(0.5, 2.0),
    "bernoulli": dist.Bernoulli(0.3),
    "categorical": dist.Categorical(jnp.array([0.2, 0.3, 0.5])),
    "poisson": dist.Poisson(4.0),
    "geometric": dist.GeometricProbs(0.2),
    "negative_binomial": dist.NegativeBinomial2(4.0, 2.0),
    "zero_inflated_poisson": dist.ZeroInflatedPoisson(0.3, 4.0),
    "hurdle_poisson": dist.HurdlePoisson(0.3, 4.0),
    "hurdle_gamma": dist.HurdleGamma(0.3, 2.0, 1.0),
    "plackett_luce": PlackettLuce(jnp.array([0.3, -0.2, 0.5])),
    "plackett_luce_matrix": PlackettLuceMatrix(jnp.array([0.3, -0.2, 0.5])),
}
ORDERS = {"plackett_luce": np.arange(3), "plackett_luce_matrix": np.eye(3)}
EVENTS = {"dirichlet": (3,), "plackett_luce": (3,), "plackett_luce_matrix": (3, 3)}


def layout_of(name, batch_shape=(2,)):
    """A block of three values per batch element, events where the family has them."""
    if FAMILIES[name].joint:
        return Layout((), (3,), num_parents=len(PARENTS))
    if name in EVENTS:
        return Layout(batch_shape, EVENTS[name])
    return Layout((*batch_shape, 3), (), 4 if name == "categorical" else None)


def start_of(name, layout):
    values = STARTS.get(name, [0.0, 0.0, 0.0])
    return jnp.broadcast_to(jnp.array(values), layout.batch_shape + layout.event_shape)


def made(name):
    layout = layout_of(name)
    start = start_of(name, layout)
    family = FAMILIES[name]()
    params = family.init(start, layout)
    return family, layout, start, params


def member(family, layout, params):
    return family.member(family.given(params, PARENTS), layout)


def test_every_family_is_tested():
    assert set(PRIORS) == set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_shapes_and_support(name):
    family, layout, _, params = made(name)

    @jax.jit
    def draw(params):
        q = member(family, layout, params)
        draws = q.sample(jax.random.key(0), (100,))
        support = family.support if family.support is not None else q.support
        return q, draws, q.log_prob(draws), jnp.all(support(draws))

    q, draws, log_prob, inside = draw(params)
    assert (q.batch_shape, q.event_shape) == (layout.batch_shape, layout.event_shape)
    assert draws.shape == (100, *layout.batch_shape, *layout.event_shape)
    assert log_prob.shape == (100, *layout.batch_shape)
    assert inside
    rows = layout.batch_shape
    assert family.joint or all(leaf.shape[: len(rows)] == rows for leaf in params.values())


@pytest.mark.parametrize("name", STARTS)
def test_starts_concentrated_around_the_start(name):
    """The mean is the start; the spread is a tenth on the unconstrained scale, that of ten counts on the site's own."""
    family, layout, start, params = made(name)
    q = member(family, layout, params)
    if isinstance(family, NoiseFamily):  # a normal here, made of the noise as it stands
        at = lambda noise: q.from_noise(jnp.full(q.shape(), noise))[0]  # noqa: E731
        np.testing.assert_allclose(at(0.0), start, rtol=1e-5)
        np.testing.assert_allclose(at(1.0) - at(0.0), 0.1, rtol=1e-4)
        return
    np.testing.assert_allclose(q.mean, start, rtol=1e-5)
    if name == "delta":
        return
    expected = {
        "gamma": start**2 / 10.0,
        "beta": start * (1 - start) / 11.0,
        "dirichlet": start * (1 - start) / 11.0,
        "von_mises": jnp.full(start.shape, 1 - ive(1, 10.0) / ive(0, 10.0)),  # circular variance
    }
    np.testing.assert_allclose(q.variance, expected.get(name, 0.01 * jnp.ones(start.shape)), rtol=0.05)


@pytest.mark.parametrize("name", ["bernoulli", "categorical"])
def test_finite_supports_start_uniform(name):
    family, layout, _, params = made(name)
    log_prob = member(family, layout, params).log_prob(jnp.ones(layout.batch_shape, int))
    np.testing.assert_allclose(jnp.exp(log_prob), 0.5 if name == "bernoulli" else 0.25, rtol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_at_extreme_parameters_are_right(name):
    """float32 against float64 at the same draws, every parameter moved by 8 either way: e^8 is a factor of 3,000.

    By 1 for the low rank family, whose density cancels as the condition number of its covariance grows, and by a tenth
    for maps of noise, where it would be a power, or one factor on another: `test_noise_families.py` tries their scales
    alone.
    """
    family, layout, start, params = made(name)
    shift = 1.0 if name == "low_rank" else 0.1 if isinstance(family, NoiseFamily) else 8.0
    moved = jax.tree.map(lambda p: jnp.stack([p - shift, p + shift]), params)

    def total(params, value):
        return jnp.sum(log_density(member(family, layout, params), value))

    if name == "delta":
        values = moved["loc"]
    elif family.unconstrained:
        values = moved["loc"] + 0.3
    elif name in ORDERS:
        values = jnp.broadcast_to(ORDERS[name], (2, *layout.batch_shape, *layout.event_shape))
    elif family.support is not None:
        values = jnp.stack([start, start])
    else:
        values = jnp.stack([jnp.zeros(layout.batch_shape, int), jnp.ones(layout.batch_shape, int)])
    grads = jax.jit(jax.vmap(jax.grad(total)))
    found = jax.tree.map(np.asarray, grads(moved, values))
    with jax.enable_x64(True):
        double = lambda x: jnp.asarray(np.asarray(x, np.float64 if np.asarray(x).dtype.kind == "f" else None))  # noqa: E731
        right = jax.tree.map(np.asarray, grads(jax.tree.map(double, moved), double(values)))
    for key in right:
        atol = 2e-4 * (1 + np.abs(right[key]).max())
        np.testing.assert_allclose(found[key], right[key], rtol=2e-3, atol=atol, err_msg=key)


# --- in a model ----------------------------------------------------------------------------------------------------


def model_of(name, subsample_size=None, to_event=False):
    """Four elements of the family's prior, each with two observations; under to_event three in every element."""
    prior = PRIORS[name]

    def model(y):
        with numpyro.plate("p", 4, subsample_size=subsample_size) as idx:
            z = numpyro.sample("z", prior.expand([3]).to_event(1) if to_event else prior)
            total = jnp.sum(z, axis=tuple(range(1, z.ndim))) if z.ndim > 1 else z
            numpyro.sample("y", dist.Normal(total, 1.0).expand([2, jnp.shape(idx)[0]]), obs=y[:, idx])

    return model


def check_sum_of_terms(model, family, subsample_size=None):
    """At moved parameters the terms add up to log p + log Jacobian - log q of the values drawn, written out by hand."""
    y = np.arange(8, dtype=np.float32).reshape(2, 4) / 4
    score = {"z": "score"} if PRIORS[family].support.is_discrete else None  # kept in the guide, not summed out
    engine, inputs = prepare(model, {"y": y}, Options(families={"z": family}, estimators=score))
    program = engine.program
    arrays = jax.device_put(inputs.traced())
    size = program.start_size
    params = program.init(jax.random.key(0), arrays, jnp.linspace(-0.5, 0.5, size))
    indices = {} if subsample_size is None else {"p": jnp.array([3, 1])}
    run = program.run(params, arrays, jax.random.key(2), indices)
    z = run.values["z"]
    scale = 1.0 if subsample_size is None else 2.0
    columns = indices.get("p", jnp.arange(4))
    site = program.sites.samples["z"]
    prior = PRIORS[family].expand(z.shape[: z.ndim - PRIORS[family].event_dim])
    total = z.reshape(z.shape[0], -1).sum(1)
    log_p = prior.log_prob(z).sum() + dist.Normal(total, 1.0).log_prob(y[:, columns]).sum()
    node = run.nodes["z"]
    log_q = node.q.log_prob(node.draw.value).sum()
    jacobian = jnp.log(z).sum() if FAMILIES[family].unconstrained else 0.0  # those families' priors are positive
    assert site.full(site.shape)[0] == 4 and z.shape == site.shape
    terms = sum(jnp.sum(t) for t in run.terms.values())
    np.testing.assert_allclose(terms, scale * (log_p + jacobian - log_q), rtol=2e-5)


NO_TO_EVENT = ("categorical", *EVENTS)  # their own dimensions are in the way of a sum, or cannot be listed


@pytest.mark.parametrize("name", ["normal", "gamma", "categorical"])
def test_in_a_plate(name):
    check_sum_of_terms(model_of(name), name)


@pytest.mark.parametrize("name", [n for n in JOINT if n in WITHOUT_PARENTS])
def test_in_a_plate_under_to_event(name):
    check_sum_of_terms(model_of(name, to_event=True), name)


@pytest.mark.parametrize("name", WITHOUT_PARENTS)
def test_in_a_subsampled_plate_under_to_event(name):
    check_sum_of_terms(model_of(name, subsample_size=2, to_event=name not in NO_TO_EVENT), name, subsample_size=2)
