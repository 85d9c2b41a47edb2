"""How XLA is asked to compile autovi's programs."""

from __future__ import annotations

import math
from typing import Any

import jax

SMALL_WORK = 100_000_000  # numbers that a program running once may handle in badly optimized code

# Compiles in about half the time. Not known to later releases: the way around the emitters of fused operations.
QUICKLY: dict[str, Any] = {"xla_backend_optimization_level": 0} | (
    {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}
)


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
