"""The curvature at a mode where there are too many dimensions for a matrix: low rank plus diagonal."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from autovi.distributions.noise import stretched
from autovi.ladder.normal import LogDensity, Normal, behind

MOST_DIRECTIONS, FEWEST_DIRECTIONS = 256, 16
NUMBERS = 400_000  # that the vectors of all directions have together
STEPS = 2  # products with the Hessian for each
RESOLVED = 0.1  # of an eigenvalue's distance to the most, that its residual may have
NUM_ROUNDS = 10  # at most
STAYS = 0.01  # the change of a logarithm of a scale that is none
NEWTON_STEPS = 5
FLATTEST = 1e-8  # an eigenvalue that is so much smaller than most is rounding
LEAST_PART = 1e-4  # of a coordinate's curvature, that the diagonal keeps


class Directions(NamedTuple):
    """Orthonormal `vectors` (D, k), in units of the scales of a normal, and how wide the posterior is along each."""

    vectors: jax.Array
    lengths: jax.Array


def how_many_directions(size: int) -> int:
    """How many directions are looked for in so many dimensions."""
    return min(size, max(FEWEST_DIRECTIONS, min(MOST_DIRECTIONS, NUMBERS // size)))


def directions(log_density: LogDensity, normal: Normal, count: int) -> tuple[Normal, Directions, jax.Array]:
    r"""Minus the Hessian H at `normal.loc` as :math:`D^{-1} (I + Q (diag(t) - 1) Q') D^{-1}`, D diagonal and Q (size,
    `count`) orthonormal: a normal of independent coordinates with scales D, and the directions Q along which the
    posterior is :math:`1 / \sqrt{t}` times as wide. Returns them, and how many products with H they took.

    `normal` has the curvature of each coordinate alone. With its scales as D, Q and t are eigenvectors and eigenvalues
    of -D H D by Lanczos: the ends of the spectrum, the narrowest and the widest directions, come out first. What they
    say of each coordinate's curvature is no longer the diagonal's to say, as in a factor analysis: D is what is left,
    and again. Exact where -H is a diagonal and a matrix of a rank below `count`.

    Golub and Van Loan, Matrix Computations (2013), section 10.1; Harman, Modern Factor Analysis (1976), for the
    principal factor method.
    """
    curvature, size = normal.scale**-2, normal.loc.shape[0]

    def moves(last: _Round) -> jax.Array:
        far = jnp.abs(jnp.log(last.left / last.scale)).max() > STAYS
        return (last.number < 1) | (far & (last.number < NUM_ROUNDS))

    def once_more(last: _Round) -> _Round:
        scale = last.left
        vectors, values, others = _leading(log_density, Normal(normal.loc, scale), curvature, count, last.number)
        own = curvature * scale**2  # the diagonal of -D H D
        left = own - (vectors**2) @ (values - others)
        scale_left = scale * jax.lax.rsqrt(jnp.maximum(left, LEAST_PART * own) / others)
        return _Round(last.number + 1, scale, vectors, values, others, scale_left)

    dtype = normal.loc.dtype
    start = _Round(
        jnp.asarray(0),
        normal.scale,
        jnp.eye(size, count, dtype=dtype),
        jnp.ones(count, dtype),
        jnp.ones((), dtype),
        normal.scale,
    )
    number, scale, vectors, values, others, _ = jax.lax.while_loop(moves, once_more, start)
    relative = values / others
    known = jnp.isfinite(relative) & (relative > FLATTEST)
    lengths = jnp.where(known, jax.lax.rsqrt(jnp.where(known, relative, 1)), 1)
    scale = scale * jax.lax.rsqrt(others)
    sound = jnp.isfinite(scale).all() & jnp.isfinite(vectors).all()
    found = Directions(jnp.where(sound, vectors, start.vectors), jnp.where(sound, lengths, 1))
    scale = jnp.where(sound, scale, normal.scale)
    products = number * min(size, STEPS * count)
    return Normal(_nearer(log_density, normal.loc, scale, found), scale), found, products


class _Round(NamedTuple):
    number: jax.Array  # of rounds so far
    scale: jax.Array
    vectors: jax.Array
    values: jax.Array
    others: jax.Array  # the mean eigenvalue of all other directions
    left: jax.Array  # the scale that what is left of the curvature asks for


def _leading(
    log_density: LogDensity, normal: Normal, curvature: jax.Array, count: int, number: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The eigenvectors that matter most, their eigenvalues, and the mean of all others, whose sum with these is the
    trace.

    In a direction where it is the mean c of many, an eigenvalue t costs t / c - 1 - log(t / c), twice the divergence of
    the two normals, so that those that cost most are told apart.
    """
    size = normal.loc.shape[0]
    steps, trace = min(size, STEPS * count), jnp.sum(curvature * normal.scale**2)
    vectors, values, errors = lanczos(log_density, normal, steps, jax.random.fold_in(jax.random.key(0), number))
    others = trace / size
    for _ in range(3):
        ratio = values / others
        resolved = (errors <= RESOLVED * jnp.abs(values - others)) & (ratio > FLATTEST)
        cost = jnp.where(resolved, ratio - 1 - jnp.log(jnp.where(resolved, ratio, 1)), -1)
        matter = jnp.argsort(-cost)[:count]
        kept = cost[matter] > 0
        others = (trace - jnp.sum(jnp.where(kept, values[matter], 0))) / jnp.maximum(1, size - jnp.sum(kept))
        others = jnp.where(others > 0, others, trace / size)
    return vectors[:, matter], jnp.where(kept, values[matter], others), others


