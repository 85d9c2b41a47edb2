"""A plan as compiled functions: start, chunks of steps, draws. Kept and used again for fits of the same program."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from autovi.analysis.onehot import one_hot
from autovi.analysis.structure import Structure
from autovi.compiling import compiler_options, num_equations, work_of
from autovi.model.fingerprint import Fingerprint
from autovi.model.inputs import Inputs
from autovi.model.repeatable import check_same_again
from autovi.model.targets import trace_program
from autovi.model.trial import Trial, run_at_origin
from autovi.model.unchanged import is_known_unchanged
from autovi.plan.plan import Plan
from autovi.process import computing
from autovi.program.program import Program
from autovi.program.surrogate import Estimate, Step, estimate
from autovi.run.background import Compiling
from autovi.run.between import traced_for
from autovi.run.cache import Latest
from autovi.run.clock import Seconds, waiting
from autovi.run.loop import make_chunk
from autovi.run.optimizer import Optimizer
from autovi.run.origin import NUM_STARTS, Origin
from autovi.run.sources import Resident, Source
from autovi.run.state import State, init_state
from autovi.run.stopping import CHUNK, Progress
from autovi.run.widening import of_noise

FEW_STEPS = 5_000  # up to which it is asked how much work they are before they are compiled well
MAX_PROGRAMS = 16  # that one engine keeps, the oldest dropped first


class Start(NamedTuple):
    """The tried starting points `[NUM_STARTS, size]`: each one's total, which of its terms are finite, and which
    observations lie inside their support."""

    points: jax.Array
    totals: jax.Array
    finite: jax.Array  # by starting point and term, in the order of the terms' names
    inside: dict[str, jax.Array]


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
    _jitted: dict[Any, Any] = field(default_factory=dict)
    _derived: dict[Any, Engine] = field(default_factory=dict)

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
        asked = self.program.traced
        traced, _ = trace_program(
            self._model.function,
            self.guide,
            self.inputs,
            sizes,
            asked.relaxed,
            noncentred=asked.direct,
            imaged=asked.imaged,
            unlinked=asked.unlinked,
            summands=asked.in_parts,
        )
        traced = one_hot(traced, asked.one_hot) if asked.one_hot else traced
        plan = self.program.plan
        shapes = {n: s.shape for n, s in traced.sites.samples.items()}
        groups = tuple(g.resized(shapes, traced.scales.get(g.sites[0], 1.0)) for g in plan.groups)
        return replace(self.program, traced=traced, plan=replace(plan, groups=groups))

    @cached_property
    @computing()
    def drawn(self) -> Program:
        """The program of posterior draws: `full`, its draws made from arrays of noise."""
        return of_noise(self.full)

    def under(self, plan: Plan, optimizer: Optimizer | None = None) -> Engine:
        """The engine of the same program under another plan; kept, so that it compiles once.

        Raises:
            ValueError: an estimator asks for the cost between a site's values, where the model does not run.
        """
        optimizer = self.optimizer if optimizer is None else optimizer
        blocks = (*plan.blocks, *plan.marginal.values())
        key = (plan.num_particles, optimizer, *((b.distribution, b.estimator) for b in blocks))
        if key not in self._derived:
            asked, guide, model = self.program.traced, self.guide, self._model.function
            coordinates = {"noncentred": asked.direct, "imaged": asked.imaged}
            coordinates |= {"unlinked": asked.unlinked, "summands": asked.in_parts}
            traced = traced_for(plan, asked, model, guide, self.inputs, self.lengths, **coordinates)
            program = replace(self.program, plan=plan, traced=traced)
            made = Engine(program, model, guide, self.inputs, optimizer, self.fingerprint, self.lengths)
            made._model, made._guide, made._derived = self._model, self._guide, self._derived
            self._derived[key] = made
        return self._derived[key]

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

    def trial(self, arrays: Mapping[str, Any]) -> Trial:
        """The model run once on numbers, for what is to be said of a start that failed."""
        lengths = {p.name: p.length for p in self.program.sites.subsampled.values()}
        return run_at_origin(self._model.function, self.inputs, arrays, lengths)

    @property
    def guide(self) -> Callable | None:
        """The guide function itself."""
        return None if self._guide is None else self._guide.function

    @property
    def model_function(self) -> Callable:
        """The model itself."""
        return self._model.function

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
        self._jitted.clear()
        self.__dict__.pop("observed", None)
        derived = list(self._derived.values())
        self._derived.clear()  # theirs too, so that this ends
        for engine in derived:
            engine.forget()

    @computing()
    def use_unchanged(self, model: Callable, guide: Callable | None, inputs: Inputs, at_rest: bool = True) -> None:
        """The same after a check that they still compute what they did. `at_rest` as in `Fingerprint.still`.

        Raises:
            ValueError: something that they read (a global, a closure) is no longer what it was, or they differ from run
                to run.
        """
        if is_known_unchanged():
            self.use(model, guide)
            return
        traced, _ = trace_program(model, guide, inputs, self.lengths)
        if not self.fingerprint.still(traced.fingerprint, at_rest):
            # A model that differs from run to run has not been changed by anybody.
            check_same_again(traced, lambda: trace_program(model, guide, inputs, self.lengths)[0])
            what = "it" if guide is None else "it, or its guide,"
            raise ValueError(
                f"model: {what} has changed since the fit: something that it reads besides its arguments (a global, a "
                "closure, an attribute) is another now; pass it as data, or fit again"
            )
        self.use(model, guide)

    @computing()
    def compile(
        self,
        arrays: Any,
        rng_key: jax.Array | int,
        origin: Origin | None = None,
        clock: Seconds | None = None,
        show: bool = False,
    ) -> tuple[Callable, Callable]:
        """`start(arrays, rng_key)`, which gives the state before the first step, and `chunk(state, arrays, schedule)`.

        Compiled once, both at the same time, in threads of their own, so that Ctrl-C is heard at once; what is on its
        way then is there for the next fit. The start runs once, so little is spent on optimizing its code. `clock`
        counts the time; with `show`, a line says how long it takes.
        """
        clock = Seconds() if clock is None else clock
        origin = Origin.around_zero(self.program) if origin is None else origin
        with clock.spent("trace"):
            start = self.start(arrays, rng_key, origin)
            chunk = self.chunk(start.returns, arrays)
        ready, begin = self.waited(chunk, clock, show), self.waited(start, clock, show)
        return lambda arrays, rng_key: begin(arrays, rng_key, origin), ready

    def start(self, arrays: Any, rng_key: jax.Array | int, origin: Origin) -> Compiling:
        """`start(arrays, rng_key, origin)`, on its way to be compiled."""
        key = ("start", "int" if isinstance(rng_key, int) else str(rng_key.dtype), origin.points.shape[0])
        return self.kept(key, lambda: self._traced_start(arrays, rng_key, origin))

    def waited(self, program: Compiling, clock: Seconds, show: bool) -> Callable:
        """A program once it is compiled."""
        with clock.spent("compile"), waiting(program.said, show and not program.done):
            return program.result()

    def _traced_start(self, arrays: Any, rng_key: Any, origin: Origin) -> Compiling:
        lowered = jax.jit(self._start).lower(arrays, rng_key, origin)
        state = jax.tree.map(_abstract, lowered.out_info[0])
        return Compiling(lambda: lowered.compile(compiler_options(1)), returns=state)

    def chunk(self, state: State, arrays: Any, num_steps: float = math.inf, fits: int = 1) -> Compiling:
        """`chunk(state, arrays, schedule)`, on its way to be compiled for a state and arrays of these shapes. For few
        steps (`num_steps`, of so many `fits`) it may not be worth the while to compile it well."""
        steps = FEW_STEPS * rounded_up(fits) if num_steps <= FEW_STEPS else math.inf
        key = ("chunk", str(state.rng_key.dtype), steps)
        return self.kept(key, lambda: self._traced_chunk(state, arrays, steps))

    def _traced_chunk(self, state: State, arrays: Any, num_steps: float) -> Compiling:
        schedule = jax.tree.map(_abstract, Progress(1, 1).schedule(0))
        traced = make_chunk(self.program, self.source, self.optimizer).trace(state, arrays, schedule)
        options = compiler_options(work_of(traced.jaxpr, num_steps / CHUNK), num_equations(traced.jaxpr))
        lowered = traced.lower()
        return Compiling(lambda: lowered.compile(options), traced.jaxpr)

    def initial_params(self, arrays: Mapping[str, Any]) -> Any:
        """Parameters at the origin: their structure and shapes are those of every fit."""
        return self.program.init(jax.random.key(0), arrays, jnp.zeros(self.program.start_size))

    def initial_state(self, arrays: Mapping[str, Any], rng_key: jax.Array) -> State:
        """The state at the origin, of the structure and shapes of every state."""
        return init_state(self.program, self.initial_params(arrays), self.optimizer, rng_key)

    def _start(self, arrays: Mapping[str, Any], rng_key: jax.Array, origin: Origin) -> tuple[State, Start, jax.Array]:
        """State before the first step at the best of the tried starting points; the last key is for the result."""
        rng_key = jax.random.key(rng_key) if jnp.issubdtype(jnp.result_type(rng_key), jnp.integer) else rng_key
        start_key, run_key, state_key, result_key = jax.random.split(rng_key, 4)
        program = self.program
        points = origin.tried(start_key)
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
        return state, Start(points, totals, finite, inside), result_key

    def kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """What is kept under a key, made if it is not there: the latest used last."""
        kept = self._jitted.pop(key, None)
        if kept is None or getattr(kept, "failed", False):
            kept = make()
        self._jitted[key] = kept
        while len(self._jitted) > MAX_PROGRAMS:
            del self._jitted[next(iter(self._jitted))]
        return kept

    @cached_property
    def numbers_per_draw(self) -> int:
        """Roughly how many numbers one posterior draw computes."""
        graph = self.full.traced.graph
        inputs = set(graph.inputs.values())
        return max(1, graph.numbers([graph.outputs[o] for o in self.full.everything], inputs.__contains__))

    @cached_property
    def observed(self) -> Callable[[Any], dict[str, jax.Array]]:
        """`observed(arrays)`: the observed values at full plates."""
        return jax.jit(self.full.observed_values, compiler_options=compiler_options(1))


def rounded_up(number: int) -> int:
    """The next power of two: for numbers that are about the same, one program serves."""
    return 1 << (number - 1).bit_length()


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
