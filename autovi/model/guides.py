"""A user's guide as a function: NumPyro's AutoGuides are set up once, guide functions are taken as they are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any
from weakref import WeakSet

import jax
from numpyro import handlers
from numpyro.infer.autoguide import AutoGuide

from autovi.model.execution import ONE_AT_A_TIME
from autovi.model.inputs import Inputs, check_signature

_SET_UP: WeakSet[Any] = WeakSet()


def as_guide_function(guide: Any, inputs: Inputs) -> Callable:
    """The guide as a NumPyro function of the model's arguments.

    A guide not seen before is run once on the data: an AutoGuide, also one that a guide function calls, finds its
    prototype and its starting point in its first run, and keeps them. That run must not be a trace.

    Raises:
        TypeError: not a callable.
    """
    if not callable(guide):
        raise TypeError(f"guide: expected a name, a NumPyro guide function or an AutoGuide, got {type(guide).__name__}")
    check_signature(guide, *inputs.rebuild(inputs.arrays), "guide")
    if guide not in _SET_UP:
        args, kwargs = inputs.rebuild(inputs.arrays if inputs.concrete else jax.device_put(inputs.arrays))
        # What is wrong with a guide function is said when it is traced, with the site's name.
        with nullcontext() if isinstance(guide, AutoGuide) else suppress(Exception):
            with ONE_AT_A_TIME, handlers.seed(rng_seed=jax.random.key(0)):
                guide(*args, **kwargs)
        _SET_UP.add(guide)
    return guide
