"""How much of a step's gradient is signal, by site."""

from __future__ import annotations

import math
from typing import Any

from autovi.result.diagnostics import GRADIENT_REPEATS, SiteGradient
from autovi.result.plots.figure import MARKED, MEASURED, PALE, SMALL, one_axes, say, short
from autovi.result.posterior import Posterior

MOST = 20  # sites
LEAST = GRADIENT_REPEATS**-0.5  # a smaller mean is not told from the error of the mean of so many estimates


def draw(place: Any, fit: Posterior) -> None:
    """A bar for each site; a ratio without a place on a log axis is written out."""
    ax = one_axes(place)
    ax.set_title("Gradient of one step: signal to noise")
    sites = fit.gradients
    if not sites:
        say(ax, "no gradient: nothing is trained")
        return
    names, left = _chosen(sites), 0.01
    ratios = [sites[name].signal_to_noise for name in names]
    right = max(10.0, *(r for r in ratios if r < math.inf)) * 10  # room for what stands beside the bars
    for row, (name, ratio) in enumerate(zip(names, ratios, strict=True)):
        usual = LEAST <= ratio < math.inf
        end = ratio if usual else right if ratio == math.inf else left if math.isnan(ratio) else LEAST
        ax.barh(row, end - left, left=left, color=MEASURED if usual else PALE, alpha=1.0 if usual else 0.5, height=0.7)
        text = {"x": end, "ha": "left"} if end < right else {"x": right, "ha": "right"}
        ax.text(y=row, s=f" {_told(sites[name])} ", va="center", fontsize=SMALL, **text)
    ax.axvline(LEAST, color=MARKED, ls=":", lw=1.2, label=f"the least that {GRADIENT_REPEATS} estimates show")
    notes = [f"the lowest {MOST} of {len(sites):,} sites"] * (len(sites) > MOST)
    shared = any(len(set(block.sites) & set(names)) > 1 for block in fit.plan.blocks)
    notes += ["sites of one block share its gradient"] * shared
    above = (0.12 + 0.1 * len(notes)) * len(names)  # the legend stands there
    ax.set(xscale="log", xlim=(left, right), ylim=(len(names) - 0.4, -0.6 - above))
    ax.set_yticks(range(len(names)), [short(name, 24) for name in names], fontsize=SMALL if len(names) > 10 else None)
    ax.set_xlabel("|mean| / standard deviation, at the fitted parameters")
    ax.legend(fontsize=SMALL, loc="upper right", title="\n".join(notes), title_fontsize=SMALL)


def _chosen(sites: dict[str, SiteGradient]) -> list[str]:
    """The highest ratio first, those that are NaN last; of many the lowest, which are the ones to look at."""
    ratio = {name: site.signal_to_noise for name, site in sites.items()}
    return sorted(ratio, key=lambda name: (math.isnan(ratio[name]), -ratio[name]))[-MOST:]


def _told(site: SiteGradient) -> str:
    if math.isnan(site.signal_to_noise):
        return "gradients not finite"
    return "no noise" if site.signal_to_noise == math.inf else f"sd {site.variance**0.5:.2g}"
