"""`check_gradients`: is each site's estimator unbiased here, and how noisy is it?"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.checking.comparing import Comparison, rows_of
from autovi.checking.moments import threshold
from autovi.checking.references import references, refusal, swapped
from autovi.checking.report import GradientCheck
from autovi.checking.sampling import MAX_NUMBERS, Point, Sampler, arrays_of, chunk_of, fault, node_parameters
from autovi.estimators import ESTIMATORS, Estimator
from autovi.initial import initial
from autovi.keys import as_key
from autovi.model.inputs import Inputs
from autovi.numbers import how_many
from autovi.objectives import Objective
from autovi.plan.plan import Block
from autovi.plan.requests import as_estimator, as_objective
from autovi.preparation import Options, prepare
from autovi.process import computing
from autovi.run.checks import check_count
from autovi.run.clock import Seconds
from autovi.run.engine import Engine
from autovi.run.running import Watch, before_the_first_step, started
from autovi.stochastic import StochasticGradient, stochastic_grad

WORK = 4e9  # numbers that all estimates of one estimator compute together, where the user does not say how many
FEWEST, MOST = 4_096, 262_144  # estimates
NUM_PARTICLES = 4  # of a loss, where the user does not say
ALL = "all"
ENOUGH = 0.05  # a bias of that part of the gradient shows everywhere: more estimates are not needed
LEAST = 4_096  # estimates before that is looked at


@computing()
def check_gradients(
    model: Callable,
    data: Any = None,
    *,
    argnums: int | Sequence[int] | None = None,
    rng_key: int | jax.Array = 0,
    guide: Any = "auto",
    families: Mapping[str, Any] | None = None,
    estimators: Mapping[str, Any] | Sequence[Any] | str | None = None,
    objective: str | Objective = "elbo",
    allow_bias: bool = False,
    num_particles: int | None = None,
    num_samples: int | None = None,
    batch_size: int | Mapping[str, int] | None = None,
    init: Any = None,
    allow_nan: Collection[str] = (),
) -> GradientCheck:
    """Is the estimator of each site unbiased on this model and these data, and how noisy is it?

    At one point, where a fit would start, the gradient of one step is estimated many times; then again with another
    estimator at one site, all else and all random numbers the same: exact enumeration where the site has few values,
    the score function for a pathwise estimator, a pathwise or measure-valued one for the score function. What can be
    wrong with both does not show: what they share is the distribution of the other sites, and the cost.

    Of the paired differences the mean is tested, number by number: z is it over its standard error, made less where the
    differences are skew (Hall, 1992), and a bias is what is above `threshold`, that of Bonferroni for one false alarm
    in 2,000 tables. Where a few estimates outweigh all others no test is made. "agrees" says what size of bias would
    have shown; where that is above half the gradient the verdict is "not_known". Parameters that an estimator has of
    its own are trained for 1,000 steps before.

    Args:
        model: a NumPyro model function; or, with `argnums`, a function with sample sites that returns a loss, as for
            `stochastic_grad`; or what `stochastic_grad` returned, which is audited as it is.
        data: as for `fit`. Of a loss all its arguments, a tuple by position or a dict by name: those that are
            differentiated are so at these values.
        argnums: which arguments of a loss are differentiated.
        rng_key: an integer or a JAX key.
        guide, families, objective, num_particles, batch_size, allow_nan: as for `fit`; of these a loss has only
            `num_particles`, the samples whose mean is one gradient, 4 by default.
        estimators: as for `fit`, which are audited in the place of those that would be chosen. A list (of names, dicts,
            `Estimator`s) or "all": at each site all of these, or all of the table, that are right there, beside the
            planned one.
        allow_bias: are biased estimators audited too, among those of a list or "all" as well?
        num_samples: estimates of each gradient, at most: fewer where a bias of 5 % of the gradient would show
            everywhere. None: 4,096 to 262,144, by how much one computes.
        init: as for `fit`, where gradients are taken: values, "prior", "median", or a `Fit`.

    Returns:
        A `GradientCheck`, which prints as a table: for every site, estimator and array of parameters the z, the trace
        of the gradient's covariance, signal over noise and the time of one step's gradient; below that the verdict
        in words.

    Raises:
        ValueError, TypeError: as `fit` for what is wrong with the model, the data or a choice; a list of estimators of
            which one is right at no site.

    Example:
        >>> print(autovi.check_gradients(model, {"y": y}))
        >>> autovi.check_gradients(model, {"y": y}, estimators="all").work
    """
    check_count("num_samples", num_samples, optional=True)
    several = estimators if isinstance(estimators, str | Sequence) else None
    if isinstance(several, str) and several != ALL:
        raise TypeError(f"estimators: expected a dict by site, a list of estimators, or 'all', got {several!r}")
    asked: Any = None if several is not None else estimators
    key = as_key(rng_key)
    if argnums is not None or isinstance(model, StochasticGradient):
        others = {"guide": guide != "auto", "families": families, "objective": objective != "elbo"}
        others |= {"batch_size": batch_size, "init": init, "allow_nan": allow_nan}
        _refuse(next((n for n, given in others.items() if given), None), "a loss has none; it is for models")
        gradient = _gradient(model, argnums, asked, num_particles, allow_bias)
        with before_the_first_step():
            engine, moved, fixed = gradient.taken_apart(_arguments(gradient.fn, data))
        point = Point({"argument": jax.tree.map(jnp.asarray, moved)}, {}, jax.device_put(fixed))
        return _audited(engine, point, several, num_samples, key, allow_bias, sign=-1.0)
    options = Options(
        guide,
        families,
        asked,
        num_particles,
        batch_size,
        objective=as_objective(objective),
        allow_nan=allow_nan,
        allow_bias=allow_bias,
        noncentred=(),
    )
    with before_the_first_step():
        engine, inputs = prepare(model, data, options)
        point = _start(model, engine, inputs, init, key)
    return _audited(engine, point, several, num_samples, key, allow_bias)


def _refuse(argument: str | None, why: str) -> None:
    if argument is not None:
        raise ValueError(f"{argument}: {why}")


def _gradient(
    model: Any, argnums: Any, estimators: Any, num_particles: int | None, allow_bias: bool
) -> StochasticGradient:
    """The gradient function that is audited."""
    if not isinstance(model, StochasticGradient):
        count = NUM_PARTICLES if num_particles is None else num_particles
        return stochastic_grad(model, argnums=argnums, estimators=estimators, num_samples=count, allow_bias=allow_bias)
    given = {"argnums": argnums, "estimators": estimators, "num_particles": num_particles}
    _refuse(next((n for n, x in given.items() if x is not None), None), "stochastic_grad was told of it before")
    return model


def _arguments(fn: Callable, data: Any) -> tuple:
    """The arguments of a loss by position."""
    if isinstance(data, Mapping):
        try:
            bound = inspect.signature(fn).bind(**data)
        except TypeError as error:
            raise ValueError(f"data: they are not the arguments of the loss: {error}") from None
        _refuse(next(iter(bound.kwargs), None), "it cannot be given by position; give all arguments as a tuple")
        return bound.args
    if not isinstance(data, tuple):
        raise TypeError(f"data: expected the arguments of the loss, a tuple or a dict, got {type(data).__name__}")
    return data


def _start(model: Callable, engine: Engine, inputs: Inputs, init: Any, key: jax.Array) -> Point:
    """Where a fit starts."""
    arrays = jax.device_put(inputs.traced())
    start = initial(init, model, engine, inputs, arrays, key)
    watch = Watch(None, False, Seconds())
    state = start.applied(engine, started(engine, inputs, arrays, key, start.origin, watch, 0)[0])
    return Point(state.all_params, state.constants, arrays)


def _audited(
    engine: Engine,
    point: Point,
    several: Any,
    num_samples: int | None,
    key: jax.Array,
    allow_bias: bool,
    sign: float = 1.0,
) -> GradientCheck:
    audit = _Audit(engine, point, jax.random.fold_in(key, 7), allow_bias, sign)
    audit.choose(several)
    count = audit.run(num_samples)
    plan = engine.program.plan
    limit = threshold(audit.num_tests)
    rows = [r for c in audit.comparisons for r in rows_of(c, limit, audit.seconds_of(c))]
    return GradientCheck(tuple(rows), limit, audit.num_tests, count, plan.num_particles, tuple(audit.notes))


class _Audit:
    """The comparisons, and the programs that they need."""

    def __init__(self, engine: Engine, point: Point, rng_key: jax.Array, allow_bias: bool, sign: float):
        self.engine, self.point, self.rng_key = engine, point, rng_key
        self.allow_bias, self.sign = allow_bias, sign
        self.plan = engine.program.plan
        self.arrays = arrays_of(point.params)
        self.comparisons: list[Comparison] = []
        self.notes: list[str] = []
        self.samplers: dict[Any, Sampler] = {}

    @property
    def num_tests(self) -> int:
        """How many numbers are compared, in all."""
        return sum(c.num_tests for c in self.comparisons)

    def choose(self, several: Sequence[Any] | str | None) -> None:
        """What is compared with what."""
        found: list[Estimator] = []
        for block in self.plan.blocks:
            arrays = node_parameters(self.engine.program, block.name, self.arrays)
            wanted = self._wanted(block, several)
            if not arrays:
                self.notes.append(f"{_sites(block)}: no parameter depends on it")
                continue
            found += wanted
            for estimator in [block.estimator, *(e for e in wanted if e != block.estimator)]:
                reference = self._reference(block, estimator)
                planned = estimator == block.estimator
                self.comparisons.append(Comparison(block, arrays, estimator, reference, planned))
        self._check_found(several, found)
        for name in self.plan.marginal:
            self.notes.append(f"{name}: summed out exactly, so that it has no gradient of its own")
        for name in self.plan.ancestral:
            self.notes.append(f"{name}: drawn from the model, so that it has no gradient")
        for array in self.arrays:
            if array.size > MAX_NUMBERS:
                self.notes.append(f"{array.owner} {array.name}: {MAX_NUMBERS} of its {how_many(array.size)} numbers")

    def _wanted(self, block: Block, several: Sequence[Any] | str | None) -> list[Estimator]:
        """The estimators that are asked for besides the planned one, and right at the block."""
        if several is None:
            return []
        listed = [cls() for cls in ESTIMATORS.values()] if several == ALL else several
        every = [as_estimator(block.sites[0], what) for what in listed]
        return [e for e in dict.fromkeys(every) if self._refusal(block, e) is None]

    def _check_found(self, several: Sequence[Any] | str | None, found: Sequence[Estimator]) -> None:
        """Raises where one of a list is right at no site."""
        blocks = self.plan.blocks
        for what in () if several is None or isinstance(several, str) else several:
            if blocks and (estimator := as_estimator(blocks[0].sites[0], what)) not in found:
                why = "; ".join(f"site {b.sites[0]!r}: {self._refusal(b, estimator)}" for b in blocks)
                raise ValueError(f"estimators: {estimator.name!r} would be wrong at every site, since {why}")

    def _reference(self, block: Block, estimator: Estimator) -> Estimator | None:
        found = references(self.engine.program, block, estimator)
        return next((r for r in found if self._refusal(block, r) is None), None)

    def _refusal(self, block: Block, estimator: Estimator) -> str | None:
        """Why an estimator cannot stand at a block."""
        if estimator == block.estimator:
            return None
        said = refusal(self.engine.program, block, estimator, self.allow_bias)
        if said is not None:
            return said
        try:
            engine = self.engine.under(swapped(self.plan, block.name, estimator))
        except ValueError as error:
            return str(error)
        return engine.kept(("check", "fault"), lambda: (fault(engine, self.point),))[0]

    def _sampler(self, block: Block, estimator: Estimator) -> Sampler:
        """That of the plan with an estimator at a block."""
        key = None if estimator == block.estimator else (block.name, estimator)
        if key not in self.samplers:
            plan = self.plan if key is None else swapped(self.plan, block.name, estimator)
            self.samplers[key] = Sampler(self.engine.under(plan), self.point, self.rng_key)
        return self.samplers[key]

    def seconds_of(self, comparison: Comparison) -> float:
        """The time of one step's gradient."""
        return self._sampler(comparison.block, comparison.estimator).seconds

    def run(self, num_samples: int | None) -> int:
        """Takes estimates until a small bias would show, or so many are taken; says how many."""
        limit, count, chunk = threshold(self.num_tests), 0, chunk_of(self.point)
        if num_samples is None:
            pairs = [(c.block, e) for c in self.comparisons for e in (c.estimator, c.reference) if e is not None]
            numbers = max([self._sampler(*pair).numbers for pair in pairs], default=1.0)
            num_samples = int(np.clip(WORK / numbers, FEWEST, MOST))
        while self.comparisons and count < num_samples:
            self._batch(jax.random.split(jax.random.fold_in(self.rng_key, count), chunk))
            count += chunk
            if count >= LEAST and all(_is_known(c, limit) for c in self.comparisons):
                break
        return count

    def _batch(self, keys: jax.Array) -> None:
        made: dict[int, tuple[np.ndarray, np.ndarray]] = {}

        def of(block: Block, estimator: Estimator) -> tuple[np.ndarray, np.ndarray]:
            sampler = self._sampler(block, estimator)
            if id(sampler) not in made:
                gradient, value = sampler.batch(keys)
                made[id(sampler)] = self.sign * gradient, value
            return made[id(sampler)]

        for c in self.comparisons:
            own, cost = of(c.block, c.estimator)
            c.add(own, None if c.reference is None else of(c.block, c.reference)[0], cost)


def _is_known(c: Comparison, limit: float) -> bool:
    return c.reference is None or all(c.detectable(c.places(a), limit) <= ENOUGH for a in c.arrays)


def _sites(block: Block) -> str:
    return ", ".join(block.sites)
