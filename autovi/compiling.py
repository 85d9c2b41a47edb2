"""How XLA is asked to compile autovi's programs."""

from __future__ import annotations

import math
from typing import Any

import jax
from jax.extend.core import Literal, jaxprs_in_params

# Numbers that all runs of a program compute together, up to which it is compiled in each way. Quick code is 3 to 16
# times as slow, and compiles in a quarter of the time; light code is a fifth slower, and compiles in half of it.
QUICK_WORK = 5e8
LIGHT_WORK = 1e11
# What compiling better costs goes by the equations: those bounds are for so many. Light code takes about 1 ms more for
# each, and saves 3 to 15 ns a number (chunks of steps of 300 to 2,300 equations).
EQUATIONS = 2_000


def _level(level: int) -> dict[str, Any]:
    """A level of LLVM's optimization, and, where a release knows it, the way around the emitters of fused operations,
    which are what compiling takes longest for."""
    plain = {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}
    return {"xla_backend_optimization_level": level, **plain}


QUICK, LIGHT = _level(0), _level(1)
FULL: dict[str, Any] = {}  # as XLA does unless it is told otherwise


def numbers_of(jaxpr: Any) -> float:
    """Roughly how many numbers a program computes, what loops repeat included."""
    total = 0.0
    for eqn in _used(jaxpr):
        inner = sum(numbers_of(sub) for sub in jaxprs_in_params(eqn.params))
        own = sum(float(math.prod(v.aval.shape)) for v in eqn.outvars)
        total += eqn.params.get("length", 1) * inner if inner else own
    return total


def num_equations(jaxpr: Any) -> int:
    """How many equations a program has, those of the programs inside it included."""
    return sum(1 + sum(map(num_equations, jaxprs_in_params(eqn.params))) for eqn in jaxpr.eqns)


def work_of(jaxpr: Any, runs: float = 1.0) -> float:
    """The same of so many runs; infinite where code that is not optimized well would be wrong.

    Such code may compute the argument of a maximum twice, with other rounding: no entry then equals the maximum, and
    the gradient is 0 / 0.
    """
    return math.inf if _looks_for_its_maximum(jaxpr) else runs * numbers_of(jaxpr)


def _looks_for_its_maximum(jaxpr: Any) -> bool:
    """Does it compare something with a maximum or minimum of it, as the gradient of one does?"""
    extremes: set[Any] = set()
    for eqn in _used(jaxpr):
        name = eqn.primitive.name
        found = any(v in extremes for v in eqn.invars if not isinstance(v, Literal))
        if name == "eq" and found or any(_looks_for_its_maximum(sub) for sub in jaxprs_in_params(eqn.params)):
            return True
        if name in ("reduce_max", "reduce_min") or (found and name in _SAME_NUMBERS):
            extremes.update(eqn.outvars)
    return False


def _used(jaxpr: Any) -> list[Any]:
    """The equations on which its results depend: of a maximum that is held fixed, as in a log-sum-exp, the derivative
    is written down, and used by nothing."""
    wanted, used = {v for v in jaxpr.outvars if not isinstance(v, Literal)}, []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(v in wanted for v in eqn.outvars):
            used.append(eqn)
            wanted.update(v for v in eqn.invars if not isinstance(v, Literal))
    return used[::-1]


_SAME_NUMBERS = {"broadcast_in_dim", "reshape", "squeeze", "expand_dims", "convert_element_type", "stop_gradient"}


def compiler_options(work: float = math.inf, equations: int = EQUATIONS) -> dict[str, Any]:
    """Options for a program's compiler: `jax.jit(fn, compiler_options=...)`, for calls that no other `jit` traces.

    On a CPU the operations of a program run in the order that needs least memory. In XLA's own order they run side by
    side, which hangs before jaxlib 0.11.2: a batched Cholesky or eigenvalue decomposition waits, on a thread of XLA's
    pool, for parts of its batch that are queued behind it in the same pool. As many of these side by side as the
    machine has cores, and none ever ends. With 1 or 10 particles this order is no slower (`benchmarks/steps.py`).

    Args:
        work: roughly how many numbers all runs of the program compute. Where that is little, compiling well costs more
            than it saves.
        equations: how many the program has: by these goes what compiling costs.
    """
    if jax.default_backend() != "cpu":
        return {}
    options: dict[str, Any] = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    usual = work * EQUATIONS / equations
    return options | (QUICK if usual <= QUICK_WORK else LIGHT if work <= LIGHT_WORK else FULL)
