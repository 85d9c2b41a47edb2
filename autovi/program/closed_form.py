"""Cost terms in closed form in the place of sampled ones: the entropy of q, and the expected log density of a prior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from autovi.distributions.densities import log_density
from autovi.distributions.registry import strip
from autovi.distributions.two_points import NORMALS, POINTS, serves, two_points
from autovi.families.base import NoiseFamily
from autovi.model.traced import weighted
from autovi.program.nodes import density_of

if TYPE_CHECKING:
    from autovi.plan.plan import Block
    from autovi.program.wiring import Wiring
    from autovi.program.world import World


def entropy_of(q: Distribution) -> jax.Array | None:
    """The entropy `[*batch]`; None where it is not known.

    Where two points have it, it is of them: NumPyro's own loses its digits in float32 where concentrations are large.
    """
    points = two_points(q) if type(strip(q)).__name__ in POINTS.keys() - NORMALS else None
    if points is not None:
        return -(log_density(q, points[0]) + log_density(q, points[1])) / 2
    try:
        return q.entropy()
    except (AttributeError, NotImplementedError):
        return None


def known_priors(program: Wiring) -> frozenset[str]:
    """The sites whose prior's expected log density is known: it depends on no other latent site, and is of q's kind, or
    the support is finite."""
    found: list[str] = []
    for block in program.plan.blocks:
        for name in block.sites:
            site = program.sites.samples.get(name)
            # In a scan the steps of one site depend on one another.
            if site is None or site.from_scan or program.structure.upstream.get(f"p:{name}") != (name,):
                continue
            finite = site.values is not None and site.batch_shape == program.node_site(name).batch_shape
            if finite or serves(_class_of(program, block), site.distribution):
                found.append(name)
    return frozenset(found)


def _class_of(program: Wiring, block: Block) -> str:
    """NumPyro's class of q; of a family that is a map of noise none, as it has no two points."""
    if block.family is None:
        return program.node_site(block.name).distribution
    return "" if isinstance(block.family, NoiseFamily) else block.family.distribution_name


def expected_prior(world: World, node: str, site: str) -> jax.Array:
    """E_q log p of a site, scaled and masked, in the shape of its term.

    Of a prior of q's kind two points of q are enough.
    """
    program, q = world.program, world.nodes[node].q
    output = f"p:{site}"

    def at(value: Any) -> jax.Array:
        placed = program.placed(node, value)
        own = program.traced.graph.inputs.get(f"node:{site}")
        return world.changed({own: placed[own]} if own in placed else placed).outputs([output])[output]

    if program.sites.samples[site].values is None:
        points = two_points(q)
        assert points is not None
        return (at(points[0]) + at(points[1])) / 2
    total = jnp.zeros(())
    for value in program.branch_values(node):
        chosen = jnp.full(program.branch_shape(node), value)
        probability = jnp.exp(density_of(program.traced, node)(q, chosen))
        term = at(chosen)
        total = total + weighted(term, 1.0, probability > 0) * probability
    return total
