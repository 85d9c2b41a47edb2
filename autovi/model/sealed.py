"""Distributions of a guide function that are taken apart into arrays, and those that cannot be."""

from __future__ import annotations

import jax
from numpyro.distributions import Distribution, TransformedDistribution

from autovi.distributions import registry
from autovi.model.execution import SiteError


def is_sealed(fn: Distribution, value: jax.Array) -> bool:
    """Does a distribution hold traced values besides those that JAX finds in it, as in a function?"""
    if not isinstance(registry.strip(fn), TransformedDistribution):
        return False
    leaves, made = jax.tree.flatten(fn)
    closed = jax.make_jaxpr(lambda leaves, value: jax.tree.unflatten(made, leaves).log_prob(value))(leaves, value)
    return any(isinstance(constant, jax.core.Tracer) for constant in closed.consts)


def log_prob_apart(name: str, fn: Distribution, value: jax.Array) -> jax.Array:
    """The density of a distribution taken apart and put together again, as the program will have it."""
    try:
        return fn.log_prob(value)
    except AttributeError as error:
        raise SiteError(
            f"site {name!r}: {type(fn).__name__} loses the attribute {error.name!r} when JAX takes it apart; name its "
            "array attributes in `pytree_data_fields` and the others in `pytree_aux_fields` of the class"
        ) from error
