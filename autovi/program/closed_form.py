"""Cost terms in closed form in the place of sampled ones: the entropy of q, and the expected log density of a prior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.families.base import NoiseFamily
from autovi.model.traced import weighted
from autovi.program.nodes import density_of

if TYPE_CHECKING:
    from autovi.plan.plan import Block
    from autovi.program.wiring import Wiring
    from autovi.program.world import World

NORMAL = ("Normal", "MultivariateNormal", "LowRankMultivariateNormal")


def entropy_of(q: Distribution) -> jax.Array | None:
    """The entropy `[*batch]`; None where it is not known."""
    try:
        return q.entropy()
    except (AttributeError, NotImplementedError):
        return None


def known_priors(program: Wiring) -> frozenset[str]:
    """The sites whose prior's expected log density is known: it depends on no other latent site, and is normal as q is,
    or the support is finite."""
    found: list[str] = []
    for block in program.plan.blocks:
        for name in block.sites:
            site = program.sites.samples.get(name)
            # In a scan the steps of one site depend on one another.
            if site is None or site.from_scan or program.structure.upstream.get(f"p:{name}") != (name,):
                continue
            finite = site.values is not None and site.batch_shape == program.node_site(name).batch_shape
            if finite or (site.distribution == "Normal" and _is_normal(program, block)):
                found.append(name)
    return frozenset(found)


def _is_normal(program: Wiring, block: Block) -> bool:
    if block.family is None:
        return program.node_site(block.name).distribution in NORMAL
    return block.family.distribution_name in NORMAL and not isinstance(block.family, NoiseFamily)


def expected_prior(world: World, node: str, site: str) -> jax.Array:
    """E_q log p of a site, scaled and masked, in the shape of its term.

    Of a normal prior log p is a parabola in every number, for which two points at a standard deviation from the mean
    are enough, whatever q's correlations.
    """
    program, q = world.program, world.nodes[node].q
    output = f"p:{site}"

    def at(value: Any) -> jax.Array:
        placed = program.placed(node, value)
        own = program.traced.graph.inputs.get(f"node:{site}")
        return world.changed({own: placed[own]} if own in placed else placed).outputs([output])[output]

    if program.sites.samples[site].values is None:
        mean, deviation = q.mean, jnp.sqrt(q.variance)
        return (at(mean + deviation) + at(mean - deviation)) / 2
    total = jnp.zeros(())
    for value in program.branch_values(node):
        chosen = jnp.full(program.branch_shape(node), value)
        probability = jnp.exp(density_of(program.traced, node)(q, chosen))
        term = at(chosen)
        total = total + weighted(term, 1.0, probability > 0) * probability
    return total
