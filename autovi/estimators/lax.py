"""LAX: the score function with a learned control variate whose own gradient is pathwise."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from numpyro.distributions import Distribution

from autovi import implicit
from autovi.distributions.densities import log_density
from autovi.distributions.noise import is_of_noise
from autovi.estimators.base import Cost, Density, Draw, Estimator, Facts, Scalar
from autovi.estimators.binary import summed_like
from autovi.estimators.control import (
    coefficients,
    evaluate,
    moments,
    moments_loss,
    network,
    optimizer,
    seen,
    seen_loss,
    standardized,
)
from autovi.families.base import Layout

stop = jax.lax.stop_gradient


@dataclass(frozen=True)
class Lax(Estimator):
    """d/dt E f(z) = E (f(z) - c(z)) d log q(z; t)/dt + dc(z(eps; t))/dt, c(z) = k + rho r(z), r a network.

    For continuous sites whose draws have a derivative. The cost is never differentiated, so that it may jump or be a
    black box: one evaluation for each particle. Unbiased for every c. k and rho are the regression coefficients of
    least variance by past steps, 0 at first; the network, of each element's value, is trained on the square of the
    gradient in the parameters of q. Its input is (z - m) / s, with the mean and the deviation of past draws.
    Grathwohl, Choi, Wu, Roeder and Duvenaud (2018), "Backpropagation through the Void", section 3.1.

    Args:
        width: hidden units of r.
        inputs: what r reads besides z, by name: data, sites above, deterministic values, element by element.
        learning_rate: of Adam, for r.
        rate: at which the moments behind k and rho, and m and s, forget past steps.

    Example:
        >>> autovi.fit(model, data, estimators={"threshold": "lax"})
    """

    width: int = 10
    learning_rate: float = 0.01
    rate: float = 0.01
    inputs: str | tuple[str, ...] = ()

    name: ClassVar[str] = "lax"
    on_request: ClassVar[bool] = True
    sequential: ClassVar[bool] = True
    num_particles: ClassVar[int] = 8

    def refuses(self, facts: Facts) -> str | None:
        known = facts.gradients
        if known.discrete:
            return "its values are discrete, so a draw has no derivative"
        if known.pathwise is None or known.not_pathwise:
            missing = ", ".join(known.not_pathwise) or known.note or "any parameter"
            return f"its draws have no right derivative ({missing})"
        if known.moving_support:
            moving = ", ".join(known.moving_support)
            return f"its support depends on its parameter {moving}, and the score misses what the moving edge does"
        if known.periodic:
            return "the control variate is not periodic in it, and a pathwise gradient does not see the jump at the cut"
        return None

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.inputs,) if isinstance(self.inputs, str) else tuple(self.inputs)

    @property
    def local_costs(self) -> bool:
        return False

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optimizer(self.rate, self.learning_rate)

    def init(self, rng_key: jax.Array, layout: Layout) -> dict[str, Any]:
        size, read = prod(layout.event_shape), sum(map(prod, layout.reads))
        return {"moments": moments(2) | seen((size,)), "network": network(rng_key, size + read, self.width)}

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        return Draw(stop(pathwise(noise, q)), aux=noise)

    def completed(self, noise: jax.Array, q: Distribution, value: jax.Array) -> Draw:
        return Draw(stop(value))  # made of noise that is not known here

    def surrogate(self, q: Density, draw: Draw, cost: Cost, params: Any) -> tuple[Scalar, Scalar]:
        leaves, tree = jax.tree.flatten(q.distribution)
        moving = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
        known = params["moments"]

        def parts(own: list, others: list, noise: Any, value: jax.Array, f: jax.Array, read: tuple) -> jax.Array:
            """Of one particle: what has the gradients of the score, and of the control variates 1 and r(z)."""
            given = dict(zip(moving, own, strict=True))
            fn = jax.tree.unflatten(tree, [given.get(i, leaf) for i, leaf in enumerate(others)])
            log_q = log_density(fn, value)
            flat = lambda x: jnp.reshape(x, (*log_q.shape, -1))  # noqa: E731
            beside = [flat(x).astype(log_q.dtype) for x in read]

            def r(z: jax.Array) -> jax.Array:
                return evaluate(params["network"], jnp.concatenate([standardized(known, flat(z)), *beside], -1))

            scored = jnp.sum(log_q * summed_like(r(value), f))
            return jnp.stack([jnp.sum(log_q * f), -jnp.sum(log_q), jnp.sum(r(moving_draw(noise, fn, value))) - scored])

        floating = [leaves[i] for i in moving]
        given = floating, leaves, draw.aux, draw.value, cost.value, cost.inputs
        slopes = jax.vmap(jax.jacrev(parts))(*stop(given))
        plain, constant, learned = jnp.concatenate([s.reshape(*s.shape[:2], -1) for s in slopes], -1).swapaxes(0, 1)
        k, rho = coefficients(known, [0.0, 0.0])
        estimate = plain + k * constant + rho * learned
        ends = [sum(prod(s.shape[2:]) for s in slopes[: i + 1]) for i in range(len(slopes) - 1)]
        surrogate = jnp.zeros(())
        for leaf, slope in zip(floating, jnp.split(stop(estimate), ends, -1), strict=True):
            surrogate += jnp.sum(leaf.reshape(slope.shape) * slope) / slope.shape[0]
        loss = 0.5 * jnp.sum(jnp.mean(estimate**2, 0)) + seen_loss(known, draw.value)
        return surrogate, loss + moments_loss(known, plain, [constant, learned])


def pathwise(noise: Any, q: Distribution) -> jax.Array:
    """A draw with its gradient in q's parameters."""
    return q(rng_key=noise) if is_of_noise(q) else implicit.sample(noise, q)


def moving_draw(noise: Any, q: Distribution, value: jax.Array) -> jax.Array:
    """The draw that a value is, with its gradient in q's parameters: made of its noise, or, where that is not known, by
    its distribution function."""
    return implicit.reparameterize(q, value) if isinstance(noise, tuple) else pathwise(noise, q)
