"""Draws, predictions and numbers of a fitted q, computed when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from autovi.keys import as_key
from autovi.model.inputs import Inputs
from autovi.model.new_data import bind_like
from autovi.process import computing
from autovi.result.diagnostics import GRADIENT_REPEATS, SiteGradient, gradient_summary
from autovi.result.signs import signs_of
from autovi.result.verdict import Verdict, verdict_of
from autovi.result.weighed import Weighed
from autovi.result.without_data import stand_in, undrawn
from autovi.run.checks import check_count
from autovi.run.drawing import MOST_LIKELY, VALUES, draws_of, gradients, keys_of
from autovi.run.marginals import probabilities
from autovi.run.predicting import predict
from autovi.run.weights import pareto_k_se


@dataclass(eq=False)
class Posterior(Weighed):
    """What of a `Fit` does not depend on how it is shown, stored or gone on with."""

    @property
    def log_weights(self) -> np.ndarray:
        """log p(x, z) - log q(z) of the draws of q that are weighed (see `estimated_from`)."""
        return self.evidence.log_weights

    @property
    def estimated_from(self) -> str:
        """What ELBO and k-hat are estimated from, in words."""
        return self.evidence.said

    @property
    def elbo(self) -> float:
        """The ELBO in nats, from `num_draws` draws of q at full plates. Where these would take minutes, it is from
        fewer, or from draws on batches as in the fit (see `estimated_from`)."""
        return self.evidence.elbo.value

    @property
    def elbo_se(self) -> float:
        """The Monte Carlo standard error of `elbo`, in nats."""
        return self.evidence.elbo.se

    @property
    def khat(self) -> float:
        """Pareto k of the importance weights p(x, z) / q(z) of draws of q: above 0.7 the posterior is not to be trusted
        as it is. NaN where the weights have no tail to fit, as where they are equal to rounding: q is the posterior.

        Vehtari et al. (2024), "Pareto smoothed importance sampling"; Yao et al. (2018), "Yes, but did it work?"
        """
        return self.evidence.khat

    @property
    def khat_se(self) -> float:
        """The standard error of `khat`: (1 + k) / sqrt(n) with n weights in the tail that is fitted (Smith, 1985)."""
        return pareto_k_se(self.khat, self.evidence.num_weighed)

    @property
    def efficiency(self) -> float:
        r"""The importance efficiency :math:`(\sum w)^2 / (n \sum w^2)` of draws of q, in (0, 1]: the share of them that
        stand for draws of the posterior. Of weights Pareto smoothed where they have a tail to fit; NaN where a weight
        is NaN or infinite, or none is known.
        """
        return self.evidence.efficiency

    @property
    def log_weight_sd(self) -> float:
        """The standard deviation of log p(x, z) - log q(z) over draws of q, in nats."""
        return self.evidence.log_weight_sd

    @cached_property
    def verdict(self) -> Verdict:
        """What to think of the posterior: its `word`, its `sentence`, and `remedies`, what to try. From the weights of
        draws of q, how the run ended, and what several starts found."""
        return verdict_of(signs_of(self, corrected=self.is_light or "chosen" in vars(self)))

    @property
    def is_weighed(self) -> bool:
        """Is the verdict there without anything that takes long?"""
        return self.is_light or not self.evidence.num_weighed or "densities" in vars(self.evidence)

    @cached_property
    @computing()
    def gradients(self) -> dict[str, SiteGradient]:
        """Variance and signal-to-noise ratio of the gradient estimate of one step, at the fitted parameters.

        By latent site; sites that share a block share its numbers. Parameter sites by name. Sites that are summed out
        have no gradient.
        """
        key = jax.random.fold_in(self.rng_key, 1)
        with self._diagnosing("the noise of gradients"):
            sampled = gradients(self.engine, self.raw_params, self.state.estimators, self.arrays, key, GRADIENT_REPEATS)
        of_block = gradient_summary(sampled["guide"])
        blocks = self.engine.program.plan.blocks
        of_site = {s: of_block[b.name] for b in blocks if b.name in of_block for s in b.sites}
        return {**of_site, **gradient_summary(sampled["param"])}

    @computing()
    def sample(
        self,
        num_draws: int,
        rng_key: int | jax.Array | None = None,
        resample: bool | None = None,
        discrete: str = "draw",
    ) -> dict[str, np.ndarray]:
        """Posterior draws: name -> `(num_draws, *shape)`, constrained, deterministic sites included.

        Args:
            num_draws: how many.
            rng_key: None: the draws are the same at every call.
            resample: None: resampled by importance where the weights say that it helps (k-hat below 0.7, efficiency
                below 0.95, no batches, not over data that take long; `drawn` says it of `draws`), drawn from q
                otherwise. True and False ask for one or the other. For resampled draws up to 100,000 draws of q are
                weighed, or four for each that is asked for; where the weights have no variance (k-hat above 0.5), of
                proposals wider than q, if these have better weights.
            discrete: "draw": sites that are summed out are drawn jointly from their posterior given all else of the
                draw; "map": they are at their most likely configuration given it (of a chain, Viterbi's).

        Raises:
            ValueError: `resample=True` where a weight is NaN or infinite, or all are zero; another word in `discrete`.
        """
        check_count("num_draws", num_draws)
        if resample not in (None, True, False):
            raise ValueError(f"resample: expected None, True or False, got {resample!r}")
        if discrete not in ("draw", "map"):
            raise ValueError(f"discrete: expected 'draw' or 'map', got {discrete!r}")
        kinds = (VALUES, MOST_LIKELY) if discrete == "map" else (VALUES,)
        count, asked = int(num_draws), resample is not None
        key = jax.random.fold_in(self.rng_key, 2) if rng_key is None else as_key(rng_key)
        if self.lacks_data:
            lost = undrawn(self.engine.full, resample, discrete)
            arrays = {n: stand_in(x) for n, x in self.inputs.traced().items()}
            with self._drawing(count):
                drawn = draws_of(self.engine, self.raw_params, arrays, keys_of(key, count), kinds).values
            return {n: x for n, x in drawn.items() if n not in lost}
        wanted = resample if asked else self._is_wider or (self._advice(count).resample and self.resampled)
        with self._drawing(count):
            chosen = self._chosen(count, key, asked, self._is_wider) if wanted else None
            keys = keys_of(key, count) if chosen is None else chosen.keys
            return dict(self._drawn(keys, *kinds).values)

    @computing()
    def marginals(self) -> dict[str, np.ndarray]:
        """Discrete site with a finite support -> `(*shape, K)`: the posterior probability of each of its values, in
        ascending order.

        Of sites that are summed out they are averages, over up to 1,000 of `draws`, of exact probabilities given all
        else of the draw (Rao-Blackwellization): far less noisy than counts of draws. Of sites in the guide they are
        q's. Without discrete sites it is empty.

        Example:
            >>> fit.marginals()["state"][10, 1]  # the probability that step 10 is in state 1
        """
        keys = keys_of(self._own_key, self.num_draws) if self.chosen is None else self.chosen.keys
        with self._diagnosing("marginal probabilities"):
            return probabilities(self.engine, self.raw_params, self.arrays, keys)

    @computing()
    def predict(
        self,
        new_data: Any = None,
        *,
        num_draws: int | None = None,
        rng_key: int | jax.Array | None = None,
        batch_size: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Posterior predictive draws: name -> `(num_draws, *shape)` of observed and deterministic sites.

        `new_data` takes the form of `fit`'s data, without the observations (None: the data of the fit). Latent sites
        of a plate that has another size there are drawn anew, from their prior given the rest, and returned as well.
        Without `num_draws` the latent values are those in `idata`; without `rng_key` the draws are the same at every
        call. `batch_size` draws are made at once (None: so many as hold about twenty million numbers).

        Raises:
            ValueError: `new_data` does not fit the model; the message names the argument.
        """
        check_count("batch_size", batch_size, optional=True)
        if new_data is None and self.lacks_data:
            raise ValueError(
                "new_data: this fit was loaded without its data; give new ones, or autovi.load(..., data=...)"
            )
        inputs = self.inputs if new_data is None else bind_like(self.model, new_data, self.inputs)
        return self.predicted(inputs, num_draws, rng_key, batch_size)

    def predicted(
        self,
        inputs: Inputs,
        num_draws: int | None = None,
        rng_key: int | jax.Array | None = None,
        batch_size: int | None = None,
    ) -> dict[str, np.ndarray]:
        """`predict` for data that are bound to the model already."""
        key = jax.random.fold_in(self.rng_key, 3) if rng_key is None else as_key(rng_key)
        latent_key, key = jax.random.split(key)
        if num_draws is None and self.lacks_data:
            values = self.sample(self.num_draws, self._own_key)
        else:
            values = self.values if num_draws is None else self.sample(num_draws, latent_key)
        latent = {n: v for n, v in values.items() if n in self.engine.program.sites.latents}
        if lost := sorted(set(self.engine.program.sites.latents) - set(latent)):
            raise ValueError(
                f"data: {lost} cannot be drawn without them; give them to autovi.load(path, model, data=...)"
            )
        with self._diagnosing("predictions"):
            return predict(self.engine, self.model, inputs, latent, self._site_params, key, batch_size)

    @cached_property
    @computing()
    def observed(self) -> dict[str, np.ndarray]:
        """The observed values at full plates, by site."""
        with self._diagnosing("the observed values"):
            return {n: np.asarray(v) for n, v in self.engine.observed(self.arrays).items()}
