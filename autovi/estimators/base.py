"""What a gradient estimator is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
from numpyro.distributions import Distribution

from autovi.analysis.costs import Aligned
from autovi.distributions.gradients import Gradients
from autovi.estimators.baselines import BASELINES
from autovi.implicit.transported.transport import LAWS, Transport
from autovi.implicit.transported.transport import draw as draw_transported

Scalar = Float[Array, ""]
PerElement = Float[Array, "particles *batch"]
PerValue = Float[Array, "values particles *batch"]
PerTerm = Float[Array, "values particles ..."]
Mask = Bool[Array, "particles *batch"]
Integrals = dict[str, tuple[Float[Array, "particles ..."], Aligned | None]]
MAX_VALUES = 1024  # of a support that is gone through one by one


class Draw(NamedTuple):
    """One particle's draw; `aux` is what else the density needs (a flow's intermediates, say), `log_noise` the log
    density of its noise `[*batch]`, of estimators that are `corrected`."""

    value: Any
    aux: Any = ()
    log_noise: Any = None


class Density(NamedTuple):
    """q over particles: the log density of values with a leading particle axis, `[particles, *batch]`, unscaled and
    unmasked."""

    log_prob: Callable[[Any], PerElement]


class Cost(NamedTuple):
    """What is downstream of one site, scaled and masked.

    `value` is `[particles, *batch]`, gradient stopped: only the terms that depend on the site, each summed over what is
    not the site's own (dimensions where the terms cannot be told apart by element have size 1).
    `at(value)` is the same with the site forced to `value` (leading particle axis), every other site drawing with the
    same randomness; its gradient flows through `value` only.
    """

    value: PerElement
    at: Callable[[Any], PerElement]


class Branches(NamedTuple):
    """The terms downstream of a site at each of its K values: what an estimator that integrates needs.

    `log_q` is `[K, particles, *batch]` (None when the site is not in the guide), `terms[name]` `[K, particles, *term]`,
    `aligned[name]` says how the term's dimensions belong to the site's, `scale` is the site's plate scale, which all
    these terms contain, `mask` `[particles, *batch]` says which elements count (None: all).
    """

    log_q: PerValue | None
    terms: Mapping[str, PerTerm]
    aligned: Mapping[str, Aligned]
    scale: float
    mask: Mask | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of a site when an estimator is chosen for it."""

    gradients: Gradients  # of its variational distribution
    num_values: int | None = None  # of its finite support
    entangled: str | None = None  # why its elements cannot be set all at once
    shared: tuple[str, ...] = ()  # other discrete sites that share a cost term with it
    nested: str | None = None  # a subsampled plate below it
    jumps: str | None = None  # where the cost is discontinuous in it
    seam: str | None = None  # of angles: which cost term differs between -pi and pi
    law: str = ""  # the class of its variational distribution, wrappers stripped


@dataclass(frozen=True)
class Estimator(ABC):
    """How the gradient of the expected cost with respect to q's parameters is taken at one site or block.

    A `pathwise` estimator lets the gradient flow through the draw. One that `integrates` replaces the terms downstream
    of the site by their integral over it (`integrate`). Every other one adds a `surrogate`, a term whose gradient is an
    estimate of the missing one and whose value does not count; so does a pathwise one that is `corrected`, because its
    noise depends on the parameters too. A complete example of a new one is in docs/extending.md.
    """

    name: ClassVar[str]
    pathwise: ClassVar[bool] = False
    integrates: ClassVar[bool] = False
    corrected: ClassVar[bool] = False

    @abstractmethod
    def refuses(self, facts: Facts) -> str | None:
        """Why the estimator would be wrong there: None when it is right."""

    @abstractmethod
    def draw(self, rng_key: jax.Array, q: Distribution) -> Draw:
        """One particle's draw, its gradient stopped unless the estimator is pathwise."""

    def init(self, shape: tuple[int, ...]) -> Any:
        """The estimator's own parameters for a site of this batch shape, often none."""
        return ()

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        """The scalar whose gradient is wanted (a mean over particles), and the scalar loss of `params`."""
        raise TypeError(f"{type(self).__name__} has no surrogate")

    def integrate(self, branches: Branches) -> Integrals:
        """Terms that replace the branches': name -> (`[particles, ...]`, None if it has the replaced term's dimensions,
        else how its dimensions belong to the site's)."""
        raise TypeError(f"{type(self).__name__} does not integrate")

    @property
    def has_surrogate(self) -> bool:
        """Does it add a surrogate, which may train parameters of its own?"""
        return self.corrected or not (self.pathwise or self.integrates)

    @property
    def baseline_name(self) -> str | None:
        """The baseline's name as the plan shows it."""
        return None

    @property
    def min_particles(self) -> int:
        """The number of particles below which it cannot work."""
        return 1


