"""A fit as text and as HTML: how it ended, how good it is, and the plan."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from math import inf, isnan

from autovi.numbers import how_many, nats, number, with_error
from autovi.plan.display import INDENT, LEFT, plan_html, plan_text, terminal_width, wrapped
from autovi.result.graph import model_graph
from autovi.result.posterior import Posterior
from autovi.result.without_data import NEEDED
from autovi.run.thresholds import THRESHOLDS
from autovi.run.weights import EQUAL, TIED

# What k-hat is at most -> what it is read as.
VERDICTS = {
    THRESHOLDS.khat_good: "q is close",
    THRESHOLDS.khat_usable: "usable; importance weighting corrects it",
    THRESHOLDS.khat_no_mean: "do not trust intervals and tails",
    inf: "q misses a part of the posterior, or has not converged",
}
NOT_ESTIMATED = "no tail to fit"


def verdict(khat: float) -> str:
    """What to think of a fit with this k-hat, as the table in docs/results.md has it.

    >>> verdict(0.6)
    'usable; importance weighting corrects it'
    """
    return NOT_ESTIMATED if isnan(khat) else next(said for most, said in VERDICTS.items() if khat <= most)


def fit_text(fit: Posterior, width: int | None = None) -> str:
    """The fit in lines of at most `width` columns (None: those of the terminal). It never raises."""
    width = terminal_width() if width is None else width
    known = [text for name, said in facts(fit).items() for text in wrapped(f"{name}: {said}", width)]
    lines = [*wrapped(_title(fit), width), *wrapped(fit.progress.message, width, INDENT), *known]
    return "\n".join([*lines, plan_text(fit.plan, width)])


def fit_html(fit: Posterior) -> str:
    """The fit with its plan and, where graphviz is installed, its model drawn. It never raises."""
    known = "".join(
        f"<tr><th {LEFT}>{name}</th><td {LEFT}>{escape(said)}</td></tr>" for name, said in facts(fit).items()
    )
    head = f"<div><strong>{escape(_title(fit))}</strong></div><div>{escape(fit.progress.message)}</div>"
    drawn = model_graph(fit)
    graph = f"<details><summary>Model</summary>{drawn}</details>" if drawn else ""
    return f"<div>{head}<table><tbody>{known}</tbody></table>{plan_html(fit.plan)}{graph}</div>"


def _title(fit: Posterior) -> str:
    last = fit.rungs[-1].name if fit.rungs else ""
    how = how_many(fit.losses.size, "step") if fit.losses.size or not last else f"by {last}"
    return f"Fit: {fit.status}, {how} in {fit.seconds.fitting:,.1f} s"


def facts(fit: Posterior) -> dict[str, str]:
    """What is known of the quality. What takes long and was not asked for yet is not computed for a look at the fit."""
    if fit.lacks_data:
        return {"data": f"not there: params, sample, and predict for new data are; for all else {NEEDED}"}
    return {
        "ELBO": _attempt(fit, "elbo", _elbo),
        "k-hat": _attempt(fit, "khat", _khat),
        "efficiency": _attempt(fit, "efficiency", _efficiency),
        "verdict": _attempt(fit, "verdict", _verdict),
    }


def _attempt(fit: Posterior, name: str, say: Callable[[Posterior], str]) -> str:
    try:
        made = {*vars(fit), *vars(fit.evidence)}
        quick = not {name, "log_weights", "draws", "densities"}.isdisjoint(made) or fit.is_light
        return say(fit) if quick else f"not computed yet (fit.{name} computes it)"
    except Exception as error:  # a look at a fit must not fail, whatever the model does by now
        return f"fit.{name} cannot be computed: {error}"


def _elbo(fit: Posterior) -> str:
    value, se = with_error(fit.elbo, fit.elbo_se)
    return f"{value} nats, standard error not known" if isnan(fit.elbo_se) else f"{value} ± {se} nats"


def _efficiency(fit: Posterior) -> str:
    if isnan(fit.efficiency):
        return "not known"
    sd = nats(fit.log_weight_sd)
    spread = "" if isnan(fit.log_weight_sd) else f" (the standard deviation of the log weights is {sd})"
    return f"{number(fit.efficiency, 3)}{spread}"


def _verdict(fit: Posterior) -> str:
    return "; ".join(f"{finding.word}: {finding.text}" for finding in fit.verdict.findings)


def _khat(fit: Posterior) -> str:
    why = fit.evidence.khat_why
    if why in (EQUAL, TIED) and fit.plan.coupled:
        # Discrete draws tie, also where q is far off.
        return f"not estimated: {why}, which says nothing here: discrete sites are independent in q only"
    if why == EQUAL:
        return f"not estimated: {why}, so as far as the draws tell, q is the posterior"
    if fit.khat > THRESHOLDS.khat_good and fit.efficiency >= THRESHOLDS.efficiency_alike:
        return f"{number(fit.khat)} (of weights that are all but equal: the shape of noise)"
    return f"not estimated: {why}" if isnan(fit.khat) else f"{number(fit.khat)} ({verdict(fit.khat)})"
