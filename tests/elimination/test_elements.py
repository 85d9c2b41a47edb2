"""Elements of one site that meet in terms, against sums over all configurations of NumPyro's own joint density."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import ONCE
from jax.scipy.special import logsumexp
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer.util import log_density

from elimination.evaluate import evaluate_model

THETA = np.array([0.3, -0.7])
Y = np.array([0.3, 1.2, -0.4, 2.0, 0.6, -1.1, 0.9, 1.4, -0.2, 0.5])
PARENT = np.array([0, 0, 1, 1, 2, 0])  # of each element; the first is its own


def thetas():
    return [numpyro.sample(f"theta{i}", dist.Normal()) for i in range(2)]


def bernoulli(shape, logits):
    with numpyro.plate_stack("elements", shape):
        return numpyro.sample("z", dist.Bernoulli(logits=logits))


def table(a, b):
    """A potential over the values of two neighbours."""
    return jnp.array([[a, 0.4], [-0.3, b]])


def counted(y):
    """Four elements, which meet all at once."""
    a, b = thetas()
    z = bernoulli((4,), a)
    numpyro.sample("y", dist.Normal(b * z.sum(), 1.0), obs=y[0])


def chain(y, length=5):
    a, b = thetas()
    z = bernoulli((length,), a)
    numpyro.factor("pairs", table(a, b)[z[:-1], z[1:]].sum())
    with numpyro.plate("seen", length):
        numpyro.sample("y", dist.Normal(b * z, 1.0), obs=y[:length])


def long_chain(y):
    """Ten steps, which are taken along an axis."""
    chain(y, 10)


def second_order(y):
    """Emissions from an element and the two before."""
    a, b = thetas()
    z = bernoulli((9,), a)
    with numpyro.plate("seen", 9):
        before = [jnp.concatenate([jnp.zeros(k, z.dtype), z[: 9 - k]]) for k in (1, 2)]
        numpyro.sample("y", dist.Normal(a * z + b * before[0] - z * before[1], 1.0), obs=y[:9])


def tree(y):
    a, b = thetas()
    z = bernoulli(PARENT.shape, a)
    numpyro.factor("edges", -2.0 * jnp.sum(jnp.where(z[PARENT] == z, a, b)))
    numpyro.sample("y", dist.Normal(a * z, 1.0).to_event(1), obs=y[: len(PARENT)])


def tree_in_data(y, parent):
    """Which elements meet is not known before the run: all six do."""
    a, b = thetas()
    z = bernoulli((6,), a)
    numpyro.factor("edges", jnp.sum(jnp.where(z[parent] == z, a, b)))


def written_out(y):
    """A sum made by a loop, and a scalar product."""
    a, b = thetas()
    z = bernoulli((5,), a)
    total = 0.0
    for t in range(4):
        total = total + table(a, b)[z[t], z[t + 1]] / (1.0 + t)
    numpyro.factor("loop", total)
    numpyro.factor("product", a * jnp.dot(z[:-2] * 1.0, z[2:] * jnp.array(y[:3])))


def sequences(y):
    """Chains side by side in a plate, which keep an axis of elements."""
    a, b = thetas()
    with numpyro.plate("n", 3, dim=-2), numpyro.plate("t", 4, dim=-1):
        z = numpyro.sample("z", dist.Bernoulli(logits=a + jnp.array(y[:3, None])))
    numpyro.factor("pairs", table(a, b)[z[:, :-1], z[:, 1:]].sum())


def masked_and_scaled(y):
    a, b = thetas()
    with handlers.mask(mask=np.array([True, False, True, True])):
        z = bernoulli((4,), a)
    with handlers.scale(scale=0.5), handlers.mask(mask=jnp.array(y[0] > 0)):
        numpyro.factor("pairs", table(a, b)[z[:-1], z[1:]].sum())
    with handlers.mask(mask=np.array([True, True, False, True])), numpyro.plate("seen", 4):
        numpyro.sample("y", dist.Normal(b * z, 1.0), obs=y[:4])


def two_arrays(y):
    """A second site in the same dimension as a chain, and one that all of its steps share."""
    a, b = thetas()
    g = numpyro.sample("g", dist.Categorical(logits=jnp.array([a, b, 0.0])))
    with numpyro.plate("t", 4):
        z = numpyro.sample("z", dist.Bernoulli(logits=a + g))
        w = numpyro.sample("w", dist.Bernoulli(logits=b * z))
        numpyro.sample("y", dist.Normal(w + 2.0 * z, 1.0), obs=y[:4])
    numpyro.factor("pairs", table(a, b)[z[:-1], z[1:]].sum())


def two_long_arrays(y):
    """The same along an axis."""
    a, b = thetas()
    with numpyro.plate("t", 8):
        z = numpyro.sample("z", dist.Bernoulli(logits=a))
        w = numpyro.sample("w", dist.Bernoulli(logits=b * z))
    numpyro.sample("y", dist.Normal(w[1:] + 2.0 * z[:-1], 1.0).to_event(1), obs=y[:7])


def grid(y):
    """A lattice: elements meet along both dimensions."""
    a, b = thetas()
    z = bernoulli((3, 4), a)
    spin = 2.0 * z - 1.0
    numpyro.factor("rows", a * (spin[1:] * spin[:-1]).sum())
    numpyro.factor("columns", b * (spin[:, 1:] * spin[:, :-1]).sum())


def added(y):
    """Elements that meet only in that their terms are added."""
    a, b = thetas()
    z = bernoulli((5,), a)
    numpyro.factor("sum", (jnp.array([a, b])[z] * jnp.array(y[:5])).sum())


def factorial(y):
    """Two chains in one array, carried by a scan, that meet at each step."""
    a, b = thetas()

    def step(x, y):
        with numpyro.plate("chains", 2):
            x = numpyro.sample("x", dist.Bernoulli(logits=a + b * x))
        return x, numpyro.sample("y", dist.Normal(x.sum() * 1.0, 1.0), obs=y)

    scan(step, jnp.zeros(2, int), jnp.array(y[:4]))


MODELS = [counted, chain, long_chain, second_order, tree, written_out, sequences, masked_and_scaled, two_arrays]
MODELS += [two_long_arrays, grid, added, factorial]


def configurations(model, data):
    """All values of the discrete sites."""
    with handlers.seed(rng_seed=0):
        sites = handlers.trace(model).get_trace(**data)
    latent = {n: s for n, s in sites.items() if s["type"] == "sample" and not s["is_observed"] and s["fn"].is_discrete}
    shapes = {n: (s["fn"].shape(), len(s["fn"].enumerate_support(expand=False))) for n, s in latent.items()}
    each = [range(k) for shape, k in shapes.values() for _ in range(int(np.prod(shape)))]
    flat = np.array(list(itertools.product(*each)))
    found, start = {}, 0
    for n, (shape, _) in shapes.items():
        size = int(np.prod(shape))
        found[n] = flat[:, start : start + size].reshape(-1, *shape)
        start += size
    return found


def log_weights(model, data, values, theta):
    """log p(data, values | theta) of all configurations."""
    params = {f"theta{i}": t for i, t in enumerate(theta)}
    prior = sum(dist.Normal().log_prob(t) for t in theta)
    one = lambda z: log_density(model, (), data, {**params, **z})[0]  # noqa: E731
    return jax.vmap(one)(values) - prior


SLOW = (masked_and_scaled, two_arrays, two_long_arrays, factorial)  # seconds to compile


def case(model):
    return pytest.param(model, marks=[pytest.mark.slow] if model in SLOW else [], id=model.__name__)


@pytest.mark.parametrize("model", [case(model) for model in MODELS])
def test_evidence_and_gradient(model):
    with jax.enable_x64(True):
        found = evaluate_model(model, {"y": Y}, THETA)
        values = configurations(model, {"y": Y})
        total = lambda theta: logsumexp(log_weights(model, {"y": Y}, values, theta))  # noqa: E731
        exact = jax.jit(jax.value_and_grad(total), compiler_options=ONCE)
        value, gradient = exact(jnp.array(THETA))
    assert {s for g in found.plan.groups for s in g.sites} == set(values)
    assert found.log_evidence == pytest.approx(float(value), abs=1e-9)
    np.testing.assert_allclose(found.gradient, gradient, rtol=0, atol=1e-8)