def _nearer(log_density: LogDensity, loc: jax.Array, scale: jax.Array, found: Directions) -> jax.Array:
    """The mode, by Newton steps with this curvature, as long as they go up."""
    value_and_gradient = jax.value_and_grad(log_density)

    def step(_: int, at: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        loc, value, gradient = at
        # With A = D (I + Q (l - 1) Q') the step is A A' g, and A' = (I + Q (l - 1) Q') D.
        along = stretched(*found, stretched(*found, scale * gradient))
        there = loc + scale * along
        its_value, its_gradient = value_and_gradient(there)
        better = (its_value > value) & jnp.isfinite(its_gradient).all()
        new = (there, its_value, its_gradient)
        return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, at)

    return jax.lax.fori_loop(0, NEWTON_STEPS, step, (loc, *value_and_gradient(loc)))[0]


def lanczos(
    log_density: LogDensity, normal: Normal, count: int, rng_key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Approximate eigenvectors (D, `count`) and eigenvalues of minus the Hessian of a log density in the coordinates
    of a normal, from `count` products with it, and the length of each one's residual. Every vector is made orthogonal
    to all before it, twice, since in float32 they would not stay so."""
    size, dtype = normal.loc.shape[0], normal.loc.dtype
    gradient = jax.grad(behind(log_density, normal))
    zero = jnp.zeros(size, dtype)
    keys = jax.random.split(rng_key, count)
    first = jax.random.normal(rng_key, (size,), dtype)

    def step(basis: jax.Array, place: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        here, key = place
        vector = basis[here]
        image = -jax.jvp(gradient, (zero,), (vector,))[1]
        rest = _orthogonal(basis, image)
        length = jnp.linalg.norm(rest)
        # Where nothing is left, the vectors so far are turned into each other: another one is begun with.
        ended = length <= 1e-4 * jnp.linalg.norm(image)
        fresh = _orthogonal(basis, jax.random.normal(key, (size,), dtype))
        following = jnp.where(ended, fresh / jnp.linalg.norm(fresh), rest / jnp.where(ended, 1, length))
        return basis.at[here + 1].set(following), (vector @ image, jnp.where(ended, 0, length))

    basis = jnp.zeros((count + 1, size), dtype).at[0].set(first / jnp.linalg.norm(first))
    basis, (diagonal, beside) = jax.lax.scan(step, basis, (jnp.arange(count), keys))
    values, turned = jnp.linalg.eigh(jnp.diag(diagonal) + jnp.diag(beside[:-1], 1) + jnp.diag(beside[:-1], -1))
    return basis[:count].T @ turned, values, jnp.abs(beside[-1] * turned[-1])


def _orthogonal(basis: jax.Array, vector: jax.Array) -> jax.Array:
    for _ in range(2):
        vector = vector - basis.T @ (basis @ vector)
    return vector
