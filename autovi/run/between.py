"""The program for estimators that ask for the cost between the values of discrete sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from autovi.analysis.onehot import one_hot
from autovi.distributions.table import CATEGORICAL
from autovi.model.inputs import Inputs
from autovi.model.places import cause_of
from autovi.model.targets import trace_program
from autovi.model.traced import Traced
from autovi.plan.plan import Plan


def traced_for(
    plan: Plan,
    traced: Traced,
    model: Callable,
    guide: Callable | None,
    inputs: Inputs,
    lengths: Mapping[str, int],
    **coordinates: Any,
) -> Traced:
    """The program that a plan's estimators need: `traced` itself, or traced anew with other sites between their values.

    `coordinates` are `noncentred`, `imaged` and `unlinked`, as of `trace_program`.

    Raises:
        ValueError: the model does not run between the values of a site; the message names it.
    """
    weighted, relaxed = _between_values(plan, traced)
    if (weighted, relaxed) == (traced.one_hot, traced.relaxed):
        return traced
    if relaxed or traced.relaxed or traced.one_hot:
        try:
            traced, _ = trace_program(model, guide, inputs, lengths, relaxed, **coordinates)
        except ValueError as error:
            raise ValueError(
                f"site {sorted(relaxed)[0]!r}: its estimator asks for the cost between the values of the support, "
                f"where the model does not run (as an index, say, a value must be whole): {error}"
            ) from cause_of(error)
    return one_hot(traced, weighted) if weighted else traced


def _between_values(plan: Plan, traced: Traced) -> tuple[set[str], set[str]]:
    """The discrete sites whose estimators ask for the cost between their values: those that take weights of these, and
    those that take numbers between."""
    asked = {b for b in plan.blocks if b.estimator.relaxed}
    guide = traced.guide_sites
    drawn_from = lambda b: b.family.distribution_name if guide is None else guide.samples[b.name].distribution  # noqa: E731
    weighted = {b.name for b in asked if drawn_from(b) in CATEGORICAL}
    return weighted, {b.name for b in asked} - weighted
