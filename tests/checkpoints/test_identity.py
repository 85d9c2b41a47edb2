"""What a fit is recognized by."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from autovi.checkpoints.identity import difference, said
from autovi.objectives import Elbo


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros(3), np.zeros(3, np.float32)),
        (np.zeros(3), np.zeros((1, 3))),
        (np.array([0.0, 1.0]), np.array([1.0, 0.0])),
        (jax.random.key(0), jax.random.key(1)),
        ({"a": 1.0}, {"a": 1}),
        ({"a": 1.0}, {"b": 1.0}),
        ([1, 2], [2, 1]),
        (Elbo(), Elbo(closed_form="kl")),
        ("1", 1),
    ],
)
def test_what_differs_is_told_apart(one, other):
    assert said(one) != said(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3))),
        ({"a": 1, "b": jnp.ones(2)}, {"b": np.ones(2, np.float32), "a": 1}),
        ({3, 1}, {1, 3}),
        (optax.adam(0.1), optax.adam(0.1)),
        (Elbo(), Elbo()),
    ],
)
def test_what_is_the_same_is_said_the_same(one, other):
    assert said(one) == said(other)


def test_the_first_difference_is_told():
    now = {"the version of jax": "0.10", "data: y": "f" * 64}
    assert difference(now, now) == ""
    assert difference({**now, "data: y": "e" * 64}, now) == "data: y"
    assert difference({**now, "the version of jax": "0.9"}, now) == "the version of jax (it was 0.9, and is 0.10)"
    assert difference({**now, "data: z": "e" * 64}, now) == "data: z"
    assert difference({"the version of jax": "0.10"}, now) == "data: y"
