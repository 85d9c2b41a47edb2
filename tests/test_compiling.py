"""Programs with batched linear algebra, on a machine with two cores: they end."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autovi.compiling import QUICK, compiler_options, numbers_of, work_of

ROOT = Path(__file__).resolve().parents[1]

# Two chains of batched decompositions that do not depend on each other. In XLA's own order jaxlib 0.10 hangs at them.
PROGRAM = textwrap.dedent("""
    import os

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])

    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    import autovi
    from autovi.compiling import compiler_options

    def chain(x):
        y = x
        for _ in range(3):
            l = jnp.linalg.cholesky(y)
            y = 0.1 * jnp.sin(l @ jnp.swapaxes(l, -1, -2)) + x
        return jnp.sum(jnp.linalg.eigh(y)[0], -1) + jnp.sum(y, (-1, -2))

    def start(i, n):
        x = jnp.eye(3) + jnp.zeros((n, 3, 3)) + i
        return x @ jnp.swapaxes(x, -1, -2) + 3 * jnp.eye(3)

    if {plain}:
        xs = [start(i, 20_000) for i in range(2)]
        run = jax.jit(lambda xs: [chain(x) for x in xs], compiler_options=compiler_options())
        for _ in range(30):
            jax.block_until_ready(run(xs))
    else:
        def model():
            z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
            for i in range(2):
                numpyro.factor(f"cost {{i}}", -1e-4 * jnp.sum(chain(start(i, 2_000) + jnp.sin(z[i]) ** 2 * jnp.eye(3))))

        fit = autovi.fit(model, num_steps=20, num_particles=2, num_draws=20, progress_bar=False)
        assert len(fit.losses) == 20
    print("ended")
""")


@pytest.mark.parametrize("plain", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_decompositions_side_by_side_do_not_hang(plain):
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    variables.pop("XLA_FLAGS", None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(plain=plain)],
        env=variables,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout.strip() == "ended", done.stderr[-2000:]


ONES = jnp.ones(3)


@pytest.mark.parametrize(
    ("fn", "exact"),
    [
        (jnp.max, False),
        (lambda x: jnp.min(jnp.tanh(x)[None] * jnp.ones((2, 1)), axis=1, keepdims=True).sum(), False),
        (lambda x: jax.lax.scan(lambda c, y: (c + jnp.max(y * x), None), 0.0, jnp.ones((2, 3)))[0], False),
        (jax.nn.logsumexp, True),  # holds its maximum fixed
        (lambda x: jax.lax.scan(lambda c, y: (c + jax.nn.logsumexp(y * x), None), 0.0, jnp.ones((2, 3)))[0], True),
        (lambda x: jnp.sum(jnp.where(x == 1.0, x, jnp.max(jax.lax.stop_gradient(x)))), True),
    ],
)
def test_the_gradient_of_a_maximum_is_compiled_with_care(fn, exact):
    """Quickly compiled it may find no entry that equals the maximum."""
    for gradient in (jax.grad(fn), jax.jit(jax.vmap(jax.grad(fn), in_axes=0))):
        shape = ONES if gradient.__class__ is jax.grad(fn).__class__ else jnp.ones((2, 3))
        assert np.isfinite(work_of(jax.make_jaxpr(gradient)(shape).jaxpr)) == exact


def test_what_nothing_depends_on_is_no_work():
    def fn(x):
        jnp.ones((1000, 1000)) @ jnp.outer(jnp.resize(x, 1000), jnp.resize(x, 1000))
        return jnp.sin(x)

    assert numbers_of(jax.make_jaxpr(fn)(ONES).jaxpr) == 3


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a GPU's programs are compiled one way")
def test_a_small_program_is_worth_compiling_better_at_less_work():
    """What compiling better costs goes by the equations, what it saves by the numbers: a chunk of 5,000 steps of a
    hidden Markov model of 200 steps and 5 states has 718 equations and computes 3.7e8 numbers, with 2 states 1.1e8."""

    def is_quick(*about):
        return QUICK.items() <= compiler_options(*about).items()

    assert is_quick(3.7e8, 2_000) and not is_quick(3.7e8, 718) and is_quick(1.1e8, 718)
