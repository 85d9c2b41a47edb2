"""Doubly reparameterized gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
from numpyro.distributions import Distribution

from autovi import implicit
from autovi.distributions.densities import log_density
from autovi.distributions.noise import from_noise, is_of_noise
from autovi.estimators.base import Draw, Estimator, Facts, refuses_pathwise, refuses_without_derivative


@dataclass(frozen=True)
class Dreg(Estimator):
    """d/dphi E log(1/K sum_k w_k) = E sum_k v_k^2 (dz_k/dphi)' grad_z log w_k, v_k = w_k / sum w, z_k = T(eps_k; phi).

    For sites with a pathwise gradient under `iwae` and `renyi` (there with alpha v + (1 - alpha) v^2 in the place of
    v^2): the score of q, which `explicit` and `implicit` leave in, is reparameterized once more. Unbiased; its signal
    to noise does not fall as K grows, and it has no noise where q is the posterior. Parameters of the model, and of
    other sites, keep the weights v_k. Under the ELBO it is `sticking` with independent draws. Refuses what they refuse,
    and sites tied to others in the guide. Takes one more evaluation of the model, without derivatives, for the weights.
    Tucker, Lawson, Gu and Maddison (2019), "Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives",
    equations 8 and 10.

    Example:
        >>> autovi.fit(model, data, objective="iwae", estimators={"z": "dreg"}, num_particles=16)
    """

    name: ClassVar[str] = "dreg"
    pathwise: ClassVar[bool] = True
    held: ClassVar[bool] = True
    doubly: ClassVar[bool] = True
    on_request: ClassVar[bool] = True

    def refuses(self, facts: Facts) -> str | None:
        return refuses_pathwise(facts) or refuses_without_derivative(facts) or facts.tied

    def draw(self, noise: jax.Array, q: Distribution) -> Draw:
        if is_of_noise(q):
            value, log_q = from_noise(q, jax.random.normal(noise, q.shape()), held=True)
            return Draw(value, log_q=log_q)
        value = implicit.sample(noise, q)
        return Draw(value, log_q=log_density(jax.tree.map(jax.lax.stop_gradient, q), value))
