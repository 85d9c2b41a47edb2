"""A job in a process of its own: nothing is compiled before it, and its crash ends nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def apart(job: str, *arguments: str, timeout: float = 1800.0) -> dict[str, Any]:
    """What a job of `benchmarks.accuracy.jobs` returns in a fresh process, or {"failed": why}."""
    command = [sys.executable, "-m", "benchmarks.accuracy.jobs", job, *arguments]
    # A compilation cache would make "in a fresh process" something else.
    variables = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer after {timeout:.0f} s"}
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        return {"failed": lines[-1][:300] if lines else f"exit status {done.returncode}"}
    return json.loads(done.stdout.strip().splitlines()[-1])
