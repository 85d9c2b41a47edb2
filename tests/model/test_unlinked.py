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
from numpyro.contrib.control_flow import scan
from scan_models import CASES, DATA, K, emission, second_order, transitions

from autovi.analysis.dependence import analyse_graph
from autovi.model.inputs import bind
from autovi.model.targets import trace_program
from autovi.model.unlinked import earlier_input, unlink


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


def total_and_slopes(graph, values, weights):
    """The outputs, and the gradient of a weighted sum of the densities in everything continuous."""
    moved = {
        n: x for n, x in values.items() if n.startswith(("node:", "param:")) and jnp.issubdtype(x.dtype, jnp.floating)
    }

    def total(moved):
        out = outputs_of(graph, {**values, **moved}, weights)
        terms = [o for o in weights if o.startswith(("p:", "jacobian:"))]
        return sum(jnp.sum(weights[o] * out[o]) for o in terms), out

    (_, out), slopes = jax.value_and_grad(total, has_aux=True)(moved)
    return out, slopes


@pytest.mark.parametrize("name", CASES)
def test_the_outputs_are_those_of_the_scan(name):
    model, data, lags, elementwise = CASES[name]
    traced = traced_of(model, data)
    unlinked = unlink(traced, list(lags))
    assert not isinstance(unlinked, str), unlinked
    assert unlinked.lags == lags
    old, new = traced.graph, unlinked.graph
    assert set(new.outputs) == set(old.outputs)
    added = [(earlier_input(site, k), site, k) for site, lag in lags.items() for k in range(1, lag + 1)]
    assert set(new.inputs) == {*old.inputs, *(name for name, _, _ in added)}
    remaining = [e for e in new.eqns if e.primitive.name == "scan" and any(v in new.inputs.values() for v in e.invars)]
    assert all(new.inputs[f"node:{site}"] not in e.invars for e in remaining for site in lags)

    @partial(jax.jit, compiler_options=ONCE)
    def both(values, weights):
        earlier = {name: unlinked.earlier(site, values[f"node:{site}"], k) for name, site, k in added}
        return [total_and_slopes(graph, {**values, **of}, weights) for graph, of in ((old, {}), (new, earlier))]

    for seed in range(3):
        values = some_values(old, data, seed)
        draw = np.random.default_rng(100 + seed)
        weights = {o: draw.normal(size=old.shape(o)).astype(np.float32) for o in old.outputs}
        expected, got = both(values, weights)
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
    traced = traced_of(second_order, DATA)
    unlinked = unlink(traced, ["x"])
    values = some_values(traced.graph, DATA, 0)
    earlier = {earlier_input("x", k): unlinked.earlier("x", values["node:x"], k) for k in (1, 2)}
    other = {n: x.at[: int(n[-1])].set(1 - x[: int(n[-1])]) for n, x in earlier.items()}
    terms = jax.jit(lambda of: outputs_of(unlinked.graph, {**values, **of}, ["p:x", "p:y"]), compiler_options=ONCE)
    same = terms(earlier)
    jax.tree.map(np.testing.assert_array_equal, terms(other), same)
    other["node:x@2"] = other["node:x@2"].at[2].set(1 - other["node:x@2"][2])
    np.testing.assert_array_equal(np.flatnonzero(terms(other)["p:x"] != same["p:x"]), [2])


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

    graph = unlink(traced_of(model, DATA), ["x"]).graph
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

    graph = unlink(traced_of(model, DATA), ["x"]).graph
    (left,) = [e for e in graph.eqns if e.primitive.name == "scan"]
    assert [e.primitive.name for e in left.params["jaxpr"].jaxpr.eqns] == ["add", "tanh"]


def counting(y):
    P = transitions("P", K)

    def step(carry, y):
        x, count = carry
        x = numpyro.sample("x", dist.Categorical(P[x]))
        numpyro.deterministic("count", count + x)
        numpyro.sample("y", dist.Normal(x, 1), obs=y)
        return (x, count + x), x

    (_, total), xs = scan(step, (0, 0), y)
    numpyro.deterministic("total", 2 * total)
    numpyro.deterministic("mean", xs.mean())


def test_deterministic_sites_of_all_steps_are_made_one_after_the_other():
    traced = traced_of(counting, DATA)
    new = unlink(traced, ["x"]).graph
    assert set(new.outputs) == set(traced.graph.outputs)
    values = some_values(traced.graph, DATA, 0)
    x = np.array(values["node:x"])
    found = outputs_of(new, values, ["value:count", "value:total", "value:mean"])  # without "node:x@1"
    np.testing.assert_array_equal(found["value:count"], np.cumsum(x))
    np.testing.assert_array_equal(found["value:total"], 2 * x.sum())
    np.testing.assert_allclose(found["value:mean"], x.mean(), rtol=1e-6)
    densities = analyse_graph(new, ["node:x", "node:x@1"], ["p:x", "p:y"])
    assert all(d.aligned[0] == 0 for by_node in densities.values() for d in by_node.values())


