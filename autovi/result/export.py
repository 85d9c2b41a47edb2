"""Everything that touches ArviZ, 0.x (`InferenceData`) and 1.x (`DataTree`) alike.

ArviZ and xarray are imported inside the functions, so that `import autovi` does not pay for them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from autovi.versions import version_of

SAMPLE_DIMS = ("chain", "draw")
# ArviZ's schema: the groups whose arrays are not draws.
DATA_GROUPS = frozenset({"observed_data", "constant_data", "predictions_constant_data"})

Groups = Mapping[str, Mapping[str, Any]]


def build(
    groups: Groups,
    *,
    dims: Mapping[str, Sequence[str | None]] | None = None,
    coords: Mapping[str, Any] | None = None,
    predictions: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> Any:
    """Build an `InferenceData` (ArviZ 0.x) or a `DataTree` (1.x) that ArviZ's functions and netCDF take.

    Shapes: arrays of `observed_data`, `constant_data` and `predictions_constant_data` are as they are; those
    of every other group lead with `(chain, draw)`. Groups without arrays are left out. Dtypes are kept,
    booleans and integers too, except that floats of 16 bits or fewer become float32, because netCDF has none.

    Names: where ArviZ or netCDF could not hold a name, it is changed in the same way in all groups. A "/"
    becomes "." (the name of the site stays in the attribute "site" of the variable), and a dim named like a
    variable, or "chain" or "draw", gets "_dim" at its end.

    Args:
        groups: group name -> variable name -> array.
        dims: variable name -> names of its axes after (chain, draw), such as the plates of a site. None, and
            axes that are not listed, get ArviZ's own `{variable}_dim_{i}`; so does an axis whose name is
            repeated.
        coords: dim name -> coordinate values; other dims count from 0. In `predictions` groups, whose data
            may be new, values that do not fit are left out.
        predictions: "dims" and "coords" of the `predictions` groups, if theirs are others.
        attrs: of the object and of its posterior. Numbers and strings stay, all else becomes a JSON string,
            since netCDF holds no nested values. `inference_library`, its version and `created_at` are added.

    Raises:
        ValueError: an array without its (chain, draw) axes, axes of one name but unequal lengths, more names
            than axes, coordinates of another length, two variables of one name; all with the names at fault.

    Example:
        >>> idata = build(
        ...     {"posterior": {"theta": np.zeros((1, 1000, 8))}}, dims={"theta": ["school"]}
        ... )
    """
    import xarray as xr

    filled = {group: dict(variables) for group, variables in groups.items() if variables}
    dims, coords = dict(dims or {}), dict(coords or {})
    plain = _plain_attrs({**_library_attrs(), **(attrs or {})})
    rename = _dim_names(filled)
    datasets = {}
    for group, variables in filled.items():
        own_axes = predictions if predictions is not None and group.startswith("predictions") else None
        own_dims, own_coords = (own_axes["dims"], own_axes["coords"]) if own_axes else (dims, coords)
        arrays = _data_arrays(group, variables, own_dims, rename)
        axes = _sizes(group, arrays)
        own = plain if group == "posterior" else {key: plain[key] for key in _library_attrs()}
        values = _coords_of(group, axes, {rename(dim): v for dim, v in own_coords.items()})
        datasets[group] = xr.Dataset(arrays, coords=values, attrs=own)
    return _container(datasets, plain)


def summary(idata: Any, *, constant: Mapping[str, np.ndarray] | None = None, **kwargs: Any) -> Any:
    """`arviz.summary` made right for independent draws: means, standard deviations and intervals.

    `kind="stats"` unless asked otherwise, because independent draws have no chains to diagnose. For any other
    kind an R-hat that cannot be computed (one chain) is left out. Boolean variables count as 0 and 1.
    Elements that are `constant` (site -> booleans of its shape) are left out of a table with a row for each element.
    Keyword arguments go to `arviz.summary`, whose interval names differ between 0.x and 1.x.

    Example:
        >>> summary(idata, var_names=["theta"], round_to=2)
    """
    import arviz as az

    kwargs = {"kind": "stats", **kwargs}
    dataset = _numeric(_group(idata, kwargs.pop("group", "posterior")))
    _check_names(list(dataset.data_vars), kwargs)
    # A variable that never varies has errors of 0/0, which the table shows as NaN.
    with np.errstate(divide="ignore", invalid="ignore"):
        table = az.summary(dataset, **kwargs)
        if constant and kwargs.get("fmt", "wide") == "wide":
            table = table[~_rows_of(dataset, constant, kwargs)]
    columns = getattr(table, "columns", ())
    return table.drop(columns="r_hat") if "r_hat" in columns and table["r_hat"].isna().all() else table


def _check_names(names: list[str], kwargs: Mapping[str, Any]) -> None:
    """ArviZ says of an unknown name that it is not there, and not which ones are."""
    asked = kwargs.get("var_names")
    if asked is None or kwargs.get("filter_vars") is not None:
        return
    listed = [asked] if isinstance(asked, str) else list(asked)
    if unknown := [name for name in listed if name not in names and str(name).removeprefix("~") not in names]:
        raise ValueError(
            f"var_names: expected some of {names}, or '~name' for all but that, got {unknown}; for "
            "parts of names there is ArviZ's filter_vars='like'"
        )


def _rows_of(dataset: Any, elements: Mapping[str, np.ndarray], kwargs: Mapping[str, Any]) -> np.ndarray:
    """Which rows of the table these elements are: ArviZ orders the same variables in the same way."""
    import arviz as az

    chosen = {variable_name(site): at for site, at in elements.items()}
    marked = dataset.isel(draw=[0, 0]).map(
        lambda array: array.copy(data=np.broadcast_to(chosen.get(array.name, False), array.shape).astype(float))
    )
    selection = {key: kwargs[key] for key in ("var_names", "filter_vars", "coords", "order") if key in kwargs}
    return np.asarray(az.summary(marked, kind="stats", round_to="none", **selection)["mean"], float) > 0.5


def posterior(idata: Any) -> Any:
    """The posterior as an `xarray.Dataset` of numbers, dims `(chain, draw, ...)`: booleans are 0 and 1."""
    import xarray as xr

    return _numeric(idata if isinstance(idata, xr.Dataset) else _group(idata, "posterior"))


def is_arviz(value: Any) -> bool:
    """Is it what ArviZ makes: an `InferenceData` (0.x), a `DataTree` (1.x), or one group of either as a `Dataset`?"""
    import arviz as az
    import xarray as xr

    return isinstance(value, xr.DataTree | xr.Dataset | getattr(az, "InferenceData", xr.Dataset))


def effective_sizes(dataset: Any) -> tuple[Any, Any]:
    """For how many independent draws a posterior stands, of the mean and of the standard deviation of each scalar: two
    Datasets without `(chain, draw)`.

    Vehtari et al. (2021), "Rank-normalization, folding, and localization: an improved R-hat".
    """
    import arviz as az

    # A variable that never varies is 0/0.
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return az.ess(dataset, method="mean"), az.ess(dataset, method="sd")


def density(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A grid and the density on it, by ArviZ's kernel estimate, which ends where the draws end.

    Args:
        draws: finite numbers, at least two of them different, shape `(num_draws,)`.

    Example:
        >>> grid, height = density(np.random.default_rng(0).normal(size=1000))
    """
    if _is_arviz_1():
        from arviz_stats.base import array_stats

        grid, height, _ = array_stats.kde(draws)  # the third is the bandwidth
        return grid, height
    import arviz as az

    return az.kde(draws)


