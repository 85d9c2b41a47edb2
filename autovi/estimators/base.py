"""What a gradient estimator is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from autovi.analysis.costs import Aligned
from autovi.distributions.table import Known
from autovi.estimators.baselines import BASELINES, NETWORK, RATE, Baseline, as_baseline
from autovi.estimators.baselines import Rows as Rows
from autovi.families.base import Layout
from autovi.implicit.transported.transport import TRANSPORTED, Transport
from autovi.implicit.transported.transport import draw as draw_transported

Scalar = Float[Array, ""]
PerElement = Float[Array, "particles *batch"]
PerValue = Float[Array, "values *batch"]
Terms = Mapping[str, Float[Array, "..."]]
Times = Callable[..., jax.Array]  # a product with data
MAX_VALUES = 1024  # of a support that is gone through one by one


class Draw(NamedTuple):
    """One particle's draw.

    `aux` is the estimator's own (a twin, a relaxation): the engine hands it back and never looks at it. `intermediates`
    are what a flow's sampler leaves for its density, `log_noise` the log density of the noise `[*batch]`, of estimators
    that are `corrected`. `log_q` is the log density of the draw `[*batch]`, where the estimator has it with a gradient
    of its own.
    """

    value: Any
    aux: Any = ()
    intermediates: Any = ()
    log_noise: Any = None
    log_q: Any = None


class Density(NamedTuple):
    """q over particles. `distribution` is q with a leading particle axis on every array in it; `log_prob(value)` of
    values with that axis is `[particles, *batch]`, unscaled and unmasked."""

    distribution: Distribution
    log_prob: Callable[[Any], PerElement]

    def over(self, fn: Callable, *args: Any) -> Any:
        """`fn(q, *args)` for every particle, with q the distribution of one."""
        return jax.vmap(fn)(self.distribution, *args)


class Cost(NamedTuple):
    """What is downstream of one site, scaled and masked, sites that are integrated being integrated.

    `value` is `[particles, *batch]`, gradient stopped: only the terms that depend on the site, each summed over what is
    not the site's own (dimensions where the terms cannot be told apart by element have size 1).
    `at(value)` is the same with the site forced to `value` (leading particle axis), every other site drawing with the
    same noise; its gradient flows through `value` only, and all of it: through the model, through what pathwise
    estimators draw below the site, and through the site's own log q.
    A term that several elements share is in the cost of each. `total(value)` `[particles]` has every term once: its
    gradient in an element is that of the element's own cost. What goes through draws below without a derivative is not
    in these gradients, but in that of the `total` of an estimator that `sees_draws`: log q of each times its cost.
    `inputs` are what the estimator `reads`, each `[particles, *batch, ...]`, gradient stopped.
    """

    value: PerElement
    at: Callable[[Any], PerElement]
    total: Callable[[Any], Float[Array, " particles"]]
    inputs: tuple[jax.Array, ...] = ()


class Branches(NamedTuple):
    """The terms downstream of a site at each of its K values, of one particle: what an estimator that integrates needs.

    The branches are evaluated by `stacked(fn)`, `[K, ...]` of `fn(log_q, terms)`, or by `summed(fn)`, its sum, which
    holds a few branches at a time. There `log_q` is `[*batch]` and `terms[name]` `[*term]`. `aligned[name]` says how a
    term's dimensions belong to the site's.
    """

    stacked: Callable[[Callable[[Any, Terms], Any]], Any]
    summed: Callable[[Callable[[Any, Terms], Any]], Any]
    aligned: Mapping[str, Aligned]


Integrals = dict[str, tuple[Float[Array, "..."], Aligned | None]]


@dataclass(frozen=True)
class Facts:
    """What is known of a site when an estimator is chosen for it."""

    gradients: Known  # of its variational distribution
    num_values: int | None = None  # of its finite support
    entangled: str | None = None  # why its elements cannot be set all at once
    shared: tuple[str, ...] = ()  # sites that are summed out of the model and share a cost term with it
    kept: str | None = None  # why it cannot be summed out of the model
    closed: str | None = None  # the formula by which it is summed out
    scored: str | None = None  # a site drawn given it through whose draw no gradient flows
    jumps: str | None = None  # where the cost is discontinuous in it
    slope: str | None = None  # where JAX's derivative of the cost is not its slope in it
    aperiodic: str | None = None  # of angles: which cost term differs between -pi and pi
    chained: bool = False  # in a scan, each step drawn from a distribution that depends on the steps before
    distribution: str = ""  # the class of its variational distribution, wrappers stripped
    curved: bool = False  # draws are a map of normal noise that is not affine
    not_linear: str | None = "it is not known how it enters"  # why it is not by one product with data
    mixed: str | None = None  # why the rows of that product do not stand for themselves
    event_shape: tuple[int, ...] = ()  # of one value
    tied: str | None = None  # why it is not independent of all other sites in the guide


@dataclass(frozen=True)
class Estimator(ABC):
    """How the gradient of the expected cost with respect to q's parameters is taken at one site or block.

    A `pathwise` estimator lets the gradient flow through the draw. One that `integrates` replaces the terms downstream
    of the site by their integral over it (`integrate`); one that `marginalizes` takes the site out of the guide, and
    leaves it to exact elimination. Every other one adds a `surrogate`, a term whose gradient is an estimate of the
    missing one and whose value does not count; so does a pathwise one that is `corrected`, because its noise depends on
    the parameters too. One that asks for the cost between the values of a discrete site is `relaxed`. A complete
    example of a new one is in docs/extending.md.
    """

    name: ClassVar[str]
    pathwise: ClassVar[bool] = False
    integrates: ClassVar[bool] = False
    marginalizes: ClassVar[bool] = False
    corrected: ClassVar[bool] = False
    relaxed: ClassVar[bool] = False
    sees_draws: ClassVar[bool] = False  # the slope of its `cost.total` counts what goes through scored draws below
    held: ClassVar[bool] = False  # log q of its draws has a gradient through the draw alone
    of_normal_noise: ClassVar[bool] = False  # its noise is standard normal numbers, of which a draw is a map
    doubly: ClassVar[bool] = False  # held, and the objective makes up for it by what it multiplies that gradient by
    local: ClassVar[bool] = False  # what sees a product of the site with data sees what `product` makes of it
    on_request: ClassVar[bool] = False  # right wherever it does not refuse, and taken only where it is asked for
    biased: ClassVar[bool] = False  # taken only where `allow_bias` is True, and said to be so
    sequential: ClassVar[bool] = False  # asks for nothing but a site's own draws and their cost
    num_particles: ClassVar[int] = 4  # where the user does not say

    @abstractmethod
    def refuses(self, facts: Facts) -> str | None:
        """Why the estimator would be wrong there: None when it is right."""

    def noise(self, rng_key: jax.Array, num_particles: int, shape: tuple[int, ...]) -> Any:
        """What a step's draws are made from, drawn for all particles together: arrays with a leading particle axis.

        `shape` is that of one draw. By default a key for each particle. Counterfactual draws get the same noise.
        """
        return rng_key[None] if num_particles == 1 else jax.random.split(rng_key, num_particles)

    @abstractmethod
    def draw(self, noise: Any, q: Distribution) -> Draw:
        """One particle's draw from its noise, its gradient stopped unless the estimator is pathwise."""

    def product(self, noise: Any, q: Distribution, draw: Draw, times: Times) -> jax.Array:
        """What is seen of one particle's product with data X, of estimators that are `local`: `times(v)` is X v, and
        `times(v, squared=True)` the product with the squares of the data."""
        raise TypeError(f"{type(self).__name__}: it is not local")

    def completed(self, noise: Any, q: Distribution, value: Any) -> Draw:
        """The draw that a value is which the engine has drawn from q in the place of a `sequential` estimator, with
        what `draw` would have left beside it."""
        return Draw(value)

    def init(self, rng_key: jax.Array, layout: Layout) -> Any:
        """The estimator's own parameters for a site of this layout (plates at full size), often none.

        Arrays with a row for each element of the site's plates are marked by `Rows`. `layout.reads` are the shapes of
        one element's inputs.
        """
        return ()

    @property
    def reads(self) -> tuple[str, ...]:
        """The data, sites above and deterministic values that its surrogate gets as `cost.inputs`, by name."""
        return ()

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """How its own parameters follow the gradient of the loss that `surrogate` returns."""
        return optax.sgd(RATE)

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        """The scalar whose gradient is wanted (a mean over particles), and the scalar loss of `params`.

        Everything has a leading particle axis. Of `Rows` in `params` the rows of this step's elements are given.
        """
        raise TypeError(f"{type(self).__name__}: it has no surrogate")

    def twins(self, draw: Draw) -> tuple[Any, ...]:
        """Other values of the site, each distributed as `draw.value` is, that `surrogate` evaluates the cost at anyway.

        All parameters below the site then have their gradient averaged over them and the draw.
        """
        return ()

    def integrate(self, branches: Branches) -> Integrals:
        """Terms of one particle that replace the branches': name -> (the term, None if it has the replaced term's
        dimensions, else how its dimensions belong to the site's)."""
        raise TypeError(f"{type(self).__name__}: it does not integrate")

    @property
    def has_surrogate(self) -> bool:
        """Does it add a surrogate, which may train parameters of its own?"""
        return self.corrected or not (self.pathwise or self.integrates or self.marginalizes)

    @property
    def alone(self) -> bool:
        """Must a site have a block of its own under it? The cost of a block is that of all its sites."""
        return self.has_surrogate

    @property
    def local_costs(self) -> bool:
        """Does its surrogate need a cost of the site's own, which not every objective has?"""
        return True

    @property
    def own_sampler(self) -> bool:
        """Does it draw as the distribution itself does, gradient and all?"""
        return False

    @property
    def coupled(self) -> bool:
        """Do the draws of its particles depend on one another?"""
        return False

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
        baseline: "none", "moving_average" (of past costs), "leave_one_out" (mean of the other particles), "network" (a
            small one of `inputs`), or a network or function of your own: a Flax NNX or Equinox module, a pair
            `(init, apply)` (`init(rng_key, *inputs)`, `apply(params, *inputs)`; an object with these two methods), or a
            function without parameters. It gets the inputs of one element and returns one number, about the cost:
            log p - log q below the site, or minus the loss. Networks are trained on the costs in units of their
            running mean and standard deviation; a function is taken as it is.
        inputs: what a network or function reads: names of data arguments, of sites above this one, or of deterministic
            values that do not depend on it. Arrays with the site's plates in front are read element by element, all
            others whole.
        learning_rate: of Adam, for a network.

    Raises:
        ValueError: an unknown baseline, or one that reads inputs without any.
    """

    baseline: Any = "leave_one_out"
    inputs: str | tuple[str, ...] = ()
    learning_rate: float = 0.01

    special: ClassVar[tuple[str, ...]] = ()  # baselines that the estimator makes itself

    def __post_init__(self) -> None:
        own = isinstance(self.baseline, str) and self.baseline in self.special
        if not own and isinstance(self.baseline, str) and self.baseline not in (*BASELINES, NETWORK):
            known = sorted([*BASELINES, NETWORK, *self.special])
            raise ValueError(f"baseline: unknown name {self.baseline!r}; expected one of {known}")
        if not own and as_baseline(self.baseline).reads != bool(self.reads):
            wrong = "has none to read" if not self.reads else "reads none"
            raise ValueError(
                f"inputs: baseline {self.baseline_name!r} {wrong}; name data, sites above or deterministic values with "
                "'network' or a function, and with these only"
            )

    @property
    def made(self) -> Baseline:
        """The baseline that is meant."""
        return as_baseline(self.baseline)

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.inputs,) if isinstance(self.inputs, str) else tuple(self.inputs)

    @property
    def baseline_name(self) -> str | None:
        return self.baseline if isinstance(self.baseline, str) else self.made.name

    @property
    def min_particles(self) -> int:
        return self.made.min_particles

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return self.made.optimizer(self.learning_rate)

    def init(self, rng_key: jax.Array, layout: Layout) -> Any:
        return self.made.init(rng_key, layout)

    def scored(self, log_density: PerElement, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        """The surrogate: sum over elements, mean over particles, of log_density stop(cost - b); the baseline's loss."""
        baseline, loss = self.made.value(cost.value, cost.inputs, params)
        signal = jax.lax.stop_gradient(cost.value - baseline)
        return jnp.sum(log_density * signal) / log_density.shape[0], loss


