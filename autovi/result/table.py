"""The table of `Fit.summary`, with what is known of the fit below it. Imports pandas, so it is imported late."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd

from autovi.plan.display import terminal_width, wrapped


class Summary(pd.DataFrame):
    """A data frame that shows its `attrs` below itself.

    A part of it, and what is computed from it, are plain data frames: what is known is of the fit.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def __repr__(self) -> str:
        width = terminal_width()
        known = [line for name, said in self.attrs.items() for line in wrapped(f"{name}: {said}", width)]
        return "\n".join([super().__repr__(), *known])

    def _repr_html_(self) -> str:
        known = "".join(f"<div>{escape(f'{name}: {said}')}</div>" for name, said in self.attrs.items())
        return f"<div>{super()._repr_html_()}{known}</div>"


def with_facts(table: Any, facts: Mapping[str, str]) -> Any:
    """The table with the facts in its `attrs`, which a data frame shows."""
    found = Summary(table) if isinstance(table, pd.DataFrame) else table
    found.attrs.update(facts)
    return found
