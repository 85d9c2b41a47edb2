"""Sites at whose value a cost jumps, found by evaluating it: where the traced program holds an operation that could."""

from __future__ import annotations

from collections.abc import Callable

from autovi.inputs import Inputs
from autovi.sites import Sites
from autovi.structure import Structure


def find_jumps(
    model: Callable,
    guide: Callable | None,
    inputs: Inputs,
    sites: Sites,
    guide_sites: Sites | None,
    structure: Structure,
) -> dict[str, str]:
    """Site -> which cost term jumps in it and by which operation. Empty where nothing can jump."""
    return {}
