"""Sites of a scan whose distributions depend on their own earlier draws: rollouts, and guides along time."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.stats import norm
from numpyro.contrib.control_flow import scan

import autovi
from autovi.estimators import Score
from autovi.model import unrolled

STEPS = 4


@pytest.fixture(autouse=True)
def not_written_out(monkeypatch):
    """Scans stay scans here, however short."""
    monkeypatch.setattr(unrolled, "MAX_STEPS", 0)


def walk(theta):
    """Steps up with a probability that depends on where it is; the loss of each step is the square of its place."""

    def step(x, _):
        numpyro.deterministic("place", x)
        up = numpyro.sample("up", dist.Bernoulli(logits=theta * x - 0.2))
        x = x + up - 0.3
        return x, x**2

    return scan(step, 0.0, None, length=STEPS)[1]


def exact_walk(theta):
    total = 0.0
    for ups in itertools.product([0, 1], repeat=STEPS):
        x, log_p, loss = 0.0, 0.0, 0.0
        for up in ups:
            logit = theta * x - 0.2
            log_p += jax.nn.log_sigmoid(logit if up else -logit)
            x = x + up - 0.3
            loss += x**2
        total += jnp.exp(log_p) * loss
    return total


def estimates(fn, *args, count=40_000, **options):
    grad = autovi.stochastic_grad(fn, **options)
    one = lambda key: grad(*args, rng_key=key)  # noqa: E731
    keys = jax.random.split(jax.random.key(0), count)
    return np.asarray(jax.jit(lambda ks: jax.lax.map(one, ks, batch_size=2000))(keys), float)


def check(found, exact, floor=0.03):
    error = found.std(0) / len(found) ** 0.5
    assert np.all(error < floor * np.abs(exact)), (error, exact)
    assert np.all(np.abs(found.mean(0) - exact) < 5 * error), (found.mean(0), exact, error)


def critic(place):
    return -(1.5 * place**2 + 0.8)  # of the cost, which is minus the loss


@pytest.mark.parametrize(
    "baseline",
    [Score(), Score("none"), Score("moving_average"), Score(critic, inputs="place")],
    ids=lambda b: b.baseline_name,
)
def test_discrete_steps_that_depend_on_those_before(baseline):
    with_state = baseline.baseline == "moving_average"
    if with_state:
        grad = autovi.stochastic_grad(walk, estimators={"up": baseline}, num_samples=2)
        state = grad.init(0.4)
        one = lambda key: grad(0.4, rng_key=key, estimator_state=state)[0]  # noqa: E731
        found = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 40_000)))
    else:
        found = estimates(walk, 0.4, estimators={"up": baseline}, num_samples=2)
    check(found, float(jax.grad(exact_walk)(0.4)), 0.05)


def test_relax_with_the_state_in_its_network():
    """Its relaxed draws are made given the draws, step by step; the network may be anything."""
    estimators = {"up": {"estimator": "relax", "through_model": False, "inputs": "place"}}
    grad = autovi.stochastic_grad(walk, estimators=estimators, num_samples=2)
    state = grad.init(0.4)
    one = lambda key: grad(0.4, rng_key=key, estimator_state=state)[0]  # noqa: E731
    found = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 40_000)))
    check(found, float(jax.grad(exact_walk)(0.4)), 0.05)

    def learn(state, key):
        return grad(0.4, rng_key=key, estimator_state=state)[1], None

    state, _ = jax.jit(lambda s, ks: jax.lax.scan(learn, s, ks))(state, jax.random.split(jax.random.key(1), 3000))
    found = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 40_000)))
    plain = estimates(walk, 0.4, count=4000, estimators={"up": Score("none")}, num_samples=2)
    check(found, float(jax.grad(exact_walk)(0.4)), 0.05)
    assert found.var() < 0.5 * plain.var()


def test_lax_with_the_state_in_its_network():
    """A loss that jumps, in steps that depend on those before: a half-line's probability, by quadrature."""

    def jumping(a):
        def step(x, _):
            numpyro.deterministic("place", x)
            x = numpyro.sample("x", dist.Normal(a * x + 0.2, 1.0))
            return x, jnp.where(x > 0.5, 1.0, 0.0)

        return scan(step, 1.0, None, length=2)[1]

    def exact(a):
        nodes = jnp.linspace(-8, 8, 2001)
        first = a + 0.2 + nodes
        later = norm.sf(0.5 - a * first - 0.2)
        # The first step's share by its distribution function: a quadrature does not see a jump move.
        return norm.sf(0.5 - a - 0.2) + jnp.sum(norm.pdf(nodes) * later) * (nodes[1] - nodes[0])

    grad = autovi.stochastic_grad(jumping, estimators={"x": {"estimator": "lax", "inputs": "place"}}, num_samples=4)
    state = grad.init(0.6)
    one = lambda key, state: grad(0.6, rng_key=key, estimator_state=state)  # noqa: E731
    learn = lambda state, key: (one(key, state)[1], None)  # noqa: E731
    state, _ = jax.jit(lambda s, ks: jax.lax.scan(learn, s, ks))(state, jax.random.split(jax.random.key(1), 3000))
    many = jax.jit(jax.vmap(lambda key: one(key, state)[0]))
    found = np.asarray(many(jax.random.split(jax.random.key(0), 40_000)))
    check(found, float(jax.grad(exact)(0.6)), 0.05)
    plain = estimates(jumping, 0.6, count=4000, num_samples=4, estimators={"x": Score("none")})
    assert found.var() < 0.6 * plain.var()


