"""Does a cost jump as a site's value moves? A numeric answer, without noise and without guessing.

`dependence.py` names the operations that could jump; this test says whether the cost does. A term is followed
along segments between pairs of values. A grid, then repeated halving, narrows each segment to the interval
where the term departs most from being locally linear. In an interval that small, a continuous term changes
about as much as it does in the neighbouring intervals; a term with a jump changes by the jump.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# A jump is RATIO times larger than what the neighbouring intervals do (smooth terms: about 1, a kink included),
# and NOISE times larger than the rounding error of a number as large as the term.
RATIO = 5.0
NOISE = 32.0
# Neighbouring intervals looked at on each side.
NEIGHBOURS = 8
# How far on each side the coarser look reaches, in lengths of the segment, and where it looks: square roots of
# primes, which share no period, so that the points keep no step with a rounding error that has one.
REACH = 1 / 256
UNEVEN = np.modf(np.sqrt([2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37]))[0]
# The narrowest interval, in units in the last place of the value: fewer, and rounding the value makes steps.
RESOLUTION = 8


class Jumps(NamedTuple):
    """What was found on each segment, all of shape `[pairs]`.

    found: whether some term jumps. size: the largest jump, 0 where none. location: where it is, 0 at the
    start and 1 at the end of the segment. term: which term, counted along the flattened leaves of `fn`.
    """

    found: Array
    size: Array
    location: Array
    term: Array


def jumps_between(
    fn: Callable[..., Any],
    starts: Array,
    ends: Array,
    context: Any = None,
    *,
    num_points: int = 33,
    num_halvings: int = 18,
    max_terms: int = 16,
    smallest: float = 1e-6,
    batch_size: int | None = None,
) -> Jumps:
    """Looks for jumps of each element of `fn` between `starts[i]` and `ends[i]`.

    `context` is a tree of arrays with a leading pair axis, of which `fn(value, context)` gets the pair's part (None:
    `fn(value)`). `fn` maps one value (a floating array of any shape) to an array, or a tree of arrays, whose elements
    are followed one by one: a jump is found beside terms that vary by thousands if they are separate elements. Of
    more than `max_terms` elements, the `max_terms` that look least smooth on the grid are followed, segment
    by segment. `starts` and `ends` have shape `[pairs, *value]`; their pairs are done at once, or
    `batch_size` at a time to save memory. The cost is `num_points + terms * (5 * num_halvings + 42)`
    evaluations of `fn` per pair. Can be compiled with `num_points`, ..., `batch_size` static.

    Changes to and from infinity or NaN are not jumps. Not found are jumps below `smallest` (in the unit of
    the terms, nats for log densities) or about 32 rounding errors of the term (4e-6 of its size in float32);
    jumps closer together than 1/256 of the segment, which cannot be told from rounding; and jumps in the
    first and the last interval of the grid. Where the rounding of a term itself makes fewer steps than that,
    they are found as jumps: in float32, `gammaln(x + 1e4) - gammaln(1e4)` is a staircase. In doubt, ask
    again in float64.

    Raises TypeError if the values or the terms are not floating point; ValueError if the shapes of `starts`
    and `ends` differ or there are fewer than eight points.

    Example:
        >>> ends = jnp.ones((1, 3))
        >>> jumps_between(lambda x: {"step": jnp.where(x > 0.3, 1.0, 0.0), "kink": abs(x)}, -ends, ends).found
        Array([ True], dtype=bool)
    """
    starts, ends = jnp.asarray(starts), jnp.asarray(ends)
    if starts.shape != ends.shape or starts.ndim == 0:
        raise ValueError(
            f"starts: expected starts and ends of one shape [pairs, ...], got {starts.shape} and {ends.shape}"
        )
    if not (jnp.issubdtype(starts.dtype, jnp.floating) and jnp.issubdtype(ends.dtype, jnp.floating)):
        raise TypeError(f"starts: expected floating-point values, got {starts.dtype} and {ends.dtype}")
    if num_points < 8:
        raise ValueError(f"num_points: expected at least 8, got {num_points}")
    first = None if context is None else jax.tree.map(lambda x: x[0], context)
    one = jax.eval_shape(lambda x: _flat(_bound(fn, first)(x)), jax.ShapeDtypeStruct(starts.shape[1:], starts.dtype))
    count = min(max_terms, one.size)
    if count == 0 or starts.shape[0] == 0:
        none = jnp.zeros(starts.shape[0])
        return Jumps(none > 0, none, none, none.astype(int))

    def one_pair(pair: tuple[Array, Array, Any]) -> Jumps:
        start, end, own = pair
        return _along_segment(_bound(fn, own), start, end, num_points, num_halvings, count, smallest)

    @jax.jit
    def all_pairs(pairs: tuple[Array, Array, Any]) -> Jumps:
        return jax.vmap(one_pair)(pairs) if batch_size is None else jax.lax.map(one_pair, pairs, batch_size=batch_size)

    return all_pairs((starts, ends, context))


def _bound(fn: Callable[..., Any], context: Any) -> Callable[[Array], Any]:
    return fn if context is None else lambda value: fn(value, context)


def _flat(terms: Any) -> Array:
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(terms)]
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        raise TypeError(f"fn: expected floating-point terms, got {[str(leaf.dtype) for leaf in leaves]}")
    return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves]) if leaves else jnp.zeros(0)


def _along_segment(
    fn: Callable[[Array], Any],
    start: Array,
    end: Array,
    num_points: int,
    num_halvings: int,
    count: int,
    smallest: float,
) -> Jumps:
    step = 1.0 / (num_points - 1)
    narrowest, direction = _narrowest(start, end - start, step)

    def at(t: Array) -> Array:
        return _flat(fn(start + t.astype(start.dtype) * direction))

    grid = jnp.linspace(0.0, 1.0, num_points, dtype=start.dtype)
    values = jax.vmap(at)(grid)
    eps = jnp.maximum(jnp.finfo(start.dtype).eps, jnp.finfo(values.dtype).eps)
    magnitude = jnp.max(jnp.abs(_finite_or_zero(values)), axis=0)
    tolerance = jnp.maximum(NOISE * eps * magnitude, smallest)
    changes = _changes(values)
    bends = jnp.abs(changes[1:-1] - (changes[:-2] + changes[2:]) / 2)
    # A jump stands out from what the term does elsewhere, at whatever scale that is.
    oddness = bends.max(0) / (jnp.median(jnp.abs(changes), axis=0) + tolerance)
    _, followed = jax.lax.top_k(oddness, count)

    def one_term(term: Array) -> tuple[Array, Array]:
        def f(t: Array) -> Array:
            return jax.vmap(at)(t)[:, term]

        left = grid[1 + jnp.argmax(bends[:, term])]
        left, width = _narrow(f, left, jnp.asarray(step, start.dtype), narrowest, num_halvings)
        return _jump_in(f, left, width, tolerance[term]), left + width / 2

    sizes, places = jax.vmap(one_term)(followed)
    best = jnp.argmax(sizes)
    return Jumps(sizes[best] > 0, sizes[best], jnp.where(sizes[best] > 0, places[best], 0.0), followed[best])


def _narrowest(start: Array, direction: Array, step: float) -> tuple[Array, Array]:
    """The narrowest interval that the value's rounding allows; the direction without what moves too little.

    An element that changes by a few units in the last place moves in steps however wide the interval is; it
    is held fixed.
    """
    eps = jnp.finfo(start.dtype).eps
    unit = RESOLUTION * eps * jnp.maximum(jnp.abs(start), jnp.abs(start + direction))
    # The intervals looked at in the end have to fit into one of the grid's.
    moving = jnp.abs(direction) * step > 2 * NEIGHBOURS * unit
    direction = jnp.where(moving, direction, 0.0)
    widths = jnp.where(moving, unit / jnp.where(moving, jnp.abs(direction), 1.0), 0.0)
    return jnp.maximum(jnp.max(widths, initial=0.0), RESOLUTION * eps / 2), direction


def _changes(values: Array) -> Array:
    """Differences between neighbours; zero to or from a value that is not finite, which is no jump."""
    return _finite_or_zero(values[1:] - values[:-1])


def _narrow(
    f: Callable[[Array], Array], left: Array, width: Array, narrowest: Array, num_halvings: int
) -> tuple[Array, Array]:
    """Halves `[left, left + width]` again and again, towards the half less like its neighbours."""
    offsets = jnp.array([-0.5, 0.0, 0.5, 1.0, 1.5], width.dtype)

    def halve(_: int, interval: tuple[Array, Array]) -> tuple[Array, Array]:
        left, width = interval
        before, first, second, after = _changes(f(left + offsets * width))
        # The neighbours' mean is what a smooth term would do, however steep it is and whatever its curvature.
        in_first = jnp.abs(first - (before + second) / 2)
        in_second = jnp.abs(second - (first + after) / 2)
        finer = width / 2 >= narrowest
        left = jnp.where(finer & (in_second > in_first), left + width / 2, left)
        return left, jnp.where(finer, width / 2, width)

    return jax.lax.fori_loop(0, num_halvings, halve, (left, width))


def _jump_in(f: Callable[[Array], Array], left: Array, width: Array, tolerance: Array) -> Array:
    """Size of the jump in `[left, left + width]`, zero if it is none."""
    count = 2 * NEIGHBOURS + 2
    near = left + width * (jnp.arange(count, dtype=width.dtype) - NEIGHBOURS)
    away = jnp.asarray(REACH * UNEVEN, width.dtype)
    values = f(jnp.concatenate([near, near[0] - away, near[-1] + away]))
    changes = _changes(values[:count])
    around = jnp.concatenate([changes[:NEIGHBOURS], changes[NEIGHBOURS + 1 :]])
    jump = jnp.abs(changes[NEIGHBOURS] - around.mean())
    # Rounding inside the term can make steps wider than the interval; the coarser look sees several of them.
    spread = jnp.maximum(jnp.max(jnp.abs(around - around.mean())), jnp.max(_off_a_line(values[count:].reshape(2, -1))))
    return jnp.where(jump > RATIO * spread + tolerance, jump, 0.0)


def _off_a_line(values: Array) -> Array:
    """Departures of each row from its line of least squares over UNEVEN; zero if it is not finite."""
    line = np.stack([np.ones_like(UNEVEN), UNEVEN], 1)
    off = np.eye(len(UNEVEN)) - line @ np.linalg.pinv(line)
    # About the first value, so that the term's size is no source of rounding errors.
    return _finite_or_zero(jnp.abs((values - values[:, :1]) @ jnp.asarray(off, values.dtype)))


def _finite_or_zero(values: Array) -> Array:
    return jnp.where(jnp.isfinite(values), values, 0.0)