def _is_arviz_1() -> bool:
    import arviz as az

    return int(az.__version__.split(".")[0]) >= 1


def _container(datasets: Mapping[str, Any], attrs: Mapping[str, Any]) -> Any:
    import arviz as az
    import xarray as xr

    if _is_arviz_1():
        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **datasets})
    return az.InferenceData(attrs=attrs, **datasets)


def _group(idata: Any, group: str) -> Any:
    """One group as a Dataset, which both ArviZ lines accept everywhere."""
    found = idata[group]
    return found.to_dataset() if hasattr(found, "to_dataset") else found


def _numeric(dataset: Any) -> Any:
    """Booleans as 0 and 1: ArviZ's intervals and densities subtract."""
    return dataset.map(lambda array: array.astype("int8") if array.dtype == bool else array)


def _library_attrs() -> dict[str, str]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"inference_library": "autovi", "inference_library_version": version_of("autovi"), "created_at": now}


def _plain_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key): _plain(value) for key, value in attrs.items()}


def _plain(value: Any) -> str | int | float:
    """The value as netCDF can hold it: a string, a float or a 64-bit integer; JSON for the rest."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, str | float):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return value
    return json.dumps(value, default=lambda x: x.tolist() if hasattr(x, "tolist") else str(x))


def variable_name(site: str) -> str:
    """The name of a site's variable."""
    # NumPyro's `scope` writes "outer/site"; netCDF and DataTree read "/" as a path.
    return site.replace("/", ".")


