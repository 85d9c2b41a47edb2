"""Which values a variable may take: all that come about, and no others where its operands have nothing in common."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autovi.model.finite_values import MAX_VALUES, values_of

X, Z, FLAG = np.arange(3), np.array([-1, 0, 4]), np.array([False, True])
CASES = {
    "sum": lambda x, z, flag: x + z,
    "bounded counter": lambda x, z, flag: jnp.minimum(x + 1, 2),
    "kept": lambda x, z, flag: jnp.where(flag, x, z),
    "parity": lambda x, z, flag: (x - z) % 2,
    "remainder": lambda x, z, flag: jax.lax.rem(z, x),
    "clipped": lambda x, z, flag: jnp.clip(x * z, -1, 3),
    "change": lambda x, z, flag: (x != z) | flag,
    "cast": lambda x, z, flag: jnp.asarray(flag, float) * 2.0 - z,
    "compiled": lambda x, z, flag: jax.jit(lambda x: jnp.abs(-x))(x) + flag,
    "chosen": lambda x, z, flag: jnp.array([5, 7, 9])[x],
}


def found_of(fn, sets, *examples):
    closed = jax.make_jaxpr(fn)(*examples)
    body = closed.jaxpr
    known = dict(zip(body.invars, sets, strict=True))
    known |= {v: np.unique(c) for v, c in zip(body.constvars, closed.consts, strict=True)}
    return values_of(body.outvars[0], {v: e for e in body.eqns for v in e.outvars}, known)


@pytest.mark.parametrize("name", CASES)
def test_all_values_and_no_others(name):
    found = found_of(CASES[name], (X, Z, FLAG), 0, 0, False)
    exact = {np.asarray(CASES[name](*at)).item() for at in product(X, Z, FLAG)}
    assert set(found.tolist()) == exact and len(found) == len(exact)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x, z, flag: 0.5 * x,
        lambda x, z, flag: x + jnp.arange(MAX_VALUES),
        lambda x, z, flag: jnp.exp(1.0 * x),
        lambda x, z, flag: jnp.zeros(3).at[0].set(x)[0],
    ],
    ids=["halves", "too many", "no whole numbers", "entries of an array"],
)
def test_what_is_not_known(fn):
    assert found_of(fn, (X, Z, FLAG), 0, 0, False) is None


def test_data_are_not_known_but_conditions_on_them_are():
    assert found_of(lambda x, y: x + y, (X, None), 0, 0) is None
    assert found_of(lambda x, y: jnp.where(y > 0.5, x, 7), (X, None), 0, 0.0).tolist() == [0, 1, 2, 7]
    assert found_of(lambda x, y: x * (y > 0.5), (X, None), 0, 0.0).tolist() == [0, 1, 2]
