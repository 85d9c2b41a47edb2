"""The rules of a verdict: what follows from which signs, and what to try."""

from __future__ import annotations

from math import ceil, inf, log2
from typing import NamedTuple

from autovi.families import FAMILIES
from autovi.numbers import how_many, nats, number
from autovi.result.signs import Signs
from autovi.run.thresholds import THRESHOLDS

MOST_PARTICLES = 4096  # beyond, particles are no remedy
SHOWN = 5  # names in a sentence
FLOW = ("guide='flow'",) if "flow" in FAMILIES else ()
REPARAMETERIZE = "another parameterization of the model (non-centred, where a scale is latent)"
NUTS = "NUTS, to see how far off it is"
# What was asked for -> what follows the posterior better, the best first.
RICHER = {
    "mean_field": ("guide='auto'", "guide='full_rank'"),
    "low_rank": ("guide='auto'", "guide='full_rank'"),
    "full_rank": ("guide='auto'", *FLOW),
    "auto": FLOW,
    "flow": (),
    "custom": ("guide='auto'", "a guide function with more dependence between its sites"),
}


class Finding(NamedTuple):
    """One thing that was found, what to try against it, and whether it speaks against using the posterior."""

    word: str
    said: str
    remedies: tuple[str, ...] = ()
    warns: bool = True

    @property
    def text(self) -> str:
        """The sentence, with what to try."""
        return f"{self.said}; try {', or '.join(self.remedies)}" if self.remedies else self.said


def findings(signs: Signs) -> list[Finding]:
    """All that was found, the worst first. What the weights of draws say of q counts more than how the run ended: they
    see the posterior, and the loss only itself."""
    weights = of_weights(signs)
    unknown, vouched = weights is not None, weights is not None and weights.word in ("good", "usable")
    found = [finding for rule in (of_faults, of_modes, of_restarts, of_coupled, of_points) if (finding := rule(signs))]
    if not vouched and not any(finding.word == "failed" for finding in found):
        if run := of_run(signs, unknown):
            found.insert(0, run)
        elif not unknown and not signs.coupled and not signs.biased:
            found.insert(0, of_family(signs))
    # Of weights that are equal because q has one value, or because it has discrete sites independent, nothing follows.
    if weights and not ((signs.equal or signs.tied) and (signs.points or signs.coupled)):
        found.append(weights)
    if signs.biased:
        blamed = not vouched and not (found and found[0].warns)
        found.insert(0 if blamed else len(found), of_bias(signs, warns=not vouched))
    return found


def of_faults(signs: Signs) -> Finding | None:
    """Is there a q at all?"""
    if signs.status == "failed":
        return Finding("failed", "most steps of the run, or the last one, were not finite", ("what the message says",))
    if signs.num_weighed and signs.khat == inf and not signs.efficiency > 0:
        said = "the weights of draws are NaN, infinite or all zero: the log density is not finite where q draws"
        return Finding("failed", said, ("supports that the data allow", "init=", REPARAMETERIZE))
    return None


def of_weights(signs: Signs) -> Finding | None:
    """What the weights say where they do not speak against q; None where they do, or cannot be used."""
    limits = THRESHOLDS
    if not signs.num_weighed:
        said = "to weigh draws would take minutes, so only the loss speaks for q"
        return Finding("not_weighed", said, ("fit.draws, which weighs them all",), warns=False)
    if signs.equal:
        return Finding("good", "the weights of draws differ by rounding only: q is the posterior", warns=False)
    if signs.khat != signs.khat and not signs.tied:
        return _too_few(signs)
    khat = -inf if signs.tied else signs.khat
    if signs.alike or (khat < limits.khat_good and signs.efficiency >= limits.efficiency_good):
        return Finding(
            "good", f"q is close to the posterior, as far as its own draws can tell ({measured(signs)})", (), False
        )
    if signs.wider_draws:
        wider = (
            f"k-hat {number(signs.wider_khat)}, {how_many(signs.wider_draws, 'draw')} that stand for "
            f"{signs.wider_effective:,.0f}"
        )
        said = f"q is off ({measured(signs)}), and importance weights of proposals wider than q correct it ({wider})"
        richer = RICHER.get(signs.guide, ())
        return Finding("usable", f"{said}: {_corrected(signs.wider_khat)}", richer, warns=False)
    if khat < limits.khat_usable and signs.effective_draws >= limits.effective_draws:
        said = f"q is off, and importance weights correct it ({measured(signs)}): {_corrected(khat)}"
        return Finding("usable", said, warns=False)
    if khat < limits.khat_usable and signs.efficiency >= limits.efficiency_usable:
        return _too_few(signs)
    return None


def _corrected(khat: float) -> str:
    """How good corrected draws are."""
    if khat < THRESHOLDS.khat_good:
        return "corrected draws are good"
    # From 0.5 on the weights have no variance: what of the tails the proposals never draw, no weight brings back.
    return "corrected draws may still be off, means and sds by a tenth of an sd or more"


def _too_few(signs: Signs) -> Finding:
    said = f"too few draws to say how close q is ({measured(signs)})"
    return Finding("too_few_draws", said, ("num_draws=1000 or more",), warns=False)


