"""Which site's density NaN in the data come to, where the model was to handle them itself."""

from __future__ import annotations

from collections.abc import Sequence

from jax.extend.core import Literal

from autovi.model.inputs import Inputs
from autovi.model.traced import Traced, data_input

NAN_REMEDY = (
    "drop those elements, or mask them in the model (numpyro.handlers.mask) and put a number in their place "
    "(jnp.nan_to_num)"
)


def nan_let_through(traced: Traced, inputs: Inputs, terms: Sequence[str]) -> str:
    """Which argument with NaN (see `allow_nan`) one of these terms, such as "p:y", depends on; "" if none does."""
    graph = traced.graph
    for name in inputs.with_nan() if inputs.allow_nan else []:
        var = graph.inputs.get(data_input(name))
        reached = None if var is None else graph.downstream([var])  # None: the data are constants of the program
        for term in terms:
            output = graph.outputs.get(term)
            if reached is None or (output is not None and not isinstance(output, Literal) and output in reached):
                lets = "may let" if reached is None else "lets"
                return f"data[{name!r}] has NaN, which the model {lets} through to site {term.split(':', 1)[1]!r}"
    return ""
