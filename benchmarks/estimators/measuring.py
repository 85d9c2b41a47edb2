"""One estimator on one problem: bias, variance, time and evaluations of its gradient."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from autovi.estimators import Estimator
from autovi.estimators.base import Baselined
from autovi.estimators.baselines import BASELINES
from autovi.model.loss import Loss
from autovi.preparation import Options, prepare
from benchmarks.estimators.counting import Mark, evaluations, marked, plain
from benchmarks.estimators.problems import Problem

ROUNDING = 1e-4  # of the gradient's norm, in each coordinate, that float32 may be off
PRECISE = 0.05  # standard error of the whole gradient, in its norm, up to which a bias would be seen
BOUND = 5.0  # standard errors
REFUSAL = re.compile(r"(site|estimator) '")  # how autovi's begin


@dataclass(frozen=True)
class Budget:
    """CPU seconds and steps for an estimator's own training, and for the gradients that are measured."""

    training: float = 2.0
    measuring: float = 1.0
    training_steps: int = 5_000
    most: int = 500_000
    least: int = 200


@dataclass(frozen=True)
class Row:
    """What was measured of one estimator on one problem; `refused` says why nothing was, `failed` that
    this was not a refusal.

    `z` is the largest distance of a coordinate's mean from the exact one, in standard errors; `bias` the distance of
    the whole, and `error` its standard error, in norms of the exact gradient; `variance` the sum over coordinates.
    """

    problem: str
    estimator: str
    said_biased: bool = False
    refused: str | None = None
    failed: bool = False
    particles: int = 0
    z: float = 0.0
    bias: float = 0.0
    error: float = 0.0
    variance: float = 0.0
    microseconds: float = 0.0
    evaluations: float = 0.0
    gradients: int = 0

    @property
    def product(self) -> float:
        """Variance times microseconds: what a fixed time of averaging leaves."""
        return self.variance * self.microseconds

    @property
    def verdict(self) -> str:
        """What the measurement says of the mean."""
        if self.z > BOUND:
            return "biased"
        return "unbiased" if self.error < PRECISE else "too noisy to tell"

    @property
    def as_said(self) -> bool:
        """Is nothing found that the class does not say of itself?"""
        return self.said_biased or self.verdict != "biased"


def variants(table: Mapping[str, type[Estimator]]) -> Iterator[tuple[str, Estimator]]:
    """(label, instance) of every estimator of the table, of those with baselines of each baseline by name."""
    seen: set[type] = set()
    for name, kind in table.items():
        if kind in seen:
            continue
        seen.add(kind)
        if issubclass(kind, Baselined):
            # Those that are a name and need nothing to read.
            for baseline in (*BASELINES, *kind.special):
                yield f"{name}, {baseline}", kind(baseline=baseline)
        else:
            yield name, kind()


