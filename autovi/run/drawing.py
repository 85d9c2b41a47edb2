"""What is drawn from a fitted posterior: values, log densities, gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.errors import JaxRuntimeError

from autovi.compiling import compiler_options
from autovi.process import computing
from autovi.program.program import Program
from autovi.program.summing import drawn_from, log_conditional, most_likely
from autovi.program.surrogate import Step
from autovi.program.world import World
from autovi.run.background import Compiling
from autovi.run.engine import Engine
from autovi.run.faults import is_out_of_memory
from autovi.run.widening import widened

DRAWS_BUDGET = 20_000_000  # numbers held at once while drawing from the posterior
VALUES, LIKELIHOODS, DENSITIES = "value", "likelihood", "density"  # what of a posterior draw is kept
EVERY = (DENSITIES, VALUES, LIKELIHOODS)
MOST_LIKELY = "most likely"  # beside these: sites that are summed out are not drawn, but at their most likely values
PART = 1000  # draws made at once
USUAL_PARTS = 100  # that are made with one program, where draws are weighed for corrected ones
QUICK_NUMBERS = 50 * DRAWS_BUDGET  # computed in less time than a program is compiled


class Keys(NamedTuple):
    """Random keys on the host, where to choose among them compiles nothing: `(count, words)` and how JAX reads them.
    Those that are `widened` stand for draws of proposals wider than q (see `run/widening.py`)."""

    data: np.ndarray
    implementation: str
    widened: bool = False

    def at(self, places: np.ndarray) -> Keys:
        """Those at some places."""
        return self._replace(data=self.data[places])


@computing()
def keys_of(rng_key: jax.Array, count: int) -> Keys:
    """`count` keys split from one."""
    split = jax.random.split(rng_key, count)
    return Keys(np.asarray(jax.random.key_data(split)), str(jax.random.key_impl(split)))


def sequence_of_keys(rng_key: jax.Array, start: int, stop: int, widened: bool = False) -> Keys:
    """Keys number `start` to `stop` of a sequence without an end, split in parts of one size: for another number
    another program would be compiled."""
    first = start // PART
    parts = [keys_of(jax.random.fold_in(rng_key, i), PART) for i in range(first, -(-stop // PART))]
    whole = Keys(np.concatenate([part.data for part in parts]), parts[0].implementation, widened)
    return whole.at(np.arange(start, stop) - first * PART)


class Draws(NamedTuple):
    """Posterior draws with a leading draw axis: values, log likelihoods per observation, and the log density on the
    unconstrained scale of model, guide, and what they were drawn from: the guide, or wider proposals. What was not
    asked for is empty or None."""

    values: dict[str, Any]
    log_likelihoods: dict[str, Any]
    log_p: Any
    log_q: Any
    log_proposal: Any


@computing()
def draws(
    engine: Engine,
    params: Any,
    arrays: Mapping[str, Any],
    rng_key: jax.Array,
    num_draws: int,
    kinds: tuple[str, ...],
) -> Draws:
    """Posterior draws at full plates, marginalized sites drawn from their exact conditional.

    Of each draw the `kinds` asked for are kept; the draws of a key are the same whatever is kept.
    """
    return draws_of(engine, params, arrays, keys_of(rng_key, num_draws), kinds)


@computing()
def draws_of(engine: Engine, params: Any, arrays: Mapping[str, Any], keys: Keys, kinds: tuple[str, ...]) -> Draws:
    """The draw of each key, as in `draws`. They are made in parts, so that no more is held than is kept, and in smaller
    ones where memory runs out.

    Raises:
        jax.errors.JaxRuntimeError: there is not enough memory for one draw.
    """
    most = PART
    while True:
        compiling, part = compiling_draws(engine, params, arrays, len(keys.data), kinds, keys, most=most)
        try:
            return _in_parts(engine, params, arrays, keys, kinds, compiling, part)
        except JaxRuntimeError as error:
            if part == 1 or not is_out_of_memory(error):
                raise
            most = part // 2


def _in_parts(
    engine: Engine,
    params: Any,
    arrays: Mapping[str, Any],
    keys: Keys,
    kinds: tuple[str, ...],
    compiling: Compiling,
    part: int,
) -> Draws:
    run, num_draws = compiling.result(), len(keys.data)
    parts = (
        _only(kinds, *run(params, arrays, keys.data[place], np.asarray(keys.widened)))
        for place in places(num_draws, part)
    )
    kept, vectors = joined(parts, part, num_draws)
    # Hundreds of scalars are taken out of their vector here: as outputs each would be a kernel to be compiled.
    values = {**kept.values, **(engine.full.from_vectors(vectors) if VALUES in kinds else {})}
    sites = engine.full.sites
    order = [n for n in (*sites.latents, *sites.deterministics) if n in values]
    return kept._replace(values={n: values[n] for n in order})


@computing()
def compiling_draws(
    engine: Engine,
    params: Any,
    arrays: Mapping[str, Any],
    num_draws: int,
    kinds: tuple[str, ...],
    keys: Keys,
    after: Compiling | None = None,
    most: int = PART,
) -> tuple[Compiling, int]:
    """The program that makes so many draws, on its way to be compiled `after` another, and how many it makes at once,
    at `most`. Of the parameters and the keys only the shapes matter."""
    made = _made_at_once(engine, num_draws, kinds)
    part = min(_part(engine, num_draws, made), most)
    data = jax.ShapeDtypeStruct((part, *keys.data.shape[1:]), keys.data.dtype)
    args = (params, arrays, data, np.asarray(keys.widened))
    shapes = str(jax.tree.map(lambda x: (jnp.shape(x), str(jnp.result_type(x))), args))
    key = ("draws", part, made, keys.implementation, shapes)
    return engine.kept(key, lambda: _compiling(engine, part, made, keys.implementation, args, after)), part


def _made_at_once(engine: Engine, num_draws: int, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """All kinds, for which one program serves every question, where that costs less than to compile another."""
    if MOST_LIKELY in kinds:
        return kinds
    light = PART * kept_per_draw(engine, EVERY) <= DRAWS_BUDGET
    return EVERY if light and num_draws * engine.numbers_per_draw <= QUICK_NUMBERS else kinds


def _part(engine: Engine, num_draws: int, kinds: tuple[str, ...]) -> int:
    """How many draws are made at once: the same for any number of them, where those too many cost nothing, since
    another number is another program."""
    room = max(1, DRAWS_BUDGET // max(1, kept_per_draw(engine, kinds)))
    quick = PART * engine.numbers_per_draw <= DRAWS_BUDGET
    return min(room, PART) if quick else min(room, PART, num_draws)


def _only(kinds: tuple[str, ...], made: Draws, vectors: dict[str, Any]) -> tuple[Draws, dict[str, Any]]:
    """What was asked for of what was made."""
    values, likelihoods = made.values if VALUES in kinds else {}, made.log_likelihoods if LIKELIHOODS in kinds else {}
    densities = (made.log_p, made.log_q, made.log_proposal) if DENSITIES in kinds else (None, None, None)
    return Draws(values, likelihoods, *densities), vectors if VALUES in kinds else {}


def kept_per_draw(engine: Engine, kinds: tuple[str, ...]) -> int:
    """How many numbers of each draw are kept."""
    return sum(prod(engine.full.traced.graph.shape(o)) for o in engine.full.outputs_for(kinds))


def places(count: int, part: int) -> list[np.ndarray]:
    """Which of `count` things belong to each part; the last part is filled up, as another length would be another
    program."""
    return [np.arange(i, i + part) % count for i in range(0, count, part)]


def joined(parts: Iterable[Any], part: int, count: int) -> Any:
    """The first `count` rows of trees of arrays that have `part` rows each, put where they stay as they come."""
    whole: Any = None
    for number, tree in enumerate(parts):
        tree = jax.tree.map(np.asarray, tree)
        if part == count:
            return tree
        if whole is None:
            whole = jax.tree.map(lambda x: np.empty((count, *x.shape[1:]), x.dtype), tree)
        start, end = number * part, min(count, (number + 1) * part)
        jax.tree.map(lambda to, x, s=start, e=end: to.__setitem__(slice(s, e), x[: e - s]), whole, tree)
    return whole


def _compiling(
    engine: Engine, part: int, kinds: tuple[str, ...], implementation: str, args: Any, after: Compiling | None
) -> Compiling:
    batch = _batch(part, int(np.clip(DRAWS_BUDGET // engine.numbers_per_draw, 1, part)))

    def all_draws(params: Any, arrays: Any, data: jax.Array, wide: jax.Array) -> tuple[Draws, dict[str, jax.Array]]:
        arrays = engine.full.settled(arrays)
        keys = jax.random.wrap_key_data(data, impl=implementation)
        return jax.lax.map(partial(_draw, engine, params, arrays, wide, batch, kinds), keys, batch_size=batch)

    lowered = jax.jit(all_draws).lower(*args)
    options = compiler_options(USUAL_PARTS * part * engine.numbers_per_draw)
    return Compiling(lambda: lowered.compile(options), after=after)


def _batch(part: int, most: int) -> int:
    """How many of `part` draws are evaluated side by side, at most so many: if it can be without a remainder, which
    would be compiled for itself."""
    whole = next(n for n in range(most, 0, -1) if part % n == 0)
    return whole if 2 * whole >= most else most


def _draw(
    engine: Engine, params: Any, arrays: Any, wide: jax.Array, lanes: int, kinds: tuple[str, ...], key: jax.Array
) -> tuple[Draws, dict[str, jax.Array]]:
    program = engine.drawn
    indices = {n: jnp.arange(p.size) for n, p in engine.program.sites.subsampled.items()}
    shared = program.shared(params, arrays, indices, (*program.cost_outputs, *program.outputs_for(kinds)))
    noise, log_ratio = noise_of(program, key, wide)
    world = program.particle(shared, key, noise)
    discrete = most_likely if MOST_LIKELY in kinds else partial(drawn_from, key)
    there, log_q = _with_discrete(program, world, lanes, discrete)
    densities: tuple[Any, ...] = (None, None, None)
    if DENSITIES in kinds:
        log_p, log_q = _log_densities(there, log_q)
        densities = (log_p, log_q, log_q + log_ratio)
    values = program.read_values(there) if VALUES in kinds else {}
    likelihoods = program.read_likelihoods(there) if LIKELIHOODS in kinds else {}
    blocks = {block for block, _ in program.places.values()} if VALUES in kinds else set()
    vectors = {block: there.nodes[block].draw.value for block in blocks}
    return Draws(values, likelihoods, *densities), vectors


def noise_of(program: Program, key: jax.Array, wide: jax.Array) -> tuple[dict[str, Any], jax.Array]:
    """The noise of the draw that belongs to a key, and the log density of what it is drawn from less that of q."""
    return widened(program, key, jax.tree.map(lambda x: x[0], program.noise(key, 1)), wide)


def _with_discrete(program: Program, world: World, lanes: int, discrete: Callable) -> tuple[World, jax.Array]:
    """The particle with its sites that are summed out as `discrete` has them given all else, and log q of these."""
    forced: dict[str, jax.Array] = {}
    log_q = jnp.zeros(())
    for group in program.plan.groups:
        forced |= discrete(program, world, group, lanes)
    if not forced:
        return world.with_priors(), log_q
    there = world.forced(forced)
    for group in program.plan.groups:
        log_q += log_conditional(program, world, there, group, lanes)
    return there.with_priors(), log_q


def _log_densities(world: World, log_q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of a particle under model and guide; `log_q` is that of the sites that are summed out."""
    terms, together = world.all_terms()
    log_p = sum(jnp.sum(t) for t in [*together, *(t for n, t in terms.items() if n.startswith("p:"))])
    return jnp.asarray(log_p), jnp.asarray(log_q - sum(jnp.sum(t) for n, t in terms.items() if n.startswith("q:")))


