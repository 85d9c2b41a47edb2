"""A job in a process of its own: nothing is compiled before it, and its crash ends nothing else."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# XLA's own order may hang on batches of Cholesky factors before jaxlib 0.11.2 (see `autovi/compiling.py`).
IN_ORDER = "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"
EXACT = ("log_evidence", "large_reference")  # jobs that are no contender: only their answer matters


def environment(in_order: bool) -> dict[str, str]:
    """The variables of a job. A compilation cache would make "in a fresh process" something else."""
    variables = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    return variables | ({"XLA_FLAGS": f"{variables.get('XLA_FLAGS', '')} {IN_ORDER}".strip()} if in_order else {})


def apart(job: str, *arguments: str, timeout: float = 1800.0) -> dict[str, Any]:
    """What a job of `benchmarks.accuracy.jobs` returns in a fresh process, or {"failed": why}."""
    command = [sys.executable, "-m", "benchmarks.accuracy.jobs", job, *arguments]
    variables = environment(job in EXACT)
    try:
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer after {timeout:.0f} s"}
    if done.returncode:
        # JAX adds a remark of its own below the error.
        lines = [line for line in done.stderr.splitlines() if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
        return {"failed": lines[-1][:300] if lines else f"exit status {done.returncode}"}
    return json.loads(done.stdout.strip().splitlines()[-1])
