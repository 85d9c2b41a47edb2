"""What the user asked for, by site: names and globs resolved, table entries looked up, all of it checked."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from autovi.estimators import ESTIMATORS, Estimator
from autovi.families import FAMILIES, Family
from autovi.model.sites import Site
from autovi.objectives import OBJECTIVES, Objective


def check_arguments(families: Any, estimators: Any, num_particles: Any) -> None:
    """What can be said of these arguments before the model is known.

    Raises:
        TypeError: `families` or `estimators` is no dict of names.
        ValueError: `num_particles` is no integer of at least 1.
    """
    for argument, given in (("families", families), ("estimators", estimators)):
        if given is not None and not (isinstance(given, Mapping) and all(isinstance(key, str) for key in given)):
            raise TypeError(
                f"{argument}: expected a dict such as {{site name or glob: name}}, got {given!r}; for all sites say "
                "{'*': name}"
            )
    if num_particles is None:
        return
    if isinstance(num_particles, bool) or not isinstance(num_particles, int | np.integer) or num_particles < 1:
        raise ValueError(f"num_particles: expected an integer of at least 1 or None, got {num_particles!r}")


def overrides_of(
    overrides: Mapping[str, Any] | None, nodes: Mapping[str, Site], key: str, argument: str
) -> dict[str, Any]:
    """Site -> what was asked for it, by `infer={"autovi": ...}` or by the argument of `fit`.

    The argument wins over `infer`, an exact name over globs, a longer glob over a shorter one.

    Raises:
        ValueError: a pattern that no latent site matches, or a key of `infer` that is none.
    """
    asked: dict[str, Any] = {}
    for name, site in nodes.items():
        said = dict(site.infer)
        unknown = set(said) - {"family", "estimator", "baseline", "inputs"}
        if unknown:
            raise ValueError(
                f"site {name!r}: infer={{'autovi': ...}} has unknown keys {sorted(unknown)}; "
                "valid: family, estimator, baseline, inputs"
            )
        if key in said or (key == "estimator" and "baseline" in said):
            asked[name] = said.get(key) if key == "family" else {k: said[k] for k in said if k != "family"}
    patterns = sorted((overrides or {}).items(), key=lambda item: (item[0] in nodes, len(item[0])))
    for pattern, what in patterns:
        matched = [n for n in nodes if n == pattern or fnmatchcase(n, pattern)]
        if not matched:
            raise ValueError(f"{argument}: no latent site matches {pattern!r}; the latent sites are {sorted(nodes)}")
        asked.update(dict.fromkeys(matched, what))
    return asked


def as_family(site: str, what: Any) -> Family:
    """The family of that name, or the one given."""
    if isinstance(what, Family):
        return what
    if not isinstance(what, str) or what not in FAMILIES:
        kind, hint = _shown(what, Family)
        raise ValueError(f"site {site!r}: unknown family {kind}; expected one of {sorted(FAMILIES)} or a Family{hint}")
    return FAMILIES[what]()


def as_estimator(site: str, what: Any) -> Estimator:
    """The estimator of that name, that a dict describes, or the one given."""
    if isinstance(what, Estimator):
        return what
    options = dict(what) if isinstance(what, Mapping) else {"estimator": what}
    name = options.pop("estimator", "score" if "baseline" in options else None)
    if isinstance(name, Estimator) and not options:
        return name
    if not isinstance(name, str) or name not in ESTIMATORS:
        kind, hint = _shown(name, Estimator)
        raise ValueError(
            f"site {site!r}: unknown estimator {kind}; expected one of {sorted(ESTIMATORS)} or an Estimator{hint}"
        )
    try:
        return ESTIMATORS[name](**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"site {site!r}: estimator {name!r} does not take {options}: {error}") from None


def _shown(what: Any, kind: type) -> tuple[str, str]:
    """What was given, and what to write where it is a class of the right kind that was not called."""
    if not isinstance(what, type):
        return repr(what), ""
    return f"class {what.__name__}", f"; pass an instance, {what.__name__}(...)" if issubclass(what, kind) else ""


def as_objective(what: Any) -> Objective:
    """The objective of that name, or the one given.

    Raises:
        ValueError: no such name.
    """
    if isinstance(what, Objective):
        return what
    if not isinstance(what, str) or what not in OBJECTIVES:
        raise ValueError(f"objective: unknown name {what!r}; expected one of {list(OBJECTIVES)} or an Objective")
    return OBJECTIVES[what]()
