"""The oracles against themselves: exact ELBOs against simulation, their gradients against finite differences.

The simulation sums NumPyro's log densities over traces by hand, scales and masks included, and knows nothing
of the closed forms. Each comparison is a z-test at 5.2 standard errors: seeds are fixed, and fresh ones would fail one
such test with probability 2e-7, any of the 70 here with 1.4e-5. The power floor asks that the standard error be under
1.7 % of the ELBO's change between the two points tested.
"""

import importlib
import sys
from collections.abc import Callable
from functools import cache
from itertools import product
from math import sqrt
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_checks import ONCE
from jax.flatten_util import ravel_pytree
from numpyro import handlers

from oracles import Oracle


def apart() -> tuple[Oracle, ...]:
    """The oracles with constants of their own. JAX keeps what it makes of a NumPy array by the array's identity, and
    would hand conversions to single precision, made for other tests, to the programs in double precision here."""
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "oracles"}
    try:
        return tuple(importlib.import_module("oracles").ORACLES)
    finally:
        sys.modules.update(ours)


ORACLES = apart()
CHUNK, MAX_CHUNKS = 20_000, 9
NUM_SIGMAS = 5.2
POWER_FLOOR = 0.017

# (oracle, 0 for its ELBO or 1 for that with the marginal site summed out)
CASES = [(oracle, which) for oracle in ORACLES for which in range(1 + (oracle.exact_marginal is not None))]
CASE_NAMES = [oracle.name + "-marginal" * which for oracle, which in CASES]
each_case = pytest.mark.parametrize(("oracle", "which"), CASES, ids=CASE_NAMES)
each_oracle = pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: oracle.name)


def compiled(oracle: Oracle) -> Callable[[np.ndarray], np.ndarray]:
    """Rows of flat parameters to value and gradient of each ELBO, shape (ELBOs, rows, 1 + parameters)."""
    functions = [fn for fn in (oracle.exact_elbo, oracle.exact_marginal) if fn is not None]
    _, unravel = ravel_pytree(jax.tree.map(jnp.asarray, oracle.params))

    def one(flat: jax.Array) -> jax.Array:
        found = [jax.value_and_grad(lambda x, fn=fn: fn(unravel(x)))(flat) for fn in functions]
        return jnp.stack([jnp.append(grad, value) for value, grad in found])

    run = jax.jit(jax.vmap(one, out_axes=1), compiler_options=ONCE)

    def evaluate(flat: np.ndarray) -> np.ndarray:
        with jax.numpy_rank_promotion("raise"):
            return np.roll(np.asarray(run(jnp.asarray(flat)), np.float64), 1, axis=-1)

    return evaluate


class Exact(NamedTuple):
    """In float64, at the test point and at one uphill of it in every coordinate."""

    points: np.ndarray  # (2 points, parameters)
    values: np.ndarray  # (ELBOs, 2 points)
    grads: np.ndarray  # (ELBOs, 2 points, parameters)
    differences: np.ndarray  # the same by central differences


@cache
def exact(oracle: Oracle) -> Exact:
    """The step of 1e-4 leaves the differences an error of order 1e-8 times the third derivative."""
    step = 1e-4
    with jax.enable_x64(True):
        evaluate = compiled(oracle)
        centre = np.asarray(ravel_pytree(jax.tree.map(jnp.asarray, oracle.params))[0])
        size = centre.size
        moves = np.concatenate([np.zeros((1, size)), step * np.eye(size), -step * np.eye(size)])
        first = evaluate(centre + moves)
        points = np.stack([centre, centre + 0.6 * np.sign(first[0, 0, 1:])])
        found = np.stack([first, evaluate(points[1] + moves)], axis=1)
    values, grads = found[..., 0], found[..., 1:]
    differences = (values[..., 1 : size + 1] - values[..., size + 1 :]) / (2 * step)
    return Exact(points, values[..., 0], grads[..., 0, :], differences)


def log_density(trace: dict, without: str | None = None) -> jax.Array:
    """sum over sample sites of scale * log prob; a mask is part of the site's distribution."""
    total = jnp.zeros(())
    for name, site in trace.items():
        if site["type"] == "sample" and name != without:
            scale = 1.0 if site["scale"] is None else site["scale"]
            total += scale * jnp.sum(site["fn"].log_prob(site["value"]))
    return total


