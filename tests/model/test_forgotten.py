"""After how many steps nothing is left of a carried array."""

import jax
import jax.numpy as jnp
import pytest

from autovi.model.forgotten import steps_to_forget
from autovi.model.graph import placeholder, trace

UPDATES = {
    "one value": (lambda h, x: x, (), 1),
    "the last three": (lambda h, x: jnp.concatenate([x[None], h[:-1]]), (3,), 3),
    "the last three, from the end": (lambda h, x: jnp.concatenate([h[1:], x[None]]), (3,), 3),
    "two at a time": (lambda h, x: jnp.concatenate([x[None], x[None], h[:-2]]), (5,), 3),
    "rows": (lambda h, x: jnp.concatenate([jnp.broadcast_to(x, (1, 2)), h[:-1]]), (4, 2), 4),
    "columns, turned": (lambda h, x: jnp.concatenate([h.T[1:], jnp.full((1, 2), x)]).T, (2, 3), 3),
    "in another shape": (lambda h, x: jnp.concatenate([x[None], h.reshape(-1)[:-1]]).reshape(2, 2), (2, 2), 4),
    "in another type": (lambda h, x: jnp.concatenate([x[None], h[:-1].astype(int).astype(float)]), (2,), 2),
    "in a function": (lambda h, x: jax.jit(lambda h: jnp.concatenate([x[None], h[:-1]]))(h), (2,), 2),
    "stacked": (lambda h, x: jnp.stack([x, h[0], h[1]]), (3,), 3),
    "rolled": (lambda h, x: jnp.roll(h, 1), (2,), None),
    "turned round": (lambda h, x: jnp.flip(h), (2,), None),
    "nothing goes": (lambda h, x: h, (2,), None),
    "one entry stays": (lambda h, x: jnp.concatenate([h[:1], x[None]]), (2,), None),
    "spread": (lambda h, x: jnp.broadcast_to(h[:1], (2,)), (2,), None),
    "computed": (lambda h, x: jnp.concatenate([x[None], 2 * h[:-1]]), (2,), None),
}


@pytest.mark.parametrize("name", UPDATES)
def test_what_is_left_is_counted(name):
    update, shape, expected = UPDATES[name]
    graph = trace(lambda: {"h": update(placeholder("h", shape, jnp.float32), placeholder("x", (), jnp.float32))})
    assert steps_to_forget(graph, graph.inputs["h"], graph.outputs["h"]) == expected
