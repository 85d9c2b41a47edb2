"""A start for NUTS from a fit: where chains begin, the mass matrix and the step size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.infer import MCMC, NUTS

from autovi.keys import as_key
from autovi.numbers import how_many
from autovi.process import computing
from autovi.result.covariance import LINEAR, draws_for_moments, is_off
from autovi.result.handover.density import Joint
from autovi.result.handover.mass import Blocks, flattened, inverse_mass_matrix
from autovi.result.handover.posterior import evaluated, joint_of, unconstrained_draws, why_not_numpyro
from autovi.result.posterior import Posterior
from autovi.run.checks import check_count
from autovi.run.drawing import DRAWS_BUDGET

NUM_DRAWS = 4_000  # of which the mass matrix is made, fewer where they would be very large
CLOSER = (1.0, 0.5, 0.25, 0.0)  # parts of the widening that a start is tried at
CANDIDATES = 4  # for each chain
# Steps of warm-up: for the step size alone, and with another mass matrix.
WARMUP = {False: 100, True: 500}


@dataclass(frozen=True, eq=False)
class NutsStart:
    """What NUTS needs to begin where a fit ended. All values are on NumPyro's unconstrained scale.

    Attributes:
        init_params: site -> `(num_chains, *shape)`, without the first axis for one chain: for
            `MCMC.run(init_params=...)`. They are posterior draws moved away from their mean (see `Fit.to_nuts`).
        inverse_mass_matrix: as NumPyro's NUTS takes it: names of sites -> the covariance `(D, D)` of their values, one
            after the other, or, of large sites, their variances `(D,)`.
        step_size: D ** (-1/4), the order at which the acceptance stays the same as D, the number of dimensions,
            grows (Beskos et al., 2013, "Optimal tuning of the hybrid Monte Carlo algorithm").
        adapts: is the mass matrix to be adapted in the warm-up too? Where q is far from the posterior.
        num_warmup: steps of warm-up that suffice: 100 for the step size alone, 500 with the mass matrix.
        said: what the mass matrix is of, in words.
        why: why the kernel runs on `potential_fn` and not on the model; empty where it runs on the model.

    Example:
        >>> start = fit.to_nuts()
        >>> mcmc = MCMC(start.kernel(), num_warmup=start.num_warmup, num_samples=500, num_chains=4)
        >>> mcmc.run(jax.random.key(0), **data, init_params=start.init_params)
    """

    init_params: dict[str, jax.Array]
    inverse_mass_matrix: Blocks
    step_size: float
    adapts: bool
    said: str
    why: str
    num_chains: int
    joint: Joint = field(repr=False)
    model: Any = field(repr=False)

    @property
    def num_warmup(self) -> int:
        """Steps of warm-up that suffice."""
        return WARMUP[self.adapts]

    def logdensity_fn(self, position: Mapping[str, Any]) -> jax.Array:
        """log p(x, position) in nats, the Jacobian included and discrete sites summed out: what BlackJAX takes."""
        return self.joint.log_density(position)

    def potential_fn(self, position: Mapping[str, Any]) -> jax.Array:
        """Minus `logdensity_fn`: what NumPyro takes."""
        return -self.joint.log_density(position)

    def constrain(self, position: Mapping[str, Any]) -> dict[str, jax.Array]:
        """All latent and deterministic sites at one position, on their own scale.

        Sites that are summed out are drawn from their exact posterior given all else. Their random numbers are a hash
        of the position, so that a function of it alone gives a joint draw.
        """
        flat = ravel_pytree({n: jnp.asarray(position[n], jnp.float32) for n in self.joint.sites})[0]
        bits = jax.lax.bitcast_convert_type(flat, jnp.uint32)
        odd = 2 * jax.random.bits(jax.random.key(0), bits.shape, jnp.uint32) + 1
        key = jax.random.fold_in(jax.random.key(1), jnp.sum(bits * odd, dtype=jnp.uint32))
        return self.joint.values(position, key)

    @property
    def flat_inverse_mass_matrix(self) -> np.ndarray:
        """The same for BlackJAX, in the order of `jax.flatten_util.ravel_pytree`: `(D, D)`, or the variances `(D,)`
        where large sites have no more."""
        if len(self.inverse_mass_matrix) == 1:
            return next(iter(self.inverse_mass_matrix.values()))
        parts: dict[str, np.ndarray] = {}
        for names, block in self.inverse_mass_matrix.items():
            sizes = [int(np.prod(self.joint.shapes[n], dtype=int)) for n in names]
            variances = np.diag(block) if block.ndim == 2 else block
            parts |= zip(names, np.split(variances, np.cumsum(sizes)[:-1]), strict=True)
        return np.concatenate([parts[n] for n in sorted(parts)])

    def kernel(self, **options: Any) -> NUTS:
        """NumPyro's NUTS with this mass matrix and step size; `options` go to `numpyro.infer.NUTS` and win.

        It runs on the model. Where NumPyro's potential of the model is not the density that was fitted (`why`: sites
        that are summed out, fitted parameters, subsampled plates), it runs on `potential_fn`: its draws are then
        unconstrained, and `MCMC(..., postprocess_fn=start.constrain)` makes values of them.
        """
        dense = [names for names, block in self.inverse_mass_matrix.items() if block.ndim == 2]
        target = {"potential_fn": self.potential_fn} if self.why else {"model": self.model}
        given = {
            **target,
            "step_size": self.step_size,
            "inverse_mass_matrix": {n: jnp.asarray(b) for n, b in self.inverse_mass_matrix.items()},
            "dense_mass": dense,
            "adapt_mass_matrix": self.adapts,
        }
        return NUTS(**{**given, **options})

    def mcmc(self, num_samples: int = 1000, num_warmup: int | None = None, **options: Any) -> MCMC:
        """NumPyro's MCMC with this kernel and as many chains as there are starts; `options` go to `numpyro.infer.MCMC`.
        Its `get_samples` are values of the sites in either case.

        Example:
            >>> mcmc = start.mcmc(500, chain_method="vectorized")
            >>> mcmc.run(jax.random.key(0), **data, init_params=start.init_params)
        """
        given = {
            "num_warmup": self.num_warmup if num_warmup is None else num_warmup,
            "num_samples": num_samples,
            "num_chains": self.num_chains,
            "postprocess_fn": self.constrain if self.why else None,
        }
        return MCMC(self.kernel(), **{**given, **options})

    def __repr__(self) -> str:
        blocks = [
            f"{'dense' if b.ndim == 2 else 'diagonal'} of {len(b)} ({', '.join(n)})"
            for n, b in self.inverse_mass_matrix.items()
        ]
        on = f"potential_fn, since {self.why}" if self.why else "the model"
        what = "step size and mass matrix" if self.adapts else "the step size alone"
        return (
            f"NutsStart: {how_many(self.num_chains, 'chain')} in {how_many(self.joint.size, 'dimension')}\n"
            f"    inverse mass matrix: {'; '.join(blocks)}; {self.said}\n"
            f"    warm-up: {self.num_warmup} steps, for {what}\n"
            f"    kernel: on {on}"
        )


@computing()
def to_nuts(
    fit: Posterior,
    num_chains: int = 4,
    *,
    rng_key: int | jax.Array | None = None,
    spread: float = 2.0,
    num_draws: int | None = None,
) -> NutsStart:
    r"""Where NUTS is to start: points, mass matrix and step size on NumPyro's unconstrained scale.

    The inverse mass matrix is the covariance of draws of the fit, of those that `fit.covariance()` takes: corrected by
    importance weights, or by linear response, where that helps. Correlations are shrunk by their own noise (Schäfer and
    Strimmer, 2005). Up to 600 dimensions it is dense; with more, the smallest sites share a dense block of up to 600,
    and all others have their variances.

    Chains start at draws moved away from the mean, :math:`m + s (u - m)` with s = `spread`, so that R-hat can tell
    chains that have not met (Gelman and Rubin, 1992): where density or gradient is not finite there, at half or a
    quarter of the way, or at the draw itself.

    Discrete sites are summed out if they can be; parameters (`numpyro.param`) have their fitted values, and subsampled
    plates are whole. Of a fit with a guide function, or with discrete sites in q, the density is that of the plan which
    autovi makes by itself.

    Args:
        num_chains: how many starts.
        rng_key: of the choice of starts; None: the same at every call.
        spread: how many times as far from the mean as draws the chains start, at least 1.
        num_draws: from how many the covariance is; None: 4,000, fewer of more than 5,000 dimensions.

    Returns:
        A `NutsStart`.

    Raises:
        ValueError: a discrete site that cannot be summed out, elements without a density under a mask, no continuous
            site, or no start with a finite density; says which.

    Example:
        >>> start = fit.to_nuts()
        >>> mcmc = start.mcmc(num_samples=500, chain_method="vectorized")
        >>> mcmc.run(jax.random.key(0), **data, init_params=start.init_params)
    """
    check_count("num_chains", num_chains)
    check_count("num_draws", num_draws, optional=True)
    if isinstance(spread, bool) or not isinstance(spread, int | float) or not 1 <= spread < np.inf:
        raise ValueError(f"spread: expected a number of at least 1, got {spread!r}")
    with fit._diagnosing("a start for NUTS"):
        joint = joint_of(fit)
        count = int(np.clip(DRAWS_BUDGET // joint.size, 100, NUM_DRAWS)) if num_draws is None else num_draws
        values, how = draws_for_moments(fit, count)
        draws = unconstrained_draws(fit, joint, values)
        kept = len(draws[joint.sites[0]])
        if kept < 2:
            raise ValueError(f"to_nuts: expected draws that are finite when unconstrained, got {kept} of {count}")
        key = jax.random.fold_in(fit.rng_key, 5) if rng_key is None else as_key(rng_key)
        starts, log_p = _starts(joint, draws, num_chains, float(spread), np.random.default_rng(_seed(key)))
        why = why_not_numpyro(fit, joint, starts, log_p)
    return NutsStart(
        init_params=starts if num_chains > 1 else {n: x[0] for n, x in starts.items()},
        inverse_mass_matrix=inverse_mass_matrix(draws),
        step_size=joint.size**-0.25,
        adapts=how != LINEAR and is_off(fit),
        said=f"{how_many(kept, 'draw')} ({how})",
        why=why,
        num_chains=num_chains,
        joint=joint,
        model=fit.model,
    )


def _seed(rng_key: jax.Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(rng_key)).ravel()


def _starts(
    joint: Joint, draws: dict[str, np.ndarray], num_chains: int, spread: float, rng: np.random.Generator
) -> tuple[dict[str, jax.Array], np.ndarray]:
    """The widened draws of as many chains, and the log density there."""
    kinds = {n: x.dtype for n, x in draws.items()}
    flat = flattened(draws, joint.sites)
    distinct = np.unique(flat, axis=0)
    number = CANDIDATES * num_chains
    chosen = rng.choice(len(distinct), number, replace=len(distinct) < number)
    mean, factors = flat.mean(axis=0), 1 + (spread - 1) * np.array(CLOSER)
    tried = mean + factors[:, None, None] * (distinct[chosen] - mean)  # (factors, candidates, D)
    sizes = [int(np.prod(joint.shapes[n], dtype=int)) for n in joint.sites]
    parts = np.split(tried.reshape(-1, tried.shape[-1]), np.cumsum(sizes)[:-1], axis=1)
    points = {
        n: jnp.asarray(part.reshape(-1, *joint.shapes[n]), kinds[n]) for n, part in zip(joint.sites, parts, strict=True)
    }
    log_p, finite = (x.reshape(len(CLOSER), number) for x in evaluated(joint, points))
    # The farthest factor first, and of each the first candidates.
    widest = np.argmax(finite, axis=0)
    good = np.flatnonzero(finite.any(axis=0))
    if len(good) < num_chains:
        raise ValueError(
            f"to_nuts: expected {num_chains} starts with a finite log density and gradient, got {len(good)} of "
            f"{number} draws of the fit; is the fit any good (fit.verdict)?"
        )
    order = good[np.argsort(widest[good], kind="stable")][:num_chains]
    places = widest[order] * number + order
    return {n: x[places] for n, x in points.items()}, log_p.ravel()[places]
