"""A plan as compiled functions: start, chunks of steps, draws. Kept and used again for fits of the same program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import InitVar, dataclass, field, replace
from functools import cached_property, partial
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autovi.analysis.structure import Structure
from autovi.compiling import compiler_options
from autovi.estimators.marginalize import log_conditional
from autovi.model.execution import site_key
from autovi.model.fingerprint import Fingerprint
from autovi.model.inputs import Inputs
from autovi.model.targets import as_target, trace_program
from autovi.model.traced import weighted
from autovi.process import computing
from autovi.program.branches import branches_of
from autovi.program.program import Program
from autovi.program.surrogate import Estimate, Step, estimate
from autovi.program.world import World
from autovi.run.cache import Latest
from autovi.run.loop import make_chunk
from autovi.run.optimizer import Optimizer
from autovi.run.sources import Resident, Source
from autovi.run.state import State, init_state
from autovi.run.stopping import Progress

NUM_STARTS = 10
MAX_PROGRAMS = 16  # that one engine keeps, the oldest dropped first
START_RADIUS = 2.0
DRAWS_BUDGET = 20_000_000  # numbers held at once while drawing from the posterior
VALUES, LIKELIHOODS, DENSITIES = "value", "likelihood", "density"  # what of a posterior draw is kept


class Start(NamedTuple):
    """The tried starting points: each one's total, which of its terms are finite, and which observations lie inside
    their support."""

    totals: jax.Array
    finite: jax.Array  # by starting point and term, in the order of the terms' names
    inside: dict[str, jax.Array]


class Draws(NamedTuple):
    """Posterior draws with a leading draw axis: values, log likelihoods per observation, and the log density of model
    and guide on the unconstrained scale. What was not asked for is empty or None."""

    values: dict[str, Any]
    log_likelihoods: dict[str, Any]
    log_p: Any
    log_q: Any


@dataclass(eq=False)
class Engine:
    """Everything compiled for one plan. `full` is the program with every plate at full size."""

    program: Program
    model: InitVar[Callable]
    guide_function: InitVar[Callable | None]
    inputs: Inputs
    optimizer: Optimizer
    fingerprint: Fingerprint
    lengths: Mapping[str, int] = field(default_factory=dict)  # of plates that the caller subsamples
    _starts: dict[str, tuple[Callable, Callable]] = field(default_factory=dict)  # with the chunk, by the kind of key
    _jitted: dict[Any, Callable] = field(default_factory=dict)

    def __post_init__(self, model: Callable, guide_function: Callable | None) -> None:
        self._model = Latest(model)
        self._guide = None if guide_function is None else Latest(guide_function)
        self.inputs = self.inputs.without_data()

    @property
    def structure(self) -> Structure:
        """What is downstream of what."""
        return self.program.structure

    @property
    def num_particles(self) -> int:
        return self.program.plan.num_particles

    @cached_property
    @computing()
    def full(self) -> Program:
        """The program with every plate at full size, for what comes after the fit."""
        sites = self.program.sites
        guide_sites = self.program.guide_sites
        if not sites.subsampled and not (guide_sites is not None and guide_sites.subsampled):
            return self.program
        sizes = {p.name: p.size for p in sites.plates.values()}
        traced, _ = trace_program(self._model.function, self.guide, self.inputs, sizes, self.program.traced.relaxed)
        return replace(self.program, traced=traced)

    @property
    def source(self) -> Source:
        """Where the data of a step come from."""
        return Resident(self.program.sites.subsampled)

    def estimate(
        self,
        params: Any,
        estimator_params: Any,
        arrays: Mapping[str, Any],
        rng_key: jax.Array,
        indices: Mapping[str, Any] | None = None,
    ) -> tuple[jax.Array, Estimate]:
        """The loss of one step, whose gradient is the estimate, and the ELBO. Not compiled."""
        program = self.program
        if indices is None:
            arrays, indices = self.source.next(arrays, jnp.zeros((), jnp.int32), rng_key)
        seen, own = program.seen(params, indices), program.seen_estimators(estimator_params, indices)
        return estimate(program, seen, own, arrays, rng_key, self.num_particles, indices)

    def estimator_params(self) -> dict[str, Any]:
        """The estimators' own parameters before the first step."""
        return self.program.estimator_params(jax.random.key(0))

    @property
    def guide(self) -> Callable | None:
        """The guide function itself."""
        return None if self._guide is None else self._guide.function

    def use(self, model: Callable, guide: Callable | None) -> None:
        """Takes these functions, which compute the same, for what is traced from now on."""
        self._model.use(model)
        if self._guide is not None and guide is not None:
            self._guide.use(guide)

    @property
    def constant_bytes(self) -> int:
        """Bytes of constants in the program."""
        data = sum(a.nbytes for a in self.inputs.arrays.values()) if self.inputs.concrete else 0
        return data + self.fingerprint.constant_bytes

    def at_rest(self) -> bool:
        """Is the state that callbacks may change what it was before the fit?"""
        return self.fingerprint.at_rest()

    def forget(self) -> None:
        """Drops all that is compiled; what is still needed is compiled anew."""
        for function in self._jitted.values():
            getattr(function, "clear_cache", lambda: None)()  # what is compiled ahead of its call has none
        self._starts.clear()
        self._jitted.clear()
        self.__dict__.pop("observed", None)

    @computing()
    def use_unchanged(self, model: Callable, guide: Callable | None, inputs: Inputs, at_rest: bool = True) -> None:
        """The same after a check that they still compute what they did. `at_rest` as in `Fingerprint.still`.

        Raises:
            ValueError: something that they read (a global, a closure) is no longer what it was.
        """
        traced, _ = trace_program(model, guide, inputs, self.lengths)
        if not self.fingerprint.still(traced.fingerprint, at_rest):
            what = "model" if guide is None else "model, or its guide,"
            raise ValueError(
                f"the {what} has changed since the fit: something that it reads besides its arguments (a "
                "global, a closure, an attribute) is another now. Pass it as data, or fit again"
            )
        self.use(model, guide)

    @computing()
    def compile(self, arrays: Any, rng_key: jax.Array | int) -> tuple[Callable, Callable]:
        """`start(arrays, rng_key)`, which gives the state before the first step, and `chunk(state, arrays, schedule)`.

        Compiled once, both at the same time. The start runs once, so little is spent on optimizing its code.
        """
        kind = "int" if isinstance(rng_key, int) else str(rng_key.dtype)
        if kind not in self._starts:
            lowered = jax.jit(self._start).lower(arrays, rng_key)
            state = jax.tree.map(_abstract, lowered.out_info[0])
            with ThreadPoolExecutor(1) as pool:
                start = pool.submit(lowered.compile, compiler_options(1))
                chunk = self._kept(("chunk", str(state.rng_key.dtype)), lambda: self._compile_chunk(state, arrays))
                self._starts[kind] = start.result(), chunk
        return self._starts[kind]

    def _compile_chunk(self, state: State, arrays: Any) -> Callable:
        schedule = jax.tree.map(_abstract, Progress(1, 1).schedule(0))
        return make_chunk(self.program, self.source, self.optimizer).lower(state, arrays, schedule).compile()

    def initial_params(self, arrays: Mapping[str, Any]) -> Any:
        """Parameters at the origin: their structure and shapes are those of every fit."""
        return self.program.init(jax.random.key(0), arrays, jnp.zeros(self.program.start_size))

    def initial_state(self, arrays: Mapping[str, Any], rng_key: jax.Array) -> State:
        """The state at the origin, of the structure and shapes of every state."""
        return init_state(self.program, self.initial_params(arrays), self.optimizer, rng_key)

    def _start(self, arrays: Mapping[str, Any], rng_key: jax.Array) -> tuple[State, Start, jax.Array]:
        """State before the first step at the best of the tried starting points; the last key is for the result."""
        rng_key = jax.random.key(rng_key) if jnp.issubdtype(jnp.result_type(rng_key), jnp.integer) else rng_key
        start_key, run_key, state_key, result_key = jax.random.split(rng_key, 4)
        program = self.program
        radii = START_RADIUS * jnp.linspace(0.0, 1.0, NUM_STARTS)[:, None]
        points = radii * jax.random.uniform(start_key, (NUM_STARTS, program.start_size), minval=-1.0, maxval=1.0)
        _, indices = self.source.next(arrays, jnp.zeros((), jnp.int32), run_key)
        also = program.outputs_for(["inside"])

        def attempt(point: jax.Array, key: jax.Array) -> Any:
            params = program.seen(program.init(run_key, arrays, point), indices)
            at_start = program.start_values(point, indices)
            step = Step(program, params, arrays, indices, key, 1, at_start, lanes=NUM_STARTS, also=also)
            inside = {n.split(":", 1)[1]: v[0] for n, v in step.outputs.items()}
            return step.log_weights[0], jnp.isfinite(step.sums[:, 0])[step.places], inside

        totals, finite, inside = jax.vmap(attempt)(points, jax.random.split(run_key, NUM_STARTS))
        best = jnp.argmax(jnp.where(jnp.isfinite(totals), totals, -jnp.inf))
        params = program.init(run_key, arrays, points[best])
        state = init_state(program, params, self.optimizer, state_key)
        return state, Start(totals, finite, inside), result_key

    @computing()
    def draws(
        self,
        params: Any,
        arrays: Mapping[str, Any],
        rng_key: jax.Array,
        num_draws: int,
        kinds: tuple[str, ...],
    ) -> Draws:
        """Posterior draws at full plates, marginalized sites drawn from their exact conditional.

        Of each draw the `kinds` asked for are computed and kept; the draws of a key are the same whatever is kept. They
        are made in parts, so that no more is held than is kept.
        """
        keys = jax.random.split(rng_key, num_draws)
        part = int(np.clip(DRAWS_BUDGET // max(1, self.kept_per_draw(kinds)), 1, num_draws))
        run = self._kept(("draws", part, kinds), lambda: self._compile_draws(part, kinds))
        # The last part is filled up with draws that are dropped: another length would be another program.
        places = [np.arange(i, i + part) % num_draws for i in range(0, num_draws, part)]
        parts = (jax.tree.map(np.asarray, run(params, arrays, keys[place])) for place in places)
        draws, vectors = _joined(parts, part, num_draws)
        # Hundreds of scalars are taken out of their vector here: as outputs each would be a kernel to be compiled.
        values = {**draws.values, **(self.full.from_vectors(vectors) if VALUES in kinds else {})}
        sites = self.full.sites
        order = [n for n in (*sites.latents, *sites.deterministics) if n in values]
        return draws._replace(values={n: values[n] for n in order})

    def _compile_draws(self, part: int, kinds: tuple[str, ...]) -> Callable:
        batch = int(np.clip(DRAWS_BUDGET // self._numbers_per_draw, 1, part))

        def all_draws(params: Any, arrays: Any, keys: jax.Array) -> tuple[Draws, dict[str, jax.Array]]:
            return jax.lax.map(partial(self._draw, params, arrays, batch, kinds), keys, batch_size=batch)

        return jax.jit(all_draws, compiler_options=compiler_options(part * self._numbers_per_draw))

    def kept_per_draw(self, kinds: tuple[str, ...]) -> int:
        """How many numbers of each draw are kept."""
        return sum(prod(self.full.traced.graph.shape(o)) for o in self.full.outputs_for(kinds))

    def _kept(self, key: Any, make: Callable[[], Callable]) -> Callable:
        if key not in self._jitted:
            self._jitted[key] = make()
            while len(self._jitted) > MAX_PROGRAMS:
                del self._jitted[next(iter(self._jitted))]
        return self._jitted[key]

    @cached_property
    def _numbers_per_draw(self) -> int:
        """Roughly how many numbers one posterior draw computes."""
        graph = self.full.traced.graph
        inputs = set(graph.inputs.values())
        return max(1, graph.numbers([graph.outputs[o] for o in self.full.everything], inputs.__contains__))

    def _draw(
        self, params: Any, arrays: Any, lanes: int, kinds: tuple[str, ...], key: jax.Array
    ) -> tuple[Draws, dict[str, jax.Array]]:
        program = self.full
        indices = {n: jnp.arange(p.size) for n, p in self.program.sites.subsampled.items()}
        shared = program.shared(params, arrays, indices, (*program.cost_outputs, *program.outputs_for(kinds)))
        noise = jax.tree.map(lambda x: x[0], program.noise(key, 1))
        world = program.particle(shared, key, noise)
        forced, log_q = {}, jnp.zeros(())
        for node in program.plan.marginal:
            alone, _ = program.owned(node)
            logits = jnp.moveaxis(log_conditional(branches_of(program, world, node, alone, (), lanes)), 0, -1)
            forced[node] = jax.random.categorical(site_key(key, node), logits)
            chosen = jnp.take_along_axis(logits, forced[node][..., None], axis=-1)[..., 0]
            log_q += jnp.sum(weighted(chosen, 1.0, world.counts(node)))
        there = (world.forced(forced) if forced else world).with_priors()
        densities = _log_densities(there, log_q) if DENSITIES in kinds else (None, None)
        values = program.read_values(there) if VALUES in kinds else {}
        likelihoods = program.read_likelihoods(there) if LIKELIHOODS in kinds else {}
        blocks = {block for block, _ in program.places.values()} if VALUES in kinds else set()
        vectors = {block: there.nodes[block].draw.value for block in blocks}
        return Draws(values, likelihoods, *densities), vectors

    @computing()
    def gradients(self, params: Any, estimator_params: Any, arrays: Any, rng_key: jax.Array, repeats: int) -> Any:
        """`repeats` independent gradient estimates, stacked in front, as Adam would see them."""
        grad = jax.grad(lambda *args: self.estimate(*args)[0])

        def all_gradients(params: Any, own: Any, arrays: Any, keys: jax.Array) -> Any:
            return jax.lax.map(lambda key: grad(params, own, arrays, key), keys)

        # Optimized: quickly compiled code may compute the argument of a maximum twice, with other rounding, so that no
        # entry equals the maximum, and the gradient is 0 / 0.
        run = self._kept(("gradients", repeats), lambda: jax.jit(all_gradients, compiler_options=compiler_options()))
        return run(params, estimator_params, arrays, jax.random.split(rng_key, repeats))

    @computing()
    def predict(
        self, model: Callable, inputs: Inputs, values: Mapping[str, Any], params: Mapping[str, Any], rng_key: jax.Array
    ) -> dict[str, np.ndarray]:
        """Posterior predictive draws for the data in `inputs`, one for each draw of the latent sites in `values`."""
        count = next(iter(values.values())).shape[0]
        traced, _ = trace_program(model, None, inputs)
        lengths = {n: p.size for n, p in traced.sites.subsampled.items()}
        self._model.use(model)
        shapes = inputs.without_data()

        def all_predictions(arrays: Any, params: Any, values: Any, keys: jax.Array) -> Any:
            target = as_target(self._model.function)
            one = lambda pair: target.predict(shapes, lengths, arrays, params, *pair)  # noqa: E731
            return jax.lax.map(one, (values, keys), batch_size=min(100, count))

        options = compiler_options(count * self._numbers_per_draw)
        key = ("predict", traced.fingerprint.key, inputs.signature(), count)
        run = self._kept(key, lambda: jax.jit(all_predictions, compiler_options=options))
        drawn = run(inputs.traced(), params, dict(values), jax.random.split(rng_key, count))
        return {n: np.asarray(v) for n, v in drawn.items()}

    @cached_property
    def observed(self) -> Callable[[Any], dict[str, jax.Array]]:
        """`observed(arrays)`: the observed values at full plates."""
        return jax.jit(self.full.observed_values, compiler_options=compiler_options(1))


def _log_densities(world: World, log_q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of a particle under model and guide; `log_q` is that of the sites that are summed out."""
    terms, together = world.all_terms()
    log_p = sum(jnp.sum(t) for t in [*together, *(t for n, t in terms.items() if n.startswith("p:"))])
    return jnp.asarray(log_p), jnp.asarray(log_q - sum(jnp.sum(t) for n, t in terms.items() if n.startswith("q:")))


def _joined(parts: Iterable[Any], part: int, count: int) -> Any:
    """The first `count` rows of trees of arrays that have `part` rows each, put where they stay as they come."""
    whole: Any = None
    for number, tree in enumerate(parts):
        if part == count:
            return tree
        if whole is None:
            whole = jax.tree.map(lambda x: np.empty((count, *x.shape[1:]), x.dtype), tree)
        start, end = number * part, min(count, (number + 1) * part)
        jax.tree.map(lambda to, x, s=start, e=end: to.__setitem__(slice(s, e), x[: e - s]), whole, tree)
    return whole


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
