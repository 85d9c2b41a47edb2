"""What a verdict is made from."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

from autovi.run.starts import Agreement, Modes


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
        elbo, elbo_se: nats.
        gain, gain_se, loss_se: what the last look at the loss expected (see `Outlook`), nats.
        coupled: discrete sites that q has independent of what they meet.
        points: sites that have one value in q.
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
    elbo: float = nan
    elbo_se: float = nan
    gain: float | None = None
    gain_se: float | None = None
    loss_se: float | None = None
    coupled: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    modes: Modes | None = None
    restarts: Agreement | None = None

    @property
    def effective_draws(self) -> float:
        """For how many draws of the posterior those that were weighed stand."""
        return self.efficiency * self.num_weighed

    @property
    def other_mass(self) -> float:
        """The part of the modes that q is not at, by Laplace's approximation; 0 where it is not known."""
        share = nan if self.modes is None else self.modes.share
        return 1 - share if share == share else 0.0
