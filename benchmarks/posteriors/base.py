"""What a posterior to try is: a model as one writes it first, its data, and how its reference is drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Data = dict[str, Any]


@dataclass(frozen=True)
class Posterior:
    """A model with its data.

    `reference` is an equivalent program that NUTS mixes well on, with all sites of `model` among its sites, sampled or
    deterministic. `scored` are the names that a fit is compared on: with heavy tails, on the log scale.
    """

    model: Callable[..., None]
    data: Callable[[], Data]
    scored: tuple[str, ...]
    reference: Callable[..., None]
    target_accept: float = 0.9