@dataclass(frozen=True)
class Baselined(Estimator):
    """An estimator whose surrogate is a log density times the cost less a baseline.

    Args:
        baseline: "none", "moving_average" (of past costs) or "leave_one_out" (mean of the other particles).

    Raises:
        ValueError: an unknown baseline.
    """

    baseline: str = "leave_one_out"

    def __post_init__(self) -> None:
        if self.baseline not in BASELINES:
            raise ValueError(f"unknown baseline {self.baseline!r}; expected one of {sorted(BASELINES)}")

    @property
    def baseline_name(self) -> str | None:
        return self.baseline

    @property
    def min_particles(self) -> int:
        return BASELINES[self.baseline].min_particles

    def init(self, shape: tuple[int, ...]) -> Any:
        return BASELINES[self.baseline].init(shape)

    def scored(self, log_density: PerElement, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        """The surrogate: sum over elements, mean over particles, of log_density stop(cost - b); the baseline's loss."""
        baseline, loss = BASELINES[self.baseline].value(cost.value, params)
        signal = jax.lax.stop_gradient(cost.value - baseline)
        return jnp.sum(log_density * signal) / log_density.shape[0], loss


@dataclass(frozen=True)
class Transported(Baselined):
    """d/dtheta E f(z) = E f'(z) dT/dtheta + E (f(z) - b) d/dtheta log pi(x; theta), z = T(x; theta), b the baseline.

    For Gamma, Beta and Dirichlet; x is noise whose density pi has still something of theta in it. Unbiased for costs
    continuous in z, with any baseline. Ruiz, Titsias and Blei (2016), "The Generalized Reparameterization Gradient".

    Args:
        baseline: as of `Baselined`.

    Raises:
        ValueError: an unknown baseline.
    """

    pathwise: ClassVar[bool] = True
    corrected: ClassVar[bool] = True

    @property
    @abstractmethod
    def transport(self) -> Transport:
        """The map T and log pi."""

    def refuses(self, facts: Facts) -> str | None:
        elsewhere = None if facts.law in LAWS else f"it is for {', '.join(LAWS)} only"
        return refuses_pathwise(facts) or elsewhere

    def draw(self, rng_key: jax.Array, q: Distribution) -> Draw:
        value, log_noise = draw_transported(rng_key, q, self.transport)
        return Draw(value, log_noise=log_noise)

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        return self.scored(draw.log_noise, cost, params)


def refuses_pathwise(facts: Facts) -> str | None:
    """Why no gradient can go through the draws of a site, by any map."""
    if facts.gradients.discrete:
        return "its values are discrete, so a draw has no derivative"
    if facts.jumps:
        return f"the cost jumps in it ({facts.jumps}), and a pathwise gradient does not see a jump"
    return None


def refuses_to_list(facts: Facts) -> str | None:
    """Why a site's values cannot be gone through one by one."""
    if not facts.gradients.discrete:
        return "its values are continuous"
    if facts.num_values is None:
        return "its support is not a finite list known before the model runs"
    if facts.num_values > MAX_VALUES:
        return f"its support has {facts.num_values} values, more than {MAX_VALUES}"
    return facts.entangled
