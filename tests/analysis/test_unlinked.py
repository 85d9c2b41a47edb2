"""Scans as maps over their steps: the same outputs from the values of each step and of those before, side by side."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import ONCE
from jax.extend.core import Literal
from numpyro.contrib.control_flow import cond, scan

from autovi.analysis.dependence import analyse_graph
from autovi.analysis.unlinked import earlier_input, unlink
from autovi.model.inputs import bind
from autovi.model.targets import trace_program

Y = np.linspace(-1.3, 1.7, 6, dtype=np.float32)
K = 3


def transitions(name="P", *batch):
    return jax.nn.softmax(numpyro.sample(name, dist.Normal(0, 1).expand([*batch, K]).to_event(len(batch) + 1)))


def emission():
    return numpyro.sample("mu", dist.Normal(0, 1).expand([K]).to_event(1))


def chain(y):
    P, mu = transitions("P", K), emission()

    def step(x, y):
        x = numpyro.sample("x", dist.Categorical(P[x]))
        numpyro.sample("y", dist.Normal(mu[x], 1), obs=y)
        return x, None

    scan(step, 0, y)


def backward(y):
    P, mu = transitions("P", K), emission()

    def step(carry, y):
        x, t, z_then = carry
        x = numpyro.sample("x", dist.Categorical(P[x]))
        z = numpyro.sample("z", dist.Normal(0.3 * z_then, 1.0 + 0.1 * t))
        numpyro.sample("y", dist.Normal(mu[x] + z, 1), obs=y)
        return (x, t + 1, z), None

    scan(step, (1, 0, 0.5), y, reverse=True)


def no_carry(y):
    w, mu = transitions("P"), emission()

    def step(carry, y):
        x = numpyro.sample("x", dist.Categorical(w))
        numpyro.sample("y", dist.Normal(mu[x], 1), obs=y)
        return carry, None

    scan(step, None, y)


def second_order(y):
    P, mu = transitions("P", K, K), emission()

    def step(carry, y):
        before, then, t = carry
        x = numpyro.sample("x", dist.Categorical(P[before, then]))
        numpyro.sample("y", dist.Normal(mu[x] + 0.1 * t, 1), obs=y)
        return (then, x, t + 1), None

    scan(step, (0, 2, 0), y)


def factorial(y):
    P, Q, mu = transitions("P", K), transitions("Q", K, K), emission()

    def step(carry, y):
        w = numpyro.sample("w", dist.Categorical(P[carry["w"]]))
        x = numpyro.sample("x", dist.Categorical(Q[w, carry["state"]["x"]]))
        v = numpyro.sample("v", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(mu[x] * w - v, 1), obs=y)
        return {"w": w, "state": {"x": x}}, None

    scan(step, {"w": 0, "state": {"x": 1}}, y)


def sequences(y, lengths):
    """Masked sequences of unequal length, as in NumPyro's example of hidden Markov models."""
    P, mu = transitions("P", K), emission()

    def step(carry, y):
        x_then, t = carry
        with numpyro.plate("sequences", 2, dim=-2), numpyro.handlers.mask(mask=(t < lengths)[..., None]):
            x = numpyro.sample("x", dist.Categorical(P[x_then]))
            with numpyro.plate("tones", 4, dim=-1):
                numpyro.sample("y", dist.Normal(mu[x.squeeze(-1)][:, None], 1), obs=y)
        return (x, t + 1), None

    scan(step, (jnp.zeros((2, 1), int), 0), y)


def switching(y):
    """A recurrent state, an autoregression on data and on a latent, a transition by the step's covariate."""
    P, mu = transitions("P", K), emission()
    a = numpyro.sample("a", dist.Normal(0, 1))
    start = numpyro.sample("start", dist.Categorical(jnp.ones(K) / K))

    def step(carry, xs):
        x, h, y_then, z_then, (level, one) = carry
        h = jnp.tanh(a * h + xs["u"])
        logits = jnp.log(P[x]) + h * jnp.arange(K) + xs["u"]
        x = numpyro.sample("x", dist.Categorical(logits=logits))
        z = numpyro.sample("z", dist.Normal(0.5 * z_then * one, 1))
        mean = cond(xs["u"] > 0, lambda _: mu[x] * y_then, lambda _: z_then + z, None)
        numpyro.sample("y", dist.Normal(mean + h + level, 1), obs=xs["y"])
        return (x, h, xs["y"], z, (a * mu[x], one)), mean

    u = jnp.cos(jnp.arange(y.shape[0]) * 2.0)
    last, means = scan(step, (start, 0.1, 0.0, 0.2, (mu[0], 0.9)), {"y": y, "u": u})
    numpyro.sample("e", dist.Normal(means, 1), obs=y)
    numpyro.sample("end", dist.Normal(mu[last[0]] + last[1] + last[3] + last[4][0], 1), obs=0.3)


