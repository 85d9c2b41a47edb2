"""A fitted q as a guide function of NumPyro."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from autovi.analysis.counted import partly_masked
from autovi.elimination.group import Together
from autovi.model.graph import like_traced
from autovi.model.guides import with_params
from autovi.model.sites import Site
from autovi.model.traced import KEY
from autovi.process import computing
from autovi.program.program import Program
from autovi.program.summing import drawn_from, log_conditional
from autovi.program.world import World
from autovi.result.handover.density import LANES
from autovi.result.posterior import Posterior

AUXILIARY = {"is_auxiliary": True}


@computing()
def to_numpyro_guide(fit: Posterior) -> Callable[..., None]:
    """The fitted q as a NumPyro guide function of the model's arguments, for `Predictive`, `log_density` and the like.

    It draws exactly q, not draws that are corrected by importance weights, as `fit.draws` may be: no guide function
    says those. Each block of the plan is an auxiliary site "{block}_q", of which the model's sites are `Delta`s with
    minus the Jacobian as `log_density`, as in NumPyro's AutoGuides: all log densities add up to log q on the sites' own
    scale, and `numpyro.infer.util.log_density(guide, args, kwargs, params)` is log q where `params` has the auxiliary
    sites. Sites that are summed out are drawn from their exact posterior given all else. Sites stand in their plates,
    at full size.

    q belongs to the data of the fit: the guide takes the model's arguments and does not look at them. Pass fitted
    parameters of the model itself to `Predictive` as `params=`. Of a fit with a guide function it is that function with
    its fitted parameters; what the model sums out beside it is not drawn.

    Raises:
        ValueError: a latent site of which a mask leaves out elements: these are drawn from their prior, which no guide
            says; or a model that has changed since the fit.

    Example:
        >>> guide = fit.to_numpyro_guide()
        >>> Predictive(model, guide=guide, num_samples=1000)(jax.random.key(0), **data)
    """
    fit.check_unchanged()
    if fit.guide is not None:
        declared = fit.engine.program.guide_sites
        assert declared is not None
        return with_params(fit.guide, {n: v for n, v in fit._site_params.items() if n in declared.params})
    program, arrays = fit.engine.full, fit.arrays
    masked = partly_masked(program.traced, fit.inputs) & (program.sites.latents.keys() - program.plan.marginal.keys())
    if masked:
        raise ValueError(
            f"site {sorted(masked)[0]!r}: a mask leaves out elements that nothing else feels, which are drawn from "
            "their prior; expected none for a guide function; fit.sample draws them"
        )
    if program.plan.ancestral:
        raise ValueError(
            f"site {program.plan.ancestral[0]!r}: nothing depends on it, so that it is drawn from its prior, which is "
            "not in q; expected none for a guide function; fit.sample draws it"
        )
    return partial(_guide, program, fit.raw_params, arrays)


def _guide(program: Program, params: Any, arrays: Any, *args: Any, **kwargs: Any) -> None:
    """Draws every block, and what is summed out given them. The model's arguments are not looked at."""
    graph = program.traced.graph
    indices = {n: jnp.arange(p.size) for n, p in program.sites.plates.items()}
    shared = program.shared(params, arrays, indices, (*program.everything, *program.outputs_for(["jacobian"])))
    key = graph.inputs[KEY]
    world = World(program, {**shared.values, key: like_traced(jax.random.key(0), key)}, shared.distributions, {})
    for name in program.order:
        q = world.distribution(name)
        world.place(name, numpyro.sample(f"{name}_q", q.to_event(len(q.batch_shape)), infer=AUXILIARY))
    for name in program.summed:
        world.values.update(program.placed(name, program.first_value(name)))
    forced: dict[str, Any] = {}
    for group in program.plan.groups:
        given = SummedOut(program, world, group)
        forced |= given.unpacked(numpyro.sample(f"{group.name}_q", given, infer=AUXILIARY))
    there = world.forced(forced) if forced else world
    for name, site in program.sites.latents.items():
        log_density = _minus_jacobian(program, there, name)
        _sample_delta(site, there.outputs([f"value:{name}"])[f"value:{name}"], log_density)


def _minus_jacobian(program: Program, world: World, site: str) -> jax.Array:
    """What a site adds to log q as its node becomes its value, by batch element."""
    jacobian = f"jacobian:{site}"
    if site not in program.unconstrained or not world.has(jacobian):
        return jnp.zeros(())
    return -world.outputs([jacobian])[jacobian]


def _sample_delta(site: Site, value: jax.Array, log_density: jax.Array) -> None:
    event_dim = len(site.event_shape)
    batch_shape = jnp.shape(value)[: jnp.ndim(value) - event_dim]
    with ExitStack() as plates:
        # Those of a scan's sites are inside of it, at one step.
        for plate in () if site.from_scan else site.plates:
            plates.enter_context(numpyro.plate(plate.name, plate.size, dim=plate.dim))
        numpyro.sample(site.name, dist.Delta(value, jnp.broadcast_to(log_density, batch_shape), event_dim=event_dim))


class SummedOut(dist.Distribution):
    """The posterior of a group of sites that are summed out, given all else of a particle, as one vector."""

    support = constraints.real_vector
    pytree_data_fields = ()

    def __init__(self, program: Program, world: World, group: Together):
        self._drawn = partial(drawn_from, program=program, world=world, group=group, lanes=LANES)
        self._log_prob = lambda values: log_conditional(program, world, world.forced(values), group, LANES)
        self._shapes = jax.eval_shape(self._drawn, jax.random.key(0))
        size = sum(prod(s.shape) for s in self._shapes.values())
        super().__init__(event_shape=(size,), validate_args=False)

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """A joint draw of all of them, one after the other."""
        if sample_shape:
            keys = jax.random.split(key, prod(sample_shape))
            return jax.vmap(self.sample)(keys).reshape(*sample_shape, *self.event_shape)
        drawn = self._drawn(key)
        return jnp.concatenate([jnp.ravel(drawn[n]).astype(float) for n in self._shapes])

    def log_prob(self, value: jax.Array, intermediates: Any = None) -> jax.Array:
        """log p(these | all else)."""
        return self._log_prob(self.unpacked(value))

    def unpacked(self, value: jax.Array) -> dict[str, jax.Array]:
        """The vector as values of the sites, of finite ones as places in their support."""
        found, offset = {}, 0
        for name, like in self._shapes.items():
            part = value[offset : offset + prod(like.shape)].reshape(like.shape)
            found[name] = (jnp.round(part) if jnp.issubdtype(like.dtype, jnp.integer) else part).astype(like.dtype)
            offset += prod(like.shape)
        return found