@computing()
def batch_log_weights(engine: Engine, params: Any, arrays: Any, rng_key: jax.Array, num_draws: int) -> np.ndarray:
    """Estimates of log p(x, z) - log q(z), each of a posterior draw on a batch of its own, as a step makes them: their
    mean is the ELBO. Their spread is that of the draws and that of the batches."""
    program = engine.program

    def one(params: Any, arrays: Any, key: jax.Array) -> jax.Array:
        batch, indices = engine.source.next(arrays, jnp.zeros((), jnp.int32), key)
        return Step(program, program.seen(params, indices), batch, indices, key, 1).log_weights[0]

    def every(params: Any, arrays: Any, keys: jax.Array) -> jax.Array:
        return jax.lax.map(partial(one, params, arrays), keys)

    run = engine.kept(("batches", num_draws), lambda: jax.jit(every, compiler_options=compiler_options()))
    return np.asarray(run(params, arrays, jax.random.split(rng_key, num_draws)))


@computing()
def gradients(engine: Engine, params: Any, estimator_params: Any, arrays: Any, rng_key: jax.Array, repeats: int) -> Any:
    """`repeats` independent gradient estimates, stacked in front, as Adam would see them."""
    grad = jax.grad(lambda *args: engine.estimate(*args)[0])

    def every(params: Any, own: Any, arrays: Any, keys: jax.Array) -> Any:
        return jax.lax.map(lambda key: grad(params, own, arrays, key), keys)

    # Optimized: quickly compiled code may compute the argument of a maximum twice, with other rounding, so that no
    # entry equals the maximum, and the gradient is 0 / 0.
    run = engine.kept(("gradients", repeats), lambda: jax.jit(every, compiler_options=compiler_options()))
    return run(params, estimator_params, arrays, jax.random.split(rng_key, repeats))