def test_a_step_is_charged_with_what_comes_after_it():
    """The loss of step t depends on the draws up to t: without that the first losses would be noise in every step."""

    def early(theta, whole):
        def step(x, t):
            up = numpyro.sample("up", dist.Bernoulli(logits=theta + 0.0 * x))
            return x + up, 10.0 * (t == 0) * up + up * x * 0.0

        losses = scan(step, 0.0, jnp.arange(STEPS))[1]
        return jnp.sum(losses) if whole else losses

    by_step = estimates(early, 0.3, False, count=4000, num_samples=1, estimators={"up": Score("none")})
    together = estimates(early, 0.3, True, count=4000, num_samples=1, estimators={"up": Score("none")})
    p = jax.nn.sigmoid(0.3)
    # Step 0 alone has a cost, 10 up, and up (1 - p) is its score: E[(10 up (1 - p))^2] - (10 p (1 - p))^2.
    assert by_step.var() == pytest.approx(float(100 * p * (1 - p) ** 2 * (1 - p)), rel=0.1)
    assert together.var() > 2 * by_step.var()


def test_a_baseline_sees_the_steps_before_and_no_others():
    plain = estimates(walk, 0.4, count=4000, estimators={"up": Score("none")})
    seeing = estimates(walk, 0.4, count=4000, estimators={"up": Score(critic, inputs="place")})
    assert seeing.var() < 0.9 * plain.var()

    def moved(theta):
        def step(x, _):
            up = numpyro.sample("up", dist.Bernoulli(logits=theta * x))
            numpyro.deterministic("place", x + up)
            return x + up, x

        return scan(step, 0.0, None, length=STEPS)[1]

    with pytest.raises(ValueError, match="'place', which depends on the site's own draw"):
        autovi.stochastic_grad(moved, estimators={"up": Score(critic, inputs="place")})(0.4, rng_key=0)


def pairs(theta, own):
    """Two walkers; what each step tells is where each of them is, or their mean alone."""

    def step(x, _):
        numpyro.deterministic("place", x if own else x.mean())
        with numpyro.plate("walker", 2):
            up = numpyro.sample("up", dist.Bernoulli(logits=theta * x - 0.2))
        x = x + up - 0.3
        return x, x**2

    return scan(step, jnp.zeros(2), None, length=STEPS)[1]


def test_a_plate_in_a_scan():
    """Steps along one dimension, elements along another: the network sees its own element before its own step."""

    gradient = 2 * float(jax.grad(exact_walk)(0.4))
    seeing = estimates(pairs, 0.4, True, estimators={"up": Score(critic, inputs="place")})
    check(seeing, gradient, 0.05)
    check(estimates(pairs, 0.4, True, estimators={"up": Score("none")}), gradient, 0.05)
    # One number for both walkers has no element of their own: every step would see it at all steps.
    with pytest.raises(ValueError, match="'place', which depends on the site's own draw"):
        autovi.stochastic_grad(pairs, estimators={"up": Score(critic, inputs="place")})(0.4, False, rng_key=0)


def test_continuous_steps_are_pathwise():
    """x_t = a x_{t-1} + e_t by the site itself: E x_T^2 = sum a^(2 k)."""

    def autoregression(a):
        def step(x, _):
            x = numpyro.sample("x", dist.Normal(a * x, 1.0))
            return x, x

        return scan(step, 0.0, None, length=STEPS)[0] ** 2

    assert autovi.stochastic_grad(autoregression).plan(0.7)["x"].estimator == "explicit"
    exact = sum(2 * k * 0.7 ** (2 * k - 1) for k in range(1, STEPS))
    check(estimates(autoregression, 0.7, num_samples=2), exact)
    check(estimates(autoregression, 0.7, num_samples=2, estimators={"x": "score"}), exact, 0.05)


