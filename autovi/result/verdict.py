"""What to think of a posterior: a word, a sentence, and what to try. Its thresholds are in `run/thresholds.py`, its
rules in `findings.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autovi.result.findings import Finding, findings
from autovi.result.signs import Signs

# The words of a verdict, and what each means, as docs/trusting.md has them.
WORDS = {
    "good": "q is close to the posterior, as far as its own draws can tell",
    "usable": "q is off, and importance weights correct it: corrected draws are good; with a k-hat above 0.5 they "
    "may still be off, means and sds by a tenth of an sd or more",
    "family_too_small": "the loss has come to a stand, and the weights say that q is not close",
    "not_converged": "the loss had not come to a stand, and the weights do not vouch for q",
    "noisy": "noise hides whether the loss still falls, and the weights do not vouch for q",
    "bad_start": "no start reached a mode, and the weights do not vouch for q",
    "other_modes": "starts found modes that q is not at, with a part of the mass that matters",
    "starts_disagree": "restarts ended at different posteriors",
    "mean_field": "discrete sites that meet in the model are independent in q",
    "biased": "gradients were biased, so that q ends beside the optimum of its family",
    "point_estimate": "sites with the family `delta` have one value, and no uncertainty",
    "too_few_draws": "too few draws were weighed to say how close q is",
    "not_weighed": "to weigh draws would take minutes, so only the loss speaks for q",
    "failed": "steps of the run, or weights of draws, are not finite",
}


@dataclass(frozen=True)
class Verdict:
    """What to think of a posterior.

    Attributes:
        findings: what was found, the worst first; never empty.
        numbers: what it was found from: `khat`, `efficiency`, `log_weight_sd`, `elbo`, `elbo_se`, `num_weighed`, and
            where they are known `gain` and `loss_se` (nats), `other_modes` (a part of the mass) and `rhat`.

    Example:
        >>> verdict = verdict_of(Signs("converged", num_weighed=1000, khat=0.2, efficiency=0.97))
        >>> verdict.word, verdict.warns
        ('good', False)
    """

    findings: tuple[Finding, ...]
    numbers: Mapping[str, float]

    @property
    def word(self) -> str:
        """One of `WORDS`."""
        return self.findings[0].word

    @property
    def sentence(self) -> str:
        """It in words, with the numbers that say so."""
        return self.findings[0].said

    @property
    def remedies(self) -> tuple[str, ...]:
        """What to try, the best first; empty where nothing is wrong."""
        return self.findings[0].remedies

    @property
    def warns(self) -> bool:
        """Does anything speak against using the posterior?"""
        return bool(warnings_of(self))

    def __str__(self) -> str:
        return "\n".join(f"{finding.word}: {finding.text}" for finding in self.findings)


def verdict_of(signs: Signs) -> Verdict:
    """The verdict on what is known of a fit."""
    numbers = {n: getattr(signs, n) for n in ("khat", "efficiency", "log_weight_sd", "elbo", "elbo_se", "num_weighed")}
    numbers |= {n: value for n in ("gain", "loss_se") if (value := getattr(signs, n)) is not None}
    if signs.modes is not None:
        numbers["other_modes"] = signs.other_mass
    if signs.restarts is not None:
        numbers["rhat"] = signs.restarts.rhat
    return Verdict(tuple(findings(signs)), numbers)


def warnings_of(verdict: Verdict) -> tuple[str, ...]:
    """What speaks against using the posterior, a sentence each with what to try; empty where nothing does."""
    return tuple(finding.text for finding in verdict.findings if finding.warns)
