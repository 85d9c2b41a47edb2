"""What is checked of programs whose sites are in coordinates of their own, of whatever kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_checks import ONCE
from numpyro.infer.util import log_density

from autovi.analysis.structure import analyse_structure
from autovi.model.graph import like_traced
from autovi.model.traced import KEY, pseudo_inputs
from autovi.plan.plan import Plan
from autovi.program.centring import nodes_at, values_at
from autovi.program.program import Program


def alone(graph_of):
    """A program that has no plan: for what does not depend on one."""
    return Program(graph_of, analyse_structure(graph_of), Plan((), ()))


def pseudo_data(graph, seed=1):
    """Of every element of the non-centred sites."""
    rng = np.random.default_rng(seed)
    shapes = {n: graph.graph.inputs[f"node:{n}"].aval.shape for n in graph.noncentred}
    names = {n: pseudo_inputs(n) for n in graph.noncentred}
    precisions = {names[n][0]: rng.uniform(0.0, 3.0, size=shape) for n, shape in sorted(shapes.items())}
    return precisions | {names[n][1]: rng.normal(size=shape) for n, shape in sorted(shapes.items())}


def nodes_of(graph, seed=0):
    rng = np.random.default_rng(seed)
    return {n: rng.normal(size=graph.graph.inputs[f"node:{n}"].aval.shape) for n in graph.sites.latents}


def outputs(program, arrays, params, nodes):
    """All densities, Jacobians and values at some nodes."""
    graph = program.traced.graph
    known = program.known(params, arrays, {})
    known |= {graph.inputs[KEY]: like_traced(jax.random.key(0), graph.inputs[KEY])}
    known |= {graph.inputs[f"node:{n}"]: x for n, x in nodes.items()}
    wanted = {o: v for o, v in graph.outputs.items() if o.startswith(("p:", "standard:", "jacobian:", "value:"))}
    made = graph.evaluate(wanted.values(), known.__contains__, known.__getitem__)
    return {o: made[v] for o, v in wanted.items()}


def check_densities(model, data, graph, inputs, executed=lambda values: values):
    """By NumPyro's own log density, and the derivatives of all values in all nodes. Returns the outputs."""
    program = alone(graph)
    arrays, constants, nodes = inputs.traced(), pseudo_data(graph), nodes_of(graph)

    def values(nodes):
        plain = values_at(program, {"param": {}, "constants": constants}, arrays, nodes)
        positive = {n for n, s in graph.sites.latents.items() if s.support == "positive"}
        return {n: jnp.exp(x) if n in positive else x for n, x in plain.items()}

    of_model = lambda n: outputs(program, arrays, {"param": {}, "constants": constants}, n)  # noqa: E731
    every = jax.jit(lambda n: (of_model(n), values(n), jax.jacobian(values)(n)), compiler_options=ONCE)
    found, expected, matrix = every(nodes)
    for name, value in expected.items():
        np.testing.assert_allclose(found[f"value:{name}"], value, rtol=1e-9, err_msg=name)
    density, _ = log_density(model, data, {}, executed(expected))
    size = {n: x.size for n, x in nodes.items()}
    whole = np.block([[np.reshape(matrix[a][b], (size[a], size[b])) for b in nodes] for a in nodes])
    total = lambda kind: sum(float(jnp.sum(x)) for o, x in found.items() if o.startswith(kind))  # noqa: E731
    assert total("p:") == pytest.approx(float(density), rel=1e-9)
    assert total("jacobian:") == pytest.approx(np.linalg.slogdet(whole)[1], rel=1e-9)
    return found


def check_nodes(graph, inputs):
    """Nodes are found again from their values."""
    program, nodes = alone(graph), nodes_of(graph)
    params = {"param": {}, "constants": pseudo_data(graph)}
    there_and_back = jax.jit(
        lambda n: nodes_at(program, params, inputs.traced(), values_at(program, params, inputs.traced(), n)),
        compiler_options=ONCE,
    )
    found = there_and_back(nodes)
    assert set(found) == set(nodes)
    for name, node in nodes.items():
        np.testing.assert_allclose(found[name], node, rtol=1e-8, atol=1e-10, err_msg=name)
