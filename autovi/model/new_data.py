"""New data for a model that was fitted: taken as the data of the fit were, categories by their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from autovi.model.inputs import Inputs, bind
from autovi.model.labels import Labels
from autovi.model.places import cause_of


def bind_like(model: Callable, new_data: Any, fitted: Inputs, argument: str = "new_data") -> Inputs:
    """`bind` for data that take the form of those in `fitted`.

    Data frames are matrices or columns as they were there; the codes of categories are those that the same names had,
    in whatever order and number the new data list them. `argument` is what messages call them.

    Raises:
        ValueError: the data do not fit the model, or have a category that the fit did not have.
    """
    try:
        inputs = bind(model, new_data, fitted.allow_nan)
    except (ValueError, TypeError) as error:
        said = str(error)
        if argument == "data" or not said.startswith(("data:", "data[", "data does")):
            raise
        said = said.replace(" data=", f" {argument}=")
        raise type(error)(argument + said.removeprefix("data")) from cause_of(error)
    if inputs.opened is not None:
        by_column = {header.where for header in (*fitted.headers(), *inputs.headers())}
        inputs = replace(inputs.opened(by_column & set(inputs.frames)), opened=None)
    arrays, labels = dict(inputs.arrays), dict(inputs.labels)
    for name, label in inputs.labels.items():
        if label.categories is not None and name in fitted.arrays:
            known = fitted.labels.get(name, Labels((), ())).categories
            arrays[name] = _recoded((argument, name), arrays[name], label.categories, known)
            labels[name] = label._replace(categories=known)
    inputs = replace(inputs, arrays=arrays, labels=labels)
    return inputs.as_constants() if fitted.concrete else inputs


def _recoded(where: tuple[str, str], codes: np.ndarray, names: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    """The codes that these names had in the fit. `where` is the argument, and the name of the column in it."""
    argument, name = where
    if known is None:
        raise ValueError(f"{argument}: {name} holds categories, where the fit had numbers; give those numbers")
    place = {str(category): code for code, category in enumerate(known.tolist())}
    new = np.array([place.get(str(category), -1) for category in names.tolist()], np.int32)
    lost = names[np.unique(codes[new[codes] < 0])] if codes.size else names[:0]
    if lost.size:
        raise ValueError(
            f"{argument}: {name} has the category {lost.tolist()[0]!r}, which the fit did not have; its categories are "
            f"{known.tolist()}. For an element that is new, give integer codes"
        )
    return new[codes]
