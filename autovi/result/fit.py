"""What a fit gives back."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import optax

from autovi.model.guides import copied
from autovi.result import plots
from autovi.result.covariance import covariance
from autovi.result.display import facts, fit_html, fit_text
from autovi.result.groups import chains_of, summary, to_arviz
from autovi.result.handover import guide, nuts
from autovi.result.posterior import Posterior
from autovi.result.resuming import resumed
from autovi.result.saving import write_fit
from autovi.run.checks import check_count
from autovi.run.loop import MAX_STEPS
from autovi.run.reporting import Report


@dataclass(eq=False)
class Fit(Posterior):
    """A fitted posterior. Draws and diagnostics are computed when first asked for, and kept.

    `status` is how the run ended: "converged" (the loss is known to 0.1 nat, and going on would gain less),
    "mean_field" (the same, with discrete sites that meet in the model and are independent in q), "biased" (the
    same, with a biased estimator), "noisy" (noise hides whether the loss still falls), "max_steps" (all steps were
    run), "stopped" (Ctrl-C, or an error of XLA) or "failed" (non-finite steps); `message` says it in words.
    `verdict` is what to think of the posterior. `losses` is the negative ELBO per step, `(num_steps,)` in nats, of
    which `skipped_steps` changed nothing. `restarts` are the fits from all starts, where there were several, else None.
    """

    def __dir__(self) -> list[str]:
        """What is public: how a fit is held inside is not."""
        inside = {"coords", "dims", "engine", "inputs", "options", "progress", "progress_bar", "raw_params"}
        inside |= {
            "absent",
            "lacks_data",
            "saved_plan",
            "state",
            "arrays",
            "check_unchanged",
            "advice",
            "chosen",
            "proposed",
            "wider",
            "densities",
            "evidence",
            "is_light",
            "is_weighed",
            "log_weights",
        }
        inside |= {"observed", "predicted", "values"}
        return [name for name in super().__dir__() if not name.startswith("_") and name not in inside]

    def resume(
        self,
        num_steps: int | None = None,
        *,
        data: Any = None,
        max_steps: int = MAX_STEPS,
        learning_rate: float | optax.Schedule | None = None,
        callback: Callable[[Report], Any] | None = None,
        progress_bar: bool | None = None,
    ) -> Fit:
        """A fit that goes on where this one ended, its optimizer's memory included; this one stays what it is.

        Args:
            num_steps: so many steps more, at a learning rate that falls as in `fit`; None: the rest of the steps in
                which the fit was stopped, or until the loss stands still.
            data: new data of the form and sizes of the old, categories by their names; None: the same.
            max_steps: the bound on the steps to come when `num_steps` is None.
            learning_rate: as in `fit`, a schedule from its beginning (that of a loaded fit, which its file does not
                hold, from where it was); None: as before.
            callback: as in `fit`; it is not remembered.
            progress_bar: None: as in the fit.

        Raises:
            ValueError: data of other sizes, or a model that has changed since.

        Example:
            >>> fit = fit.resume(5000)
        """
        return resumed(self, data, num_steps, max_steps, learning_rate, callback, progress_bar)

    @property
    def message(self) -> str:
        """How the run ended, in a sentence, and what speaks against using the posterior, where that is known or known
        soon (see `verdict`)."""
        said = self.progress.message
        try:
            found = self.verdict.findings if self.is_weighed else ()
        except Exception:  # whatever the model does by now, how the run ended is known
            found = ()
        # Of what is the run's own fault its message tells.
        warned = [finding.text for finding in found if finding.warns and finding.word != self.status]
        return "; ".join(filter(None, [said, *warned]))

    @cached_property
    def idata(self) -> Any:
        """The posterior as ArviZ opens it; the same object at every access. See `to_arviz`."""
        return self.to_arviz()

    def to_arviz(
        self,
        groups: str | Collection[str] | None = None,
        *,
        num_draws: int | None = None,
        new_data: Any = None,
        coords: Mapping[str, Any] | None = None,
        dims: Mapping[str, Sequence[str | None]] | None = None,
        chains: str = "fit",
    ) -> Any:
        """An InferenceData (ArviZ 0.x) or DataTree (ArviZ 1.x) with dims `(chain, draw)`, one chain.

        Groups: posterior, posterior_predictive, log_likelihood (unscaled, 0 where masked), sample_stats,
        observed_data, constant_data (an argument named like a site or plate gets "_data" at its end). Plates are
        dims; pandas and xarray labels of the data are coords. The plan, the ELBO and k-hat are attributes.
        `dims` (variable -> names of all its axes) and `coords` (dim -> labels) are as in `arviz.from_dict`; they win
        over those of `fit`, and those over plates and labels of the data.
        With `new_data` (as for `predict`) there are predictions and predictions_constant_data too, with the labels of
        the new data; elements that the posterior has too keep theirs.
        `groups` names those that are wanted (None: all): predictions and log likelihoods are as large as draws times
        observations, and are made only where they are asked for. `num_draws` asks for another number of draws than the
        fit's. `sample_stats` holds the log densities of model (`lp`) and q (`log_q`) at the draws in the variables
        in which each site was fitted, and `log_weight`, the log of the weight that a draw still needs to stand
        for the posterior: their difference, or 0 where the draws are corrected already (attribute `resampled`).
        With `chains="restarts"` each of `restarts` is a chain, so that ArviZ's R-hat says whether they agree.

        Raises:
            ValueError: an unknown group; dims or coords that do not fit the model; chains of a fit without restarts, or
                of a loaded one, whose file does not hold them.
        """
        fit, each = self, tuple(chains_of(self, chains))
        if num_draws is not None and num_draws != self.num_draws:
            fit, each = self._with_draws(num_draws), tuple(one._with_draws(num_draws) for one in each)
        return to_arviz(fit, each, groups, new_data, coords, dims)

    def _with_draws(self, num_draws: int) -> Fit:
        """The same fit with another number of draws."""
        check_count("num_draws", num_draws)
        fit = replace(self, num_draws=int(num_draws))
        fit._at_rest = self._at_rest
        fit.__dict__["evidence"] = self.evidence  # what q is does not depend on how many are drawn for a table
        return fit

    def summary(self, **kwargs: Any) -> Any:
        """`az.summary` made right for independent draws: statistics without convergence columns, which are for chains.

        ELBO, k-hat, efficiency and verdict are shown below the table, and are in its `attrs`.
        Elements that are the same whatever the latent values, such as the zeros of a Cholesky factor, are left out.
        Keyword arguments go to `az.summary`.
        """
        quick = self.is_light or "idata" in vars(self)
        whole = quick or kwargs.get("group", "posterior") != "posterior"
        from autovi.result.table import with_facts  # which imports pandas

        return with_facts(summary(self, self.idata if whole else None, **kwargs), facts(self))

    def covariance(self, names: str | Sequence[str] | None = None, corrected: str | bool = "auto") -> Any:
        r"""The posterior covariance of all scalars, as a square `pandas.DataFrame` with the labels of the summary.

        They are on the sites' own (constrained) scale, deterministic sites included. Standard deviations are the roots
        of the diagonal. `covariance(...).attrs["how"]` says what it is from:

        - the draws of the fit, where these are corrected by importance weights or q is close (`efficiency`);
        - else, where every block is a mean-field normal, whose standard deviations are too small wherever the posterior
          is correlated, *linear response*: :math:`(-d^2 E_q[\log p] / dm^2)^{-1}` in the means m of q, exact where the
          posterior is normal on the unconstrained scale, carried to the sites' own scale by draws. It needs at most
          500 dimensions, and no discrete, summed out or masked site;
        - else the draws of the fit.

        Giordano, Broderick and Jordan (2018), "Covariances, robustness, and variational Bayes".

        Args:
            names: sites or globs of them; None: all.
            corrected: "auto": as above. True: resampled draws. False: draws of q. "linear_response".

        Raises:
            ValueError: an unknown name, more than 5,000 scalars, or what is asked for is not possible; says why.

        Example:
            >>> fit.covariance(["slope", "mean"]).loc["slope", "mean[0]"]
        """
        return covariance(self, names, corrected)

    to_nuts = nuts.to_nuts
    to_numpyro_guide = guide.to_numpyro_guide
    plot = plots.plot
    plot_forest = plots.plot_forest

    def save(self, path: str | os.PathLike[str], *, with_data: bool = False) -> None:
        """Writes the fit to one file of arrays and JSON, complete or not at all. `autovi.load` reads it.

        Args:
            path: the file.
            with_data: whether the file holds the data too. Without them a loaded fit has `params`, `sample` and
                `predict` for new data, and all else where `autovi.load` is given the data.

        Raises:
            ValueError: an argument of the model that is neither an array nor a JSON value; the message names it.
            FileNotFoundError: the folder is not there. IsADirectoryError: the path is a folder.
        """
        write_fit(self, path, with_data)

    def __copy__(self) -> Fit:
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Fit:
        """A copy that shares nothing that could be changed; what is compiled, all fits of one program share."""
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        memo |= {id(self.engine): self.engine, id(self.guide): copied(self.guide, memo)}
        kept = {n: v for n, v in vars(self).items() if not isinstance(getattr(type(self), n, None), cached_property)}
        vars(twin).update({n: deepcopy(v, memo) for n, v in kept.items()})  # the rest is computed anew when asked for
        self.engine.use(twin.model, twin.guide)  # whoever of the two lives longer
        return twin

    def __repr__(self) -> str:
        return fit_text(self)

    def _repr_html_(self) -> str:
        return fit_html(self)