@pytest.mark.parametrize("moved_by", ["explicit", "score"])
def test_discrete_and_continuous_sites_in_one_chain(moved_by):
    """Each drawn given the other's past, two steps: by quadrature over the noise and all values."""

    def both(theta):
        def step(carry, _):
            s, a = carry
            s = numpyro.sample("s", dist.Normal(theta * s + a, 0.5))
            a = numpyro.sample("a", dist.Bernoulli(logits=s - theta)).astype(float)
            return (s, a), s * a + 0.1 * s**2

        return scan(step, (0.5, 1.0), None, length=2)[1]

    nodes = np.linspace(-6, 6, 241)
    weights = jnp.asarray(norm.pdf(nodes) * (nodes[1] - nodes[0]))

    def exact(theta):
        total = 0.0
        first = theta * 0.5 + 1.0 + 0.5 * nodes
        for a1, a2 in itertools.product([0.0, 1.0], repeat=2):
            p1 = jax.nn.sigmoid((first - theta) * (2 * a1 - 1))
            second = (theta * first + a1)[:, None] + 0.5 * nodes
            p2 = jax.nn.sigmoid((second - theta) * (2 * a2 - 1))
            loss = (first * a1 + 0.1 * first**2)[:, None] + second * a2 + 0.1 * second**2
            total += jnp.sum(weights[:, None] * weights * p1[:, None] * p2 * loss)
        return total

    found = estimates(both, 0.3, num_samples=2, estimators={"s": moved_by})
    check(found, float(jax.grad(exact)(0.3)), 0.05)


def test_a_site_above_is_summed_over_and_the_chain_drawn_again():
    def above(theta):
        z = numpyro.sample("z", dist.Bernoulli(0.3))

        def step(x, _):
            up = numpyro.sample("up", dist.Bernoulli(logits=theta * x + z))
            return x + up, x + up

        return scan(step, 0.0, None, length=2)[1]

    def exact(theta):
        total = 0.0
        for z, a, b in itertools.product([0, 1], repeat=3):
            p = (0.3 if z else 0.7) * jax.nn.sigmoid((2 * a - 1.0) * z) * jax.nn.sigmoid((2 * b - 1) * (theta * a + z))
            total += p * (a + a + b)
        return total

    assert autovi.stochastic_grad(above).plan(0.4)["z"].estimator == "enumerate"
    check(estimates(above, 0.4, num_samples=4), float(jax.grad(exact)(0.4)), 0.05)


def test_what_needs_other_values_is_refused():
    with pytest.raises(ValueError, match="'disarm' would be wrong, since its draw at each step of the scan"):
        autovi.stochastic_grad(walk, estimators={"up": "disarm"}).plan(0.4)


def test_a_guide_along_time_is_fitted():
    """A random walk with noisy observations: the guide draws each step given the one before, as the posterior is."""
    rng = np.random.default_rng(0)
    y = np.cumsum(rng.normal(size=6)) + 0.5 * rng.normal(size=6)

    def model(y):
        def step(x, y):
            x = numpyro.sample("x", dist.Normal(x, 1.0))
            numpyro.sample("y", dist.Normal(x, 0.5), obs=y)
            return x, None

        scan(step, 0.0, y)

    def guide(y):
        a = numpyro.param("a", jnp.zeros(6))
        b = numpyro.param("b", jnp.zeros(6))
        s = numpyro.param("s", 0.5 * jnp.ones(6), constraint=dist.constraints.positive)

        def step(x, abs):
            a, b, s = abs
            return numpyro.sample("x", dist.Normal(a + b * x, s)), None

        scan(step, 0.0, (a, b, s))

    fit = autovi.fit(model, {"y": y}, guide=guide, num_steps=4000, progress_bar=False)
    times = np.arange(1, 7)
    covariance = np.minimum.outer(times, times)
    marginal = covariance + 0.25 * np.eye(6)
    evidence = -0.5 * (y @ np.linalg.solve(marginal, y) + np.linalg.slogdet(2 * np.pi * marginal)[1])
    assert fit.elbo == pytest.approx(evidence, abs=0.05)
    mean = covariance @ np.linalg.solve(marginal, y)
    np.testing.assert_allclose(fit.sample(4000)["x"].mean(0), mean, atol=0.06)
