"""What can be fitted."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax

from autovi.model.inputs import Inputs
from autovi.model.sites import Sites
from autovi.model.traced import Traced

RADII = (1.0, 3.0, 10.0, 30.0, 100.0, 1e3, 1e4)  # from the origin, on the unconstrained scale, where costs are tried
# A transformed site goes no farther: exp(20) is 5e8, and sigmoid(20) rounds to 1 in single precision. Values beyond say
# nothing about a fit and cost much: a rate of exp(1e4) is infinite, and a loop or a solver that it drives need not end.
FARTHEST = 20.0


class Given(NamedTuple):
    """What of a draw from the prior is fixed: values of sites (whose node is NaN where a value is outside the support),
    and how many elements of each subsampled plate there are, the first ones."""

    values: Mapping[str, Any]
    lengths: Mapping[str, int]


NOTHING = Given({}, {})


def unchecked(guide_sites: Sites) -> None:
    """No check of a guide function's sites."""


class Target(ABC):
    """A density, or a loss, of named values.

    Everything behind a target knows its sites and its graph alone (`Traced`): a front end is one implementation of this
    class. Calling it takes the arguments that the data give.
    """

    guided: ClassVar[bool] = False  # its nodes have distributions of their own, as those of a guide function have

    @property
    def tried(self) -> Any:
        """What of the target decides where costs are tried. Hashable."""
        return None

    @abstractmethod
    def trace(
        self,
        guide: Callable | None,
        inputs: Inputs,
        lengths: Mapping[str, int],
        relaxed: Collection[str] = (),
        check_guide: Callable[[Sites], Any] = unchecked,
        noncentred: Collection[str] = (),
    ) -> tuple[Traced, Inputs]:
        """Sites and graph, and the inputs as the program must take them: see `trace_program`."""

    @abstractmethod
    def prior(
        self,
        guide: Callable | None,
        inputs: Inputs,
        arrays: Mapping[str, Any],
        rng_key: jax.Array,
        given: Given = NOTHING,
    ) -> dict:
        """A plausible value of every node, to try costs at: from the guide function, else on the unconstrained scale
        from the prior."""

    def varied(self, arrays: Mapping[str, Any], rng_key: jax.Array) -> dict[str, Any]:
        """Arrays to try costs at in the place of the given ones: none, since data are what they are."""
        return {}

    def predict(
        self,
        inputs: Inputs,
        lengths: Mapping[str, int],
        arrays: Mapping[str, Any],
        params: Mapping[str, Any],
        values: Mapping[str, Any],
        rng_key: jax.Array,
    ) -> dict[str, Any]:
        """One draw of everything that `values` do not hold.

        Raises:
            TypeError: the target does not say how its data come about.
        """
        raise TypeError(f"predict: a {type(self).__name__} does not say how its data come about; write a NumPyro model")

    def unconstrained(
        self,
        inputs: Inputs,
        lengths: Mapping[str, int],
        arrays: Mapping[str, Any],
        params: Mapping[str, Any],
        values: Mapping[str, Any],
    ) -> dict[str, Any]:
        """The continuous latent sites' `values` on the unconstrained scale: as they are, where all sites are real."""
        return dict(values)

    def simulate(
        self, inputs: Inputs, lengths: Mapping[str, int], arrays: Mapping[str, Any], rng_keys: jax.Array, part: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Draws of everything from the prior, one for each key, `part` of them at a time; and what is observed.

        Raises:
            TypeError: the target does not say how its values come about.
        """
        raise TypeError(
            f"prior_predictive: a {type(self).__name__} is a density alone, which does not say how to draw from it; "
            "write a NumPyro model"
        )

    def log_likelihood(
        self,
        inputs: Inputs,
        lengths: Mapping[str, int],
        arrays: Mapping[str, Any],
        values: Mapping[str, Any],
        rng_key: jax.Array,
    ) -> jax.Array | None:
        """log p(y | z) of all observations at these values of latent sites; None of a density that does not say which
        part of it is the likelihood."""
        return None


@dataclass(frozen=True)
class OfParameters(Target):
    """A target made of a function of a tree of parameters, and of what the data give.

    Args:
        function: `function(params, ...)`.
        template: a tree of the shapes and types of `params`.
    """

    function: Callable
    template: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{type(self).__name__}: it is no function of the data alone; call its `function`")

    @property
    def __signature__(self) -> inspect.Signature:
        signature = inspect.signature(self.function)
        return signature.replace(parameters=list(signature.parameters.values())[1:])
