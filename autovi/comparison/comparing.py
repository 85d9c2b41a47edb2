"""Fits, chains and draws of one model beside each other: `autovi.compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from autovi.comparison.distances import Distance, Draws, distance
from autovi.comparison.reading import dataset_of
from autovi.comparison.saying import said
from autovi.result import export

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SCALARS = 5_000  # of a table


@dataclass(frozen=True, eq=False)
class Comparison:
    """Posteriors beside each other; what `autovi.compare` returns. Printed, it is one line.

    Attributes:
        reference: the result that the others are measured by.
        draws: result -> scalar, such as "theta[2]" -> its draws.
        distances: result, the reference apart -> scalar -> its `Distance` from the reference.
        missing: variable -> the results that do not have it; these variables are not compared.
    """

    reference: str
    draws: Mapping[str, Mapping[str, Draws]] = field(repr=False)
    distances: Mapping[str, Mapping[str, Distance]] = field(repr=False)
    missing: Mapping[str, tuple[str, ...]]

    @property
    def scalars(self) -> tuple[str, ...]:
        """The scalars that are compared, in order."""
        return tuple(self.draws[self.reference])

    @property
    def table(self) -> Any:
        """A `pandas.DataFrame`: a row for each scalar; columns (result, statistic), with mean, sd and ess of each, and
        the distances of the others from the reference (see `Distance`)."""
        import pandas as pd

        columns: dict[tuple[str, str], list[float]] = {}
        for name, scalars in self.draws.items():
            columns[name, "mean"] = [d.mean for d in scalars.values()]
            columns[name, "sd"] = [d.sd for d in scalars.values()]
            columns[name, "ess"] = [d.ess_mean for d in scalars.values()]
            for statistic in Distance._fields if name in self.distances else ():
                columns[name, statistic] = [getattr(self.distances[name][s], statistic) for s in scalars]
        table = pd.DataFrame(columns, index=list(self.scalars))
        table.columns = pd.MultiIndex.from_tuples(list(columns), names=["result", "statistic"])
        return table

    def plot(self, var_names: str | Sequence[str] | None = None, *, num_draws: int = 500) -> Figure:
        """A pair plot of all results in one figure: densities on the diagonal, draws of each pair below.

        Args:
            var_names: scalars or variables by name or glob; None: the four that are farthest from the reference.
            num_draws: how many of each result are shown as points.

        Raises:
            ImportError: matplotlib is missing, with what to install.
            ValueError: no scalar has a name that is asked for, or more than 8 have.

        Example:
            >>> autovi.compare({"nuts": mcmc, "vi": fit}).plot(["mu", "tau"]).savefig("pairs.png")
        """
        try:
            from autovi.comparison.picture import pairs
        except ImportError as error:
            if (error.name or "").split(".")[0] != "matplotlib":
                raise
            raise ImportError("plot: it needs matplotlib: pip install 'autovi[plots]'") from error
        return pairs(self, var_names, num_draws)

    def __repr__(self) -> str:
        return said(self.reference, self.distances, self.missing)


def compare(
    results: Mapping[str, Any],
    *,
    reference: str | None = None,
    var_names: str | Sequence[str] | None = None,
) -> Comparison:
    """Means, standard deviations and Wasserstein distances of posteriors of one model, whatever tool they are from.

    Distances are in standard deviations of the reference, with their Monte Carlo errors. Variables are matched by name;
    those that some results lack are named and left out. Numbers that vary in no result are left out too.

    Args:
        results: name -> a `Fit`, a NumPyro `MCMC` that has run, what ArviZ makes (`InferenceData`, `DataTree`, a
            posterior as `xarray.Dataset`), or a dict from variable to draws `(num_draws, *shape)`; at least two.
        reference: by which result the others are measured; None: the first.
        var_names: variables by name or glob; None: all.

    Returns:
        A `Comparison`: printed one line; its `table`, `distances` and `plot()`.

    Raises:
        TypeError: a result of another kind.
        ValueError: fewer than two results, an unknown name, no variable that all have, one that has another shape in
            another result, or more than 5,000 scalars.

    Example:
        >>> found = autovi.compare({"nuts": mcmc, "vi": fit})
        >>> found.table["vi"]["wasserstein"].max()
    """
    if not isinstance(results, Mapping) or len(results) < 2:
        raise ValueError("results: expected a dict of at least two, such as {'nuts': mcmc, 'vi': fit}")
    reference = next(iter(results)) if reference is None else reference
    if reference not in results:
        raise ValueError(f"reference: expected one of {list(results)}, got {reference!r}")
    datasets = {name: dataset_of(name, result) for name, result in results.items()}
    shared, missing = _variables(datasets, var_names)
    labels = {v: _labels(v, datasets) for v in shared}
    if (count := sum(map(len, labels.values()))) > MAX_SCALARS:
        raise ValueError(
            f"var_names: {count:,} scalars are more than the {MAX_SCALARS:,} of a table; name fewer variables"
        )
    draws = {name: _scalars(data, labels) for name, data in datasets.items()}
    varying = [s for s in draws[reference] if any(np.ptp(own[s].values) > 0 for own in draws.values())]
    draws = {name: {s: own[s] for s in varying} for name, own in draws.items()}
    distances = {
        name: {s: distance(own[s], draws[reference][s]) for s in varying}
        for name, own in draws.items()
        if name != reference
    }
    return Comparison(reference, draws, distances, missing)


def _variables(
    datasets: Mapping[str, Any], asked: str | Sequence[str] | None
) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """The variables that all results have, and which results lack each of the others."""
    names = list(dict.fromkeys(str(v) for data in datasets.values() for v in data.data_vars))
    if asked is not None:
        patterns = [asked] if isinstance(asked, str) else list(asked)
        if unknown := [p for p in patterns if not any(fnmatchcase(n, p) for n in names)]:
            raise ValueError(f"var_names: expected names or globs of {names}, got {unknown}")
        names = [n for n in names if any(fnmatchcase(n, p) for p in patterns)]
    lacking = {v: tuple(n for n, data in datasets.items() if v not in data.data_vars) for v in names}
    shared = [v for v in names if not lacking[v]]
    if not shared:
        held = {name: list(data.data_vars) for name, data in datasets.items()}
        raise ValueError(f"results: expected a variable that all of them have, got {held}")
    for v in shared:
        shapes = {name: tuple(data[v].shape[2:]) for name, data in datasets.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"results: expected one shape of {v!r} in all of them, got {shapes}")
    return shared, {v: lack for v, lack in lacking.items() if lack}


def _labels(variable: str, datasets: Mapping[str, Any]) -> list[tuple[tuple[int, ...], str]]:
    """Places and labels of a variable's elements, by the coordinates of the first result that has other than counts."""
    arrays = [data[variable] for data in datasets.values()]
    labelled = lambda a: any(a[dim].dtype.kind not in "iu" for dim in a.dims[2:])  # noqa: E731
    array = next(filter(labelled, arrays), arrays[0])
    found = []
    for place in np.ndindex(array.shape[2:]):
        at = [str(array[dim].values[i]) for dim, i in zip(array.dims[2:], place, strict=True)]
        found.append((place, f"{variable}[{', '.join(at)}]" if at else variable))
    return found


def _scalars(dataset: Any, labels: Mapping[str, list[tuple[tuple[int, ...], str]]]) -> dict[str, Draws]:
    """The draws of each scalar; their effective sizes by ArviZ."""
    found = {}
    sizes = export.effective_sizes(dataset[list(labels)])
    for variable, places in labels.items():
        values = np.asarray(dataset[variable].values, np.float64)
        columns = values.reshape(values.shape[0] * values.shape[1], -1)
        for column, (place, label) in zip(columns.T, places, strict=True):
            own = np.ascontiguousarray(column)
            of_mean, of_sd = (float(np.asarray(of[variable])[place]) for of in sizes)
            most = float(own.size)  # of what does not vary ArviZ gives none
            found[label] = Draws(own, of_mean if np.isfinite(of_mean) else most, of_sd if np.isfinite(of_sd) else most)
    return found