def one_draw(oracle: Oracle, params: dict, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """log p - log q at one draw of the guide; the same with the oracle's marginal site summed out (else nan).

    The sum is over every joint value of the site's elements. Only terms of the site's own scale depend on it,
    so under a scale s it is s * logsumexp(log p / s).
    """
    guide_key, model_key = jax.random.split(key)
    guide = handlers.seed(handlers.substitute(oracle.guide, params), guide_key)
    guide_trace = handlers.trace(guide).get_trace(**oracle.data)
    model = handlers.replay(handlers.seed(oracle.model, model_key), guide_trace)
    model_trace = handlers.trace(model).get_trace(**oracle.data)
    elbo = log_density(model_trace) - log_density(guide_trace)
    name = oracle.marginal_site
    if name is None:
        return elbo, jnp.nan
    site = model_trace[name]
    scale = 1.0 if site["scale"] is None else site["scale"]
    num_values = site["fn"].enumerate_support(expand=False).shape[0]
    shape = jnp.shape(site["value"])
    configs = np.array(list(product(range(num_values), repeat=int(np.prod(shape)))))

    def log_joint(config: jax.Array) -> jax.Array:
        forced = handlers.substitute(model, {name: config.reshape(shape)})
        return log_density(handlers.trace(forced).get_trace(**oracle.data))

    summed_out = scale * jax.nn.logsumexp(jax.vmap(log_joint)(jnp.asarray(configs)) / scale)
    return elbo, summed_out - log_density(guide_trace, without=name)


@cache
def simulated(oracle: Oracle) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error of `one_draw` at both points: each (ELBO and marginal ELBO, 2 points).

    Draws chunks until the power floor is met. The rule looks at the standard errors only, never at the means.
    """
    _, unravel = ravel_pytree(jax.tree.map(jnp.asarray, oracle.params))
    draws = jax.vmap(lambda flat, key: one_draw(oracle, unravel(flat), key), (None, 0))
    run = jax.jit(draws, compiler_options=ONCE)
    values = exact(oracle).values
    points = jnp.asarray(exact(oracle).points, jnp.float32)
    sample = np.zeros((2, 2, 0))
    for chunk in range(MAX_CHUNKS):
        keys = jax.random.split(jax.random.key(chunk), CHUNK)
        new = np.array([run(flat, keys) for flat in points], np.float64).swapaxes(0, 1)
        sample = np.concatenate([sample, new], axis=-1)
        errors = sample.std(-1, ddof=1) / sqrt(sample.shape[-1])
        if np.all(errors[: len(values)] < POWER_FLOOR * change(values)):
            break
    return sample.mean(-1), errors


def change(values: np.ndarray) -> np.ndarray:
    """What the standard errors are measured against: how much each ELBO differs between the points."""
    return np.abs(values[:, 1:] - values[:, :1])


@each_oracle
def test_params_and_sites_are_what_the_programs_declare(oracle: Oracle) -> None:
    def traces(key: jax.Array) -> None:
        guide_trace = handlers.trace(handlers.seed(oracle.guide, key)).get_trace(**oracle.data)
        model_trace = handlers.trace(handlers.seed(oracle.model, key)).get_trace(**oracle.data)
        declared = {name: site for name, site in guide_trace.items() if site["type"] == "param"}
        assert {name: jnp.shape(site["value"]) for name, site in declared.items()} == {
            name: np.shape(value) for name, value in oracle.params.items()
        }
        for trace in (guide_trace, model_trace):
            latent = {n for n, site in trace.items() if site["type"] == "sample" and not site["is_observed"]}
            assert latent == set(oracle.estimators)

    jax.eval_shape(traces, jax.random.key(0))
    assert (oracle.marginal_site is None) == (oracle.exact_marginal is None)


@each_case
def test_exact_elbo_agrees_with_simulation(oracle: Oracle, which: int) -> None:
    values = exact(oracle).values
    means, errors = simulated(oracle)
    assert np.all(np.abs(means[which] - values[which]) < NUM_SIGMAS * errors[which])
    assert np.all(errors[which] < POWER_FLOOR * change(values)[which])


@each_oracle
def test_gradients_agree_with_finite_differences(oracle: Oracle) -> None:
    found = exact(oracle)
    np.testing.assert_allclose(found.grads, found.differences, rtol=1e-6, atol=1e-7)


@each_oracle
def test_float32_agrees_with_float64(oracle: Oracle) -> None:
    found = exact(oracle)
    with jax.enable_x64(False):
        single = compiled(oracle)(found.points[:1].astype(np.float32))[:, 0]
    grads = found.grads[:, 0]
    np.testing.assert_allclose(single[:, 0], found.values[:, 0], rtol=1e-5)
    np.testing.assert_allclose(single[:, 1:], grads, rtol=1e-5, atol=1e-5 * np.linalg.norm(grads[0]))


@each_oracle
def test_every_entry_of_the_gradient_is_clearly_not_zero(oracle: Oracle) -> None:
    gradient = exact(oracle).grads[0, 0]
    assert np.abs(gradient).min() > 0.02 * np.linalg.norm(gradient)


@pytest.mark.parametrize("name", ["", "_subsample2", "_subsample1"])
def test_the_plated_bernoullis_are_the_known_example(name: str) -> None:
    """1.122, where NumPyro's TraceGraph_ELBO gives 2.256 subsampling 2 of 4, and 4.500 subsampling 1."""
    oracle = next(oracle for oracle in ORACLES if oracle.name == "bernoulli_plate" + name)
    np.testing.assert_allclose(exact(oracle).grads[0, 0], [1.122], atol=5e-4)
