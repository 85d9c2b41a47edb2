"""What is downstream of what: through chains and circles of a guide, and at a cost that grows with the model only."""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

from autovi.analysis.structure import _closed, analyse_structure
from autovi.model.inputs import bind
from autovi.model.targets import trace_program
from autovi.plan.rules import make_plan

PACKAGE = Path(__file__).resolve().parents[2] / "autovi"
ROOMS = (str(PACKAGE / "analysis"), str(PACKAGE / "plan"))


def structure_of(model, guide=None):
    inputs = bind(model, None)
    return analyse_structure(trace_program(model, guide, inputs)[0])


# --- the closure ---------------------------------------------------------------------------------------------------


def test_a_cost_at_the_end_of_a_chain_of_the_guide_is_downstream_of_its_beginning():
    # The names run against the order of the chain, and so do the model's sites: no order hides a missing round.
    def model():
        e, c, a = (numpyro.sample(n, dist.Normal(0.0, 1.0)) for n in ("e", "c", "a"))
        d, b = (numpyro.sample(n, dist.Normal(0.0, 1.0)) for n in ("d", "b"))
        numpyro.sample("y", dist.Normal(a, 1.0), obs=0.3)
        numpyro.sample("other", dist.Normal(0.0 * (b + c + d + e), 1.0), obs=0.3)

    def guide():
        value = 0.0
        for name in ("e", "d", "c", "b", "a"):
            value = numpyro.sample(name, dist.Normal(value, 1.0))

    downstream = structure_of(model, guide).downstream
    for node, later in {"e": "dcba", "d": "cba", "c": "ba", "b": "a", "a": ""}.items():
        assert {f"q:{n}" for n in later} | {"p:y"} <= set(downstream[node])
        assert not {f"q:{n}" for n in set("abcde") - {node, *later}} & set(downstream[node])


@pytest.mark.parametrize("order", ["abcd", "dcba", "bdac", "cadb"])
def test_alignments_are_composed_along_a_chain(order):
    chain = {
        "a": {"q:a": (0, 1), "q:b": (1, 0)},
        "b": {"q:b": (0, 1), "q:c": (0, 1)},
        "c": {"q:c": (0, 1), "q:d": (1, 0)},
        "d": {"q:d": (0, 1), "p:y": (None, 0)},
    }
    closed = _closed({n: chain[n] for n in order})
    assert closed["d"]["p:y"] == (None, 0)
    assert closed["c"]["p:y"] == (0, None)  # c's first dimension is d's second
    assert closed["b"]["p:y"] == (0, None)
    assert closed["a"] == {"q:a": (0, 1), "q:b": (1, 0), "q:c": (1, 0), "q:d": (0, 1), "p:y": (None, 0)}


def test_two_ways_that_disagree_leave_no_alignment():
    closed = _closed(
        {
            "a": {"q:a": (0, 1), "q:b": (0, 1), "q:c": (0, None), "p:y": (0, 1)},
            "b": {"q:b": (0, 1), "p:y": (0, 1)},
            "c": {"q:c": (0,), "p:y": (1,)},
        }
    )
    assert closed["a"]["p:y"] == (None, None)


def test_sites_that_depend_on_one_another_in_a_circle():
    closed = _closed(
        {
            "a": {"q:a": (0,), "q:b": (0,)},
            "b": {"q:b": (0,), "q:c": (0,)},
            "c": {"q:c": (0,), "q:a": (None,), "p:y": (0,)},
        }
    )
    for node in "abc":
        assert closed[node] == {"q:a": (None,), "q:b": (None,), "q:c": (None,), "p:y": (None,)}


def test_elements_of_one_site_that_depend_on_one_another():
    # The term at one element is downstream of the other elements through the site itself.
    assert _closed({"z": {"q:z": (None,), "p:y": (0,)}})["z"]["p:y"] == (None,)


def test_a_step_of_a_scan_is_upstream_of_the_costs_of_later_steps():
    y = jnp.array([0.1, 0.5, -0.3])

    def model():
        with numpyro.plate("time", 3):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y)

    def guide():
        def step(before, _):
            z = numpyro.sample("z", dist.Normal(before, 1.0))
            return z, None

        scan(step, 0.0, None, length=3)

    structure = structure_of(model, guide)
    assert structure.downstream["z"] == {"q:z": (None,), "p:z": (None,), "p:y": (None,)}


# --- what it costs -------------------------------------------------------------------------------------------------


def opcodes(run):
    """The number of operations that Python executes in the files of the analysis and the plan while `run` runs."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if not frame.f_code.co_filename.startswith(ROOMS):
            return None
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return count


def chained(count):
    def model():
        x = 0.0
        for i in range(count):
            x = numpyro.sample(f"x{i}", dist.Normal(x, 1.0))
            numpyro.sample(f"y{i}", dist.Normal(x, 1.0), obs=0.5)

    return model


def switches(count):
    def model():
        for i in range(count):
            z = numpyro.sample(f"z{i}", dist.Bernoulli(0.3))
            numpyro.sample(f"y{i}", dist.Normal(z, 1.0), obs=0.5)

    return model


@pytest.mark.parametrize("make", [chained, switches])
def test_the_work_grows_in_proportion_to_the_number_of_sites(make):
    def work(count):
        model = make(count)
        inputs = bind(model, None)
        traced, _ = trace_program(model, None, inputs)
        return opcodes(lambda: make_plan(traced.sites, analyse_structure(traced)))

    few, twice, four_times = work(6), work(12), work(24)
    assert four_times - twice < 2.1 * (twice - few)
