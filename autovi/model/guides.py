"""A user's guide as a function: NumPyro's AutoGuides are set up once, guide functions are taken as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy, deepcopy
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import jax
from numpyro import handlers
from numpyro.infer.autoguide import AutoGuide

from autovi.model.callables import check_function
from autovi.model.complaints import Circumstances, complain
from autovi.model.execution import ONE_AT_A_TIME
from autovi.model.inputs import Inputs, check_signature
from autovi.model.places import cause_of

_SET_UP: WeakSet[Any] = WeakSet()
_BEFORE: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()  # the attributes of AutoGuides that were set up


def as_guide_function(guide: Any, inputs: Inputs, model: Callable) -> Callable:
    """The guide as a NumPyro function of the model's arguments.

    A guide not seen before is run once on the data: an AutoGuide, also one that a guide function calls, finds its
    prototype and its starting point in its first run, and keeps them. That run must not be a trace.

    Raises:
        TypeError: not a callable.
        ValueError: an AutoGuide that does not run on the data, such as one made for another model.
    """
    if not callable(guide):
        raise TypeError(f"guide: expected a name, a NumPyro guide function or an AutoGuide, got {type(guide).__name__}")
    check_function(guide, "guide")
    check_signature(guide, *inputs.rebuild(inputs.arrays), "guide")
    if guide not in _SET_UP:
        if isinstance(guide, AutoGuide):
            _BEFORE[guide] = {n: copy(v) if isinstance(v, dict | list) else v for n, v in vars(guide).items()}
        args, kwargs = inputs.rebuild(inputs.arrays if inputs.concrete else jax.device_put(inputs.arrays))
        # What is wrong with a guide function is said when it is traced, with the site's name.
        try:
            with ONE_AT_A_TIME, handlers.seed(rng_seed=jax.random.key(0)):
                guide(*args, **kwargs)
        except Exception as error:
            if isinstance(guide, AutoGuide):
                with another_model(guide, model):
                    complain(error, Circumstances("guide", guide, (args, kwargs)))
        _SET_UP.add(guide)
    return guide


@contextmanager
def another_model(guide: Any, model: Callable) -> Iterator[None]:
    """Says of an error of an AutoGuide that it was made for another model than the one that is fitted."""
    try:
        yield
    except ValueError as error:
        made_for = getattr(guide, "model", model) if isinstance(guide, AutoGuide) else model
        if made_for is model:
            raise
        name, kind = getattr(made_for, "__name__", type(made_for).__name__), type(guide).__name__
        raise ValueError(
            f"guide: this {kind} was made for {name!r}, which is not the model; make it for the model, {kind}(model). "
            f"What does not fit: {str(error).removeprefix('guide: ')}"
        ) from cause_of(error)


def with_params(guide: Callable, params: dict[str, Any]) -> Callable:
    """The guide with its parameter sites at these values."""
    return handlers.substitute(guide, data=params)


def copied(guide: Any, memo: dict[int, Any]) -> Any:
    """A deep copy of a guide, which is set up if the guide is. Functions are their own copies."""
    twin = deepcopy(guide, memo)
    if guide in _BEFORE:
        _BEFORE[twin] = deepcopy(_BEFORE[guide], memo)
        _SET_UP.add(twin)
    return twin


def not_set_up(guide: Any) -> Any:
    """An AutoGuide as it was before it was set up, for another process, where the data set it up as they did here: what
    it finds then holds the data, and functions that do not pickle. Any other guide as it is."""
    if guide not in _BEFORE:
        return guide
    fresh = object.__new__(type(guide))
    vars(fresh).update(_BEFORE[guide])
    return fresh
