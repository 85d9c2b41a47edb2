"""What the draws of a fit say of it: ELBO and the weights behind k-hat, from as many draws as do not take minutes."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import jax
import numpy as np

from autovi.result import export
from autovi.result.diagnostics import Elbo, elbo_of
from autovi.run.drawing import DENSITIES, batch_log_weights

if TYPE_CHECKING:
    from autovi.result.fit import Fit

WEIGHED_NUMBERS = 20_000_000_000  # that may be computed for the weights of draws: about half a minute of them


class Evidence:
    """ELBO and log weights of one fit, computed when they are asked for."""

    def __init__(self, fit: Fit):
        self._fit = fit

    @cached_property
    def num_weighed(self) -> int:
        """How many of the draws are weighed at full plates; 0 where those that may be are too few for k-hat."""
        fit = self._fit
        if fit._light or "draws" in vars(fit):
            return fit.num_draws
        few = WEIGHED_NUMBERS // fit.engine.numbers_per_draw
        return min(fit.num_draws, few) if few >= export.MIN_DRAWS_FOR_K else 0

    @cached_property
    def log_weights(self) -> np.ndarray:
        """log p(x, z) - log q(z) of the first draws, as many as are weighed."""
        fit = self._fit
        if not self.num_weighed:
            return np.zeros(0)
        if self.num_weighed == fit.num_draws:
            kept = fit._densities
        else:
            kept = fit._draw(self.num_weighed, jax.random.fold_in(fit.rng_key, 0), DENSITIES)
        return np.asarray(kept.log_p - kept.log_q)

    @cached_property
    def elbo(self) -> Elbo:
        """The ELBO and its standard error, from batches where no draws are weighed."""
        if self.num_weighed:
            return elbo_of(self.log_weights)
        fit = self._fit
        with fit._diagnosing("the ELBO"):
            key = jax.random.fold_in(fit.rng_key, 4)
            return elbo_of(batch_log_weights(fit.engine, fit.raw_params, fit._arrays, key, fit.num_draws))

    @cached_property
    def khat(self) -> float:
        """Pareto k of the weights; NaN where there are none."""
        return export.pareto_k(self.log_weights) if self.num_weighed else float("nan")

    @property
    def said(self) -> str:
        """What they are from, in words."""
        fit = self._fit
        if self.num_weighed:
            return f"{self.num_weighed} draws at full plates"
        plates = fit.engine.program.sites.subsampled.values()
        batches = ", ".join(f"{p.length} of the {p.size} elements of {p.name!r}" for p in plates)
        return f"{fit.num_draws} draws{f' on batches of {batches}' if batches else ''}; k-hat is not estimated"
