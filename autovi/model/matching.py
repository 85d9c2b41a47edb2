"""Does a guide function fit the model? Its sites against the model's: names, shapes, supports."""

from __future__ import annotations

from autovi.model.execution import SiteError
from autovi.model.sites import Site, Sites

WHOLE = ("real", "real vector")
BOUNDED = (
    "positive",
    "nonnegative",
    "softplus positive",
    "unit interval",
    "simplex",
    "interval",
    "greater than",
    "less than",
    "ordered vector",
    "positive ordered vector",
)


def guide_nodes(sites: Sites, guide_sites: Sites) -> dict[str, Site]:
    """The sites of a guide function that need an estimator, after the check that it fits the model.

    Raises:
        SiteError: a site that only one of the two has, or whose shape or support differs.
    """
    drawn = guide_sites.latents
    for name, site in drawn.items():
        if name in sites.latents:
            _check_same(site, sites.latents[name])
        elif not site.auxiliary:
            where = "observed" if name in sites.samples else "no site"
            raise SiteError(
                f"guide: its site {name!r} is {where} in the model, whose latent sites are {sorted(sites.latents)}; "
                "mark it infer={'is_auxiliary': True} if it belongs to the guide alone",
                name,
            )
    missing = [n for n, s in sites.latents.items() if n not in drawn and s.values is None]
    if missing:
        raise SiteError(f"guide: it does not draw the model's latent site(s) {missing}; add them")
    absent = {n: s for n, s in sites.latents.items() if n not in drawn}
    kept = {n: s for n, s in drawn.items() if s.distribution != "Delta"}
    return {**kept, **absent}


def _check_same(drawn: Site, site: Site) -> None:
    if drawn.shape != site.shape:
        raise SiteError(
            f"guide: site {site.name!r} has shape {drawn.shape} there and {site.shape} in the model; "
            "a missing plate or to_event in one of them would explain it",
            site.name,
        )
    forgotten = [p.name for p in site.plates if p.subsampled and p.name not in {q.name for q in drawn.plates}]
    if forgotten:
        raise SiteError(
            f"guide: site {site.name!r} is drawn outside of the subsampled plate {forgotten[0]!r}, so that the numbers "
            "of one batch would serve for all others; draw it inside of a plate of that name, size and dimension, from "
            "parameters with a row for every element of the plate (indexed by what the plate yields) or from the batch",
            site.name,
        )
    if _leaves_support(drawn, site):
        raise SiteError(
            f"guide: site {site.name!r} is drawn from {drawn.distribution} ({drawn.support}), which gives values "
            f"outside the model's support ({site.support}); draw it from a distribution on that support, or through "
            "dist.TransformedDistribution with biject_to(support)",
            site.name,
        )


def _leaves_support(drawn: Site, site: Site) -> bool:
    """Whether the guide's draws are known to fall outside the support of the model's site.

    Deltas are not asked: their support says nothing of where their value lies.
    """
    if drawn.distribution == "Delta":
        return False
    if drawn.discrete != site.discrete:
        return True
    if not site.discrete:
        return drawn.support in WHOLE and site.support in BOUNDED
    if drawn.values is None or site.values is None:
        # Counts without a bound leave a finite support; two supports of which one cannot be listed are not compared.
        return site.values is not None and drawn.support in ("integer nonnegative", "integer positive")
    return not set(drawn.values) <= set(site.values)
