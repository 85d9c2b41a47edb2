"""Which elements of a value the live elements of an output feel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autovi.analysis.liveness import live
from autovi.model.graph import placeholder, trace

SEEN = jnp.array([True, False, True, False])
X = jnp.arange(12.0).reshape(3, 4)


def felt(fn, outputs=None, data=(SEEN,)):
    """The elements of a vector of four that the outputs of `fn(z, *data)` feel, those in `outputs` alone being live."""

    def program(data):
        return {"out": fn(placeholder("z", (4,), jnp.float32), *data)}

    graph = trace(program, data)
    out, z = graph.outputs["out"], graph.inputs["z"]
    alive = jnp.ones(out.aval.shape, bool) if outputs is None else jnp.asarray(outputs)
    given = dict(zip([v for n, v in graph.inputs.items() if n != "z"], jax.tree.leaves(data), strict=True))
    moving = graph.downstream([z])

    def fixed(var):
        if var in moving:
            return None
        return graph.evaluate([var], given.__contains__, given.__getitem__)[var]

    return np.asarray(live(graph, {out: alive}, z, fixed))


NOT_SEEN = ~np.asarray(SEEN)
ALL, NONE = np.ones(4, bool), np.zeros(4, bool)
CASES = {
    "sum": (lambda z, seen: jnp.sum(z), None, ALL),
    "nothing": (lambda z, seen: jnp.sum(1.0 * seen), None, NONE),
    "chosen": (lambda z, seen: jnp.where(seen, 1.0, jnp.exp(z)), None, NOT_SEEN),
    "chosen, summed": (lambda z, seen: jnp.sum(jnp.where(seen, 1.0, z**2)), None, NOT_SEEN),
    "predicate made of data": (lambda z, seen: jnp.sum(jnp.where(~(seen & seen), z, 0.0)), None, NOT_SEEN),
    "product": (lambda z, seen: jnp.sum(z * seen), None, np.asarray(SEEN)),
    "product with a number": (lambda z, seen: jnp.sum(0.0 * z + 1.0), None, NONE),
    "live outputs": (lambda z, seen: z + 1.0, SEEN, np.asarray(SEEN)),
    "broadcast": (lambda z, seen: z[None, :] * X, jnp.zeros((3, 4), bool).at[1, 2].set(True), np.arange(4) == 2),
    "matrix": (lambda z, seen: X @ z, jnp.array([False, True, False]), ALL),
    "indexed": (lambda z, seen: z[jnp.array([1, 1, 3])], None, ALL),  # what it picks is not followed
    "chosen by itself": (lambda z, seen: jnp.where(z > 0, 1.0, 2.0), None, ALL),
    "two ways": (lambda z, seen: jnp.sum(jnp.where(seen, z, 0.0)) + jnp.sum(z[3:]), None, ALL),
    "jit": (lambda z, seen: jax.jit(lambda z, s: jnp.where(jnp.logical_not(s), z, 0.0))(z, seen), None, NOT_SEEN),
    "custom derivative": (lambda z, seen: jax.nn.relu(jnp.where(seen, 0.0, z)), None, NOT_SEEN),
    "reversed": (lambda z, seen: z[::-1].reshape(2, 2).T, None, ALL),
    "loop": (lambda z, seen: jax.lax.fori_loop(0, 3, lambda i, c: c + z, jnp.zeros(4)), SEEN, SEEN),
    "while": (
        lambda z, seen: jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] + z), (0, jnp.zeros(4)))[1],
        SEEN,
        ALL,
    ),
    "transposed": (
        lambda z, seen: jnp.broadcast_to(z[:, None], (4, 3)).T,
        jnp.zeros((3, 4), bool).at[0, 1].set(True),
        np.arange(4) == 1,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_felt(name):
    fn, outputs, expected = CASES[name]
    np.testing.assert_array_equal(felt(fn, outputs), expected)


@pytest.mark.parametrize("name", CASES)
def test_nothing_that_moves_an_output_is_missed(name):
    """Values are changed one by one: what changes a live element is felt."""
    fn, outputs, _ = CASES[name]
    found = felt(fn, outputs)
    base = jnp.array([0.3, -0.7, 1.1, -0.2])
    alive = np.ones(jnp.shape(fn(base, SEEN)), bool) if outputs is None else np.asarray(outputs)
    for i in range(4):
        moved = [np.asarray(fn(base.at[i].set(x), SEEN)) for x in (-3.0, 0.5, 2.0)]
        changed = any(((m != moved[0]) & alive).any() for m in moved)
        assert found[i] or not changed, i