def a_level_below(y):
    """What is carried is made of the site's last two values, with the data of the step before."""
    P, mu = transitions("P", K), emission()

    def step(carry, y):
        blend, score, x_then = carry
        x = numpyro.sample("x", dist.Categorical(P[x_then]))
        numpyro.sample("y", dist.Normal(mu[x] + blend, 1), obs=y)
        return (score * y + x, mu[x] * y, x), None

    scan(step, (0.3, 0.1, 0), y)


def two_scans(y):
    P, mu = transitions("P", K), emission()

    def first(x, y):
        x = numpyro.sample("x", dist.Categorical(P[x]))
        return x, numpyro.sample("y", dist.Normal(mu[x], 1), obs=y)

    def second(carry, _):
        w_then, t = carry
        w = numpyro.sample("w", dist.Categorical(P[w_then]))
        numpyro.sample("v", dist.Normal(mu[w] * t, 1), obs=y[t])
        return (w, t + 1), None

    last, _ = scan(first, 0, y)
    scan(second, (last, 0), None, length=y.shape[0])


def network(y):
    import flax.linen as nn
    from numpyro.contrib.module import flax_module

    P = transitions("P", K)
    net = flax_module("net", nn.Dense(2), input_shape=(K,))

    def step(x, y):
        x = numpyro.sample("x", dist.Categorical(P[x]))
        out = jax.nn.softplus(net(jax.nn.one_hot(x, K)))
        numpyro.sample("y", dist.Normal(out[0], 0.1 + out[1]), obs=y)
        return x, None

    scan(step, 0, y)


Data = {"y": Y}
SEQUENCES = {
    "y": np.stack([np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4) * s for s in (1, 2, 3)]),
    "lengths": np.array([3, 2]),
}
# Name -> model, data, sites with how far back they are seen, outputs that are elementwise in the steps.
CASES = {
    "chain": (chain, Data, {"x": 1}, ["p:x", "p:y"]),
    "one step": (chain, {"y": Y[:1]}, {"x": 1}, ["p:x", "p:y"]),
    "two steps": (chain, {"y": Y[:2]}, {"x": 1}, ["p:x", "p:y"]),
    "backward": (backward, Data, {"x": 1}, ["p:x", "p:y"]),
    "no carry": (no_carry, Data, {"x": 0}, ["p:x", "p:y"]),
    "second order": (second_order, Data, {"x": 2}, ["p:x", "p:y"]),
    "second order, one step": (second_order, {"y": Y[:1]}, {"x": 2}, ["p:x", "p:y"]),
    "second order, two steps": (second_order, {"y": Y[:2]}, {"x": 2}, ["p:x", "p:y"]),
    "factorial": (factorial, Data, {"w": 1, "x": 1, "v": 0}, ["p:w", "p:x", "p:v", "p:y"]),
    "one of several": (factorial, Data, {"w": 1}, ["p:w", "p:x", "p:v", "p:y"]),
    "sequences": (sequences, SEQUENCES, {"x": 1}, ["p:x", "p:y"]),
    "switching": (switching, Data, {"x": 1}, ["p:x", "p:y", "p:e"]),
    "a level below": (a_level_below, Data, {"x": 2}, ["p:x", "p:y"]),
    "two scans": (two_scans, Data, {"x": 1, "w": 1}, ["p:x", "p:y", "p:w", "p:v"]),
    "network": (network, Data, {"x": 1}, ["p:x", "p:y"]),
}


def traced_of(model, data):
    return trace_program(model, None, bind(model, data))[0]


def some_values(graph, data, seed):
    """Any values of all inputs: nodes of discrete sites are 0 or 1, which all supports have."""
    draw = np.random.default_rng(seed)

    def one(name, var):
        if name.startswith("0["):
            return jnp.asarray(data[name[3:-2]])
        if jnp.issubdtype(var.aval.dtype, jax.dtypes.prng_key):
            return jax.random.key(1)
        shape, dtype = var.aval.shape, var.aval.dtype
        whole = jnp.issubdtype(dtype, jnp.integer)
        return jnp.asarray(draw.integers(0, 2, shape) if whole else draw.normal(size=shape), dtype)

    return {name: one(name, var) for name, var in graph.inputs.items()}


def outputs_of(graph, values, names):
    known = {graph.inputs[n]: x for n, x in values.items()}
    made = graph.evaluate([graph.outputs[o] for o in names], known.__contains__, known.__getitem__)
    return {o: jnp.asarray(v.val) if isinstance(v := graph.outputs[o], Literal) else made[v] for o in names}


