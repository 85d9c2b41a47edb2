"""What a case is: a model with discrete latents, its data, and how its reference is drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Data = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A model with its data.

    `scored` are the continuous sites that a fit is compared on, `discrete` those that are to be summed out. `marginal`
    is an equivalent program, without the discrete sites or of a form that funsor enumerates; None: `model` itself is.
    `loops`: the chain is carried by `scan`, where NumPyro's `TraceEnum_ELBO` is wrong.
    """

    model: Callable[..., None]
    data: Callable[[], Data]
    scored: tuple[str, ...]
    discrete: tuple[str, ...]
    marginal: Callable[..., None] | None = None
    loops: bool = False
    target_accept: float = 0.8
