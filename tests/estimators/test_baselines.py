"""Baselines that are networks or functions of what a site reads: they learn the cost, and leave the mean alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from flax import nnx
from gradient_checks import flat

import autovi
from autovi.estimators import Score
from autovi.preparation import Options, prepare

SIZE = 6
X = np.linspace(-1.0, 1.0, SIZE, dtype=np.float32)
LOGIT = jnp.full(SIZE, 0.4)
P = 1 / (1 + np.exp(-0.4))


def model(x):
    with numpyro.plate("row", SIZE):
        z = numpyro.sample("z", dist.Bernoulli(logits=LOGIT))
        numpyro.factor("cost", 100.0 * x**2 + z)


def guide(x):
    logit = numpyro.param("logit", LOGIT)
    with numpyro.plate("row", SIZE):
        numpyro.sample("z", dist.Bernoulli(logits=logit))


class Flax(nnx.Module):
    def __init__(self):
        self.hidden = nnx.Linear(1, 8, rngs=nnx.Rngs(0))
        self.out = nnx.Linear(8, 1, rngs=nnx.Rngs(1))

    def __call__(self, x):
        return self.out(jnp.tanh(self.hidden(x[None])))


BASELINES = {
    "network": "network",
    "equinox": eqx.nn.MLP("scalar", "scalar", 8, 1, jnp.tanh, key=jax.random.key(0)),
    "flax": Flax(),
    "pair": (lambda rng_key, x: jnp.zeros(2), lambda params, x: params[0] + params[1] * x**2),
    "function": lambda x: 100.0 * x**2 + 0.6,
}


def trained(engine, inputs, params, num_steps=3000):
    """The estimators' own parameters after so many steps, the guide's resting."""
    optimizer = engine.program.plan.block("z").estimator.optimizer
    own = engine.estimator_params()["z"]
    loss = lambda own, key: engine.estimate(params, {"z": own}, inputs.traced(), key)[0]  # noqa: E731

    def step(carry, key):
        own, memory = carry
        updates, memory = optimizer.update(jax.grad(loss)(own, key), memory, own)
        return (optax.apply_updates(own, updates), memory), None

    (own, _), _ = jax.lax.scan(step, (own, optimizer.init(own)), jax.random.split(jax.random.key(1), num_steps))
    return {"z": own}


def gradients(baseline, repeats=4000):
    options = Options(guide=guide, estimators={"z": baseline}, num_particles=1)
    engine, inputs = prepare(model, {"x": X}, options)
    params = {"guide": {}, "param": {"logit": LOGIT}}
    own = jax.jit(lambda: trained(engine, inputs, params))()
    grad = jax.grad(lambda p, key: engine.estimate(p, own, inputs.traced(), key)[0])
    one = lambda key: -grad(params, key)["param"]["logit"]  # noqa: E731
    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), repeats)), float)


EXACT = P * (1 - P)  # d/dl E z, and the prior is q


@pytest.mark.parametrize("kind", BASELINES)
def test_it_learns_what_the_inputs_say_of_the_cost(kind):
    found = gradients(Score(BASELINES[kind], inputs="x"))
    # With the best baseline 100 x^2 + E[...] left are the noise of z alone; without, 100 x^2 times the score.
    without = (100.0 * X**2) ** 2 * P * (1 - P)
    assert found.var(0).sum() < 0.01 * without.sum()
    np.testing.assert_allclose(found.mean(0), EXACT, atol=5 * found.std(0).max() / len(found) ** 0.5)


def test_a_baseline_reads_a_site_above_and_a_deterministic_value():
    def above():
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        square = numpyro.deterministic("square", a**2)
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.factor("cost", 5000.0 * square + z)

    reads = {"z": Score(lambda a, square: 2500.0 * a**2 + 2500.0 * square, inputs=("a", "square"))}
    gradient = {}
    for name, estimators in {"read": reads, "none": {"z": Score("none")}}.items():
        options = Options(guide="mean_field", estimators=estimators, num_particles=1)
        engine, inputs = prepare(above, None, options)
        params = engine.initial_params(inputs.arrays)
        grad = jax.grad(lambda p, key, e=engine, i=inputs: e.estimate(p, {"z": ()}, i.traced(), key)[0])
        one = lambda key, g=grad, p=params: g(p, key)["guide"]["z"]  # noqa: E731
        keys = jax.random.split(jax.random.key(0), 2000)
        gradient[name] = flat(jax.jit(jax.vmap(one))(keys))
    # The one term holds what is known of a, too.
    read, none = gradient["read"], gradient["none"]
    assert read.std() < 0.1 * none.std()
    assert abs(read.mean() - none.mean()) < 5 * none.std() / 2000**0.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"baseline": "network"}, "baseline 'network' has none to read"),
        ({"baseline": "moving_average", "inputs": "x"}, "baseline 'moving_average' reads none"),
        ({"baseline": "netwrok", "inputs": "x"}, "unknown name 'netwrok'.*'network', 'none', 'optimal'"),
        ({"baseline": 3, "inputs": "x"}, "unknown 3; expected one of"),
        ({"baseline": "network", "inputs": "w"}, r"site 'z': estimator 'score' reads 'w', which is no array.*\['x'\]"),
        ({"baseline": "network", "inputs": "z"}, "site 'z': estimator 'score' reads 'z', which depends on the site's"),
        ({"baseline": "network", "inputs": "twice"}, "reads 'twice', which depends on the site's own draw"),
    ],
)
def test_what_is_read_is_checked_before_the_first_step(options, said):
    def with_twice(x):
        with numpyro.plate("row", SIZE):
            z = numpyro.sample("z", dist.Bernoulli(logits=LOGIT))
            if "twice" in said:
                numpyro.deterministic("twice", 2 * z)
            numpyro.factor("cost", x**2 + z)

    with pytest.raises(ValueError, match=said):
        autovi.plan(with_twice, {"x": X}, guide=guide, estimators={"z": {"estimator": "score", **options}})


@pytest.mark.parametrize(
    ("asked", "by_hand"),
    [
        ({"estimator": "score", "baseline": "network", "inputs": "x"}, False),
        ({"estimator": "relax", "inputs": ("x",), "through_model": False}, False),
        ({"estimator": "relax"}, False),
        ({"estimator": "score", "baseline": BASELINES["pair"], "inputs": "x"}, True),
    ],
    ids=["network", "relax", "relax through the model", "pair"],
)
def test_a_fit_with_estimators_that_learn_is_saved_and_goes_on(asked, by_hand, tmp_path):
    asked = {"z": asked}
    fit = autovi.fit(model, {"x": X}, guide=guide, estimators=asked, num_steps=200, num_draws=10, progress_bar=False)
    fit.save(tmp_path / "fit", with_data=True)
    if by_hand:
        with pytest.raises(ValueError, match="site 'z': it had 'score', of a class or with a function"):
            autovi.load(tmp_path / "fit", model, guide=guide)
    given = {"z": Score(BASELINES["pair"], inputs="x")} if by_hand else None
    loaded = autovi.load(tmp_path / "fit", model, guide=guide, estimators=given)
    gone_on = [f.resume(100, data={"x": X}).params["logit"] for f in (fit, loaded)]
    np.testing.assert_array_equal(*gone_on)


def test_elements_that_share_a_cost_have_baselines_of_their_own():
    """E (z_1 + z_2)^2 of two Bernoullis, each with another baseline: unbiased with any."""

    def loss(logits, a):
        with numpyro.plate("i", 2):
            z = numpyro.sample("z", dist.Bernoulli(logits=logits))
        return jnp.sum(z) ** 2.0

    grad = autovi.stochastic_grad(loss, estimators={"z": Score(lambda a: -a, inputs="a")}, num_samples=2)
    logits, a = jnp.array([0.3, -0.5]), jnp.array([0.5, 2.0])
    one = lambda key: grad(logits, a, rng_key=key)  # noqa: E731
    found = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 40_000)), float)
    p = np.asarray(jax.nn.sigmoid(logits))
    exact = p * (1 - p) * (1 + 2 * p[::-1])
    np.testing.assert_allclose(found.mean(0), exact, atol=5 * found.std(0).max() / 200)
