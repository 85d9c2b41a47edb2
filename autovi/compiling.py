"""How XLA is asked to compile autovi's programs."""

from __future__ import annotations

import math
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params

SMALL_WORK = 100_000_000  # numbers that a program running once may handle in badly optimized code

# Compiles in about half the time. Not known to later releases: the way around the emitters of fused operations.
QUICKLY: dict[str, Any] = {"xla_backend_optimization_level": 0} | (
    {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}
)


SLOW_WORK = (
    3_000_000_000  # numbers that all runs of a program may handle together in badly optimized code: some seconds
)


def numbers_of(jaxpr: Any) -> float:
    """Roughly how many numbers a program computes, what loops repeat included."""
    return _numbers(jaxpr, set())


def work_of(jaxpr: Any, runs: float = 1.0) -> float:
    """The same of so many runs; infinite where badly optimized code would be wrong.

    Such code may compute the argument of a maximum twice, with other rounding: no entry then equals the maximum, and
    the gradient is 0 / 0.
    """
    names: set[str] = set()
    total = _numbers(jaxpr, names)
    return math.inf if names & {"reduce_max", "reduce_min"} and "eq" in names else runs * total


def _numbers(jaxpr: Any, names: set[str]) -> float:
    total = 0.0
    for eqn in jaxpr.eqns:
        names.add(eqn.primitive.name)
        inner = sum(_numbers(sub, names) for sub in jaxprs_in_params(eqn.params))
        own = sum(float(math.prod(v.aval.shape)) for v in eqn.outvars)
        total += eqn.params.get("length", 1) * inner if inner else own
    return total


def step_options(work: float) -> dict[str, Any]:
    """`compiler_options` of a program that runs many times: compiled well unless all its runs are little work."""
    return compiler_options(0 if work <= SLOW_WORK else math.inf)


def compiler_options(work: float = math.inf) -> dict[str, Any]:
    """Options for a program's compiler: `jax.jit(fn, compiler_options=...)`, for calls that no other `jit` traces.

    On a CPU the operations of a program run in the order that needs least memory. In XLA's own order they run side by
    side, which hangs before jaxlib 0.11.2: a batched Cholesky or eigenvalue decomposition waits, on a thread of XLA's
    pool, for parts of its batch that are queued behind it in the same pool. As many of these side by side as the
    machine has cores, and none ever ends. With 1 or 10 particles this order is no slower (`benchmarks/steps.py`).

    Args:
        work: for a program that runs once, roughly how many numbers it computes. Where that is little, compiling well
            costs more than it saves.
    """
    if jax.default_backend() != "cpu":
        return {}
    options: dict[str, Any] = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    return options | (QUICKLY if work <= SMALL_WORK else {})
