"""The z-test of a gradient estimator against the exact gradient, shared by the suites that do it.

Batches are added until the standard error of the whole gradient is under 2 % of its norm, so that a bias of a tenth
would be five standard errors. The rule looks at the standard errors only, never at the means.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.compiling import compiler_options

BOUND = 5.5
FLOOR = 0.02
BATCH = 4096
MAX_BATCHES = 250
# For programs that run once or a few times: to optimize them takes longer than to run them. Not level 0, at which XLA
# computes twice, with other rounding, what the gradient of `jnp.max` compares with its maximum: none is equal, 0 / 0.
ONCE = {**compiler_options(work=0), "xla_backend_optimization_level": 1}


def flat(tree: Any) -> np.ndarray:
    """All leaves in one vector."""
    return np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(tree)])


def batched(gradient: Callable) -> Callable:
    """`batch(key, *args)`: mean and sum of squared deviations of `BATCH` values of `gradient(*args, key)`, compiled."""

    @partial(jax.jit, compiler_options=ONCE)
    def batch(key: jax.Array, *args: Any) -> tuple[Any, Any]:
        sampled = jax.vmap(lambda k: gradient(*args, k))(jax.random.split(key, BATCH))
        mean = jax.tree.map(lambda g: jnp.mean(g, 0), sampled)
        return mean, jax.tree.map(lambda g, m: jnp.sum((g - m) ** 2, 0), sampled, mean)

    return batch


def mean_gradient(batch: Callable, args: tuple, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error of the estimates, batches added until the error's norm is below `floor`."""
    means: list[np.ndarray] = []
    squares: list[np.ndarray] = []
    for i in range(MAX_BATCHES):
        mean, square = batch(jax.random.key(1000 + i), *args)
        means.append(flat(mean))
        squares.append(flat(square))
        total = len(means) * BATCH
        se = np.sqrt(np.mean(squares, 0) / BATCH / total)
        if np.linalg.norm(se) < floor:
            return np.mean(means, 0), se
    raise AssertionError(f"standard error {np.linalg.norm(se):.3g} is not below {floor:.3g} after {total} estimates")


def assert_unbiased(batch: Callable, args: tuple, exact: np.ndarray) -> None:
    """The mean of the estimates is the exact vector, coordinate by coordinate, within `BOUND` standard errors."""
    mean, se = mean_gradient(batch, args, FLOOR * float(np.linalg.norm(exact)))
    rounding = 2e-5 * np.linalg.norm(exact)  # a coordinate without noise may differ by rounding alone
    z = np.abs(mean - exact) / (se + rounding)
    assert z.max() < BOUND, f"exact {exact}, mean {mean}, standard error {se}"
