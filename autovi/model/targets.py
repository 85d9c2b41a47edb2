"""From what the user hands over to a target, and to its trace."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from autovi.model.inputs import Inputs
from autovi.model.numpyro_model import NumPyroModel
from autovi.model.recentring import recentred
from autovi.model.sites import Sites
from autovi.model.summands import in_summands
from autovi.model.target import Target, unchecked
from autovi.model.traced import Traced
from autovi.model.unlinked import unlinked_at


def as_target(model: Callable) -> Target:
    """The target that a model is; a function is a NumPyro model."""
    return model if isinstance(model, Target) else NumPyroModel(model)


def trace_program(
    model: Callable,
    guide: Callable | None,
    inputs: Inputs,
    lengths: Mapping[str, int] | None = None,
    relaxed: Collection[str] = (),
    check_guide: Callable[[Sites], Any] = unchecked,
    noncentred: Collection[str] = (),
    imaged: Collection[str] = (),
    unlinked: Collection[str] = (),
    summands: Collection[str] = (),
) -> tuple[Traced, Inputs]:
    """Model and guide function as one graph, and the inputs as the program must take them.

    Both are run once on abstract values. Where they need their data's values (to count groups, say) the data become
    constants of the program. `lengths` sets how many elements of a plate one step sees. Discrete sites that are
    `relaxed` take floating values. `check_guide` sees the guide's sites before the model runs on its values.
    `noncentred` sites, of a model without a guide function, are in the coordinates of `distributions/coordinates.py`,
    and `imaged` ones in those of what the model makes of them. The scans of `unlinked` sites are maps over their steps;
    what the terms `summands` add up are outputs too.

    Raises:
        ValueError: the model fails to run; the message names the last site that ran and what NumPyro or JAX said.
    """

    def run(taken: Inputs) -> tuple[Traced, Inputs]:
        traced, taken = as_target(model).trace(guide, taken, lengths or {}, relaxed, check_guide, noncentred)
        traced = in_summands(
            unlinked_at(traced, unlinked), summands
        )  # in which the images of `imaged` sites were found
        return recentred(traced, imaged, taken), taken

    if inputs.opened is None:
        return run(inputs)
    try:
        return run(replace(inputs, opened=None))
    except Exception as error:
        of_matrix = error
    opened = inputs.opened(inputs.frames)
    try:
        result = run(opened)
    except Exception:
        # Which of both faults is the model's? That of the way in which it takes its data.
        if any(header.asked for header in opened.headers()):
            raise
        raise of_matrix from None
    asked = {header.where for header in opened.headers() if header.asked or header.refused or header.codes}
    # The others stay matrices, whose columns have labels.
    return result if asked == set(inputs.frames) else run(inputs.opened(asked))
