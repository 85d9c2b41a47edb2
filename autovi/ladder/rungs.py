"""What a rung of the ladder left, and when the ladder is climbed at all."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from autovi.model.traced import Traced
from autovi.objectives import Elbo, Objective
from autovi.plan.mapped import mappable
from autovi.plan.plan import Plan

# Of q found by a rung, for it to be the answer; the last one's is in any case. Pareto k below 0.5: the weights have a
# variance (Vehtari et al., 2024). An efficiency of nine tenths: q is the posterior but for what weights correct at
# hardly any cost. Of two fifths: a KL of half a nat, which draws correct where their weights have a variance. Where
# they have none, k-hat from 0.5 to 0.7, corrected draws are better than q's and their sds may still be a tenth short.
STOP = {"laplace": (0.5, 0.9), "matching": (0.5, 0.4), "richer": (0.5, 0.4)}


@dataclass(frozen=True)
class Rung:
    """A rung that was taken.

    Attributes:
        name: "mode", "curvature", "scales", "laplace", "matching", or the family of stochastic ADVI.
        said: what came out, in words.
        evaluations: gradients of the log density that it took.
        seconds: wall time, compilation included.
        elbo: of the q that it left, in nats; NaN where it left none.
    """

    name: str
    said: str
    evaluations: int = 0
    seconds: float = 0.0
    elbo: float = float("nan")

    def __str__(self) -> str:
        return f"{self.name} ({self.said})" if self.said else self.name


def why_not(traced: Traced, plan: Plan, objective: Objective, exact: Collection[str] | None = None) -> str | None:
    """Why the ladder cannot be climbed for a program under a plan: None where it can. `exact` are the sites of families
    of their own whose posterior is known; None: all of these."""
    if traced.guide_sites is not None:
        return "the guide function starts where its own parameters say"
    if traced.params:
        names = ", ".join(map(repr, traced.params))
        return f"the parameters {names} are found with q, by stochastic gradients"
    if traced.sites.subsampled:
        return "the model is fitted on batches, from which neither a mode nor a curvature is known"
    if not isinstance(objective, Elbo):
        return f"the objective is {objective.name!r}"
    if objective.closed:
        return "the objective takes terms in closed form"
    joint = any(mappable(b) for b in plan.blocks)
    if not joint and any(b.family is not None and b.family.unconstrained for b in plan.blocks):
        return "no sites are jointly normal"
    for block in plan.blocks:
        if block.family is None or not block.family.unconstrained:
            if exact is None or block.name in exact:
                continue
            return f"{block.sites[0]!r} is drawn from a family of its own"
        if not block.estimator.pathwise or block.estimator.has_surrogate:
            return (
                f"the gradient at {block.sites[0]!r} is not of the density alone (estimator {block.estimator.name!r})"
            )
    return None if plan.blocks else "every site is summed out exactly"
