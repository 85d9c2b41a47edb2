"""Terms in closed form: the same exact gradients and values, no noise from what they replace, beside every kind of
estimator, plates, masks and scales."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import ONCE, assert_unbiased, batched, flat
from numpyro.contrib.control_flow import scan

import autovi
from autovi.objectives import Elbo
from autovi.preparation import Options, prepare
from oracles import ORACLES

BY_NAME = {o.name: o for o in ORACLES}
ALL = [
    ("normal_normal", {"mu": "explicit"}, "kl"),
    ("gamma_poisson", {"rate": "implicit"}, "kl"),
    ("beta_binomial", {"p": "score"}, "kl"),
    ("dirichlet_categorical", {"p": "implicit"}, "kl"),
    ("dependent_pair", {"z1": "score", "z2": "disarm"}, "kl"),
    ("bernoulli_plate_subsample2", {"z": "score"}, "kl"),
    ("masked_latent", {"z": "score"}, "kl"),
    ("scale_10_subsample2", {"z": "disarm"}, "kl"),
    ("scale_0.1_latent_only", {"z": "score"}, "entropy"),
    ("categorical_normal", {"z": "score", "mu": "taylor_cv"}, "kl"),
    ("normal_above_discrete", {"x": "explicit", "z": "score"}, "kl"),
]


def engine_of(oracle, estimators, closed_form):
    options = Options(
        guide=oracle.guide, estimators=estimators, num_particles=2, objective=Elbo(closed_form=closed_form)
    )
    return prepare(oracle.model, oracle.data, options)


@pytest.mark.parametrize(("name", "estimators", "closed_form"), ALL, ids=str)
def test_gradient_and_value(name, estimators, closed_form):
    oracle = BY_NAME[name]
    engine, inputs = engine_of(oracle, estimators, closed_form)
    own = engine.estimator_params()

    def gradient(params, key):
        loss = lambda p: engine.estimate({"guide": {}, "param": p}, own, inputs.traced(), key)  # noqa: E731
        grads, info = jax.grad(loss, has_aux=True)(params)
        return {"gradient": jax.tree.map(jnp.negative, grads), "value": info.elbo}

    params = {k: jnp.asarray(v) for k, v in oracle.params.items()}
    value, grads = jax.value_and_grad(oracle.exact_elbo)(params)
    assert_unbiased(batched(gradient), (params,), flat({"gradient": grads, "value": value}))


def priors(seen=True):
    numpyro.sample("one", dist.Normal(0.3, 1.5))
    numpyro.sample("several", dist.Normal(jnp.array([0.1, -0.4]), 0.7).to_event(1))
    with numpyro.plate("row", 3):
        numpyro.sample("gate", dist.Bernoulli(0.3))
        numpyro.sample("kind", dist.Categorical(jnp.array([0.2, 0.5, 0.3])))


def normals(seen=True):
    numpyro.sample("one", dist.Normal(0.3, 1.5))
    numpyro.sample("several", dist.Normal(jnp.array([0.1, -0.4]), 0.7).to_event(1))


def loss_of(model, **options):
    engine, inputs = prepare(model, {}, Options(objective=Elbo(closed_form="kl"), num_particles=2, **options))
    own = engine.estimator_params()
    loss = lambda g, key: engine.estimate({"guide": g, "param": {}}, own, inputs.traced(), key)[0]  # noqa: E731
    size = engine.program.start_size
    return engine, loss, engine.program.init(jax.random.key(0), {}, jnp.linspace(-0.5, 0.7, size))["guide"]


def test_of_priors_alone_there_is_no_noise():
    """The ELBO is minus the KL divergence, and so is its gradient, from any draw."""
    asked = {"gate": "disarm", "kind": "enumerate", "one": "explicit", "several": "explicit"}
    engine, loss, guide = loss_of(priors, estimators=asked, guide="mean_field")
    guide = jax.tree.map(lambda x: x + 0.2, guide)
    graded = jax.jit(jax.value_and_grad(loss), compiler_options=ONCE)
    one, other = (graded(guide, jax.random.key(k)) for k in (1, 2))
    np.testing.assert_allclose(flat(one), flat(other), rtol=1e-5, atol=1e-5)
    joint, gate = guide["joint"], guide["gate"]
    kl = dist.kl_divergence
    q = dist.Normal(joint["loc"], jnp.exp(joint["log_scale"]))
    p = dist.Normal(jnp.array([0.3, 0.1, -0.4]), jnp.array([1.5, 0.7, 0.7]))
    (logits,) = jax.tree.leaves(guide["kind"])
    kinds = jax.nn.log_softmax(logits if logits.shape[-1] == 3 else jnp.pad(logits, ((0, 0), (1, 0))), -1)
    discrete = jnp.sum(jnp.exp(kinds) * (kinds - jnp.log(jnp.array([0.2, 0.5, 0.3]))))
    (on,) = jax.tree.leaves(gate)
    pairs = jnp.stack([jax.nn.log_sigmoid(-on), jax.nn.log_sigmoid(on)])
    discrete += jnp.sum(jnp.exp(pairs) * (pairs - jnp.log(jnp.array([0.7, 0.3]))[:, None]))
    assert float(one[0]) == pytest.approx(float(jnp.sum(kl(q, p)) + discrete), rel=1e-5)


def own_kinds(seen=True):
    with numpyro.plate("row", 3):
        numpyro.sample("rate", dist.Gamma(2.0, 0.7))
    numpyro.sample("wait", dist.Exponential(1.3))
    numpyro.sample("p", dist.Beta(1.5, 0.8))
    numpyro.sample("shares", dist.Dirichlet(jnp.array([0.8, 2.0, 1.2])))


def test_of_priors_of_the_familys_own_kind_there_is_no_noise():
    families = {"rate": "gamma", "wait": "gamma", "p": "beta", "shares": "dirichlet"}
    engine, loss, guide = loss_of(own_kinds, families=families)
    assert engine.program.known_priors == set(families)
    guide = jax.tree.map(lambda x: x + 0.2, guide)
    graded = jax.jit(jax.value_and_grad(loss), compiler_options=ONCE)
    one, other = (graded(guide, jax.random.key(k)) for k in (1, 2))
    np.testing.assert_allclose(flat(one), flat(other), rtol=1e-5, atol=1e-5)
    priors = {
        "rate": dist.Gamma(2.0, 0.7),
        "wait": dist.Gamma(1.0, 1.3),
        "p": dist.Beta(1.5, 0.8),
        "shares": dist.Dirichlet(jnp.array([0.8, 2.0, 1.2])),
    }

    def divergence(guide):
        q = {b.name: b.family.distribution(guide[b.name], int(b.name == "shares")) for b in engine.program.plan.blocks}
        return sum(jnp.sum(dist.kl_divergence(q[name], prior)) for name, prior in priors.items())

    np.testing.assert_allclose(flat(one), flat(jax.value_and_grad(divergence)(guide)), rtol=2e-4, atol=2e-5)


def test_of_a_joint_normal_the_correlations_are_in_the_entropy():
    engine, loss, guide = loss_of(normals, guide="full_rank")
    guide = jax.tree.map(lambda x: x + 0.3, guide)
    (block,) = engine.program.plan.blocks
    q = block.family.member(guide[block.name], engine.program.blocks.layout(block))
    p = dist.MultivariateNormal(jnp.array([0.3, 0.1, -0.4]), jnp.diag(jnp.array([1.5, 0.7, 0.7]) ** 2))
    exact = dist.kl_divergence(dist.MultivariateNormal(q.loc, scale_tril=q.scale_tril), p)
    value = jax.jit(loss, compiler_options=ONCE)
    for key in (1, 2):
        assert float(value(guide, jax.random.key(key))) == pytest.approx(float(exact), rel=1e-5)


def test_priors_that_depend_on_draws_are_sampled():
    """On another site's, or on those of the steps before in a scan."""

    def walk(seen=True):
        def step(before, _):
            z = numpyro.sample("z", dist.Normal(0.9 * before, 1.0))
            return z, numpyro.sample("below", dist.Normal(z, 1.0))

        scan(step, numpyro.sample("start", dist.Normal(0.0, 1.0)), None, length=3)

    engine, _, _ = loss_of(walk, guide="mean_field")
    assert engine.program.known_priors == {"start"}


def test_of_a_fit_the_final_elbo_is_that_of_whole_draws():
    y = np.array([0.9, 2.1, 1.4], np.float32)
    model = BY_NAME["normal_normal"].model
    fits = [
        autovi.fit(
            model, {"x": y}, objective=Elbo(closed_form=how), guide="mean_field", num_steps=500, progress_bar=False
        )
        for how in (None, "kl")
    ]
    assert fits[0].elbo == pytest.approx(fits[1].elbo, abs=0.1)


def test_unknown_form():
    with pytest.raises(ValueError, match="closed_form: expected one of"):
        Elbo(closed_form="KL")
