"""One measurement of one row, in the process that makes it: `python -m benchmarks.discrete_latents.jobs PART ROW`."""

import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.discrete_latents import CASES, enumerated, fits, forward, large

LENGTHS, STATES = (200, 2000), (2, 5, 20)


def _chain(row: str) -> dict[str, Any]:
    length, states = row.split("x")
    return forward.measured(int(length), int(states))


PARTS: dict[str, tuple[list[str], Callable[[str], dict[str, Any]]]] = {
    "fits": (list(CASES), fits.fitted),
    "forward": ([f"{length}x{states}" for length in LENGTHS for states in STATES], _chain),
    "enumerated": ([name for name, case in CASES.items() if not case.loops], enumerated.measured),
    "large": (list(large.LARGE), large.measured),
}

if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]][1](sys.argv[2])))
