"""Which elements each entry depends on: never fewer than change it, and no others where all is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autovi.analysis.elementwise import elements_felt
from autovi.model.graph import trace

SIZE = 6
PARENT = np.array([0, 0, 1, 1, 2, 5])
INDEX = np.array([3, 1])
TABLE = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2)))


def looped(x):
    """Running products of pairs, by a scan."""
    return jax.lax.scan(lambda before, now: (now, before * now), 1.0, x)[1]


# Functions of six numbers, of which what is found is what changes them.
EXACT = {
    "pairs": lambda x, i: x[1:] * x[:-1],
    "shifted": lambda x, i: jnp.concatenate([jnp.zeros(2), x[:-2]]) + x,
    "padded": lambda x, i: jnp.pad(x[1:], (0, 1)) + x,
    "parents": lambda x, i: x[PARENT] - 2.0 * x,
    "turned": lambda x, i: x[::-1] * jnp.arange(1.0, 7.0),
    "every second": lambda x, i: x[::2] + x[1::2],
    "matrix": lambda x, i: x.reshape(2, 3).T.sum(1),
    "flattened": lambda x, i: (x.reshape(3, 2, 1) * jnp.ones((1, 1, 4))).reshape(6, 4)[:, 1:3],
    "split": lambda x, i: jnp.split(x, 3)[1] ** 2,
    "cumulative": lambda x, i: jnp.cumsum(x),
    "cumulative from the end": lambda x, i: jax.lax.cumsum(x, reverse=True),
    "one": lambda x, i: jax.lax.dynamic_slice(x, (4,), (2,)),
    "taken": lambda x, i: jnp.take(x.reshape(2, 3), jnp.array([2, 0]), axis=1),
    "rolled": lambda x, i: jnp.roll(x, 1) * x,
    "each with the next": lambda x, i: jax.vmap(lambda k: x[k] * x[(k + 1) % SIZE])(jnp.arange(SIZE)),
    "lookup": lambda x, i: TABLE[(x[:-1] > 0).astype(int), (x[1:] > 0).astype(int)],
    "product": lambda x, i: jnp.outer(x, jnp.ones(3)) @ jnp.ones((3, 2)),
    "smooth": lambda x, i: jax.nn.softplus(x[2:]) + jax.nn.logsumexp(x.reshape(3, 2), axis=1)[0],
    "scan": lambda x, i: looped(x),
    "branch": lambda x, i: jax.lax.cond(x[0] > 0, lambda y: y[1:3], lambda y: y[3:5], x),
    "compiled": lambda x, i: jax.jit(lambda y: jnp.where(jnp.arange(3) > 0, y[:3], y[3:]))(x),
}
# Of which more may be found than changes them, but nothing less.
AT_MOST = {
    "by data": lambda x, i: x[i] * 2.0,
    "sorted": lambda x, i: jnp.sort(x)[:2],
    "set": lambda x, i: x.at[INDEX].set(0.0),
    "loop": lambda x, i: jax.lax.fori_loop(0, 3, lambda t, y: y * 0.5 + x[0], x),
    "inverse": lambda x, i: jnp.linalg.inv(jnp.eye(3) * 9.0 + jnp.outer(x[:3], x[3:])),
}


def found(fn):
    """The sets of what each entry is found to depend on."""
    graph = trace(lambda x, i: {"y": fn(x, i)}, jnp.zeros(SIZE), jnp.zeros(2, int))
    bits = np.array([1 << k for k in range(SIZE)], object)
    felt = elements_felt(graph, {"0": bits}, ["y"])
    sets = np.broadcast_to(felt.sets["y"], graph.shape("y"))
    assert felt.sets["y"] is not None
    return np.array([[bool(s >> k & 1) for k in range(SIZE)] for s in sets.reshape(-1).tolist()]), felt.by_data


def changed(fn):
    """Which entries change when an element does, at some of sixty pairs of values, half of them with other signs."""
    rng = np.random.default_rng(1)
    xs = jnp.asarray(rng.normal(size=(60, SIZE)) * 3.0)
    one = lambda x: jnp.reshape(fn(x, jnp.asarray(INDEX)), -1)  # noqa: E731
    before = jax.vmap(one)(xs)
    moves = []
    for k in range(SIZE):
        other = xs.at[:, k].set(jnp.asarray(rng.normal(size=60) * 3.0))
        moves.append(jnp.any(jax.vmap(one)(other) != before, axis=0))
    return np.stack([np.asarray(m) for m in moves], axis=1)


@pytest.mark.parametrize("name", EXACT)
def test_found_as_it_is(name):
    sets, by_data = found(EXACT[name])
    np.testing.assert_array_equal(sets, changed(EXACT[name]))
    assert not by_data


@pytest.mark.parametrize("name", AT_MOST)
def test_never_less_than_there_is(name):
    sets, by_data = found(AT_MOST[name])
    assert not (changed(AT_MOST[name]) & ~sets).any()
    assert by_data == (name == "by data")


def test_dimensions_that_are_alike_are_not_written_out():
    graph = trace(lambda z: {"y": z[:, 1:] * z[:, :-1]}, jnp.zeros((1000, 4)))
    bits = np.array([[1, 2, 4, 8]], object)
    sets = elements_felt(graph, {"0": bits}, ["y"]).sets["y"]
    np.testing.assert_array_equal(sets, [[3, 6, 12]])


def test_mutable_arrays_depend_on_everything():
    def fn(x):
        ref = jax.new_ref(jnp.zeros(2))
        ref[...] = x[:2]
        return {"y": ref[...] + x[2:4]}

    graph = trace(fn, jnp.zeros(SIZE))
    bits = np.array([1 << k for k in range(SIZE)], object)
    assert np.all(elements_felt(graph, {"0": bits}, ["y"]).sets["y"] == 63)
