"""Sites in scans and conds of functions whose expectation is differentiated."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import assert_unbiased, batched, flat
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan

import autovi
from autovi.estimators import Score
from autovi.model.execution import site_key

NONE = Score(baseline="none")


def walk(p):
    """x_t ~ N(a x_{t-1} + m, 1) from 0, the sum of the squares, which scan returns."""

    def move(x, _):
        x = numpyro.sample("x", dist.Normal(p["a"] * x + p["m"], 1.0))
        return x, x**2

    return scan(move, 0.0, None, length=3)[1]


def exact_walk(p):
    mean, variance, total = 0.0, 0.0, 0.0
    for _ in range(3):
        mean, variance = p["a"] * mean + p["m"], p["a"] ** 2 * variance + 1
        total += mean**2 + variance
    return total


@pytest.mark.parametrize("estimators", [None, {"x*": "score"}])
def test_a_scan_whose_steps_depend_on_those_before(estimators):
    params = {"a": jnp.array(0.5), "m": jnp.array(0.4)}
    grad = autovi.stochastic_grad(walk, estimators=estimators, num_samples=4)
    assert [c.site for c in grad.plan(params).choices] == ["x[0]", "x[1]", "x[2]"]
    assert_unbiased(batched(lambda p, k: grad(p, rng_key=k)), (params,), flat(jax.grad(exact_walk)(params)))


@pytest.mark.parametrize("reverse", [False, True])
def test_each_step_of_a_scan_is_charged_with_what_comes_after_it(reverse):
    """The costs that scan returns are terms of their own: the rewards to go."""
    prices = jnp.array([5.0, -2.0, 1.0])

    def bets(theta):
        def play(total, price):
            total = total + numpyro.sample("b", dist.Bernoulli(logits=theta))
            return total, price * total

        return scan(play, 0.0, prices, reverse=reverse)[1]

    theta, key = 0.3, jax.random.key(1)
    b = np.array([dist.Bernoulli(logits=theta).sample(site_key(key, f"b[{t}]")) for t in range(3)], float)
    order = [2, 1, 0] if reverse else [0, 1, 2]
    costs = np.zeros(3)
    costs[order] = np.cumsum(b[order]) * np.asarray(prices)[order]
    to_go = np.zeros(3)
    to_go[order] = np.cumsum(costs[order][::-1])[::-1]
    expected = np.sum(to_go * (b - 1 / (1 + np.exp(-theta))))
    grad = autovi.stochastic_grad(bets, estimators={"b*": NONE})
    assert grad(theta, rng_key=key) == pytest.approx(expected, rel=1e-4)


def branching(p):
    """With probability s(a) x ~ N(m, 1) and its square, otherwise y ~ N(2 m, 2) and three of it."""
    b = numpyro.sample("b", dist.Bernoulli(logits=p["a"]))
    up = lambda m: numpyro.sample("x", dist.Normal(m, 1.0)) ** 2  # noqa: E731
    down = lambda m: 3.0 * numpyro.sample("x", dist.Normal(2 * m, 2.0))  # noqa: E731
    return cond(b == 1, up, down, p["m"])


@pytest.mark.parametrize("estimators", [None, {"b": "score", "x*": "score"}])
def test_sites_in_both_branches_of_a_cond(estimators):
    params = {"a": jnp.array(0.4), "m": jnp.array(0.7)}
    exact = lambda p: jax.nn.sigmoid(p["a"]) * (p["m"] ** 2 + 1) + jax.nn.sigmoid(-p["a"]) * 6 * p["m"]  # noqa: E731
    grad = autovi.stochastic_grad(branching, estimators=estimators, num_samples=2)
    assert {c.site for c in grad.plan(params).choices} == {"b", "x[true]", "x[false]"}
    assert_unbiased(batched(lambda p, k: grad(p, rng_key=k)), (params,), flat(jax.grad(exact)(params)))


def in_lax_scan(m):
    step = lambda x, _: (numpyro.sample("x", dist.Normal(x + m, 1.0)), None)  # noqa: E731
    return jax.lax.scan(step, 0.0, None, length=3)[0]


def in_lax_cond(m):
    return jax.lax.cond(m > 0, lambda: numpyro.sample("x", dist.Normal(m, 1.0)), lambda: m)


def test_a_long_scan_is_one_site_drawn_step_by_step():
    def long(m):
        step = lambda x, _: (numpyro.sample("x", dist.Normal(x + m, 1.0)), None)  # noqa: E731
        return scan(step, 0.0, None, length=500)[0]

    grad = autovi.stochastic_grad(long)
    assert grad.plan(0.3)["x"].shape == (500,)
    assert grad(0.3, rng_key=0) == pytest.approx(500, rel=1e-4)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (in_lax_scan, "site 'x': it is inside of a function that JAX transforms.*scan and cond of numpyro.contrib"),
        (in_lax_cond, "site 'x': it is inside of a function that JAX transforms"),
    ],
)
def test_loops_that_cannot_be_seen_through_are_refused(fn, message):
    with pytest.raises(ValueError, match=message):
        autovi.stochastic_grad(fn)(0.3, rng_key=0)


def test_noise_drawn_before_a_long_scan():
    """The noise in a plate, and jax.lax.scan over it."""

    def long(m):
        with numpyro.plate("t", 5000):
            noise = numpyro.sample("noise", dist.Normal(0.0, 1.0))
        return jax.lax.scan(lambda x, e: (0.5 * x + m + 0.1 * e, None), 0.0, noise)[0] ** 2

    grad = autovi.stochastic_grad(long, num_samples=200)(0.3, rng_key=0)
    assert grad == pytest.approx(2 * 4 * 0.3, abs=0.1)


def nested(outer, inner, drawn=True):
    """A scan inside of a scan, both of whose steps draw."""

    def fn(theta):
        def step(x, _):
            up = numpyro.sample("up", dist.Bernoulli(logits=theta * x)) if drawn else theta
            x = x + up
            return x, x**2

        return scan(lambda x, _: scan(step, x, None, length=inner), 0.1, None, length=outer)[1]

    return fn


@pytest.mark.parametrize(("outer", "inner"), [(21, 2), (2, 21), (21, 21)])
def test_loops_in_loops_that_cannot_both_be_written_out_are_refused(outer, inner):
    """NumPyro tells a site the step of the inner loop alone, and its name without what the outer one adds."""
    with pytest.raises(ValueError, match="site 'up': it is drawn in a scan or cond inside of another"):
        autovi.stochastic_grad(nested(outer, inner))(0.3, rng_key=0)
    assert np.isfinite(autovi.stochastic_grad(nested(outer, inner, drawn=False))(0.3, rng_key=0))


def test_a_cond_in_a_long_scan_and_a_long_scan_in_a_cond_are_refused():
    def draw(x):
        return numpyro.sample("x", dist.Normal(x, 1.0))

    def cond_in_scan(m):
        return scan(lambda x, _: (cond(x > 0, draw, draw, x), None), m, None, length=21)[0]

    def scan_in_cond(m):
        walk = lambda x: scan(lambda x, _: (draw(x), None), x, None, length=21)[0]  # noqa: E731
        return cond(m > 0, walk, lambda x: x, m)

    for fn in (cond_in_scan, scan_in_cond):
        with pytest.raises(ValueError, match="site 'x': it is drawn in a scan or cond inside of another"):
            autovi.stochastic_grad(fn)(0.3, rng_key=0)


def test_loops_in_loops_that_are_both_written_out():
    def exact(theta):
        total = 0.0
        for ups in np.ndindex(2, 2, 2, 2):
            x, log_p, loss = 0.1, 0.0, 0.0
            for up in ups:
                log_p += jax.nn.log_sigmoid(theta * x * (2 * up - 1))
                x = x + up
                loss += x**2
            total += jnp.exp(log_p) * loss
        return total

    grad = autovi.stochastic_grad(nested(2, 2), estimators={"up*": "score"}, num_samples=4)
    assert {c.site for c in grad.plan(0.3).choices} == {"up[0][0]", "up[1][0]", "up[0][1]", "up[1][1]"}
    assert_unbiased(batched(lambda t, k: grad(t, rng_key=k)), (0.3,), flat(jax.grad(exact)(0.3)))


@pytest.mark.parametrize("handler", [handlers.substitute, handlers.condition])
@pytest.mark.parametrize("steps", [3, 25])
def test_values_that_a_handler_inside_sets_are_refused(handler, steps):
    """The sites of a scan that is written out have other names: the values would not be set, and no one be told."""

    def inside(m):
        def draws():
            step = lambda x, _: (numpyro.sample("x", dist.Normal(m + x, 1.0)), None)  # noqa: E731
            return scan(step, 0.0, None, length=steps)[0]

        return handler(draws, {"x": jnp.arange(float(steps))})()

    with pytest.raises(ValueError, match="fn: a handler inside of it" if steps == 3 else "site 'x': it is observed"):
        autovi.stochastic_grad(inside)(0.3, rng_key=0)
