"""The degree of outputs of small programs in chosen inputs."""

from math import inf

import jax
import jax.numpy as jnp
import pytest

from autovi.analysis.degrees import degrees
from autovi.model.graph import placeholder, trace

N = 3
PROGRAMS = {
    "free": (lambda x, z: jnp.sin(z), 0),
    "affine": (lambda x, z: 2 * x / jnp.exp(z) - z, 1),
    "linear map": (lambda x, z: jnp.outer(z, z) @ x, 1),
    "moved": (lambda x, z: jnp.concatenate([x[1:], x[:1]])[::-1].reshape(1, N).T, 1),
    "square": (lambda x, z: ((z - x) / z) ** 2, 2),
    "quadratic form": (lambda x, z: x @ x + jnp.sum(x * z), 2),
    "solved": (lambda x, z: jax.scipy.linalg.solve_triangular(jnp.eye(N) + jnp.outer(z, z), x, lower=True) ** 2, 2),
    "one of two": (lambda x, z: jnp.where(z > 0, x, x**2), 2),
    "cube": (lambda x, z: x * jnp.square(x), 3),
    "summed up in a loop": (lambda x, z: jax.lax.scan(lambda c, v: (0.5 * c + v, c), 0.0, x)[0], 1),
    "multiplied in a loop": (lambda x, z: jax.lax.scan(lambda c, v: (c * v, c), 1.0, x)[0], inf),
    "chosen by itself": (lambda x, z: jnp.where(x > 0, x, 0.0), inf),
    "divisor": (lambda x, z: z / x, inf),
    "cast": (lambda x, z: x.astype(int), inf),
    "stopped": (lambda x, z: jax.lax.stop_gradient(x) ** 2, inf),
    "function with a derivative of its own": (lambda x, z: jax.nn.relu(x), inf),
    "finite": (lambda x, z: jnp.where(jnp.isfinite(x) & (x == x), x**2, -jnp.inf), 2),
    "one number": (lambda x, z: jnp.where(x == 1.0, x, 0.0), inf),
    "not finite where it is divided": (lambda x, z: jnp.where(jnp.isfinite(1 / x), x, 0.0), inf),
    "place": (lambda x, z: z[jnp.argmax(x)], inf),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_degree(name):
    program, expected = PROGRAMS[name]

    def run():
        return {"p": program(placeholder("x", (N,), jnp.float32), placeholder("z", (N,), jnp.float32))}

    graph = trace(run)
    assert degrees(graph, ["p"], [graph.inputs["x"]]) == {"p": expected}


def test_degree_in_two_inputs_together():
    graph = trace(lambda: {"p": placeholder("x", (), jnp.float32) * placeholder("z", (), jnp.float32)})
    x, z = graph.inputs["x"], graph.inputs["z"]
    assert degrees(graph, ["p"], [x]) == degrees(graph, ["p"], [z]) == {"p": 1}
    assert degrees(graph, ["p"], [x, z]) == {"p": 2}
