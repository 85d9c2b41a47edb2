"""Alignment is checked by perturbing: what changes at one index of an input may change outputs there only."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from autovi.analysis import primitives as alignment
from autovi.analysis.dependence import Dependence, analyse

N, K = 5, 3
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=N), jnp.float32)
Y = jnp.asarray(RNG.normal(size=N), jnp.float32)
M = jnp.asarray(RNG.normal(size=(N, K)), jnp.float32)
SQUARE = jnp.asarray(RNG.normal(size=(K, K)), jnp.float32)
V = jnp.asarray(RNG.normal(size=K), jnp.float32)
Z = jnp.asarray([0, 1, 2, 1, 0])
P = jax.nn.softmax(M)
SPD = jnp.stack([jnp.eye(K) * (1.0 + i) + 0.1 for i in range(N)])


class Case(NamedTuple):
    fn: Callable[..., jax.Array]
    tracked: dict[str, jax.Array]
    expected: dict[str, tuple[int | None, ...]]


def two_level(x: jax.Array, *, steps: int = 3) -> jax.Array:
    return lax.fori_loop(0, steps, lambda _, c: jnp.sin(c) + x, x)


def random_walk(x: jax.Array) -> jax.Array:
    def step(previous: jax.Array, now: jax.Array) -> tuple[jax.Array, jax.Array]:
        return now, dist.Normal(previous, 1.0).log_prob(now)

    return lax.scan(step, 0.0, x)[1]


def with_untracked_carry(x: jax.Array) -> jax.Array:
    return lax.scan(lambda t, row: (t + 1.0, row * t), 0.0, x)[1]


def nested_scan(m: jax.Array) -> jax.Array:
    def inner(c: float, e: jax.Array) -> tuple[float, jax.Array]:
        return c, jnp.exp(e)

    return lax.scan(lambda c, row: (c, lax.scan(inner, 0.0, row)[1]), 0.0, m)[1]


def nested_scan_with_carry(m: jax.Array) -> jax.Array:
    def inner(c: jax.Array, e: jax.Array) -> tuple[jax.Array, jax.Array]:
        return c + e, c

    return lax.scan(lambda c, row: (c, lax.scan(inner, 0.0, row)[1]), 0.0, m)[1]


def while_until(x: jax.Array) -> jax.Array:
    return lax.while_loop(lambda c: c.sum() < 30.0, lambda c: c + 1.0, x)


def halved(x: jax.Array) -> jax.Array:
    return lax.while_loop(lambda c: c > 1.0, lambda c: c / 2, x)


@jax.custom_jvp
def with_own_derivative(x: jax.Array) -> jax.Array:
    return jnp.cumsum(x)


with_own_derivative.defjvp(lambda p, t: (with_own_derivative(*p), t[0]))


def mixture(mu: jax.Array, x: jax.Array) -> jax.Array:
    weights = dist.Categorical(logits=jnp.zeros(K))
    return dist.MixtureSameFamily(weights, dist.Normal(mu, 1.0)).log_prob(x)


def viterbi_like(m: jax.Array) -> jax.Array:
    return lax.scan(lambda c, row: ((c[:, None] + SQUARE).max(0) + row,) * 2, jnp.zeros(K), m)[1]


CASES = {
    # Elementwise, shapes
    "sum of two": Case(lambda x, y: x + 2 * y, {"x": X, "y": Y}, {"x": (0,), "y": (0,)}),
    "constant part": Case(lambda x, y: x + 0 * X, {"x": X, "y": Y}, {"x": (0,)}),
    "where": Case(lambda x, y: jnp.where(x > 0, x, y), {"x": X, "y": Y}, {"x": (0,), "y": (0,)}),
    "clip": Case(lambda m: jnp.clip(m, -1, 1), {"m": M}, {"m": (0, 1)}),
    "scalar": Case(lambda x: x * M, {"x": jnp.float32(2.0)}, {"x": ()}),
    "row against matrix": Case(lambda m, v: m * v, {"m": M, "v": V}, {"m": (0, 1), "v": (1,)}),
    "column against matrix": Case(lambda m, x: m * x[:, None], {"m": M, "x": X}, {"m": (0, 1), "x": (0,)}),
    "broadcast to rows": Case(lambda v: jnp.broadcast_to(v, (N, K)), {"v": V}, {"v": (1,)}),
    "outer product": Case(lambda x, v: x[:, None] * v, {"x": X, "v": V}, {"x": (0,), "v": (1,)}),
    "x with itself, crosswise": Case(lambda x: x[:, None] - x[None, :], {"x": X}, {"x": (None,)}),
    "transpose": Case(lambda m: m.T, {"m": M}, {"m": (1, 0)}),
    "m plus its transpose": Case(lambda m: m + m.T, {"m": SQUARE}, {"m": (None, None)}),
    "moveaxis": Case(lambda s: jnp.moveaxis(s, 0, 2), {"s": SPD}, {"s": (2, 0, 1)}),
    "flatten": Case(lambda m: m.reshape(-1), {"m": M}, {"m": (None, None)}),
    "merge the last two": Case(lambda s: s.reshape(N, K * K), {"s": SPD}, {"s": (0, None, None)}),
    "merge the first two": Case(lambda s: s.reshape(N * K, K), {"s": SPD}, {"s": (None, None, 1)}),
    "unit dimensions": Case(lambda m: m.reshape(1, N, 1, K), {"m": M}, {"m": (1, 3)}),
    "squeeze": Case(lambda m: m[None].squeeze(0), {"m": M}, {"m": (0, 1)}),
    "broadcast of one": Case(lambda x: jnp.broadcast_to(x, (N,)), {"x": X[:1]}, {"x": (None,)}),
    "flip": Case(lambda m: m[::-1], {"m": M}, {"m": (None, 1)}),
    "roll": Case(lambda m: jnp.roll(m, 1, axis=0), {"m": M}, {"m": (None, 1)}),
    "differences": Case(lambda x: x[1:] - x[:-1], {"x": X}, {"x": (None,)}),
    "first column": Case(lambda m: m[:, 0], {"m": M}, {"m": (0, None)}),
    "strided": Case(lambda m: m[::2], {"m": M}, {"m": (None, 1)}),
    "dynamic slice": Case(
        lambda m, i: lax.dynamic_slice(m, (i, 0), (2, K)),
        {"m": M, "i": jnp.int32(1)},
        {"m": (None, 1), "i": ()},
    ),
    "dynamic update": Case(
        lambda m, v: lax.dynamic_update_slice(m, v[None], (1, 0)), {"m": M, "v": V}, {"m": (0, 1), "v": (1,)}
    ),
    "pad": Case(lambda m: jnp.pad(m, ((1, 0), (0, 0))), {"m": M}, {"m": (None, 1)}),
    "concatenate": Case(lambda m: jnp.concatenate([m, m], 1), {"m": M}, {"m": (0, None)}),
    "stack": Case(lambda x, y: jnp.stack([x, y], 0), {"x": X, "y": Y}, {"x": (1,), "y": (1,)}),
    "tile": Case(lambda m: jnp.tile(m, (1, 2)), {"m": M}, {"m": (0, None)}),
    "repeat": Case(lambda m: jnp.repeat(m, 2, axis=0), {"m": M}, {"m": (None, 1)}),
    "split": Case(lambda m: jnp.split(m, 3, axis=1)[1], {"m": M}, {"m": (0, None)}),
    "diagonal": Case(lambda s: jnp.diagonal(s, axis1=1, axis2=2), {"s": SPD}, {"s": (0, None, None)}),
    # Reductions and what mixes along an axis
    "sum": Case(lambda m: m.sum(-1), {"m": M}, {"m": (0, None)}),
    "sum of the first": Case(lambda m: m.sum(0), {"m": M}, {"m": (None, 0)}),
    "sum used inside": Case(lambda z: jnp.where(z == 0, 1.0, 2.0) * z.sum(), {"z": Z}, {"z": (None,)}),
    "centred": Case(lambda m: m - m.mean(1, keepdims=True), {"m": M}, {"m": (0, None)}),
    "cumsum": Case(lambda m: jnp.cumsum(m, axis=1), {"m": M}, {"m": (0, None)}),
    "cumlogsumexp": Case(lambda m: lax.cumlogsumexp(m, axis=0), {"m": M}, {"m": (None, 1)}),
    "softmax": Case(lambda m: jax.nn.softmax(m), {"m": M}, {"m": (0, None)}),
    "logsumexp": Case(lambda m: jax.nn.logsumexp(m, -1), {"m": M}, {"m": (0, None)}),
    "argmax": Case(lambda m: jnp.argmax(m, 0), {"m": M}, {"m": (None, 0)}),
    "sort": Case(lambda m: jnp.sort(m, 1), {"m": M}, {"m": (0, None)}),
    "argsort": Case(lambda m: jnp.argsort(m, 0), {"m": M}, {"m": (None, 1)}),
    "sort of pairs": Case(lambda x, y: lax.sort((x, y), num_keys=1)[0], {"x": X, "y": Y}, {"x": (None,)}),
    "top k": Case(lambda m: lax.top_k(m, 2)[0], {"m": M}, {"m": (0, None)}),
    "convolution": Case(lambda x: jnp.convolve(x, V, "same"), {"x": X}, {"x": (None,)}),
    # Indexing
    "mu[z]": Case(lambda mu, z: mu[z], {"mu": V, "z": Z}, {"mu": (None,), "z": (0,)}),
    "rows m[z]": Case(lambda m, z: m[z], {"m": SQUARE, "z": Z}, {"m": (None, 1), "z": (0,)}),
    "columns m[:, z]": Case(lambda m, z: m[:, z], {"m": M, "z": Z}, {"m": (0, None), "z": (1,)}),
    "table[z, k]": Case(
        lambda t, z, k: t[z, k],
        {"t": SQUARE, "z": Z, "k": Z[::-1]},
        {"t": (None, None), "z": (0,), "k": (0,)},
    ),
    "grid table[z[:, None], k]": Case(
        lambda t, z, k: t[z[:, None], k],
        {"t": SQUARE, "z": Z, "k": Z[:4]},
        {"t": (None, None), "z": (0,), "k": (1,)},
    ),
    "take_along_axis": Case(
        lambda m, z: jnp.take_along_axis(m, z[:, None], -1)[:, 0],
        {"m": M, "z": Z},
        {"m": (0, None), "z": (0,)},
    ),
    "take, filling": Case(
        lambda m, z: jnp.take(m, z, axis=0, mode="fill"),
        {"m": SQUARE, "z": Z + 1},
        {"m": (None, 1), "z": (0,)},
    ),
    "take, clipping": Case(
        lambda m, z: jnp.take(m, z, axis=1, mode="clip"), {"m": M, "z": Z}, {"m": (0, None), "z": (1,)}
    ),
    "vmapped indexing": Case(jax.vmap(lambda r, i: r[i]), {"m": M, "z": Z}, {"m": (0, None), "z": (0,)}),
    "vmapped dynamic slice": Case(
        jax.vmap(lambda r, i: lax.dynamic_slice(r, (i,), (2,))),
        {"m": M, "z": Z % 2},
        {"m": (0, None), "z": (0,)},
    ),
    "chained z[z]": Case(lambda z: z[z], {"z": Z}, {"z": (None,)}),
    "scatter set": Case(lambda m, v: m.at[1].set(v), {"m": M, "v": V}, {"m": (0, 1), "v": (1,)}),
    "scatter a slice": Case(lambda x, v: x.at[1:4].set(v), {"x": X, "v": V}, {"x": (0,), "v": (None,)}),
    "scatter add": Case(lambda m, z: jnp.zeros((K, K)).at[z].add(m), {"m": M, "z": Z}, {"m": (None, 1), "z": (None,)}),
    "vmapped scatter": Case(jax.vmap(lambda r, i: r.at[i].add(1.0)), {"m": M, "z": Z}, {"m": (0, 1), "z": (0,)}),
    "one hot": Case(lambda z: jax.nn.one_hot(z, K), {"z": Z}, {"z": (0,)}),
    "segment sum": Case(lambda x, z: jax.ops.segment_sum(x, z, K), {"x": X, "z": Z}, {"x": (None,), "z": (None,)}),
    # Linear algebra
    "matrix times vector": Case(lambda m, v: m @ v, {"m": M, "v": V}, {"m": (0, None), "v": (None,)}),
    "vector times matrix": Case(lambda x, m: x @ m, {"x": X, "m": M}, {"x": (None,), "m": (None, 0)}),
    "matmul": Case(lambda m, s: m @ s, {"m": M, "s": SQUARE}, {"m": (0, None), "s": (None, 1)}),
    "gram matrix": Case(lambda m: m @ m.T, {"m": M}, {"m": (None, None)}),
    "einsum": Case(
        lambda s, m: jnp.einsum("bij,bj->bi", s, m), {"s": SPD, "m": M}, {"s": (0, 1, None), "m": (0, None)}
    ),
    "einsum, batch last": Case(
        lambda s, m: jnp.einsum("bij,bj->ib", s, m), {"s": SPD, "m": M}, {"s": (1, 0, None), "m": (1, None)}
    ),
    "cholesky": Case(jnp.linalg.cholesky, {"s": SPD}, {"s": (0, None, None)}),
    "triangular solve": Case(
        lambda s, m: lax.linalg.triangular_solve(s, m[..., None], left_side=True, lower=True)[..., 0],
        {"s": SPD, "m": M},
        {"s": (0, None, None), "m": (0, None)},
    ),
    # Control flow and nested functions
    "nested jit": Case(jax.jit(lambda x: jax.jit(jnp.sin)(x) + jax.jit(jnp.cumsum)(x)), {"x": X}, {"x": (None,)}),
    "nested jit, elementwise": Case(jax.jit(lambda x: jax.jit(jnp.sin)(x)), {"x": X}, {"x": (0,)}),
    "checkpoint": Case(jax.checkpoint(lambda m: jnp.tanh(m).sum(1)), {"m": M}, {"m": (0, None)}),
    "own derivative": Case(with_own_derivative, {"x": X}, {"x": (None,)}),
    "fori_loop": Case(two_level, {"x": X}, {"x": (0,)}),
    "while": Case(while_until, {"x": X}, {"x": (None,)}),
    "while, vmapped": Case(jax.vmap(halved), {"x": 9 * X}, {"x": (0,)}),
    "while, vmapped, over rows": Case(jax.vmap(while_until), {"m": M}, {"m": (0, None)}),
    "cond": Case(
        lambda x, b: lax.cond(b > 0, jnp.sin, lambda t: 2 * t, x),
        {"x": X, "b": jnp.float32(1)},
        {"x": (0,), "b": ()},
    ),
    "cond, mixing branch": Case(
        lambda x, b: lax.cond(b > 0, jnp.cumsum, lambda t: t, x),
        {"x": X, "b": jnp.float32(1)},
        {"x": (None,), "b": ()},
    ),
    "cond on the value": Case(lambda x: lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x), {"x": X}, {"x": (None,)}),
    "switch": Case(
        lambda i, x: lax.switch(i, [jnp.sin, jnp.cos], x), {"i": jnp.int32(0), "x": X}, {"i": (), "x": (0,)}
    ),
    "map": Case(lambda m: lax.map(lambda r: r.sum(), m), {"m": M}, {"m": (0, None)}),
    "scan, free carry": Case(with_untracked_carry, {"m": M}, {"m": (0, 1)}),
    "scan, random walk": Case(random_walk, {"x": X}, {"x": (None,)}),
    "scan, nested": Case(nested_scan, {"m": M}, {"m": (0, 1)}),
    "scan, nested with carry": Case(nested_scan_with_carry, {"m": M}, {"m": (0, None)}),
    "scan, forward algorithm": Case(viterbi_like, {"m": M}, {"m": (None, None)}),
    "scan, constants": Case(lambda v: lax.scan(lambda c, t: (c, t * v), 0.0, X)[1], {"v": V}, {"v": (1,)}),
    # Distributions
    "Normal(mu[z], 1)": Case(
        lambda mu, z: dist.Normal(mu[z], 1.0).log_prob(X), {"mu": V, "z": Z}, {"mu": (None,), "z": (0,)}
    ),
    "Normal(mu, sigma)": Case(
        lambda mu, s: dist.Normal(mu, jnp.exp(s)).log_prob(X), {"mu": X, "s": Y[0]}, {"mu": (0,), "s": ()}
    ),
    "Categorical, shared logits": Case(
        lambda v, z: dist.Categorical(logits=v).log_prob(z), {"v": V, "z": Z}, {"v": (None,), "z": (0,)}
    ),
    "Categorical, own logits": Case(
        lambda m, z: dist.Categorical(logits=m).log_prob(z), {"m": M, "z": Z}, {"m": (0, None), "z": (0,)}
    ),
    "Categorical, probs": Case(
        lambda p, z: dist.Categorical(probs=p).log_prob(z), {"p": P, "z": Z}, {"p": (0, None), "z": (0,)}
    ),
    "Categorical, table[z]": Case(
        lambda t, z: dist.Categorical(logits=t[z]).log_prob(Z),
        {"t": SQUARE, "z": Z},
        {"t": (None, None), "z": (0,)},
    ),
    "Bernoulli": Case(lambda x, b: dist.Bernoulli(logits=x).log_prob(b), {"x": X, "b": Z % 2}, {"x": (0,), "b": (0,)}),
    "Bernoulli, table": Case(
        lambda t, z: dist.Bernoulli(logits=t[z]).log_prob(jnp.ones((N, K))),
        {"t": SQUARE, "z": Z},
        {"t": (None, 1), "z": (0,)},
    ),
    "Poisson": Case(lambda x: dist.Poisson(jnp.exp(x)).log_prob(Z), {"x": X}, {"x": (0,)}),
    "Binomial": Case(lambda x, z: dist.Binomial(4, logits=x).log_prob(z), {"x": X, "z": Z}, {"x": (0,), "z": (0,)}),
    "Beta": Case(lambda x, p: dist.Beta(jnp.exp(x), 2.0).log_prob(p), {"x": X, "p": P[:, 0]}, {"x": (0,), "p": (0,)}),
    "Gamma": Case(lambda x: dist.Gamma(jnp.exp(x), 2.0).log_prob(1.3), {"x": X}, {"x": (0,)}),
    "Dirichlet": Case(lambda m: dist.Dirichlet(jnp.exp(m)).log_prob(P), {"m": M}, {"m": (0, None)}),
    "mixture": Case(mixture, {"mu": V, "x": X}, {"mu": (None,), "x": (0,)}),
    "mixture, own means": Case(lambda m: mixture(m, X), {"m": M}, {"m": (0, None)}),
    "MultivariateNormal": Case(
        lambda m: dist.MultivariateNormal(V, jnp.eye(K)).log_prob(m), {"m": M}, {"m": (0, None)}
    ),
    "MultivariateNormal, own covariances": Case(
        lambda s: dist.MultivariateNormal(V, s).log_prob(M), {"s": SPD}, {"s": (0, None, None)}
    ),
    "GaussianRandomWalk": Case(lambda m: dist.GaussianRandomWalk(1.0, K).log_prob(m), {"m": M}, {"m": (0, None)}),
    "regression": Case(
        lambda w, b: dist.Normal(M @ w + b, 1.0).log_prob(X), {"w": V, "b": X}, {"w": (None,), "b": (0,)}
    ),
}


def report_of(fn: Callable[..., Any], tracked: dict[str, jax.Array]) -> dict[str, Dependence]:
    return analyse(lambda t: {"out": fn(*(t[name] for name in tracked))}, tracked)["out"]


def assert_sound(fn: Callable[..., Any], tracked: dict[str, jax.Array], report: dict[str, Dependence]) -> None:
    """Perturbs each input slice by slice; the output may change only where the report says so."""
    fn = jax.jit(fn)
    before = np.asarray(fn(*tracked.values()))
    rng = np.random.default_rng(1)
    for name, value in tracked.items():
        whole = [(None, None, slice(None))] if value.ndim == 0 or name not in report else []
        slices = [(d, i, (slice(None),) * d + (i,)) for d in range(value.ndim) for i in range(value.shape[d])]
        for d, i, where in whole + slices:
            shift = 1 if jnp.issubdtype(value.dtype, jnp.integer) else rng.normal()
            other = np.array(value)
            other[... if d is None else where] += shift
            if shift == 1:
                other %= int(value.max()) + 1
            after = np.asarray(fn(*{**tracked, name: jnp.asarray(other, value.dtype)}.values()))
            changed = ~((before == after) | (np.isnan(before) & np.isnan(after)))
            if name not in report:
                assert not changed.any(), f"{name} is not in the report and changes the output"
            elif d is not None and (e := report[name].aligned[d]) is not None:
                assert not np.delete(changed, i, axis=e).any(), f"{name}[{i} at {d}] changes more than [{i} at {e}]"


@pytest.mark.parametrize("name", CASES)
def test_alignment_is_sound_and_as_expected(name: str) -> None:
    fn, tracked, expected = CASES[name]
    report = report_of(fn, tracked)
    assert_sound(fn, tracked, report)
    assert {n: d.aligned for n, d in report.items()} == expected


@pytest.mark.parametrize(
    ("primitive", "case"),
    [
        ("cumsum", "cumsum"),
        ("rev", "flip"),
        ("sort", "sort"),
        ("gather", "mu[z]"),
        ("gather", "rows m[z]"),
        ("concatenate", "concatenate"),
        ("slice", "differences"),
        ("transpose", "transpose"),
        ("dot_general", "matmul"),
        ("reshape", "merge the first two"),
        ("broadcast_in_dim", "broadcast to rows"),
        ("triangular_solve", "triangular solve"),
        ("scatter-add", "scatter add"),
        ("reduce_sum", "sum of the first"),
    ],
)
def test_a_broken_rule_is_found(primitive: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_place(eqn: Any) -> list[list[tuple[int | None, ...]]]:
        out = len(eqn.outvars[0].aval.shape)
        maps = [tuple(d if d < out else None for d in range(len(v.aval.shape))) for v in eqn.invars]
        return [maps for _ in eqn.outvars]

    fn, tracked, _ = CASES[case]
    monkeypatch.setitem(alignment.RULES, primitive, in_place)
    with pytest.raises((AssertionError, IndexError)):  # IndexError: aligned with a dimension too short
        assert_sound(fn, tracked, report_of(fn, tracked))


# Functions from a (3, 3) float array and a (3,) integer one to a (3, 3) float array.
STEPS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "transpose": lambda a, z: a.T,
    "sine": lambda a, z: jnp.sin(a),
    "flip": lambda a, z: a[:, ::-1],
    "roll": lambda a, z: jnp.roll(a, 1, 0),
    "cumsum": lambda a, z: jnp.cumsum(a, 1),
    "cummax": lambda a, z: lax.cummax(a, axis=0),
    "softmax": lambda a, z: jax.nn.softmax(a, 0),
    "sort": lambda a, z: jnp.sort(a, 1),
    "matmul": lambda a, z: a @ SQUARE,
    "matmul left": lambda a, z: SQUARE @ a,
    "rows": lambda a, z: a[z],
    "columns": lambda a, z: a[:, z],
    "along": lambda a, z: a + jnp.take_along_axis(a, z[:, None], 1),
    "along rows": lambda a, z: a * jnp.take_along_axis(a, z[None, :], 0),
    "by z": lambda a, z: jnp.where(z[:, None] == 1, a, 2 * a),
    "by z of columns": lambda a, z: a + z,
    "diagonal": lambda a, z: a + jnp.diagonal(a)[None, :],
    "reshape": lambda a, z: a.reshape(9).reshape(3, 3),
    "row sums": lambda a, z: a + a.sum(1, keepdims=True),
    "column means in rows": lambda a, z: a - a.mean(0)[:, None],
    "scatter": lambda a, z: a.at[z].add(a),
    "set column": lambda a, z: a.at[:, 1].set(a[:, 0]),
    "scan rows": lambda a, z: lax.scan(lambda c, r: (c + r, r * z), a[0], a)[1],
    "scan carry": lambda a, z: lax.scan(lambda c, r: (c + r, c), a[0], a)[1],
    "loop": lambda a, z: lax.fori_loop(0, 2, lambda i, c: c * a + 1, a),
    "cond": lambda a, z: lax.cond(z[0] == 0, jnp.sin, lambda b: b.T, a),
    "vmap": lambda a, z: jax.vmap(lambda r, i: r * r[i])(a, z),
    "square": lambda a, z: (a[:, :, None] * a[:, None, :]).sum(2),
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.booleans()), min_size=1, max_size=4))
def test_random_programs_are_analysed_soundly(program: list[tuple[str, bool]]) -> None:
    def fn(a: jax.Array, z: jax.Array) -> jax.Array:
        for name, added in program:
            new = STEPS[name](a, z)
            a = a + new if added else new
        return a

    tracked = {"a": SQUARE, "z": Z[:3]}
    assert_sound(fn, tracked, report_of(fn, tracked))
