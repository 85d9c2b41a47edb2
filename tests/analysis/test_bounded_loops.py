"""Programs with bounded loops compute the same where the loops end, and say so where they do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from autovi.analysis.bounded_loops import UnboundedError, bounded, call_bounded, has_loops, work

X = jnp.asarray(np.random.default_rng(0).normal(size=5), jnp.float32)


def halvings(x):
    """As many steps as it takes to get below 1."""
    return lax.while_loop(lambda c: c > 1.0, lambda c: c / 2, x)


def sums_of_halves(t, x):
    return lax.while_loop(lambda c: c[0] > 1, lambda c: (c[0] / 2, c[1] + x), (t, x))


def nested(x):
    """Two steps outside, each with five inside."""

    def step(c):
        i, x = c
        return i + 1, lax.while_loop(lambda d: d[0] < 5, lambda d: (d[0] + 1, jnp.sin(d[1]) + i), (0, x))[1]

    return lax.while_loop(lambda c: c[0] < 2, step, (0, x))[1]


def loop_in_the_condition(x):
    return lax.while_loop(lambda c: halvings(c) < 0.9, lambda c: c * 1.1, x)


@jax.custom_jvp
def with_a_derivative(x):
    return halvings(x)


with_a_derivative.defjvp(lambda p, t: (with_a_derivative(*p), t[0]))


def conjugate_gradients(x):
    return jax.scipy.sparse.linalg.cg(lambda v: 2.0 * v + v.sum(), x)[0]


# The steps that each takes, counted by hand (None: it depends on rounding).
PROGRAMS = {
    "while": (lambda x: halvings(x[0] ** 2 + 100.0), 7),
    "nested": (lambda x: nested(x), 12),
    "loop in the condition": (lambda x: loop_in_the_condition(x[0] ** 2 + 3.0), None),
    "scan over loops": (lambda x: lax.scan(lambda c, t: (c + halvings(t), c), 0.0, 4.0 + x * 0)[1], 10),
    "scan from the end": (
        lambda x: lax.scan(lambda c, t: (c + halvings(t), c - t), 0.0, jnp.arange(5.0), reverse=True),
        0 + 0 + 1 + 2 + 2,
    ),
    "branch with a loop": (lambda x: lax.cond(x.sum() < 9.0, halvings, jnp.sin, 8.0 + 0 * x[0]), 3),
    "branch without": (lambda x: lax.switch(1, [lambda t: halvings(t), jnp.sin, jnp.cos], x[0]), 0),
    "vmap": (lambda x: jax.vmap(halvings)(jnp.array([8.0, 1.0, 3.0, 0.5]) + 0 * x[0]), 3),
    "vmap of pairs": (
        lambda x: jax.vmap(lambda t: lax.while_loop(lambda c: c[0] > 1, lambda c: (c[0] / 2, c[1] + x), (t, x)))(
            4 + x * 0
        ),
        2,
    ),
    "nested functions": (jax.jit(lambda x: jax.checkpoint(lambda t: with_a_derivative(t))(x[0] * 0 + 64.0)), 6),
    "fori_loop of an unknown length": (
        lambda x: lax.fori_loop(0, jnp.int32(x[0] * 0 + 4), lambda i, c: c + i, 0.0),
        4,
    ),
    "conjugate gradients": (conjugate_gradients, None),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_same_result_and_the_number_of_steps(name):
    fn, count = PROGRAMS[name]
    run = jax.jit(lambda steps, x: call_bounded(fn, steps, x))
    out, ended = run(1000, X)
    assert ended and has_loops(jax.make_jaxpr(fn)(X))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), out, jax.jit(fn)(X))
    if count is not None:
        assert run(count + 1, X)[1] and not (count and run(count, X)[1])


def test_a_loop_without_end_is_left():
    def never(x):
        return lax.while_loop(lambda c: c[1] > -1.0, lambda c: (c[0] + 1, jnp.abs(c[1])), (0, x))[0]

    count, ended = jax.vmap(lambda x: call_bounded(never, 20, x))(jnp.array([1.0, -2.0, 3.0]))
    assert count.tolist() == [20, 0, 20] and ended.tolist() == [False, True, False]


def test_a_loop_out_of_reach_is_said():
    class Strange:
        name, multiple_results = "strange", False

    program = jax.make_jaxpr(lambda x: lax.cond(x > 0, halvings, jnp.sin, x))(1.0)
    equation = next(e for e in program.jaxpr.eqns if e.primitive.name == "cond")
    strange = program.jaxpr.replace(eqns=[e.replace(primitive=Strange) if e is equation else e for e in program.eqns])
    with pytest.raises(UnboundedError, match="strange"):
        bounded(program.replace(jaxpr=strange))(10, 1.0)


def test_the_work_of_a_scan_counts_every_step():
    def scanned(x, length):
        return lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length)[0]

    once, thousand = (work(jax.make_jaxpr(lambda x, n=n: scanned(x, n))(X)) for n in (1, 1001))
    assert thousand - once == 1000 * 5
    assert work(jax.make_jaxpr(lambda x: scanned(x, 10**9))(X)) >= 5 * 10**9
