"""Proposals that are wider than q, from which corrected draws are chosen where q is too narrow for its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.analysis.counted import masked_sites
from autovi.estimators import Sticking
from autovi.plan.plan import Block
from autovi.program.program import Program

WIDTHS = 4  # of which the first is q's own
STEP = 1.2  # standard deviations of the logarithm of the noise's length, from a width to the next
_OWN_KEY = 0x57494445  # folded into a draw's key: beside the sites' numbers, which are hashes of their names


def widths(size: int) -> np.ndarray:
    r"""The factors by which `size` standard normal numbers are scaled, :math:`s_k = \exp(1.2 k / \sqrt{2 D})`.

    The logarithm of the length of D normal numbers has a standard deviation of about :math:`1 / \sqrt{2 D}`, so that
    each width overlaps the one before it, whatever D is.

    Example:
        >>> widths(8).round(2).tolist()
        [1.0, 1.35, 1.82, 2.46]
    """
    return np.exp(STEP * np.arange(WIDTHS) / np.sqrt(2 * size))


def of_noise(program: Program) -> Program:
    """The same q, with draws that are made from arrays of standard normal noise wherever they are maps of it."""
    is_map = lambda b: b.family is not None and b.estimator.pathwise and Sticking.name in b.family.estimators  # noqa: E731
    blocks = tuple(replace(b, estimator=Sticking()) if is_map(b) else b for b in program.plan.blocks)
    return replace(program, plan=replace(program.plan, blocks=blocks))


def can_widen(program: Program) -> bool:
    """Has the guide a block that can be drawn wider?"""
    return bool(_wide(of_noise(program)))


def _wide(program: Program) -> list[Block]:
    """The blocks whose draws are maps of noise all of which counts: of a site under a mask it may not."""
    masked = set(masked_sites(program.traced))
    return [b for b in program.plan.blocks if b.estimator.of_normal_noise and not masked & set(b.sites)]


def widened(
    program: Program, rng_key: jax.Array, noise: Mapping[str, Any], wide: jax.Array
) -> tuple[dict[str, Any], jax.Array]:
    r"""The noise of one draw, where `wide` is true scaled by one of `widths` at random, and log m / q there, m being
    the density of all that may be drawn so.

    With z = T(eps) and eps ~ N(0, I) in D dimensions, the draws T(s eps) have the density
    :math:`q_s(z) = q(z) s^{-D} \exp(\frac12 |T^{-1}(z)|^2 (1 - s^{-2}))`, and m is the mean of :math:`q_s` over the
    widths. As one of these is 1, :math:`p / m \le 4 p / q` everywhere, and in the tails m is far heavier than q.
    Hesterberg (1995), "Weighted Average Importance Sampling and Defensive Mixture Distributions".
    """
    names = [block.name for block in _wide(program)]
    if not names:
        return dict(noise), jnp.zeros(())
    size = sum(noise[name].size for name in names)
    factors = jnp.asarray(widths(size), jnp.float32)
    chosen = jax.random.choice(jax.random.fold_in(rng_key, _OWN_KEY), factors)
    factor = jnp.where(wide, chosen, 1.0)
    scaled = {name: noise[name] * factor.astype(noise[name].dtype) for name in names}
    length = sum(jnp.sum(jnp.square(x)) for x in scaled.values())
    log_ratios = 0.5 * length * (1 - factors**-2) - size * jnp.log(factors)
    return {**noise, **scaled}, jnp.where(wide, jax.nn.logsumexp(log_ratios) - np.log(WIDTHS), 0.0)
