"""Figures of a fit, one kind a file. Matplotlib is imported only when a figure is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autovi.result.posterior import Posterior

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


def plot(
    fit: Posterior,
    kind: str | Sequence[str] = "overview",
    *,
    var_names: str | Sequence[str] | None = None,
    coords: Mapping[str, Any] | None = None,
    ax: Axes | None = None,
) -> Figure | SubFigure:
    """A figure of the fit; without arguments an overview of four panels.

    No window opens and pyplot knows nothing of the figure: save it with `savefig`, or end a notebook's cell with it.
    The diagnostics that a panel shows are computed if they have not been (seconds for "weights" and "gradients"). What
    cannot be shown, such as the losses of a fit that took no steps, is said in its panel.

    Args:
        kind: one of these, or several, which become panels of one figure.
            "overview": the first four of the list.
            "loss": the loss of every step in nats, its mean and standard deviation over stretches of steps, and the
            steps at which the learning rate was lowered. The axis fits the second half of the steps.
            "weights": how often a draw's importance weight exceeds a value, and the generalized Pareto tail of shape
            k-hat.
            "gradients": the signal-to-noise ratio of one step's gradient by site, of more than 20 the lowest 20.
            "marginals": densities (bars for integers) of up to 12 scalars; 6 in a figure of several panels.
            "forest": medians with 50 % and 94 % intervals of up to 40 scalars.
        var_names: the variables of "marginals" and "forest", by name or glob; None: all. Where not all elements find
            room, those shown come from each variable in turn, and the figure says how many there are.
        coords: dim name -> label or labels: of these elements only.
        ax: matplotlib axes to draw one kind in, as in a figure of one's own; of "marginals" one scalar.

    Returns:
        A matplotlib `Figure`; with `ax` the one that it belongs to.

    Raises:
        ImportError: matplotlib is missing, with what to install.
        ValueError: an unknown kind, variable or label; `ax` with what needs several axes.

    Example:
        >>> fit.plot().savefig("fit.png")
        >>> fit.plot("marginals", var_names=["mu", "tau"])
        >>> fit.plot(("loss", "weights"))
    """
    try:
        from autovi.result.plots.drawing import draw
    except ImportError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        raise ImportError("plot: it needs matplotlib: pip install 'autovi[plots]'") from error
    return draw(fit, kind, var_names, coords, ax)


def plot_forest(
    fit: Posterior,
    var_names: str | Sequence[str] | None = None,
    *,
    coords: Mapping[str, Any] | None = None,
    ax: Axes | None = None,
) -> Figure | SubFigure:
    """Medians with 50 % and 94 % intervals of the posterior's scalars, one a row: `fit.plot("forest")`.

    Rows are labelled with the coordinates of the data; the first elements of all variables are shown, 40 in all. The
    intervals have equal tails. Arguments, result and errors are those of `plot`.

    Example:
        >>> fit.plot_forest(["theta"]).savefig("theta.png")
    """
    return plot(fit, "forest", var_names=var_names, coords=coords, ax=ax)
