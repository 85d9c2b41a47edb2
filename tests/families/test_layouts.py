"""Structures of a flat vector: split and joined again, compared by content, refused where they are none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autovi.distributions.layouts import MAX_RUNS, Above, Index, Level, Structure, ordered, taken


def structure(order, common=3, shapes=((4, 2), (8, 1))):
    """Coordinates in this order: common ones, four elements of two, eight of one, two under each of the four."""
    pieces = np.split(np.asarray(order), np.cumsum([common, *(e * d for e, d in shapes)])[:-1])
    above = (Above(0, Index(np.repeat(np.arange(4), 2))),)
    first, second = (Index(piece.reshape(shape)) for piece, shape in zip(pieces[1:], shapes, strict=True))
    return Structure(Index(pieces[0]), (Level(first), Level(second, above)))


ORDERS = {"in order": np.arange(19), "scattered": np.random.default_rng(0).permutation(19)}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_a_vector_is_split_and_joined_again(order):
    found = structure(order)
    vector = jnp.arange(19.0)
    common, first, second = found.split(vector)
    np.testing.assert_array_equal(common, order[:3])
    np.testing.assert_array_equal(first, np.asarray(order[3:11]).reshape(4, 2))
    np.testing.assert_array_equal(second, np.asarray(order[11:]).reshape(8, 1))
    np.testing.assert_array_equal(found.joined([common, first, second]), vector)


def test_sites_one_after_the_other_are_stored_so():
    """Two scalar sites of a plate: the vector has all of the first, then all of the second."""
    level = Level(Index(np.stack([np.arange(5), 5 + np.arange(5)], 1)))
    assert level.by_coordinate and np.array_equal(level.order, np.arange(10))
    assert not Level(Index(np.arange(10).reshape(5, 2))).by_coordinate


@pytest.mark.parametrize("size", [10, 3 * MAX_RUNS])
def test_ordered_is_a_gather_whichever_way_it_is_done(size):
    order = np.random.default_rng(1).permutation(size)
    vector = jnp.arange(size, dtype=jnp.float32)
    np.testing.assert_array_equal(ordered(vector, order), order)
    weights = jnp.arange(size, dtype=jnp.float32) ** 2
    slope = jax.grad(lambda x: jnp.sum(ordered(x, order) * weights))(vector)
    np.testing.assert_array_equal(slope, np.square(np.argsort(order)))


@pytest.mark.parametrize(
    "element",
    [np.tile(np.arange(3), 4), np.repeat(np.arange(3), 4), np.tile(np.repeat(np.arange(3), 2), 5), [2, 0, 0, 1, 2]],
    ids=["tile", "repeat", "both", "neither"],
)
def test_rows_are_taken_by_repeating_or_not(element):
    values = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(taken(values, np.asarray(element)), np.asarray(values)[element])


def test_structures_compare_by_content():
    a, b, other = structure(ORDERS["scattered"]), structure(ORDERS["scattered"]), structure(ORDERS["in order"])
    assert a == b and hash(a) == hash(b) and a != other
    assert jax.jit(lambda x, of: of.split(x)[0], static_argnums=1)(jnp.arange(19.0), a).shape == (3,)


def test_an_index_keeps_its_values():
    mine = np.arange(3)
    index = Index(mine)
    mine[0] = 7
    np.testing.assert_array_equal(index.array, [0, 1, 2])
    with pytest.raises(ValueError, match="read-only"):
        index.array[0] = 7


@pytest.mark.parametrize("order", [np.zeros(19, int), np.arange(1, 20)])
def test_refused_unless_every_coordinate_stands_once(order):
    with pytest.raises(ValueError, match="every coordinate 0, 1, ... once"):
        structure(order)


@pytest.mark.parametrize("level, element", [(1, [0, 0]), (0, [0, 3]), (0, [0]), (-1, [0, 0])])
def test_refused_where_there_is_no_element_above(level, element):
    first = Level(Index([[1], [2], [3]]))
    with pytest.raises(ValueError, match="level 1: expected 2 elements of an earlier level above it"):
        Structure(Index([0]), (first, Level(Index([[4], [5]]), (Above(level, Index(element)),))))
