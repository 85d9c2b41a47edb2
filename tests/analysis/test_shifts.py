"""A constant that cancels is known to, operation by operation; whatever does not, or is not seen to, is not."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.lax import stop_gradient as held

from autovi.analysis.shifts import harmless_stops

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)))


def stops_of(fn):
    """Whether each `stop_gradient` of a function is harmless, also in the functions inside."""

    def walk(jaxpr):
        harmless = harmless_stops(jaxpr)
        for i, eqn in enumerate(jaxpr.eqns):
            if eqn.primitive.name == "stop_gradient":
                yield i in harmless
            for inner in jax.extend.core.jaxprs_in_params(eqn.params):
                yield from walk(getattr(inner, "jaxpr", inner))

    return list(walk(jax.make_jaxpr(fn)(X).jaxpr))


def twice(x):
    top = x.max(1, keepdims=True)
    return jnp.log(jnp.exp(x - held(top)).sum(1, keepdims=True)) + held(top)


def by_top(x, fn):
    return fn(held(x.max()))


def mixture(x):
    return dist.MixtureSameFamily(dist.Categorical(logits=x), dist.Normal(X, 1.0)).log_prob(1.0)


CANCEL = {
    "logsumexp": jax.nn.logsumexp,
    "logsumexp of rows": lambda x: jax.nn.logsumexp(x, -1),
    "of columns": lambda x: jax.nn.logsumexp(x, 0, keepdims=True),
    "with signs": lambda x: jax.nn.logsumexp(x, 0, b=-jnp.ones((3, 4)), return_sign=True),
    "softmax": jax.nn.softmax,
    "softmax of columns": lambda x: jax.nn.softmax(x, 0),
    "log_softmax": jax.nn.log_softmax,
    "a density": lambda x: dist.Categorical(logits=x).log_prob(1),
    "probabilities": lambda x: dist.Categorical(logits=x).probs,
    "a mixture": mixture,
    "held twice": twice,
    "a ratio": lambda x: by_top(x, lambda s: jnp.exp(x - s) @ jnp.ones(4) / jnp.exp(x[0, 0] - s)),
    "the sign": lambda x: jnp.sign(x * jnp.exp(held(x.max()))),
    "a comparison": lambda x: by_top(x, lambda s: jnp.where(x - s > 1.0 - s, x, 0.0)),
}
REMAIN = {
    "alone": held,
    "a difference": lambda x: x - held(x.max()),
    "a product": lambda x: held(x) * x,
    "another axis": lambda x: jnp.log(jnp.sum(jnp.exp(x - held(x.max(0))), 1)),
    "summed over": lambda x: jnp.log(jnp.sum(jnp.exp(x - held(x.max(1, keepdims=True))))) + held(x.max()),
    "twice as much": lambda x: x + held(x) - 2 * held(x),
    "an unlike sum": lambda x: jnp.exp(x - held(x)) + jnp.exp(held(x)),
    "a slope by hand": lambda x: jnp.exp(x - held(x)),
    "not a logarithm": lambda x: jnp.log1p(jnp.exp(x - held(x))) + held(x),
    "a wrong bound": lambda x: jnp.maximum(x - held(x), 0.3) + held(x),
    "a wrong case": lambda x: jnp.where(X > 0, x - held(x), 1.0) + held(x),
    "a wrong comparison": lambda x: jnp.where(x - held(x.max()) > -1.2, x, 0.0),
}


@pytest.mark.parametrize("name", CANCEL)
def test_a_constant_that_cancels(name):
    found = stops_of(CANCEL[name])
    assert found and all(found)
    # And indeed: with another constant held fixed the result is the same.
    wanted = CANCEL[name](X)
    moved = other_constants(CANCEL[name], 0.3)(X)
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", REMAIN)
def test_a_constant_that_remains(name):
    assert not any(stops_of(REMAIN[name]))
    a, b = np.asarray(REMAIN[name](X)), np.asarray(other_constants(REMAIN[name], 0.3)(X))
    assert not np.allclose(a, b, rtol=1e-3)


def other_constants(fn, shift):
    """The function with what it holds fixed moved, each element by another number."""

    def run(jaxpr, consts, args):
        known = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, args, strict=True))
        read = lambda v: v.val if isinstance(v, jax.extend.core.Literal) else known[v]  # noqa: E731
        for eqn in jaxpr.eqns:
            values = [read(v) for v in eqn.invars]
            if eqn.primitive.name == "stop_gradient":
                outs = [values[0] + shift * (1 + jnp.arange(values[0].size)).reshape(values[0].shape)]
            elif inner := list(jax.extend.core.jaxprs_in_params(eqn.params)):
                outs = run(getattr(inner[0], "jaxpr", inner[0]), getattr(inner[0], "consts", ()), values)
            else:
                outs = eqn.primitive.bind(*values, **eqn.params)
                outs = outs if eqn.primitive.multiple_results else [outs]
            known |= zip(eqn.outvars, outs, strict=True)
        return [read(v) for v in jaxpr.outvars]

    def moved(x):
        closed = jax.make_jaxpr(fn)(x)
        return run(closed.jaxpr, closed.consts, [x])

    return moved
