"""The gradient of the expectation of any function with sample sites."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import get_opaque_trace_state

from autovi.compiling import compiler_options
from autovi.keys import as_key, is_key
from autovi.model.callables import check_function
from autovi.model.fingerprint import Itself
from autovi.model.inputs import Inputs
from autovi.model.loss import Loss
from autovi.model.stand_ins import stand_in
from autovi.model.traced import data_input
from autovi.objectives import Expectation
from autovi.plan.bias import check_allow_bias
from autovi.plan.plan import Plan
from autovi.plan.requests import check_arguments
from autovi.preparation import Options, prepare
from autovi.program.surrogate import estimate
from autovi.run.engine import Engine
from autovi.run.loop import trained
from autovi.run.state import init_estimators

MAX_PROGRAMS = 32  # that one function keeps, the oldest dropped first
RESERVED = ("rng_key", "estimator_state")
NO_PARAMS: dict[str, Any] = {"guide": {}, "param": {}}


class EstimatorState(NamedTuple):
    """What estimators learn from call to call: their own parameters, and the memories of what trains them."""

    params: Any
    optimizers: Any


def stochastic_grad(
    fn: Callable,
    *,
    argnums: int | Sequence[int] = 0,
    estimators: Mapping[str, Any] | None = None,
    num_samples: int = 1,
    allow_bias: bool = False,
) -> StochasticGradient:
    """Gradients of E[fn] for a function whose `numpyro.sample` sites depend on its arguments.

    `grad = stochastic_grad(fn)` is a function: `grad(*args, rng_key=key)` is an unbiased estimate of

        d/dx E[fn(x)],

    x the argument (or arguments) `argnums`, as `jax.grad` is of a function without randomness. All that x does counts:
    it may be a parameter of any distribution, and of the loss itself. Each site has the estimator that `autovi.fit`
    would take. For x ~ Normal(mu, sigma) and a smooth loss L that is explicit reparameterization, x = mu + sigma z, so
    that the result is exactly

        mean L'(x)  for mu,     mean L'(x) z  for sigma,

    over the samples. A site with finitely many values is summed over, a Gamma has an implicit gradient. Where the loss
    jumps, or where there is no reparameterization, it is the score function with a leave-one-out baseline,
    mean (L - b) d/dx log q(z; x), and without a baseline where `num_samples` is 1. `grad.plan(*args)` says what was
    chosen, and why.

    Args:
        fn: takes arrays and trees of these, draws with `numpyro.sample` and returns the loss: a number, an array with
            an element for each element of a plate, or a tree of these. All are summed, and each site is charged with
            those alone that depend on it. Nothing may be observed. A plate scales nothing.
        argnums: which positional arguments are differentiated, floating arrays or trees of them.
        estimators: {site name or glob: estimator}, as for `autovi.fit`.
        num_samples: how many draws of all sites are averaged.
        allow_bias: may `estimators` name biased ones? Without it they are refused.

    Returns:
        A function of the arguments of `fn`, with `rng_key` (an integer or a jax key) as a keyword, that returns the
        gradient in the structure of the argument (a tuple for several `argnums`). Estimators that learn need
        `estimator_state` too: see `StochasticGradient.init`. It can be compiled, vectorized and put in loops by JAX; it
        is traced once for arguments of one structure, shape and type (integers, booleans and strings are constants).
        Its own derivative is an error.

    Raises:
        TypeError: `fn`, `argnums` or `estimators` are of another kind.
        ValueError: `num_samples` is below 1. When called: an estimator that would be wrong at its site, before
            anything is drawn, in the words of `autovi.fit`.

    Sources: Schulman, Heess, Weber and Abbeel (2015), "Gradient Estimation Using Stochastic Computation Graphs";
    Mohamed, Rosca, Figurnov and Mnih (2020), "Monte Carlo Gradient Estimation in Machine Learning".

    Example:
        >>> def loss(mu):
        ...     x = numpyro.sample("x", dist.Normal(mu, 1.0))
        ...     return x**2
        >>> autovi.stochastic_grad(loss, num_samples=1000)(1.5, rng_key=0)  # about 2 mu = 3
        Array(2.9839082, dtype=float32)
    """
    return StochasticGradient(fn, argnums, _options(estimators, num_samples, allow_bias), False)


def stochastic_value_and_grad(
    fn: Callable,
    *,
    argnums: int | Sequence[int] = 0,
    estimators: Mapping[str, Any] | None = None,
    num_samples: int = 1,
    allow_bias: bool = False,
) -> StochasticGradient:
    """As `stochastic_grad`, and the loss beside its gradient: `value, grads`, as `jax.value_and_grad` returns them.

    The value is the mean over the samples of the sum of all that `fn` returns, with sites that are summed over being
    summed over: an unbiased estimate of E[fn].

    Example:
        >>> step = autovi.stochastic_value_and_grad(loss, num_samples=8)
        >>> value, grads = step(params, rng_key=key)
        >>> updates, opt_state = optimizer.update(grads, opt_state)
        >>> params = optax.apply_updates(params, updates)
    """
    return StochasticGradient(fn, argnums, _options(estimators, num_samples, allow_bias), True)


def _options(estimators: Any, num_samples: Any, allow_bias: Any) -> Options:
    if isinstance(num_samples, bool) or not isinstance(num_samples, int | np.integer) or num_samples < 1:
        raise ValueError(f"num_samples: expected an integer of at least 1, got {num_samples!r}")
    check_arguments(None, estimators, None)
    check_allow_bias(allow_bias)
    count = int(num_samples)
    return Options(objective=Expectation(), estimators=estimators, num_particles=count, allow_bias=allow_bias)


class StochasticGradient:
    """The function that `stochastic_grad` and `stochastic_value_and_grad` return."""

    def __init__(self, fn: Callable, argnums: Any, options: Options, with_value: bool):
        check_function(fn, "fn")
        self._names = _parameters(fn)
        for name in RESERVED:
            if name in self._names:
                raise ValueError(f"fn: its argument {name!r} has the name of one of the gradient's own; rename it")
        self.fn = fn
        self.argnums = _argnums(argnums)
        self._single = not isinstance(argnums, Sequence)
        self._options = options
        self._with_value = with_value
        self._programs: dict[Any, _Program] = {}

    def __call__(self, *args: Any, rng_key: Any, estimator_state: EstimatorState | None = None, **kwargs: Any) -> Any:
        """The gradient at these arguments; with the value before it, and the new state after it, where there are such.

        Raises:
            ValueError: an estimator that would be wrong, or one that learns without an `estimator_state`.
            TypeError: a differentiated argument that is not floating.
        """
        call = _Call(self, args, kwargs)
        program = self._program(call)
        program.check_state(estimator_state)
        value, grads, new_state = program(call, as_key(rng_key), estimator_state)
        trees = [jax.tree.unflatten(jax.tree.structure(args[i]), grads[i]) for i in self._places(args)]
        gradient = trees[0] if self._single else tuple(trees)
        if estimator_state is None:
            return (value, gradient) if self._with_value else gradient
        return (value, gradient, new_state) if self._with_value else (gradient, new_state)

    def init(self, *args: Any, rng_key: Any = 0, **kwargs: Any) -> EstimatorState:
        """The state of estimators that learn (a moving average, a network, a surrogate), before the first call.

        As with Optax: the state is made once, handed to every call, and taken back from it.

        Example:
            >>> grad = autovi.stochastic_grad(loss, estimators={"b": "relax"})
            >>> state = grad.init(params)
            >>> grads, state = grad(params, rng_key=key, estimator_state=state)
        """
        program = self._program(_Call(self, args, kwargs))
        return EstimatorState(*init_estimators(program.engine.program, as_key(rng_key)))

    def plan(self, *args: Any, **kwargs: Any) -> Plan:
        """Which estimator every site has at arguments of these shapes, and why. Nothing of a gradient is computed.

        Example:
            >>> print(autovi.stochastic_grad(loss).plan(params))
        """
        return self._program(_Call(self, args, kwargs)).engine.program.plan

    def taken_apart(self, args: tuple) -> tuple[Engine, dict[str, Any], dict[str, Any]]:
        """The engine for these arguments, the arrays that are differentiated by path, and the others."""
        call = _Call(self, args, {})
        program, (moved, fixed) = self._program(call), call.parts
        return program.engine, moved, {**fixed, **program.closed}

    def _places(self, args: tuple) -> list[int]:
        return [i % len(args) for i in self.argnums]

    def _program(self, call: _Call) -> _Program:
        program = self._programs.pop(call.signature, None)
        if program is None:
            # Whatever transformation the call is in, the trials of a plan are computed at once.
            with jax.core.eval_context():
                program = _Program(self.fn, call, self._options)
        if not program.closes_over_traced:
            self._programs[call.signature] = program
        while len(self._programs) > MAX_PROGRAMS:
            del self._programs[next(iter(self._programs))]
        return program


class _Call:
    """The arguments of one call as arrays by path, and what is constant."""

    def __init__(self, of: StochasticGradient, args: tuple, kwargs: Mapping[str, Any]):
        of_places = _checked(of.argnums, len(args))
        leaves, self.tree = jax.tree_util.tree_flatten_with_path((args, dict(kwargs)))
        names = [_path_name(path, of._names) for path, _ in leaves]
        self.paths = tuple(names)
        values = dict(zip(names, (_as_array(leaf) for _, leaf in leaves), strict=True))
        self.arrays = {n: v for n, v in values.items() if _is_array(v)}
        self.static = tuple((n, v) for n, v in values.items() if n not in self.arrays)
        self.moved: dict[int, list[str]] = {i: [] for i in of_places}
        for path, _ in leaves:
            if path[0].idx == 0 and path[1].idx in self.moved:
                self.moved[path[1].idx].append(_path_name(path, of._names))
        for names in self.moved.values():
            for name in names:
                _check_floating(name, values[name])
        moving = {n: self.arrays[n] for names in self.moved.values() for n in names}
        self.parts = moving, {n: a for n, a in self.arrays.items() if n not in moving}
        kinds = tuple((n, v.shape, str(v.dtype)) for n, v in self.arrays.items())
        constants = tuple((n, type(v), _hashable(v)) for n, v in self.static)
        self.signature = kinds, constants, self.tree, jax.config.read("jax_enable_x64")

    def trial(self) -> tuple[Inputs, frozenset[str]]:
        """Inputs with numbers in the place of values that are not known, and which these are."""
        unknown = frozenset(n for n, v in self.arrays.items() if isinstance(v, jax.core.Tracer))
        arrays = {n: stand_in(v) if n in unknown else _as_numpy(v) for n, v in self.arrays.items()}
        return Inputs(arrays, self.static, self.paths, self.tree, {}), unknown


class _Program:
    """What is compiled for arguments of one signature."""

    def __init__(self, fn: Callable, call: _Call, options: Options):
        inputs, unknown = call.trial()
        moving = frozenset(n for names in call.moved.values() for n in names)
        self._loss = Loss(fn, unknown, moving)  # the engine does not keep it alive
        self.engine, _ = prepare(self._loss, inputs, options)
        self._moved = call.moved
        traced = self.engine.program.traced
        self.closes_over_traced = traced.of_transformation
        self.closed = traced.graph.lift_traced(data_input)
        own = jax.eval_shape(self.engine.estimator_params)
        self._learning = [n for n, params in own.items() if jax.tree.leaves(params)]
        once = _refusing_derivatives(partial(_estimate, self.engine))
        self._inside = jax.jit(once)
        self._outside = jax.jit(once, compiler_options=compiler_options())

    def check_state(self, state: EstimatorState | None) -> None:
        if state is None and self._learning:
            name = self._learning[0]
            estimator = self.engine.program.plan.estimator_of(name)
            which = f"estimator {estimator.name!r}"
            if estimator.baseline_name is not None:
                which += f" with baseline {estimator.baseline_name!r}"
            raise ValueError(
                f"estimator_state: site {name!r} has {which}, which learns from call to call; make a state by "
                ".init(...) with fn's arguments, pass it, and take the new one from the result"
            )

    def __call__(self, call: _Call, rng_key: jax.Array, state: EstimatorState | None) -> Any:
        if state is None:
            state = EstimatorState(*init_estimators(self.engine.program, rng_key))
        moved, fixed = call.parts
        arguments = (moved, {**fixed, **self.closed}, rng_key, state)
        at_once = not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments))
        run = self._outside if at_once and _is_running() else self._inside
        value, grads, state = run(*arguments)
        return value, {i: [grads[n] for n in names] for i, names in self._moved.items()}, state


def _estimate(
    engine: Engine, moved: Mapping[str, Any], fixed: Mapping[str, Any], rng_key: jax.Array, state: EstimatorState
) -> tuple[jax.Array, dict[str, Any], EstimatorState]:
    """The mean loss, its gradient in `moved`, and the state after the estimators have learned from this."""
    program = engine.program
    _, indices = engine.source.next(fixed, jnp.zeros((), jnp.int32), rng_key)
    own = program.seen_estimators(state.params, indices)

    def loss(moved: Mapping[str, Any], own: Any) -> Any:
        params, arrays = program.seen(NO_PARAMS, indices), {**fixed, **moved}
        return estimate(program, params, own, arrays, rng_key, program.plan.num_particles, indices)

    (_, info), (grads, own_grads) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(dict(moved), own)
    good = jnp.isfinite(info.elbo) & _all_finite(own_grads)
    learned = trained(program, state.params, state.optimizers, own, own_grads, indices, good)
    return -info.elbo, grads, EstimatorState(*learned)


def _all_finite(tree: Any) -> jax.Array:
    return jax.tree.reduce(lambda good, x: good & jnp.all(jnp.isfinite(x)), tree, jnp.asarray(True))


def _refusing_derivatives(function: Callable) -> Callable:
    """The function, whose derivative is an error: what stands for the gradient's noise is held fixed in it, so that the
    derivative that JAX would find is not that of the expectation."""
    refusing = jax.custom_jvp(function)

    def rule(primals: tuple, tangents: tuple) -> Any:
        if any(not isinstance(t, SymbolicZero) for t in jax.tree.leaves(tangents)):
            raise TypeError(
                "stochastic_grad: its results cannot be differentiated (by jax.hessian, or jax.grad around a loop), "
                "since the derivative of an estimate is not an estimate of the second derivative; put "
                "jax.lax.stop_gradient around its arguments if they are to count as constants there"
            )
        out = function(*primals)
        return out, jax.tree.map(_zero_tangent, out)

    refusing.defjvp(rule, symbolic_zeros=True)
    return refusing


def _zero_tangent(x: jax.Array) -> Any:
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return jnp.zeros_like(x)
    return np.zeros(x.shape, jax.dtypes.float0)


def _is_running() -> bool:
    """Is nothing being traced, so that what is called is computed at once?"""
    now = get_opaque_trace_state()
    with jax.core.eval_context():
        return now == get_opaque_trace_state()


def _parameters(fn: Callable) -> list[str]:
    try:
        return list(inspect.signature(fn).parameters)
    except (TypeError, ValueError):
        return []


def _argnums(argnums: Any) -> tuple[int, ...]:
    several = tuple(argnums) if isinstance(argnums, Sequence) and not isinstance(argnums, str) else (argnums,)
    if not several or any(isinstance(i, bool) or not isinstance(i, int) for i in several):
        raise TypeError(f"argnums: expected an integer or a tuple of integers, got {argnums!r}")
    return several


def _checked(argnums: tuple[int, ...], count: int) -> list[int]:
    beyond = [i for i in argnums if not -count <= i < count]
    if beyond:
        raise ValueError(
            f"argnums: argument {beyond[0]} is to be differentiated, and {count} were given by position; what is "
            "differentiated is given by position"
        )
    return [i % count for i in argnums]


def _path_name(path: tuple, names: Sequence[str]) -> str:
    side, rest = path[0].idx, path[1:]
    if side == 1:
        head = str(rest[0].key)
    else:
        place = rest[0].idx
        head = names[place] if place < len(names) else f"argument {place}"
    return head + jax.tree_util.keystr(rest[1:])


def _as_array(leaf: Any) -> Any:
    if isinstance(leaf, float):
        return np.asarray(leaf, jnp.result_type(float))
    return np.asarray(leaf) if isinstance(leaf, np.generic) else leaf


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array) or (isinstance(value, np.ndarray) and value.dtype.kind in "biufcV")


def _check_floating(name: str, value: Any) -> None:
    if not _is_array(value) or not jnp.issubdtype(value.dtype, jnp.floating):
        kind = value.dtype if _is_array(value) else type(value).__name__
        raise TypeError(f"{name}: it is differentiated (argnums), and is of type {kind}; expected floating numbers")


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return Itself(value)
    return value


def _as_numpy(value: Any) -> Any:
    return value if is_key(value) else np.asarray(value)
