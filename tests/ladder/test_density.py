"""The log joint density as a function of one vector: NumPyro's own, discrete sites summed out."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan
from numpyro.infer.util import log_density

from autovi.ladder.density import joint_density
from autovi.preparation import Options, prepare

Y = np.array([0.3, -1.2, 2.0, 0.9])


def mixed(y):
    scale = numpyro.sample("scale", dist.Gamma(2.0, 1.0))
    with numpyro.plate("rows", 4):
        on = numpyro.sample("on", dist.Bernoulli(0.3))
        effect = numpyro.sample("effect", dist.Normal(0.0, scale))
        numpyro.sample("y", dist.Normal(effect + 2.0 * on, 0.5), obs=y)


def by_hand(log_scale, effect):
    """The density on the unconstrained scale with `on` summed out, from NumPyro's."""
    total = []
    for row in range(4):
        both = [dist.Normal(effect[row] + 2.0 * on, 0.5).log_prob(Y[row]) for on in (0.0, 1.0)]
        total.append(jnp.logaddexp(both[0] + jnp.log(0.7), both[1] + jnp.log(0.3)))
    scale = jnp.exp(log_scale)
    prior = dist.Gamma(2.0, 1.0).log_prob(scale) + log_scale
    return sum(total) + prior + dist.Normal(0.0, scale).log_prob(effect).sum()


def test_it_is_the_models_density_with_discrete_sites_summed_out():
    engine, inputs = prepare(mixed, {"y": Y}, Options(guide="full_rank"))
    density = joint_density(engine.program, engine.initial_params(inputs.traced()), inputs.traced())
    point = jnp.array([0.2, 0.1, -0.4, 1.5, 0.3])
    assert engine.program.plan.blocks[0].sites == ("scale", "effect")
    np.testing.assert_allclose(density(point), by_hand(point[0], point[1:]), rtol=1e-5)
    ours = jax.grad(density)(point)
    np.testing.assert_allclose(ours, jax.grad(lambda u: by_hand(u[0], u[1:]))(point), rtol=1e-4, atol=1e-5)


def test_without_discrete_sites_it_is_numpyros_plus_the_jacobian():
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
        sigma = numpyro.sample("sigma", dist.HalfCauchy(1.0))
        numpyro.sample("y", dist.Normal(mu, sigma), obs=y)

    engine, inputs = prepare(model, {"y": Y}, Options(guide="full_rank"))
    density = joint_density(engine.program, engine.initial_params(inputs.traced()), inputs.traced())
    theirs, _ = log_density(model, (Y,), {}, {"mu": 0.7, "sigma": jnp.exp(-0.4)})
    np.testing.assert_allclose(density(jnp.array([0.7, -0.4])), theirs - 0.4, rtol=1e-5)


SEEN = np.array([[1, 0, 1], [0, 0, 1]])  # two occasions of three animals


def alive(seen):
    """The dead stay dead: a transition of probability zero, under a mask that leaves all of its elements."""
    phi, rho = (numpyro.sample(name, dist.Uniform(0.0, 1.0)) for name in ("phi", "rho"))

    def step(before, seen):
        with numpyro.plate("animal", 3):
            with numpyro.handlers.mask(mask=jnp.ones(3, bool)):
                now = numpyro.sample("alive", dist.Bernoulli(phi * before))
            numpyro.sample("seen", dist.Bernoulli(rho * now), obs=seen)
        return now, None

    scan(step, jnp.ones(3, int), seen)


def by_hand_alive(point):
    """The same on the unconstrained scale: seen and then not, never seen, seen twice."""
    phi, rho = jax.nn.sigmoid(point)
    missed = 1 - phi * rho  # dead, or not seen
    never = (1 - phi) + phi * (1 - rho) * missed
    jacobian = jnp.log(phi * (1 - phi)) + jnp.log(rho * (1 - rho))
    return jnp.log(phi * rho * missed) + jnp.log(never) + 2 * jnp.log(phi * rho) + jacobian


def test_derivatives_where_a_transition_is_impossible():
    engine, inputs = prepare(alive, {"seen": SEEN}, Options(guide="full_rank"))
    assert engine.program.plan["alive"].estimator == "marginalize"
    density = joint_density(engine.program, engine.initial_params(inputs.traced()), inputs.traced())
    point = jnp.array([0.4, -0.3])
    np.testing.assert_allclose(density(point), by_hand_alive(point), rtol=1e-5)
    gradient, hessian = jax.jit(lambda x: (jax.grad(density)(x), jax.hessian(density)(x)))(point)
    np.testing.assert_allclose(gradient, jax.grad(by_hand_alive)(point), rtol=1e-4)
    np.testing.assert_allclose(hessian, jax.hessian(by_hand_alive)(point), rtol=1e-4)
