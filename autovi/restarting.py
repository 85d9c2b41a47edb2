"""Restarts: which of several fits from different starts is given back, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence

from jax.errors import JaxRuntimeError

from autovi.result.fit import Fit
from autovi.result.restarts import Restarts, forget_large_draws
from autovi.run.faults import said
from autovi.run.starts import agreement


def best_of(runs: Sequence[Fit | BaseException]) -> Fit:
    """The fit with the lowest final loss that did not fail; it says so if Ctrl-C or an error of XLA ended the
    restarts.

    Args:
        runs: what came of each restart, in their order; after what ended all of them there may be no more.

    Raises:
        ValueError: the first has no finite starting point: of another that is that one's own bad luck.
        KeyboardInterrupt, JaxRuntimeError: there is no fit at all.
    """
    found = [run for run in runs if isinstance(run, Fit)]
    if isinstance(runs[0], ValueError):
        raise runs[0]
    for run in runs:
        if isinstance(run, BaseException) and not (found and isinstance(run, _OWN_BAD_LUCK)):
            raise run
    best = min(found, key=lambda run: (run.progress.status == "failed", _loss_of(run)))
    if len(found) > 1:
        best.restarts = Restarts(found, [_loss_of(run) for run in found], found.index(best))
        if all(run.is_light for run in found):
            best.progress.restarts = agreement([run.values for run in found])
        for run in found:
            if run is not best:
                forget_large_draws(run)
    if ended := _ended(runs, best):
        best.progress.status = "stopped"
        best.progress.message = f"{ended}; this is an earlier one: {best.progress.message}"
    return best


_OWN_BAD_LUCK = (ValueError, KeyboardInterrupt, JaxRuntimeError)  # that leaves the other restarts what they are


def _ended(runs: Sequence[Fit | BaseException], best: Fit) -> str:
    """What ended the restarts before all had ended by themselves, in words; empty where nothing did, and where it ended
    the best one too, which says so itself."""
    if best.progress.interrupted:
        return ""
    for number, run in enumerate(runs, 1):
        if isinstance(run, KeyboardInterrupt):
            return f"stopped by Ctrl-C before restart {number}"
        if isinstance(run, JaxRuntimeError):
            return f"stopped by an error of XLA in restart {number}: {said(run)}"
        if isinstance(run, Fit) and run.progress.interrupted:
            return f"{run.progress.message} of restart {number}"
    return ""


def _loss_of(fit: Fit) -> float:
    """What restarts are compared by: the loss at the end of the steps, or that of the draws where there were none."""
    return fit.progress.final_loss() if fit.losses.size else -fit.elbo
