"""A plan as compiled functions: start, chunks of steps, draws. Kept and used again for fits of the same program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autovi.analysis.structure import Structure
from autovi.estimators.marginalize import log_conditional
from autovi.model.execution import site_key
from autovi.model.fingerprint import Fingerprint
from autovi.model.inputs import Inputs
from autovi.model.sites import trace_sites
from autovi.objective.predictive import predict
from autovi.objective.program import Program
from autovi.objective.surrogate import Estimate, Step, draw_indices, estimate
from autovi.run.cache import Latest
from autovi.run.loop import Carry, Optimizer, init_carry, make_chunk
from autovi.run.stopping import Progress

NUM_STARTS = 10
MAX_PROGRAMS = 16  # that one engine keeps, the oldest dropped first
START_RADIUS = 2.0
SMALL_WORK = 100_000_000  # numbers that a program running once may handle in badly optimized code
DRAWS_BUDGET = 20_000_000  # numbers held at once while drawing from the posterior


class Start(NamedTuple):
    """The tried starting points: each one's total, which of its terms are finite, and which observations lie inside
    their support."""

    totals: jax.Array
    finite: dict[str, jax.Array]
    inside: dict[str, jax.Array]


class Draws(NamedTuple):
    """Posterior draws with a leading draw axis: values, log likelihoods per observation, and the log density of model
    and guide on the unconstrained scale."""

    values: dict[str, Any]
    log_likelihoods: dict[str, Any]
    log_p: Any
    log_q: Any


@dataclass(eq=False)
class Engine:
    """Everything compiled for one plan. `full` is the program with every plate at full size."""

    program: Program
    full: Program
    structure: Structure
    optimizer: Optimizer
    lengths: Mapping[str, int] = field(default_factory=dict)  # of plates that the caller subsamples
    term_names: tuple[str, ...] = ()  # known once the start has been traced
    _starts: dict[str, tuple[Callable, Callable]] = field(default_factory=dict)  # with the chunk, by the kind of key
    _jitted: dict[Any, Callable] = field(default_factory=dict)

    @property
    def num_particles(self) -> int:
        return self.program.plan.num_particles

    def estimate(
        self, params: Any, estimator_params: Any, arrays: Mapping[str, Any], rng_key: jax.Array
    ) -> tuple[jax.Array, Estimate]:
        """The loss of one step, whose gradient is the estimate, and the ELBO. Not compiled."""
        return estimate(self.program, self.structure, params, estimator_params, arrays, rng_key, self.num_particles)

    def estimator_params(self) -> dict[str, Any]:
        """The estimators' own parameters before the first step."""
        blocks = [b for b in self.program.plan.blocks if b.estimator.has_surrogate]
        return {b.name: b.estimator.init(self._element_shape(b)) for b in blocks}

    def _element_shape(self, block: Any) -> tuple[int, ...]:
        guide_sites = self.program.guide_sites
        site = (guide_sites or self.program.sites).samples[block.sites[0]]
        return () if block.flat else site.full(site.batch_shape) if block.family is not None else site.batch_shape

    def __post_init__(self) -> None:
        self._model = Latest(self.program.model)
        self._guide = None if self.program.guide is None else Latest(self.program.guide)
        inputs = self.program.inputs.without_data()
        self.program = replace(self.program, model=self._model, guide=self._guide, inputs=inputs)
        self.full = replace(self.full, model=self._model, guide=self._guide, inputs=inputs)

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
    def fingerprints(self) -> list[Fingerprint]:
        """Of the model and of the guide function."""
        return [s.fingerprint for s in (self.program.sites, self.program.guide_sites) if s is not None]

    @property
    def constant_bytes(self) -> int:
        """Bytes of constants in the program."""
        inputs = self.program.inputs
        data = sum(a.nbytes for a in inputs.arrays.values()) if inputs.concrete else 0
        return data + sum(f.constant_bytes for f in self.fingerprints)

    def at_rest(self) -> bool:
        """Is the state that callbacks may change what it was before the fit?"""
        return all(f.at_rest() for f in self.fingerprints)

    def forget(self) -> None:
        """Drops all that is compiled; what is still needed is compiled anew."""
        for function in self._jitted.values():
            getattr(function, "clear_cache", lambda: None)()  # what is compiled ahead of its call has none
        self._starts.clear()
        self._jitted.clear()
        self.__dict__.pop("observed", None)

    def use_unchanged(self, model: Callable, guide: Callable | None, inputs: Inputs, at_rest: bool = True) -> None:
        """The same after a check that they still compute what they did. `at_rest` as in `Fingerprint.still`.

        Raises:
            ValueError: something that they read (a global, a closure) is no longer what it was.
        """
        for what, fn, sites in (("model", model, self.program.sites), ("guide", guide, self.program.guide_sites)):
            if fn is not None and sites is not None:
                if not sites.fingerprint.still(trace_sites(fn, inputs, self.lengths)[0].fingerprint, at_rest):
                    raise ValueError(
                        f"the {what} has changed since the fit: something that it reads besides its arguments (a "
                        "global, a closure, an attribute) is another now. Pass it as data, or fit again"
                    )
        self.use(model, guide)

    def compile(self, arrays: Any, rng_key: jax.Array | int) -> tuple[Callable, Callable]:
        """`start(arrays, rng_key)`, which gives the state before the first step, and `chunk(carry, arrays, schedule)`.

        Compiled once, both at the same time. The start runs once, so little is spent on optimizing its code.
        """
        kind = "int" if isinstance(rng_key, int) else str(rng_key.dtype)
        if kind not in self._starts:
            lowered = jax.jit(self._start).lower(arrays, rng_key)
            carry = jax.tree.map(_abstract, lowered.out_info[0])
            with ThreadPoolExecutor(1) as pool:
                start = pool.submit(lowered.compile, _compiler_options(1))
                chunk = self._kept(("chunk", str(carry.rng_key.dtype)), lambda: self._compile_chunk(carry, arrays))
                self._starts[kind] = start.result(), chunk
        return self._starts[kind]

    def _compile_chunk(self, carry: Carry, arrays: Any) -> Callable:
        schedule = jax.tree.map(_abstract, Progress(1, 1).schedule(0))
        return make_chunk(self.estimate, self.optimizer).lower(carry, arrays, schedule).compile()

    def initial_params(self, arrays: Mapping[str, Any]) -> Any:
        """Parameters at the origin: their structure and shapes are those of every fit."""
        return self.program.init(jax.random.key(0), arrays, jnp.zeros(self.program.start_size))

    def _start(self, arrays: Mapping[str, Any], rng_key: jax.Array) -> tuple[Carry, Start, jax.Array]:
        """State before the first step at the best of the tried starting points; the last key is for the result."""
        rng_key = jax.random.key(rng_key) if jnp.issubdtype(jnp.result_type(rng_key), jnp.integer) else rng_key
        start_key, run_key, carry_key, result_key = jax.random.split(rng_key, 4)
        program = self.program
        radii = START_RADIUS * jnp.linspace(0.0, 1.0, NUM_STARTS)[:, None]
        points = radii * jax.random.uniform(start_key, (NUM_STARTS, program.start_size), minval=-1.0, maxval=1.0)
        indices = draw_indices(site_key(run_key, "autovi:plates"), program.sites.subsampled)

        def attempt(point: jax.Array, key: jax.Array) -> Any:
            params = program.init(run_key, arrays, point)
            at_start = program.start_values(point, indices)
            main, terms, _ = Step(program, self.structure, params, arrays, indices, key[None], at_start).terms(
                check=True
            )
            sums = {n: jnp.sum(terms[n].value) for n in sorted(terms)}
            return sum(sums.values()), {n: jnp.isfinite(s) for n, s in sums.items()}, main.inside

        totals, finite, inside = jax.vmap(attempt)(points, jax.random.split(run_key, NUM_STARTS))
        best = jnp.argmax(jnp.where(jnp.isfinite(totals), totals, -jnp.inf))
        params = program.init(run_key, arrays, points[best])
        self.term_names = tuple(finite)
        carry = init_carry(params, self.estimator_params(), self.optimizer, carry_key, len(finite))
        return carry, Start(totals, finite, inside), result_key

    def draws(self, params: Any, arrays: Mapping[str, Any], rng_key: jax.Array, num_draws: int) -> Draws:
        """Posterior draws at full plates, marginalized sites drawn from their exact conditional."""
        keys = jax.random.split(rng_key, num_draws)
        batch = int(np.clip(DRAWS_BUDGET // self._numbers_per_draw, 1, num_draws))

        def all_draws(params: Any, arrays: Any, keys: jax.Array) -> Draws:
            return jax.lax.map(partial(self._draw, params, arrays), keys, batch_size=batch)

        options = _compiler_options(num_draws * self._numbers_per_draw)
        run = self._kept(("draws", num_draws), lambda: jax.jit(all_draws, compiler_options=options))
        return jax.tree.map(np.asarray, run(params, arrays, keys))

    def _kept(self, key: Any, make: Callable[[], Callable]) -> Callable:
        if key not in self._jitted:
            self._jitted[key] = make()
            while len(self._jitted) > MAX_PROGRAMS:
                del self._jitted[next(iter(self._jitted))]
        return self._jitted[key]

    @cached_property
    def _numbers_per_draw(self) -> int:
        """Roughly how many numbers one posterior draw computes."""
        sizes = sum(prod(site.shape) for site in self.full.sites.samples.values())
        return max(1, sizes * max([self.program.num_values(n) for n in self.program.plan.marginal], default=1))

    def _draw(self, params: Any, arrays: Any, key: jax.Array) -> Draws:
        indices = {n: jnp.arange(p.size) for n, p in self.program.sites.subsampled.items()}
        step = Step(self.full, self.structure, params, arrays, indices, key[None])
        forced, log_q = {}, jnp.zeros(())
        for node in self.full.plan.marginal:
            logits = jnp.moveaxis(log_conditional(step.branches(node))[:, 0], 0, -1)
            forced[node] = jax.random.categorical(site_key(key, node), logits)
            log_q += jnp.sum(jnp.take_along_axis(logits, forced[node][..., None], axis=-1))
        run = self.full.run(params, arrays, key, indices, forced)
        log_p = sum(jnp.sum(t) for n, t in run.terms.items() if n.startswith("p:"))
        log_q -= sum(jnp.sum(t) for n, t in run.terms.items() if n.startswith("q:"))
        return Draws(run.values, run.log_likelihoods, jnp.asarray(log_p), jnp.asarray(log_q))

    def gradients(self, params: Any, estimator_params: Any, arrays: Any, rng_key: jax.Array, repeats: int) -> Any:
        """`repeats` independent gradient estimates, stacked in front, as Adam would see them."""
        grad = jax.grad(lambda *args: self.estimate(*args)[0])

        def all_gradients(params: Any, own: Any, arrays: Any, keys: jax.Array) -> Any:
            return jax.lax.map(lambda key: grad(params, own, arrays, key), keys)

        options = _compiler_options(repeats * self.num_particles * self._numbers_per_draw)
        run = self._kept(("gradients", repeats), lambda: jax.jit(all_gradients, compiler_options=options))
        return run(params, estimator_params, arrays, jax.random.split(rng_key, repeats))

    def predict(
        self, model: Callable, inputs: Inputs, values: Mapping[str, Any], params: Mapping[str, Any], rng_key: jax.Array
    ) -> dict[str, np.ndarray]:
        """Posterior predictive draws for the data in `inputs`, one for each draw of the latent sites in `values`."""
        count = next(iter(values.values())).shape[0]
        sites, _ = trace_sites(model, inputs)
        lengths = {n: p.size for n, p in sites.subsampled.items()}
        self._model.use(model)
        shapes = inputs.without_data()

        def all_predictions(arrays: Any, params: Any, values: Any, keys: jax.Array) -> Any:
            one = lambda pair: predict(self._model, shapes, lengths, arrays, params, *pair)  # noqa: E731
            return jax.lax.map(one, (values, keys), batch_size=min(100, count))

        options = _compiler_options(count * self._numbers_per_draw)
        key = ("predict", sites.fingerprint.key, inputs.signature(), count)
        run = self._kept(key, lambda: jax.jit(all_predictions, compiler_options=options))
        drawn = run(inputs.traced(), params, dict(values), jax.random.split(rng_key, count))
        return {n: np.asarray(v) for n, v in drawn.items()}

    @cached_property
    def observed(self) -> Callable[[Any], dict[str, jax.Array]]:
        """`observed(arrays)`: the observed values at full plates."""
        return jax.jit(self.full.observed_values, compiler_options=_compiler_options(1))


def _compiler_options(work: int) -> dict[str, Any]:
    """For programs that run once on `work` numbers: where that is little, compiling well costs more than it saves."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" and work <= SMALL_WORK else {}


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