def _dim_names(groups: Groups) -> Any:
    """The function from the name of a dim to the one it gets, the same in every group."""
    taken = {*SAMPLE_DIMS, *(variable_name(site) for variables in groups.values() for site in variables)}

    def rename(dim: str) -> str:
        # xarray would take a variable on a dim of its own name for coordinates, or refuse it.
        name = variable_name(dim)
        while name in taken:
            name = f"{name}_dim"
        return name

    return rename


def _data_arrays(
    group: str, variables: Mapping[str, Any], dims: Mapping[str, Sequence[str | None]], rename: Any
) -> dict[str, Any]:
    lead = () if group in DATA_GROUPS else SAMPLE_DIMS
    arrays: dict[str, Any] = {}
    for site, value in variables.items():
        name = variable_name(site)
        if name in arrays or name in SAMPLE_DIMS:
            what = "is taken by ArviZ" if name in SAMPLE_DIMS else "names two variables"
            raise ValueError(f"{group}: {name!r} (site {site!r}) {what}; rename the site")
        array = _storable(np.asarray(value), f"{group}[{site!r}]")
        if array.ndim < len(lead):
            raise ValueError(f"{group}[{site!r}]: expected leading axes (chain, draw), got shape {array.shape}")
        ndim = array.ndim - len(lead)
        # A value with event dims has one density.
        given = dims.get(site, ())[:ndim] if group == "log_likelihood" else dims.get(site, ())
        names = _axis_names(site, ndim, given, rename)
        arrays[name] = ((*lead, *names), array, {} if name == site else {"site": site})
    return arrays


def _storable(array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype.type.__module__ == "ml_dtypes" or array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind not in "biufcSUmM":
        raise ValueError(f"{where}: expected numbers, got dtype {array.dtype}")
    return array


def _axis_names(site: str, ndim: int, dims: Sequence[str | None], rename: Any) -> list[str]:
    if len(dims) > ndim:
        raise ValueError(f"dims[{site!r}]: it names {len(dims)} axes {list(dims)}, but the variable has {ndim}")
    given: Iterable[str | None] = [*dims, *[None] * (ndim - len(dims))]
    names: list[str] = []
    for i, dim in enumerate(given):
        own = None if dim is None else rename(dim)
        names.append(rename(f"{site}_dim_{i}") if own is None or own in names else own)
    return names


def _sizes(group: str, arrays: Mapping[str, Any]) -> dict[str, int]:
    first: dict[str, tuple[int, str]] = {}
    for name, (dims, array, _) in arrays.items():
        for dim, size in zip(dims, array.shape, strict=True):
            known, other = first.setdefault(dim, (size, name))
            if known != size:
                raise ValueError(
                    f"{group}: the axis {dim!r} has length {known} in {other!r}, but {size} in {name!r}; "
                    "give them different dims"
                )
    return {dim: size for dim, (size, _) in first.items()}


def _coords_of(group: str, sizes: Mapping[str, int], coords: Mapping[str, Any]) -> dict[str, np.ndarray]:
    values = {}
    for dim, size in sizes.items():
        given = _coordinate(coords[dim]) if dim in coords else None
        if given is not None and len(given) != size and not group.startswith("predictions"):
            raise ValueError(f"coords[{dim!r}]: it has {len(given)} values, but the axis has {size} in {group}")
        values[dim] = given if given is not None and len(given) == size else np.arange(size)
    return values


def _coordinate(values: Any) -> np.ndarray:
    """One-dimensional labels of one type; mixed or compound ones (tuples, dates with a zone) as text."""
    items = values if hasattr(values, "__array__") else list(values)
    try:
        array = np.asarray(items)
    except ValueError:
        array = np.empty((len(items), 0))
    # A list such as [1, "a"] is text to NumPy already; tuples make a second axis or objects.
    return array if array.ndim == 1 and array.dtype.kind != "O" else np.array([str(item) for item in items])
