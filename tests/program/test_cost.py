"""The cost of a site at another value: its value, its whole gradient, and nothing of anybody else's."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import assert_unbiased, batched, flat
from numpyro import handlers

from autovi.preparation import Options, prepare
from autovi.program.surrogate import Step, downstream_cost

X = np.array([0.4, 2.9, 1.7, -0.6], np.float32)
MASK = np.array([True, False, True, True])


def beside_a_sum(x):
    """w is continuous, z is summed out, and both drive x."""
    w = numpyro.sample("w", dist.Normal(0.0, 3.0))
    with numpyro.plate("n", 4):
        z = numpyro.sample("z", dist.Categorical(np.array([0.3, 0.7])))
        numpyro.sample("x", dist.Normal(jnp.where(z == 0, -1.0, w), 1.0), obs=x)


def local_and_masked(x):
    """A continuous latent per element of a subsampled plate, one of them masked, with a discrete neighbour."""
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("n", 4, subsample_size=2) as index:
        with handlers.mask(mask=jnp.asarray(MASK)[index]):
            w = numpyro.sample("w", dist.Normal(0.0, scale))
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("x", dist.Normal(w + z, 1.0), obs=jnp.asarray(x)[index])


def with_a_guide(x):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    v = numpyro.sample("v", dist.Normal(w, 1.0))
    numpyro.sample("x", dist.Normal(v + 0.5 * w, 1.0).expand([4]).to_event(1), obs=x)


def guide(x):
    """v is drawn given w: the cost of w holds what is below it in the guide."""
    m = numpyro.param("m", jnp.array([0.3, -0.2]))
    w = numpyro.sample("w", dist.Normal(m[0], 0.8))
    numpyro.sample("v", dist.Normal(m[1] + 0.7 * w, jnp.exp(0.2 * w)))


CASES = {
    "marginalized": (beside_a_sum, {"estimators": {"z": "marginalize"}, "guide": "mean_field"}),
    "enumerated": (beside_a_sum, {"estimators": {"z": "enumerate"}, "guide": "mean_field"}),
    "scored": (beside_a_sum, {"estimators": {"z": "score"}, "guide": "mean_field"}),
    "masked, subsampled, marginalized": (local_and_masked, {"estimators": {"z": "marginalize"}}),
    "masked, subsampled, enumerated": (local_and_masked, {"estimators": {"z": "enumerate"}}),
    "below in the guide": (with_a_guide, {"guide": guide}),
    "below in the guide, scored": (with_a_guide, {"guide": guide, "estimators": {"v": "score"}}),
}


def step_of(case):
    """One step of two particles with the score function at w, as a function of the parameters."""
    model, options = CASES[case]
    options = {**options, "estimators": {"w": "score", **options.get("estimators", {})}, "num_particles": 2}
    engine, inputs = prepare(model, {"x": X}, Options(**options))
    program = engine.program
    params = program.init(jax.random.key(1), inputs.traced(), 0.3 * jnp.ones(program.start_size))
    _, indices = engine.source.next(inputs.traced(), jnp.zeros((), int), jax.random.key(2))
    make = lambda p: Step(program, program.seen(p, indices), inputs.traced(), indices, jax.random.key(3), 2)  # noqa: E731
    return program, params, make


@pytest.mark.parametrize("case", CASES)
def test_at_the_drawn_value_it_is_the_cost(case):
    program, params, make = step_of(case)
    step = make(params)
    cost = downstream_cost(program, "w", step.raw, step.terms, lead=1)
    np.testing.assert_allclose(step.at("w", step.nodes["w"].draw.value), cost, rtol=2e-5, atol=1e-5)


# A draw of the score function carries no gradient, though its value moves with what is above it.
DIFFERENTIABLE = [case for case in CASES if case != "below in the guide, scored"]


@pytest.mark.slow
@pytest.mark.parametrize("case", DIFFERENTIABLE)
def test_its_gradient_is_that_of_its_values(case):
    """By central differences in double precision, log q of the site included."""
    with jax.enable_x64(True):
        _, params, make = step_of(case)
        step = make(params)
        value = step.nodes["w"].draw.value
        slope = jax.grad(lambda v: jnp.sum(step.at("w", v)))(value)
        h = 1e-5
        for place in np.ndindex(value.shape):
            moved = jnp.zeros_like(value).at[place].set(h)
            difference = jnp.sum(step.at("w", value + moved) - step.at("w", value - moved)) / (2 * h)
            assert float(slope[place]) == pytest.approx(float(difference), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_it_carries_no_gradient_of_parameters(case):
    _, params, make = step_of(case)
    value = make(params).nodes["w"].draw.value
    grads = jax.grad(lambda p: jnp.sum(make(p).at("w", value + 0.1)))(params)
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(grads))
    assert float(jnp.abs(make(params).at("w", value + 0.1)).sum()) > 0


def pathwise_over_two(x):
    """Two discrete sites share a term with a continuous one."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    a = numpyro.sample("a", dist.Bernoulli(0.4))
    b = numpyro.sample("b", dist.Bernoulli(0.7))
    numpyro.sample("x", dist.Normal(w * (a + 2.0 * b), 1.0), obs=x[0])