@dataclass(frozen=True)
class Transported(Baselined):
    """d/dtheta E f(z) = E f'(z) dT/dtheta + E (f(z) - b) d/dtheta log pi(x; theta), z = T(x; theta), b the baseline.

    For Gamma, Beta and Dirichlet; x is noise whose density pi has still something of theta in it. Unbiased for costs
    continuous in z, with any baseline. Ruiz, Titsias and Blei (2016), "The Generalized Reparameterization Gradient".

    Args:
        baseline, inputs, learning_rate: as of `Baselined`.

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
        elsewhere = None if facts.distribution in TRANSPORTED else f"it is for {', '.join(TRANSPORTED)} only"
        return refuses_pathwise(facts) or elsewhere

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        value, log_noise = draw_transported(noise, q, self.transport)
        return Draw(value, log_noise=log_noise)

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        return self.scored(draw.log_noise, cost, params)


def of_possible(costs: jax.Array, chance: jax.Array) -> jax.Array:
    """Costs at values of these probabilities, 0 in the place of one that is no number where the probability is zero: it
    holds log q, which is minus infinity there, and what q never draws has no part in its expectation."""
    return jnp.where((chance == 0) & ~jnp.isfinite(costs), 0, costs)


def refuses_pathwise(facts: Facts) -> str | None:
    """Why no gradient can go through the draws of a site, by any map."""
    if facts.gradients.discrete:
        return "its values are discrete, so a draw has no derivative"
    return refuses_derivatives(facts)


def refuses_derivatives(facts: Facts) -> str | None:
    """Why the derivative of the cost in a continuous site does not say how it changes."""
    if facts.jumps:
        return f"the cost jumps in it ({facts.jumps}), and a pathwise gradient does not see a jump"
    if facts.slope:
        return f"the cost's derivative in it is not its slope ({facts.slope}), and a pathwise gradient is made of it"
    return None


def refuses_without_derivative(facts: Facts) -> str | None:
    """Why the draws of a continuous site have no derivative, explicit or implicit, that is right."""
    gradients = facts.gradients
    if gradients.pathwise is None:
        return f"its draws have no right derivative ({gradients.note or 'not reparameterizable'})"
    if gradients.not_pathwise:
        return f"its draws have no right derivative with respect to {', '.join(gradients.not_pathwise)}"
    if gradients.periodic and facts.aperiodic:
        why = facts.aperiodic
        return f"the cost is not periodic in it ({why}), and a pathwise gradient does not see the jump at the cut"
    return None


def refuses_to_list(facts: Facts) -> str | None:
    """Why a site's values cannot be gone through one by one, all of its elements at once."""
    return refuses_continuous_or_unlisted(facts) or facts.entangled


def refuses_continuous_or_unlisted(facts: Facts) -> str | None:
    """Why there is no list of a site's values."""
    if not facts.gradients.discrete:
        return "its values are continuous"
    if facts.num_values is None:
        return "its support is not a finite list known before the model runs"
    if facts.num_values > MAX_VALUES:
        return f"its support has {facts.num_values} values, more than {MAX_VALUES}"
    return None