def jitted(graph, names):
    return jax.jit(partial(total_and_slopes, graph, list(names)), compiler_options=ONCE)


def total_and_slopes(graph, names, values, weights):
    """The outputs, and the gradient of a weighted sum of the densities in everything continuous."""
    moved = {
        n: x for n, x in values.items() if n.startswith(("node:", "param:")) and jnp.issubdtype(x.dtype, jnp.floating)
    }

    def total(moved):
        out = outputs_of(graph, {**values, **moved}, names)
        terms = [o for o in names if o.startswith(("p:", "jacobian:"))]
        return sum(jnp.sum(weights[o] * out[o]) for o in terms), out

    (_, out), slopes = jax.value_and_grad(total, has_aux=True)(moved)
    return out, slopes


@pytest.mark.parametrize("name", CASES)
def test_the_outputs_are_those_of_the_scan(name):
    model, data, lags, elementwise = CASES[name]
    traced = traced_of(model, data)
    unlinked = unlink(traced, list(lags))
    assert not isinstance(unlinked, str), unlinked
    assert unlinked.lags == lags and not unlinked.left_out
    old, new = traced.graph, unlinked.graph
    assert set(new.outputs) == set(old.outputs)
    added = {earlier_input(site, k) for site, lag in lags.items() for k in range(1, lag + 1)}
    assert set(new.inputs) == set(old.inputs) | added
    remaining = [e for e in new.eqns if e.primitive.name == "scan" and any(v in new.inputs.values() for v in e.invars)]
    assert all(new.inputs[f"node:{site}"] not in e.invars for e in remaining for site in lags)
    evaluate = {graph: jitted(graph, old.outputs) for graph in (old, new)}
    for seed in range(3):
        values = some_values(old, data, seed)
        earlier = {
            earlier_input(site, k): unlinked.earlier(site, values[f"node:{site}"], k)
            for site, lag in lags.items()
            for k in range(1, lag + 1)
        }
        draw = np.random.default_rng(100 + seed)
        weights = {o: draw.normal(size=old.shape(o)).astype(np.float32) for o in old.outputs}
        expected = evaluate[old](values, weights)
        got = evaluate[new]({**values, **earlier}, weights)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), got, expected)
        assert len(jax.tree.leaves(expected[1])) > 0


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if len(case[1]["y"]) > 1])
def test_densities_are_elementwise_in_the_steps(name):
    model, data, lags, elementwise = CASES[name]
    graph = unlink(traced_of(model, data), list(lags)).graph
    nodes = [earlier_input(site, k) for site, lag in lags.items() for k in range(lag + 1)]
    found = analyse_graph(graph, nodes, elementwise)
    for output, by_node in found.items():
        for node, dependence in by_node.items():
            # The initial value of the second scan is the last value of the first, which is of no one step.
            across = name == "two scans" and output == "p:w" and node.startswith("node:x")
            assert dependence.aligned[0] == (None if across else 0), (output, node)
    assert all(any(node in by_node for by_node in found.values()) for node in nodes)


def test_the_first_entry_of_earlier_values_is_not_read():
    traced = traced_of(second_order, Data)
    unlinked = unlink(traced, ["x"])
    values = some_values(traced.graph, Data, 0)
    earlier = {earlier_input("x", k): unlinked.earlier("x", values["node:x"], k) for k in (1, 2)}
    other = {n: x.at[: int(n[-1])].set(1 - x[: int(n[-1])]) for n, x in earlier.items()}
    terms = ["p:x", "p:y"]
    for o, x in outputs_of(unlinked.graph, {**values, **other}, terms).items():
        np.testing.assert_array_equal(x, outputs_of(unlinked.graph, {**values, **earlier}, terms)[o])
    other["node:x@2"] = other["node:x@2"].at[2].set(1 - other["node:x@2"][2])
    changed = outputs_of(unlinked.graph, {**values, **other}, terms)["p:x"]
    same = outputs_of(unlinked.graph, {**values, **earlier}, terms)["p:x"]
    np.testing.assert_array_equal(np.flatnonzero(changed != same), [2])


def test_what_is_the_same_at_all_steps_is_computed_once():
    """A network of the parameters alone, inside the body: no array of it for each step."""

    def model(y):
        a = numpyro.sample("a", dist.Normal(0, 1).expand([K, 50]).to_event(2))

        def step(x, y):
            table = jax.nn.log_softmax(jnp.tanh(a) @ jnp.ones((50, K)))
            x = numpyro.sample("x", dist.Categorical(logits=table[x]))
            numpyro.sample("y", dist.Normal(x, 1), obs=y)
            return x, None

        scan(step, 0, y)

    graph = unlink(traced_of(model, Data), ["x"]).graph
    hidden = [v.aval.shape for e in graph.eqns for v in e.outvars if e.primitive.name == "tanh"]
    assert hidden == [(K, 50)]
    assert not any(e.primitive.name == "scan" for e in graph.eqns)


