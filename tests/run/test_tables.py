"""A table's rows come back bit by bit, whatever their types."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from autovi.preparation import Options, prepare
from autovi.run.tables import Row, Table, Visits

N, K = 5, 4


@pytest.fixture(scope="module")
def site():
    """A site in a plate of which a step sees two elements, inside of one that it sees whole."""

    def model(y):
        with numpyro.plate("k", K, dim=-2), numpyro.plate("n", N, subsample_size=2, dim=-1) as index:
            z = numpyro.sample("z", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
            numpyro.sample("y", dist.Normal(z.sum(-1), 1.0), obs=y[:, index])

    engine, _ = prepare(model, {"y": np.zeros((K, N), np.float32)}, Options())
    return engine.program.node_site("z")


def rows_of(leaves):
    counts = jnp.arange(K * N, dtype=jnp.int32).reshape(K, N)
    return Row(leaves, leaves, (), Visits(counts, -counts))


def leaves_of(dtypes):
    rng = np.random.default_rng(0)
    return {str(d): jnp.asarray(rng.normal(size=(K, N, i)) * 100).astype(d) for i, d in enumerate(dtypes)}


SINGLE = ("float32", "bfloat16", "float16", "int32", "uint32", "uint8", "bool")


@pytest.mark.parametrize("double", [False, True])
def test_all_types_come_back(site, double):
    with jax.enable_x64(double):
        rows = rows_of(leaves_of(SINGLE + (("float64", "int64") if double else ())))
        back = Table.of(site, rows).rows
        assert jax.tree.map(lambda x: (x.shape, x.dtype), back) == jax.tree.map(lambda x: (x.shape, x.dtype), rows)
        jax.tree.map(np.testing.assert_array_equal, back, rows)


def test_numbers_that_are_not_finite_come_back(site):
    values = jnp.broadcast_to(jnp.array([jnp.nan, jnp.inf, -jnp.inf, -0.0, 1e-42]), (K, N))
    back = Table.of(site, rows_of({"x": values})).rows.params["x"]
    np.testing.assert_array_equal(np.asarray(back).view(np.uint32), np.asarray(values).view(np.uint32))


def test_some_rows_are_seen_and_put(site):
    table = Table.of(site, rows_of(leaves_of(("float32", "int32", "float32"))))
    indices = {"n": jnp.array([3, 1])}
    seen = table.seen(site, indices)
    assert seen.visits.times.shape == (K, 2)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:, [3, 1]]), seen, table.rows)
    put = table.put(site, jax.tree.map(lambda x: x + 1, seen), indices)
    for new, old in zip(jax.tree.leaves(put.rows), jax.tree.leaves(table.rows), strict=True):
        np.testing.assert_array_equal(new[:, [0, 2, 4]], old[:, [0, 2, 4]])
        np.testing.assert_array_equal(new[:, [3, 1]], old[:, [3, 1]] + 1)