@dataclass(frozen=True, eq=False)
class Prepared:
    """A program and the gradient of its loss."""

    problem: Problem
    engine: Any
    inputs: Any

    @property
    def params(self) -> Any:
        return jax.tree.map(jnp.asarray, self.problem.params)

    @cached_property
    def template(self) -> Any:
        """The parameters of autovi's own guide before the first step."""
        program = self.engine.program
        return program.init(jax.random.key(0), self.inputs.traced(), jnp.zeros(program.start_size))["guide"]

    def placed(self, params: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The parameters where the engine has them: among its own, or, those of a loss, among the arguments."""
        arrays = self.inputs.traced()
        if self.problem.expected:
            return {"guide": {}, "param": {}}, arrays | {f"params[{n!r}]": x for n, x in params.items()}
        if callable(self.problem.guide):
            return {"guide": {}, "param": params}, arrays
        # A block of several sites holds a scalar one as a vector.
        like = self.template.items()
        guide = {b: {n: jnp.reshape(params[n], jnp.shape(x)) for n, x in own.items()} for b, own in like}
        return {"guide": guide, "param": {}}, arrays

    def gradients(self, params: Any, own: Any, key: jax.Array) -> tuple[jax.Array, tuple[Any, Any]]:
        """The loss, and the estimates in the parameters and in the estimator's own."""

        def loss(params: Any, own: Any) -> jax.Array:
            raw, arrays = self.placed(params)
            value, estimate = self.engine.estimate(raw, own, arrays, key)
            return value + 0 * jax.lax.stop_gradient(estimate.elbo)

        return jax.value_and_grad(loss, (0, 1))(params, own)


def prepared(problem: Problem, estimator: Estimator | None, mark: Mark = plain) -> Prepared:
    """The program of a problem under an estimator, None for autovi's choice.

    Raises:
        ValueError: the estimator refuses.
    """
    particles = problem.particles if estimator is None else max(problem.particles, estimator.min_particles)
    if not problem.objective.local_costs and particles > problem.particles:
        raise ValueError(
            f"site {problem.site!r}: it needs {particles} particles, and the objective is that of {problem.particles}"
        )
    options = Options(
        guide=problem.guide,
        estimators=None if estimator is None else {problem.site: estimator},
        num_particles=None if estimator is None and problem.objective.local_costs else particles,
        objective=problem.objective,
        allow_bias=True,
    )
    model, data = problem.model(mark), problem.data
    if problem.expected:
        model, data = Loss(model), {"params": problem.params}
    engine, inputs = prepare(model, data, options)
    if problem.site not in {b.name for b in engine.program.plan.blocks}:
        raise ValueError(f"site {problem.site!r}: it leaves the guide, so that there is no gradient of q to measure")
    return Prepared(problem, engine, inputs)


def flat(tree: Any) -> jax.Array:
    """All leaves in one vector."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def exact_gradient(problem: Problem, params: Any = None) -> np.ndarray:
    """In double precision."""
    with jax.enable_x64(True):
        params = problem.params if params is None else params
        at = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, float)), params)
        return np.asarray(flat(jax.grad(problem.exact)(at)))


def stepping(of: Prepared, exact: np.ndarray) -> tuple[Callable, Any]:
    """`steps(carry, key, number)`: that many gradients one after the other, the estimator's own parameters trained on
    the way, as in a fit; with the sums of deviations from the exact gradient and of their squares."""
    own = of.engine.estimator_params()
    optimizers = {b.name: b.estimator.optimizer for b in of.engine.program.plan.blocks if b.name in own}
    start = own, {name: optimizers[name].init(own[name]) for name in own}
    params, target = of.params, jnp.asarray(exact, jnp.float32)

    def step(i: jax.Array, carry: tuple) -> tuple:
        own, memory, sums, squares, key = carry
        _, (gradient, change) = of.gradients(params, own, jax.random.fold_in(key, i))
        moved = {n: optimizers[n].update(change[n], memory[n], own[n]) for n in own}
        own = {n: optax.apply_updates(own[n], moved[n][0]) for n in own}
        away = flat(gradient) - target
        return own, {n: m for n, (_, m) in moved.items()}, sums + away, squares + away**2, key

    @jax.jit
    def steps(own: Any, memory: Any, key: jax.Array, number: jax.Array) -> tuple:
        zero = jnp.zeros_like(target)
        return jax.lax.fori_loop(0, number, step, (own, memory, zero, zero, key))[:4]

    return steps, start


def measure(problem: Problem, name: str, estimator: Estimator | None, budget: Budget) -> Row:
    """The row; what the estimator refuses, or fails at, a row that says why."""
    said = estimator is not None and estimator.biased
    try:
        of = prepared(problem, estimator)
        return _measured(of, estimator, Row(problem.name, name, said), budget)
    except Exception as error:  # what one estimator cannot do must not cost the figures of the others
        failed = not (isinstance(error, ValueError) and REFUSAL.match(str(error)))
        return Row(problem.name, name, said, refused=str(error), failed=failed)


def _measured(of: Prepared, estimator: Estimator | None, row: Row, budget: Budget) -> Row:
    exact = exact_gradient(of.problem)
    steps, (own, memory) = stepping(of, exact)
    chunk = 20
    jax.block_until_ready(steps(own, memory, jax.random.key(0), chunk))  # compiled
    spent, done, turn = 0.0, 0, 0
    train = bool(jax.tree.leaves(own))
    sums, squares, seconds, counts = [], [], [], []
    while True:
        turn += 1
        before = time.process_time()
        found = jax.block_until_ready(steps(own, memory, jax.random.key(turn), chunk))
        took = time.process_time() - before
        own, memory = found[:2]
        spent, done = spent + took, done + chunk
        if train:
            if done >= budget.training_steps or spent > budget.training:
                train, spent, done = False, 0.0, 0
        else:
            sums.append(np.asarray(found[2], float))
            squares.append(np.asarray(found[3], float))
            seconds.append(took / chunk)
            counts.append(chunk)
            if done >= budget.least and (done >= budget.most or spent > budget.measuring):
                break
        if took < 0.1:
            chunk = min(2 * chunk, 65536)
    number = sum(counts)
    mean = np.sum(sums, 0) / number
    variances = np.maximum(np.sum(squares, 0) / number - mean**2, 0.0)
    norm = float(np.linalg.norm(exact))
    errors = np.sqrt(variances / number)
    counted = prepared(of.problem, estimator, marked)
    marks = evaluations(counted.gradients, counted.params, counted.engine.estimator_params(), jax.random.key(0))
    return replace(
        row,
        particles=of.engine.num_particles,
        z=float(np.max(np.abs(mean) / (errors + ROUNDING * norm))),
        bias=float(np.linalg.norm(mean)) / norm,
        error=float(np.linalg.norm(errors)) / norm,
        variance=float(np.sum(variances)),
        microseconds=1e6 * float(np.average(seconds[-5:])),
        evaluations=marks / of.problem.marks,
        gradients=number,
    )
