"""Draws of a fitted q with their weights, and which of them stand for draws of the posterior."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np

from autovi.numbers import how_many
from autovi.process import computing
from autovi.result.evidence import Evidence, num_weighed
from autovi.result.fitted import Fitted
from autovi.result.resampling import (
    Advice,
    Chosen,
    Densities,
    Unusable,
    advice,
    choose,
    doubt,
    is_better,
    proposals_limit,
    wants_wider,
)
from autovi.run.background import Compiling
from autovi.run.drawing import (
    DENSITIES,
    DRAWS_BUDGET,
    EVERY,
    LIKELIHOODS,
    VALUES,
    Draws,
    Keys,
    batch_log_weights,
    compiling_draws,
    draws_of,
    kept_per_draw,
    keys_of,
)
from autovi.run.widening import can_widen


@dataclass(eq=False)
class Weighed(Fitted):
    """The draws of a `Fit`, corrected by importance weights where that helps."""

    def _drawn(self, keys: Keys, *kinds: str) -> Draws:
        """The draws of q that belong to the keys. That the model is unchanged is for the caller to see to."""
        return draws_of(self.engine, self.raw_params, self.arrays, keys, kinds)

    def prepare(self, after: Compiling | None) -> None:
        """Begins to compile what weighs the draws of q, of which only the shapes matter yet, `after` something else."""
        if self.evidence.num_weighed:
            kinds = EVERY if self.is_light else (DENSITIES,)
            keys = keys_of(self._own_key, 1)
            compiling_draws(self.engine, self.state.fitted, self.arrays, self.evidence.num_weighed, kinds, keys, after)

    def _drawing(self, num_draws: int) -> AbstractContextManager[None]:
        return self._diagnosing(f"{how_many(num_draws)} posterior draws")

    @property
    @computing()
    def _own_key(self) -> jax.Array:
        """The key of `draws`."""
        return jax.random.fold_in(self.rng_key, 0)

    @cached_property
    @computing()
    def _own(self) -> Draws:
        """`num_draws` draws of q with all that belongs to them; for what is light."""
        with self._drawing(self.num_draws):
            return self._drawn(keys_of(self._own_key, self.num_draws), *EVERY)

    @cached_property
    def is_light(self) -> bool:
        """Is all that belongs to the draws small enough to be made and kept at once?"""
        return self.num_draws * kept_per_draw(self.engine, (VALUES, LIKELIHOODS)) <= DRAWS_BUDGET

    @cached_property
    def advice(self) -> Advice:
        """Whether `draws` are to be corrected by importance weights, and why, in words."""
        return self._advice(self.num_draws)

    def _advice(self, num_draws: int) -> Advice:
        subsampled = bool(self.engine.program.sites.subsampled)
        return advice(self.evidence, num_draws, self.engine.numbers_per_draw, subsampled)

    @property
    def resampled(self) -> bool:
        """Are `draws`, those in `idata`, corrected by importance weights? `drawn` says how, or why not."""
        return self.chosen is not None

    @property
    def drawn(self) -> str:
        """How `draws` were made, in words: from q, and why, or resampled from it by importance."""
        return self._correction[1]

    @cached_property
    def chosen(self) -> Chosen | None:
        """The draws of q that `draws` are, where these are corrected."""
        return self._correction[0]

    @cached_property
    @computing()
    def proposed(self) -> Chosen | None:
        """What corrected draws would be chosen from, where there is something to correct: far more weighed draws than
        the fit has."""
        if not self.advice.resample:
            return None
        with self._drawing(self.num_draws):
            return self._chosen(self.num_draws, self._own_key, asked=False)

    @cached_property
    @computing()
    def wider(self) -> Chosen | None:
        """The same of proposals wider than q, where its own draws miss a part of the posterior."""
        program = self.engine.program
        if program.sites.subsampled or not can_widen(self.engine.full):
            return None
        if not wants_wider(self.evidence, self.proposed, self.num_draws, self.engine.numbers_per_draw):
            return None
        with self._drawing(self.num_draws):
            return self._chosen(self.num_draws, self._own_key, asked=False, widened=True)

    @property
    def _is_wider(self) -> bool:
        """Are `draws` chosen from proposals wider than q?"""
        return self.chosen is not None and self.chosen is self.wider

    @cached_property
    def _correction(self) -> tuple[Chosen | None, str]:
        """What `draws` are chosen from, if they are corrected; what was done and why, in words."""
        if self.wider is not None and is_better(self.wider, self.proposed, self.evidence.efficiency):
            return self.wider, self.wider.said
        if not self.advice.resample:
            return None, self.advice.why
        if self.proposed is None:
            return None, "drawn from q: a weight of its draws is NaN"
        refused = doubt(self.proposed)
        return (None, refused) if refused else (self.proposed, self.proposed.said)

    def _chosen(self, num_draws: int, rng_key: jax.Array, asked: bool, widened: bool = False) -> Chosen | None:
        """Corrected draws; None where they cannot be and were not asked for."""

        def weigh(keys: Keys) -> Densities:
            drawn = self._drawn(keys, DENSITIES)
            return Densities(drawn.log_p, drawn.log_q, drawn.log_proposal)

        limit = proposals_limit(num_draws, self.engine.numbers_per_draw, asked)
        efficiency = 1.0 if asked and not self.is_light else self.evidence.efficiency
        try:
            return choose(weigh, rng_key, num_draws, efficiency, limit, widened)
        except Unusable as error:
            if asked:
                raise ValueError(f"resample: {error}; resample=False gives draws from q as it is") from None
            return None

    def _kept(self, *kinds: str) -> Draws:
        """What is asked for of `draws`."""
        keys = keys_of(self._own_key, self.num_draws) if self.chosen is None else self.chosen.keys
        with self._drawing(self.num_draws):
            return self._drawn(keys, *kinds)

    @cached_property
    @computing()
    def draws(self) -> Draws:
        """`num_draws` posterior draws with their log densities, the ones in `idata`; with the log likelihoods of the
        observations where these are few enough to be held beside them (see `log_likelihoods`). `resampled` says whether
        they are corrected by importance weights."""
        if self.is_light:
            return self._own if self.chosen is None else self._kept(*EVERY)
        return self._kept(DENSITIES, VALUES)

    @cached_property
    @computing()
    def values(self) -> dict[str, np.ndarray]:
        """The values of `draws`, without their densities where these take long."""
        return (self.draws if self.is_light or "draws" in self.__dict__ else self._kept(VALUES)).values

    @property
    @computing()
    def log_likelihoods(self) -> dict[str, np.ndarray]:
        """Observed site -> `(num_draws, *shape)`, the log likelihood of each observation under each of `draws`."""
        return (self.draws if self.is_light else self._kept(LIKELIHOODS)).log_likelihoods

    @cached_property
    @computing()
    def densities(self) -> Draws:
        """`draws` with log p and log q, the values left out where they are large."""
        return self.draws if self.is_light or "draws" in self.__dict__ else self._kept(DENSITIES)

    @cached_property
    def evidence(self) -> Evidence:
        """ELBO and weights of q, each computed when it is asked for: of draws of q, whether or not `draws` are."""
        plates = self.engine.program.sites.subsampled.values()
        batches = ", ".join(f"{p.length} of the {p.size} elements of {p.name!r}" for p in plates)
        weighed = num_weighed(self.num_draws, self.engine.numbers_per_draw, bool(plates))
        known = self.is_light or "draws" in vars(self)
        return Evidence(self.num_draws, self.num_draws if known else weighed, self._weigh, self._weigh_batches, batches)

    @computing()
    def _weigh(self, num_draws: int) -> tuple[np.ndarray, np.ndarray]:
        """log p(x, z) and log q(z) of the first draws of q at full plates."""
        uncorrected = vars(self).get("draws") if vars(self).get("chosen", self) is None else None
        if self.is_light and num_draws == self.num_draws:
            kept = self._own
        elif uncorrected is not None and num_draws == self.num_draws:
            kept = uncorrected
        else:
            with self._drawing(num_draws):
                kept = self._drawn(keys_of(self._own_key, self.num_draws).at(np.arange(num_draws)), DENSITIES)
        return np.asarray(kept.log_p), np.asarray(kept.log_q)

    def _weigh_batches(self) -> np.ndarray:
        """Estimates of it, each of another draw on a batch of its own."""
        key = jax.random.fold_in(self.rng_key, 4)
        with self._diagnosing("the ELBO"):
            return batch_log_weights(self.engine, self.raw_params, self.arrays, key, self.num_draws)
