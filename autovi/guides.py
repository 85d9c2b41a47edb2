"""A user's guide as a function: NumPyro's AutoGuides are set up once, guide functions are taken as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from numpyro import handlers
from numpyro.infer.autoguide import AutoGuide

from autovi.inputs import Inputs


def as_guide_function(guide: Any, inputs: Inputs) -> Callable:
    """The guide as a NumPyro function of the model's arguments.

    An AutoGuide that has not run yet finds its prototype and its starting point here, on the data.

    Raises:
        TypeError: not a callable.
    """
    if not callable(guide):
        raise TypeError(f"guide: expected a name, a NumPyro guide function or an AutoGuide, got {type(guide).__name__}")
    if isinstance(guide, AutoGuide) and guide.prototype_trace is None:
        args, kwargs = inputs.rebuild(inputs.arrays)
        with handlers.seed(rng_seed=jax.random.key(0)):
            guide(*args, **kwargs)
    return guide
