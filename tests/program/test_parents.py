"""Blocks that are drawn given others: their gradients against the exact ELBO, and posteriors that only they hold."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import assert_unbiased, batched, flat
from scipy import stats

import autovi
from autovi.estimators import Estimator
from autovi.estimators.base import Draw
from autovi.preparation import Options, prepare
from autovi.program.surrogate import Step, downstream_cost
from autovi.run.stopping import Progress

Y = np.array([1.2, -0.3, 0.8, 2.1], np.float32)
A, B, THETA, PHI, NOISE = 1.0, 1.5, 0.7, 1.1, 0.5  # standard deviations
GIVEN = {"theta": "conditional_normal", "phi": "conditional_normal"}


def model(y):
    """Two values in common, two for every group: all of it normal, so that the posterior is one."""
    a = numpyro.sample("a", dist.Normal(0.0, A))
    b = numpyro.sample("b", dist.Normal(0.0, B))
    with numpyro.plate("groups", 4) as index:
        theta = numpyro.sample("theta", dist.Normal(a, THETA))
        phi = numpyro.sample("phi", dist.Normal(b, PHI))
        numpyro.sample("y", dist.Normal(theta + phi, NOISE), obs=jnp.asarray(y)[index])


def log_evidence():
    common = A**2 + B**2
    own = THETA**2 + PHI**2 + NOISE**2
    return stats.multivariate_normal(np.zeros(4), common + own * np.eye(4)).logpdf(Y)


def posterior():
    """Mean and covariance of (a, b, theta, phi)."""
    lift = np.vstack([np.eye(2), np.repeat(np.eye(2), 4, axis=0)])
    prior = lift @ np.diag([A**2, B**2]) @ lift.T + np.diag([0.0, 0.0, *[THETA**2] * 4, *[PHI**2] * 4])
    seen = np.hstack([np.zeros((4, 2)), np.eye(4), np.eye(4)])
    gain = prior @ seen.T @ np.linalg.inv(seen @ prior @ seen.T + NOISE**2 * np.eye(4))
    return gain @ Y, prior - gain @ seen @ prior


NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(30)


def exact_elbo(params, blocks):
    """The ELBO by quadrature over (a, b), in closed form over what is drawn given them."""
    up = {s: block for block in blocks if block.flat for s in block.sites}
    x = jnp.stack(jnp.meshgrid(NODES, NODES, indexing="ij"), -1).reshape(-1, 2)
    weights = jnp.outer(WEIGHTS, WEIGHTS).reshape(-1) / jnp.sum(jnp.outer(WEIGHTS, WEIGHTS))
    if up["a"] is up["b"]:
        top = params[up["a"].name]
        tril = jnp.exp(top["log_diagonal"])[:, None] * (jnp.tril(top["lower"], -1) + jnp.eye(2))
        h, log_scale = top["loc"] + x @ tril.T, jnp.sum(top["log_diagonal"])
    else:
        loc, log_scale = (jnp.concatenate([params[s][p] for s in "ab"]) for p in ("loc", "log_diagonal"))
        h, log_scale = loc + x * jnp.exp(log_scale), jnp.sum(log_scale)
    means, covariances = jnp.zeros((len(x), 4, 2)), jnp.zeros((len(x), 4, 2, 2))  # of (theta, phi) of each group
    entropy = log_scale + np.log(2 * np.pi * np.e)
    for block in blocks:
        if not block.by_element:
            continue
        at, p = jnp.array([["theta", "phi"].index(s) for s in block.sites]), params[block.name]
        loc = p["loc"] + jnp.einsum("gdp,kp->kgd", p["slope"], h)
        log_diagonal = p["log_diagonal"] + jnp.einsum("gdp,kp->kgd", p["scale_slope"], h)
        tril = jnp.exp(log_diagonal)[..., None] * (jnp.tril(p["lower"], -1) + jnp.eye(len(at)))
        means = means.at[:, :, at].set(loc)
        covariances = covariances.at[:, :, at[:, None], at].set(tril @ tril.mT)
        entropy += jnp.sum(log_diagonal, (1, 2)) + 4 * len(at) * 0.5 * np.log(2 * np.pi * np.e)
    total = means[..., 0] + means[..., 1]
    variance = jnp.sum(covariances, (-1, -2))
    terms = expected_log_normal(Y - total, variance, NOISE)
    terms += expected_log_normal(means[..., 0] - h[:, :1], covariances[..., 0, 0], THETA)
    terms += expected_log_normal(means[..., 1] - h[:, 1:], covariances[..., 1, 1], PHI)
    common = expected_log_normal(h[:, 0], 0.0, A) + expected_log_normal(h[:, 1], 0.0, B)
    return jnp.sum(weights * (jnp.sum(terms, 1) + common + entropy))


def expected_log_normal(error, variance, scale):
    return -0.5 * (error**2 + variance) / scale**2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


def moved(params):
    """Parameters away from where they start, no two alike."""
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(3)
    return jax.tree.unflatten(tree, [x + 0.3 * jnp.asarray(rng.normal(size=x.shape), x.dtype) for x in leaves])


@dataclass(frozen=True)
class ThroughCost(Estimator):
    """A pathwise gradient of a normal that asks `cost.at` for the derivative in its value: dz/dtheta d cost/dz."""

    name: ClassVar[str] = "through_cost"

    def refuses(self, facts):
        return None if facts.distribution == "MultivariateNormal" else "it is no normal"

    def noise(self, rng_key, num_particles, shape):
        return jax.random.normal(rng_key, (num_particles, *shape))

    def draw(self, noise, q):
        return Draw(jax.lax.stop_gradient(self.moved(q, noise)), aux=noise)

    def moved(self, q, noise):
        return q.loc + jnp.einsum("...de,...e->...d", q.scale_tril, noise)

    def surrogate(self, q, draw, cost, params):
        slope = jax.grad(lambda value: jnp.sum(cost.at(value)))(draw.value)
        moving = jax.vmap(self.moved)(q.distribution, draw.aux)
        return jnp.sum(moving * jax.lax.stop_gradient(slope)) / len(slope), jnp.zeros(())


CASES = {
    "pathwise": {},
    "pathwise, subsampled": {"batch_size": 2},
    "scored below": {"estimators": {"theta": "score"}},
    "scored above": {"estimators": {"a": "score", "b": "score"}},
    "scored above and below, subsampled": {"estimators": {"a": "score", "phi": "score"}, "batch_size": 2},
    "the gradient of the cost below": {"estimators": {"theta": ThroughCost()}},
    "the gradient of the cost above": {"estimators": {"a": ThroughCost()}, "batch_size": 2},
}


def prepared(case):
    options = Options(families={**GIVEN, "a": "full_rank", "b": "full_rank"}, num_particles=2, **CASES[case])
    engine, inputs = prepare(model, {"y": Y}, options)
    return engine, inputs, moved(engine.initial_params(inputs.traced()))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_the_exact_elbo(case):
    engine, inputs, params = prepared(case)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params["guide"])
        exact = jax.grad(lambda p: -exact_elbo(p, engine.program.plan.blocks))(wide)
    own = engine.estimator_params()
    gradient = jax.grad(lambda p, key: engine.estimate(p, own, inputs.traced(), key)[0])
    assert_unbiased(batched(lambda p, key: gradient(p, key)["guide"]), (params,), flat(exact))


def test_sites_of_one_plate_and_family_are_drawn_together():
    engine, _, params = prepared("pathwise, subsampled")
    blocks = {b.name: b for b in engine.program.plan.blocks}
    assert set(blocks) == {"joint", "joint_groups"}
    assert blocks["joint_groups"].sites == ("theta", "phi") and blocks["joint_groups"].parents == ("joint",)
    shapes = {n: x.shape for n, x in params["guide"]["joint_groups"].items()}
    per_element = {"loc": (4, 2), "log_diagonal": (4, 2), "lower": (4, 2, 2)}
    assert shapes == {**per_element, "slope": (4, 2, 2), "scale_slope": (4, 2, 2)}
    assert "drawn given 'joint'" in engine.program.plan["theta"].why


@pytest.mark.parametrize("case", ["scored above", "scored above and below, subsampled"])
def test_the_cost_of_a_parent_holds_what_is_drawn_given_it(case):
    """At the drawn value it is the sum of all that depends on it, and its gradient is that of its values."""
    with jax.enable_x64(True):
        engine, inputs, params = prepared(case)
        program = engine.program
        _, indices = engine.source.next(inputs.traced(), jnp.zeros((), int), jax.random.key(2))
        step = Step(program, program.seen(params, indices), inputs.traced(), indices, jax.random.key(3), 2)
        value = step.nodes["a"].draw.value
        # What is drawn by the score function moves with its parent, but carries no gradient.
        cost = downstream_cost(program, "a", step.raw, step.terms, lead=1)
        assert {"q:a", "p:a", "p:theta", "p:phi", "p:y"} < set(program.downstream("a"))
        np.testing.assert_allclose(step.at("a", value), cost, rtol=1e-9)
        if case == "scored above":
            slope = jax.grad(lambda v: jnp.sum(step.at("a", v)))(value)
            difference = (step.at("a", value + 1e-5) - step.at("a", value - 1e-5)) / 2e-5
            np.testing.assert_allclose(slope[:, 0], difference, rtol=1e-6)


def test_the_cost_of_a_child_carries_no_gradient_of_its_parents():
    engine, inputs, params = prepared("the gradient of the cost below")
    make = lambda p: Step(engine.program, p, inputs.traced(), {}, jax.random.key(3), 2)  # noqa: E731
    value = make(params).nodes["theta"].draw.value
    grads = jax.grad(lambda p: jnp.sum(make(p).at("theta", value + 0.1)))(params)
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(grads))


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_posterior_that_the_family_holds(batch_size):
    """Normal and correlated over all groups: mean field loses it, blocks given what they have in common do not."""
    fit = autovi.fit(
        model, {"y": Y}, families=GIVEN, num_particles=8, max_steps=20_000, batch_size=batch_size, progress_bar=False
    )
    assert fit.elbo == pytest.approx(log_evidence(), abs=0.02)
    mean, covariance = posterior()
    draws = fit.sample(20_000)
    values = np.hstack([draws["a"][:, None], draws["b"][:, None], draws["theta"], draws["phi"]])
    sd = np.sqrt(np.diag(covariance))
    assert np.abs(values.mean(0) - mean).max() < 0.1 * sd.min()
    found = np.corrcoef(values.T)
    assert np.abs(found - covariance / np.outer(sd, sd)).max() < 0.05


def test_a_file_brings_it_back(tmp_path):
    fit = autovi.fit(model, {"y": Y}, families=GIVEN, batch_size=2, num_steps=50, progress_bar=False)
    fit.save(tmp_path / "fit", with_data=True)
    again = autovi.load(tmp_path / "fit", model)
    assert again.engine.program.plan.blocks == fit.engine.program.plan.blocks
    np.testing.assert_array_equal(again.sample(10, rng_key=1)["theta"], fit.sample(10, rng_key=1)["theta"])


def test_growing_from_mean_field_keeps_q():
    """Independent normals are members of the family: the same draws from the same noise."""
    old, inputs = prepare(model, {"y": Y}, Options(guide="mean_field"))
    new, _ = prepare(model, {"y": Y}, Options(guide="mean_field", families=GIVEN))
    start, _ = old.compile(inputs.traced(), 0)
    state = start(inputs.traced(), 0)[0]
    state = state._replace(params=moved(state.params))
    after = state.moved_to(new.program, old.program, new.optimizer, jax.random.key(0))
    before = state.params["guide"]["joint"]
    grown = after.params["guide"]["joint_groups"]
    np.testing.assert_allclose(grown["loc"], before["loc"][2:].reshape(2, 4).T)
    np.testing.assert_allclose(grown["log_diagonal"], before["log_scale"][2:].reshape(2, 4).T, rtol=1e-6)
    assert all((np.asarray(grown[n]) == 0).all() for n in ("lower", "slope", "scale_slope"))
    _, chunk = new.compile(inputs.traced(), 0)
    _, losses = chunk(after, inputs.traced(), Progress(300, 300).schedule(0))
    assert np.isfinite(losses).all()


def alone(y):
    with numpyro.plate("groups", 4):
        theta = numpyro.sample("theta", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def test_a_conditional_family_with_nothing_to_be_given():
    with pytest.raises(ValueError, match="site 'theta': a conditional family is drawn given the normal sites outside"):
        autovi.plan(alone, {"y": Y}, families={"theta": "conditional_normal"})