# --- refusals --------------------------------------------------------------------------------------------------------


FEW = "at most 1,024 whole numbers, made of constants, counters and discrete sites"


def refused(step_of, init, data=DATA):
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
        f"steps before, and it is not known to take few values ({FEW})"
    )


def test_a_value_that_a_mask_keeps_is_refused_where_it_is_continuous():
    def step_of(P, mu):
        def step(then, y):
            x = numpyro.sample("x", dist.Categorical(P[0]))
            numpyro.sample("y", dist.Normal(then, 1), obs=y)
            return jnp.where(y > 0, mu[x], then), None

        return step

    assert refused(step_of, 0.0) == (
        "the scan keeps carry as it was where a condition says so (jnp.where), and with it values of 'x' from any "
        f"number of steps before, and it is not known to take few values ({FEW}); keep the value of a discrete site, "
        "and compute from it what the step needs"
    )


@pytest.mark.parametrize(
    "next_of",
    [
        lambda last, x, mu: last.at[0].set(x),
        lambda last, x, mu: jnp.concatenate([last[1:] + mu[x], last[:1]]),
        lambda last, x, mu: last + 0.5 * x,
    ],
    ids=["keeps an entry", "computes with entries", "takes halves"],
)
def test_what_forgets_nothing_and_has_no_few_values_is_refused(next_of):
    def step_of(P, mu):
        def step(last, y):
            x = numpyro.sample("x", dist.Categorical(P[0]))
            numpyro.sample("y", dist.Normal(last.sum(), 1), obs=y)
            return next_of(last, x, mu), None

        return step

    assert refused(step_of, jnp.zeros(2)).startswith("the scan carries carry, which is made of what it was and")


def test_increments_from_data_are_refused():
    def model(y, by):
        def step(total, now):
            y, by = now
            x = numpyro.sample("x", dist.Bernoulli(0.5))
            numpyro.sample("y", dist.Normal(total, 1), obs=y)
            return total + by * x, None

        scan(step, 0, (y, by))

    said = unlink(traced_of(model, {**DATA, "by": np.arange(6)}), ["x"])
    assert said.startswith("the scan carries carry, which is made of what it was and of 'x'")


# --- states ----------------------------------------------------------------------------------------------------------


def counted_to_three(start):
    def model(y):
        def step(carry, y):
            one, other = carry
            x = numpyro.sample("x", dist.Bernoulli(0.4))
            numpyro.sample("y", dist.Normal(one, 1), obs=y)
            return (other, jnp.minimum(one + x, 3)), None

        scan(step, start, y)

    return model


def test_leaves_of_few_values_are_states():
    found = unlink(traced_of(counted_to_three((0, 1)), DATA), ["x"])
    one, other = "carry[0] of x", "carry[1] of x"
    assert found.lags == {"x": 0, one: 1, other: 1}
    assert {n: s.values for n, s in found.states.items()} == {one: (0, 1, 2, 3), other: (0, 1, 2, 3)}
    assert found.states[one].batch_shape == (6,)
    values = some_values(found.graph, DATA, 0)
    x = np.array(values["node:x"])
    path = np.zeros((7, 2), int)
    path[0] = 0, 1
    for t in range(6):
        path[t + 1] = path[t, 1], min(path[t, 0] + x[t], 3)
    values |= {f"node:{n}": jnp.asarray(path[1:, i]) for i, n in enumerate((one, other))}
    values |= {f"node:{n}@1": jnp.asarray(path[:-1, i]).at[0].set(9) for i, n in enumerate((one, other))}  # not read
    terms = outputs_of(found.graph, values, [f"p:{one}", f"p:{other}"])
    assert all((t == 0).all() for t in terms.values())
    values[f"node:{other}"] = values[f"node:{other}"].at[2].add(1)
    wrong = outputs_of(found.graph, values, [f"p:{one}", f"p:{other}"])
    assert np.flatnonzero(wrong[f"p:{other}"] == -np.inf).tolist() == [2] and (wrong[f"p:{one}"] == 0).all()


def test_a_site_that_is_in_no_scan_is_refused():
    def model(y):
        z = numpyro.sample("z", dist.Categorical(jnp.ones(K) / K))
        numpyro.sample("y", dist.Normal(z, 1), obs=y)

    assert unlink(traced_of(model, DATA), ["z"]) == "'z' is not drawn in the body of a scan"
    assert unlink(traced_of(model, DATA), ["z", "w"]) == "'w', 'z' are not drawn in the body of a scan"


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
