"""Every threshold that a verdict hangs on, in one table, fixed before any fit was looked at."""

from __future__ import annotations

from math import nan
from typing import NamedTuple


class Thresholds(NamedTuple):
    """What is good enough, and why so.

    A difference of 0.1 nat in the ELBO is one in KL(q, posterior). A Gaussian that is off by KL nats in one direction
    has its mean off by sqrt(2 KL) posterior standard deviations there, and KL is about half the variance of log w.
    """

    # --- when a run has converged (`run/outlook.py`) ---
    # Nats that going on may still gain, and to which the loss has to be known.
    nats: float = 0.1
    # Standard errors that are added to a predicted gain before a fit ends, of a t distribution's quantile: 0.3 % on one
    # side, since a fit is looked at often.
    errors_to_stop: float = 2.75
    # The same before the learning rate is lowered: too early costs steps, and the last level is looked at closely.
    errors_to_lower: float = 1.0

    # --- what the weights p / q say of q (`result/verdict.py`) ---
    # Pareto k (Vehtari et al., 2024): below 0.5 the weights have a variance; below 0.7 importance sampling works with
    # numbers of draws that one can afford; from 1 on the weights have no mean.
    khat_good: float = 0.5
    khat_usable: float = 0.7
    khat_no_mean: float = 1.0
    # Importance efficiency (sum w)^2 / (n sum w^2), about exp(-var log w): 0.8 is a KL of about 0.1 nat.
    efficiency_good: float = 0.8
    # From here on the weights are so alike (sd of log w below 0.23, KL below 0.03 nats) that there is nothing for draws
    # to correct, and k-hat is the shape of what noise is left in them: a one-parameter conjugate fit had k-hats from
    # 0.08 to 1.96 at efficiencies of 0.996.
    efficiency_alike: float = 0.95
    # KL(posterior, q) in nats, seen by proposals wider than q, up to which weights that look alike are alike. (A
    # Student's t of 3 degrees of freedom under its best normal: an efficiency of 0.97 by 1,000 draws, a KL of 0.2.)
    divergence_alike: float = 0.03
    # Effective draws among those weighed, below which the weights cannot vouch for themselves: what is asked of a
    # Markov chain (Vehtari et al., 2021).
    effective_draws: float = 100.0
    # Part of 1,000 draws that this is: a lower efficiency is blamed on q, a higher one on too few draws.
    efficiency_usable: float = 0.1

    # --- what several starts say ---
    # Weight by Laplace's approximation of the modes that q is not at, beyond which they matter: -log(1 - 0.1) is a KL
    # of 0.1 nat.
    other_modes: float = 0.1
    # R-hat between restarts, of means and of spread: 1.01 as for chains (Vehtari et al., 2021), restarts whose means
    # differ by 0.14 posterior standard deviations.
    rhat: float = 1.01

    def are_alike(self, efficiency: float, divergence: float = nan) -> bool:
        """Are weights of this efficiency so alike that k-hat is the shape of noise? `divergence` is KL(posterior, q) in
        nats as proposals wider than q see it; NaN where none were weighed."""
        return efficiency >= self.efficiency_alike and not divergence > self.divergence_alike


THRESHOLDS = Thresholds()
