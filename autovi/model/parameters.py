"""Parameters of a distribution that are outside of what it allows, said with their name and value."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from numpyro.distributions import Distribution, constraints

from autovi.model.sites import support_name

MAX_NUMBERS = 6  # of a vector that is shown whole


def wrong_parameters(fn: Distribution) -> str | None:
    """What is wrong with the parameters whose values are known: "the scale of its Normal is -1; expected positive".

    None if nothing is. A wrapper's base is looked into.
    """
    for name, constraint in type(fn).arg_constraints.items():
        value = vars(fn).get(name)
        if value is None or constraints.is_dependent(constraint) or isinstance(value, jax.core.Tracer):
            continue
        if (said := _outside(value, constraint)) is not None:
            return f"the {name} of its {type(fn).__name__} is {said}"
    inner = vars(fn).get("base_dist")
    return wrong_parameters(inner) if isinstance(inner, Distribution) else None


def _outside(value: Any, constraint: Any) -> str | None:
    numbers = np.asarray(value)
    with jax.ensure_compile_time_eval():
        inside = np.asarray(constraint(value))
    if inside.all():
        return None
    where = tuple(int(i) for i in np.argwhere(~inside)[0])
    one = numbers[where]
    shown = f"{one:.6g}" if np.ndim(one) == 0 else np.array2string(one, precision=4, threshold=MAX_NUMBERS)
    at = f" at {where}" if where else ""
    return f"{shown}{at}; expected {_told(constraint)}"


def _told(constraint: Any) -> str:
    bounds = [vars(constraint).get(name) for name in ("lower_bound", "upper_bound")]
    name = support_name(constraint)
    if name == "greater than" or name == "integer greater than":
        return f"{name} {bounds[0]}"
    return name if None in bounds else f"{name} from {bounds[0]} to {bounds[1]}"
