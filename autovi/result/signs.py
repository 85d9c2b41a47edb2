"""What a verdict is made from."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING

from autovi.result.diagnostics import Elbo
from autovi.run.starts import Agreement, Modes
from autovi.run.thresholds import THRESHOLDS
from autovi.run.weights import EQUAL, TIED

if TYPE_CHECKING:
    from autovi.result.posterior import Posterior

# What of a plan's guide is said otherwise: a function may be one of one's own or NumPyro's.
CUSTOM = "custom"
GUIDES = ("auto", "mean_field", "low_rank", "full_rank", "flow")


@dataclass(frozen=True)
class Signs:
    """What is known of a fit; what is not is NaN, None or empty.

    Attributes:
        status: how the run ended.
        asked_steps: were the steps a number that was asked for?
        guide: "auto", "mean_field" and so on; "custom" for a guide function.
        num_particles: of a step.
        subsampled: is the model fitted on batches?
        num_weighed: how many draws were weighed.
        khat, efficiency, log_weight_sd: of their weights.
        equal: these differ by rounding only.
        tied: their tail has no shape that could be fitted, as of discrete draws.
        wider_khat, wider_draws, wider_effective: of proposals wider than q, where draws are chosen from those:
            k-hat, how many were weighed, and for how many draws of the posterior they stand.
        divergence: KL(posterior, q) in nats, as they see it, wherever they were weighed.
        elbo, elbo_se: nats.
        gain, gain_se, loss_se: what the last look at the loss expected (see `Outlook`), nats.
        coupled: discrete sites that q has independent of what they meet.
        points: sites that have one value in q.
        biased: sites whose gradients are biased, with their estimators.
        modes, restarts: what several starts found.
    """

    status: str
    asked_steps: bool = False
    guide: str = "auto"
    num_particles: int = 1
    subsampled: bool = False
    num_weighed: int = 0
    khat: float = nan
    efficiency: float = nan
    log_weight_sd: float = nan
    equal: bool = False
    tied: bool = False
    wider_khat: float = nan
    wider_draws: int = 0
    wider_effective: float = nan
    divergence: float = nan
    elbo: float = nan
    elbo_se: float = nan
    gain: float | None = None
    gain_se: float | None = None
    loss_se: float | None = None
    coupled: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    biased: tuple[tuple[str, str], ...] = ()
    modes: Modes | None = None
    restarts: Agreement | None = None

    @property
    def effective_draws(self) -> float:
        """For how many draws of the posterior those that were weighed stand."""
        return self.efficiency * self.num_weighed

    @property
    def alike(self) -> bool:
        """Are the weights so alike that k-hat is the shape of noise?"""
        return THRESHOLDS.are_alike(self.efficiency, self.divergence)

    @property
    def other_mass(self) -> float:
        """The part of the modes that q is not at, by Laplace's approximation; 0 where it is not known."""
        share = nan if self.modes is None else self.modes.share
        return 1 - share if share == share else 0.0


def signs_of(fit: Posterior, corrected: bool = False) -> Signs:
    """What is known of a fit, once its draws are weighed; `corrected`: with what its draws are chosen from.

    Where there is something to correct, far more draws were weighed for it, and theirs are the weights that are looked
    at: few draws may see nothing of a tail that is too heavy. (Neal's funnel under independent normals: k-hat 0.6 and
    an efficiency of 0.17 by 1,000 draws, 1.1 and 0.01 by 20,000.)
    """
    plan, progress, evidence = fit.plan, fit.progress, fit.evidence
    why = evidence.khat_why
    num_weighed, khat, efficiency = evidence.num_weighed, evidence.khat, evidence.efficiency
    if (fit.is_light or "proposed" in vars(fit)) and fit.proposed is not None:
        num_weighed, weights = fit.proposed.num_proposals, fit.proposed.weights
        khat, efficiency, why = weights.khat, weights.efficiency, weights.why
    # Without weights the ELBO is from batches, which takes long: it is not made for a look.
    wider = fit.wider if corrected else None
    taken = wider if wider is not None and fit.chosen is wider else None
    elbo = evidence.elbo if num_weighed or "elbo" in vars(evidence) else Elbo(nan, nan)
    return Signs(
        status=fit.status,
        asked_steps=progress.num_steps is not None,
        guide=plan.guide if plan.guide in GUIDES else CUSTOM,
        num_particles=plan.num_particles,
        subsampled=bool(fit.engine.program.sites.subsampled),
        num_weighed=num_weighed,
        khat=khat,
        efficiency=efficiency,
        log_weight_sd=evidence.log_weight_sd,
        equal=why == EQUAL,
        tied=why == TIED,
        wider_khat=nan if taken is None else taken.weights.khat,
        wider_draws=0 if taken is None else taken.num_proposals,
        wider_effective=nan if taken is None else taken.effective,
        divergence=nan if wider is None else wider.divergence,
        elbo=elbo.value,
        elbo_se=elbo.se,
        gain=progress.gain,
        gain_se=progress.gain_se,
        loss_se=progress.loss_se,
        coupled=tuple(plan.coupled),
        points=tuple(choice.site for choice in plan.choices if choice.family == "delta"),
        biased=tuple(plan.biased.items()),
        modes=progress.modes,
        restarts=progress.restarts,
    )