def test_a_term_that_two_enumerated_sites_share_is_stopped_in_their_sums():
    """A pathwise site gets the sampled term's gradient alone; sums that are not stopped would add theirs."""

    def guide(x):
        p = {n: numpyro.param(n, jnp.array(v)) for n, v in (("m", 0.5), ("s", -0.4), ("la", 0.3), ("lb", -0.6))}
        numpyro.sample("w", dist.Normal(p["m"], jnp.exp(p["s"])))
        numpyro.sample("a", dist.Bernoulli(logits=p["la"]))
        numpyro.sample("b", dist.Bernoulli(logits=p["lb"]))

    def exact(p):
        w2, variance = p["m"], jnp.exp(2 * p["s"])
        total = -0.5 * (w2**2 + variance) + p["s"]
        for site, prior in (("la", 0.4), ("lb", 0.7)):
            q = jnp.stack([jax.nn.sigmoid(-p[site]), jax.nn.sigmoid(p[site])])
            total += jnp.sum(q * (jnp.log(jnp.array([1 - prior, prior])) - jnp.log(q)))
        for a in (0, 1):
            for b in (0, 1):
                weight = jax.nn.sigmoid(p["la"] * (2 * a - 1)) * jax.nn.sigmoid(p["lb"] * (2 * b - 1))
                c = a + 2.0 * b
                total += weight * -0.5 * ((X[0] - c * w2) ** 2 + c**2 * variance)
        return total

    options = Options(guide=guide, estimators={"a": "enumerate", "b": "enumerate", "w": "explicit"}, num_particles=2)
    engine, inputs = prepare(pathwise_over_two, {"x": X}, options)

    def gradient(params, key):
        raw = {"guide": {}, "param": params}
        grads = jax.grad(lambda p: engine.estimate(p, {}, inputs.traced(), key)[0])(raw)["param"]
        return jax.tree.map(jnp.negative, grads)

    params = {"m": jnp.array(0.5), "s": jnp.array(-0.4), "la": jnp.array(0.3), "lb": jnp.array(-0.6)}
    assert_unbiased(batched(gradient), (params,), flat(jax.grad(exact)(params)))


def test_what_a_model_prints_is_printed_once_a_particle():
    seen = []

    def model(x):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        jax.debug.callback(lambda value: seen.append(float(value)), w)
        numpyro.sample("x", dist.Normal(w, 1.0), obs=x[0])

    engine, inputs = prepare(model, {"x": X}, Options(num_particles=3))
    params = engine.program.init(jax.random.key(0), inputs.traced(), jnp.zeros(1))
    step = Step(engine.program, params, inputs.traced(), {}, jax.random.key(3), 3)
    jax.effects_barrier()
    np.testing.assert_allclose(sorted(seen), np.sort(np.ravel(step.nodes["w"].draw.value)), rtol=1e-6)
