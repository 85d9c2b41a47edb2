"""Discrete sites in the guide beside groups that are summed out: the gradient of their q against enumeration."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from gradient_checks import ONCE
from numpyro.contrib.control_flow import scan
from scipy.stats import norm

from autovi.preparation import Options, prepare

Y = np.array([0.1, 2.0, -1.0], np.float32)
STATES = np.array([[[0.7, 0.3], [0.2, 0.8]], [[0.4, 0.6], [0.5, 0.5]]])
CLASSES = np.array([[0.2, 0.5, 0.3], [0.6, 0.2, 0.2]])
YES = np.array([0.1, 0.5, 0.8])
NUM_STEPS = 4_000


def model(y):
    """Of w and of each v depend two sites in a plate, and of w a chain."""
    w = numpyro.sample("w", dist.Bernoulli(0.3))
    with numpyro.plate("n", 3):
        v = numpyro.sample("v", dist.Bernoulli(0.4))
        z = numpyro.sample("z", dist.Categorical(jnp.asarray(CLASSES)[w]))
        c = numpyro.sample("c", dist.Bernoulli(jnp.asarray(YES)[z]))
        numpyro.sample("y", dist.Normal(z - 2 * c * w + v, 1.0), obs=y)

    def step(x, seen):
        x = numpyro.sample("x", dist.Bernoulli(jnp.asarray(STATES)[w][x, 1]))
        numpyro.sample("s", dist.Normal(x * 1.0, 1.0), obs=seen)
        return x, None

    scan(step, 0, y)


def log_joint(w, v):
    """log p(w, v, data), by sums over z, c and a forward pass over x."""
    total = np.log([0.7, 0.3][w]) + sum(np.log([0.6, 0.4][i]) for i in v)
    for i in range(3):
        cells = product(range(3), range(2))
        p = [CLASSES[w][z] * (YES[z] if c else 1 - YES[z]) * norm.pdf(Y[i], z - 2 * c * w + v[i]) for z, c in cells]
        total += np.log(sum(p))
    forward = STATES[w][0] * norm.pdf(Y[0], [0, 1])
    for seen in Y[1:]:
        forward = (forward @ STATES[w]) * norm.pdf(seen, [0, 1])
    return total + np.log(forward.sum())


def exact(logit_w, logits_v):
    """Minus the ELBO."""
    total = 0.0
    for w, *v in product(range(2), repeat=4):
        q = [jax.nn.log_sigmoid(x if value else -x) for x, value in zip([logit_w, *logits_v], [w, *v], strict=True)]
        total += jnp.exp(sum(q)) * (log_joint(w, v) - sum(q))
    return -total


def test_scores_beside_groups():
    """At 5.5 standard errors: false alarms under 2e-7 for the four numbers. A standard error is below 4 % of the
    largest of them."""
    engine, inputs = prepare(model, {"y": Y}, Options(estimators={"w": "score", "v": "score"}, num_particles=2))
    assert [set(g.sites) for g in engine.program.plan.groups] == [{"z", "c"}, {"x"}]
    arrays = jax.device_put(inputs.traced())
    params = engine.program.init(jax.random.key(0), arrays, jnp.zeros(engine.program.start_size))
    own = engine.program.estimator_params(jax.random.key(0))

    def gradient(key):
        return jax.grad(lambda p: engine.estimate(p, own, arrays, key)[0])(params)["guide"]

    every = jax.jit(lambda keys: jax.lax.map(gradient, keys, batch_size=500), compiler_options=ONCE)
    found = every(jax.random.split(jax.random.key(1), NUM_STEPS))
    right = jax.grad(exact, (0, 1))(params["guide"]["w"]["logits"], params["guide"]["v"]["logits"])
    for name, answer in zip("wv", right, strict=True):
        draws = np.asarray(found[name]["logits"])
        error = draws.std(0) / NUM_STEPS**0.5
        assert (error < 0.04).all()
        assert (np.abs(draws.mean(0) - np.asarray(answer)) < 5.5 * error).all()