def of_run(signs: Signs, unknown: bool) -> Finding | None:
    """Where the weights do not vouch for q: is it the run's fault? `unknown`: they say nothing, rather than no."""
    against = "" if unknown else f"the weights do not vouch for q ({measured(signs)}), and "
    modes = signs.modes
    if modes is not None and not unknown and not sum(mode.starts for mode in modes.found):
        why = f", as the log density grows without bound ({how_many(modes.unbounded, 'start')})" * bool(modes.unbounded)
        said = f"{against}none of the {how_many(modes.failed, 'start')} reached a mode{why}"
        remedies = ("priors that are proper",) if modes.unbounded else ()
        return Finding("bad_start", said, (*remedies, "init= with values that you believe in", REPARAMETERIZE))
    if signs.status == "noisy":
        known = "" if signs.loss_se is None else f", which is known to {nats(signs.loss_se)} only"
        return Finding("noisy", f"{against}noise hides whether the loss still falls{known}", _quieter(signs))
    if signs.status in ("max_steps", "stopped") and not (unknown and signs.asked_steps):
        richer = () if unknown else RICHER.get(signs.guide, ())[:1]
        return Finding("not_converged", f"{against}{_unfinished(signs)}", ("fit.resume(), or more steps", *richer))
    return None


def _unfinished(signs: Signs) -> str:
    if signs.asked_steps:
        return "more steps than were asked for may help"
    gain = "" if signs.gain is None else f": going on would gain about {nats(max(signs.gain, 0.0))}"
    return f"the loss had not come to a stand{gain}"


def of_family(signs: Signs) -> Finding:
    """Where the loss has come to a stand and the weights speak against q."""
    said = f"the family cannot follow the posterior: {_against(signs)} ({measured(signs)})"
    return Finding("family_too_small", said, (*RICHER.get(signs.guide, ()), REPARAMETERIZE, NUTS))


def _against(signs: Signs) -> str:
    if signs.khat >= THRESHOLDS.khat_no_mean:
        return "q misses a part of it, and neither intervals nor weights can be trusted"
    if signs.khat >= THRESHOLDS.khat_usable:
        return "do not trust intervals and tails"
    return "so few draws carry the weight that it cannot be corrected"


def of_modes(signs: Signs) -> Finding | None:
    """Modes that q is not at: its own draws cannot tell."""
    modes = signs.modes
    if modes is None or signs.other_mass <= THRESHOLDS.other_modes:
        return None
    said = (
        f"{how_many(len(modes.found), 'mode')} were found, and the one fitted holds {number(100 * modes.share)} % of "
        "their mass by Laplace's approximation: the rest is missing from the draws"
    )
    remedies = ("init= at another mode, and compare the ELBOs", "an ordering or a prior that leaves one mode", NUTS)
    return Finding("other_modes", said, remedies)


def of_restarts(signs: Signs) -> Finding | None:
    """Restarts as chains."""
    seen = signs.restarts
    if seen is None or seen.rhat <= THRESHOLDS.rhat:
        return None
    said = (
        f"{seen.restarts} restarts ended at different posteriors (R-hat {number(seen.rhat, 3)} of {seen.name!r}); the "
        "one with the highest ELBO was kept"
    )
    remedies = ("fit.restarts.sample, draws of all of them by weight", "init= with values that you believe in")
    return Finding("starts_disagree", said, (*remedies, "more steps"))


def of_coupled(signs: Signs) -> Finding | None:
    """Discrete sites that q has independent."""
    if not signs.coupled:
        return None
    said = (
        f"discrete sites that meet in the model are independent in q ({_listed(signs.coupled)}): their probabilities "
        "may be far off, and equal weights say nothing"
    )
    return Finding("mean_field", said, ("one site over the combinations of their values", "a guide function"))


def of_bias(signs: Signs, warns: bool) -> Finding:
    """Gradients that are not those of the objective: where the weights vouch for q, they did no harm."""
    which = ", ".join(f"{site!r} ({estimator})" for site, estimator in signs.biased[:SHOWN])
    which += f" and {len(signs.biased) - SHOWN} more" * (len(signs.biased) > SHOWN)
    against = f"the weights do not vouch for q ({measured(signs)}), and " if warns and signs.num_weighed else ""
    said = f"{against}the gradients at some sites are biased ({which}), so that q ends beside the optimum of its family"
    return Finding("biased", said, ("an unbiased estimator from here on: fit(init=fit, estimators=...)",), warns)


def of_points(signs: Signs) -> Finding | None:
    """Sites of one value."""
    if not signs.points:
        return None
    said = f"{_listed(signs.points)}: point estimates, without uncertainty, and the rest of q is given them"
    return Finding("point_estimate", said, ("another family for them",), warns=False)


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


def measured(signs: Signs) -> str:
    """What was measured, in brackets."""
    khat = "" if signs.khat != signs.khat else f"k-hat {number(signs.khat)}, "
    return f"{khat}efficiency {number(signs.efficiency, 3)} of {how_many(signs.num_weighed, 'draw')}"


def _quieter(signs: Signs) -> tuple[str, ...]:
    """What makes a loss less noisy; how many particles, where that is affordable."""
    errors = [e for e in (signs.loss_se, signs.gain_se) if e is not None]
    factor = (max(errors, default=inf) / THRESHOLDS.nats) ** 2
    wanted = signs.num_particles * max(factor, 2.0)
    particles = (f"num_particles={2 ** ceil(log2(wanted))}",) if wanted <= MOST_PARTICLES else ()
    batches = ("a larger batch_size",) if signs.subsampled else ()
    return (*batches, *particles, *RICHER.get(signs.guide, ())[:1], "init= with values that you believe in")