def test_only_what_is_needed_of_the_body_is_left_to_a_scan():
    def model(y):
        P, mu = transitions("P", K), emission()

        def step(carry, y):
            x, h, then = carry
            h = jnp.tanh(h + y)
            x = numpyro.sample("x", dist.Categorical(logits=jnp.log(P[x]) + h * jnp.arange(K)))
            z = numpyro.sample("z", dist.Normal(jnp.exp(then), 1))
            numpyro.sample("y", dist.Normal(mu[x] + z, 1), obs=y)
            return (x, h, z), None

        scan(step, (0, 0.0, 0.0), y)

    graph = unlink(traced_of(model, Data), ["x"]).graph
    (left,) = [e for e in graph.eqns if e.primitive.name == "scan"]
    assert [e.primitive.name for e in left.params["jaxpr"].jaxpr.eqns] == ["add", "tanh"]


def test_a_deterministic_site_of_all_steps_is_left_out():
    def model(y):
        P = transitions("P", K)

        def step(carry, y):
            x, count = carry
            x = numpyro.sample("x", dist.Categorical(P[x]))
            numpyro.deterministic("count", count + x)
            numpyro.sample("y", dist.Normal(x, 1), obs=y)
            return (x, count + x), None

        scan(step, (0, 0), y)

    traced = traced_of(model, Data)
    unlinked = unlink(traced, ["x"])
    assert unlinked.left_out == ("value:count",)
    assert set(unlinked.graph.outputs) == set(traced.graph.outputs) - {"value:count"}


# --- refusals --------------------------------------------------------------------------------------------------------


def refused(step_of, init, data=Data):
    def model(y):
        P, mu = transitions("P", K), emission()
        scan(step_of(P, mu), init, y)

    return unlink(traced_of(model, data), ["x"])


def test_a_sum_over_all_steps_is_refused():
    def step_of(P, mu):
        def step(carry, y):
            x = numpyro.sample("x", dist.Categorical(P[carry["x"]]))
            numpyro.sample("y", dist.Normal(carry["count"], 1), obs=y)
            return {"x": x, "count": carry["count"] + mu[x]}, None

        return step

    assert refused(step_of, {"x": 0, "count": 0.0}) == (
        "the scan carries carry['count'], which is made of what it was and of 'x', and so depends on the values at all "
        "steps before; where it carries values as they are, it depends on the last ones alone"
    )


def test_a_value_that_a_mask_keeps_is_refused():
    def step_of(P, mu):
        def step(then, y):
            x = numpyro.sample("x", dist.Categorical(P[then]))
            numpyro.sample("y", dist.Normal(mu[x], 1), obs=y)
            return jnp.where(y > 0, x, then), None

        return step

    assert refused(step_of, 0) == (
        "the scan keeps carry as it was where a condition says so (jnp.where), and with it values of 'x' from any "
        "number of steps before; carry the values of each step, and mask the densities instead (numpyro.handlers.mask)"
    )


def test_a_circle_of_two_leaves_is_refused():
    def step_of(P, mu):
        def step(carry, y):
            a, b = carry
            x = numpyro.sample("x", dist.Categorical(P[0]))
            numpyro.sample("y", dist.Normal(a, 1), obs=y)
            return (b, a + x), None

        return step

    said = refused(step_of, (0, 0))
    assert said.startswith("the scan carries carry[0], which is made of what it was and of 'x'")


def test_a_site_that_is_in_no_scan_is_refused():
    def model(y):
        z = numpyro.sample("z", dist.Categorical(jnp.ones(K) / K))
        numpyro.sample("y", dist.Normal(z, 1), obs=y)

    assert unlink(traced_of(model, Data), ["z"]) == "'z' is not drawn in the body of a scan"
    assert unlink(traced_of(model, Data), ["z", "w"]) == "'w', 'z' are not drawn in the body of a scan"


def test_a_body_that_prints_is_refused():
    def step_of(P, mu):
        def step(then, y):
            x = numpyro.sample("x", dist.Categorical(P[then]))
            jax.debug.print("{x}", x=x)
            numpyro.sample("y", dist.Normal(mu[x], 1), obs=y)
            return x, None

        return step

    assert refused(step_of, 0) == (
        "the scan that draws 'x' does something besides computing at each step (it prints, or calls back), which is to "
        "be done in its order"
    )
