"""Names and labels of the axes of what a fit gives back: dims and coords, as ArviZ takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from autovi.analysis.shared_axes import Codes, indexed_axes, multiplied_axes
from autovi.keys import is_key
from autovi.model.inputs import Inputs
from autovi.model.labels import Labels, agreed, plate_coords
from autovi.model.sites import Site, Sites
from autovi.model.targets import trace_program
from autovi.model.traced import Traced
from autovi.numbers import how_many

Dims = dict[str, list[str | None]]


@dataclass(frozen=True)
class Axes:
    """Dims and coords of a model's sites, and of the data arrays beside them.

    Names are the plates', labels those of the data, unless `dims` and `coords` say otherwise.

    Args:
        traced: the model with every plate at full size.
        inputs: its data.
        coords: dim, or plate, -> labels, as the user gave them.
        dims: variable -> names of all its axes, as the user gave them.
    """

    traced: Traced
    inputs: Inputs
    coords: Mapping[str, Any] = field(default_factory=dict)
    dims: Mapping[str, Sequence[str | None]] = field(default_factory=dict)

    def named(self) -> dict[str, Any]:
        """Dims by variable and coords by dim."""
        return {"dims": self._named, "coords": self._labels}

    def variable(self, argument: str) -> str:
        """The name of a data array in ArviZ: names of sites and plates are theirs alone."""
        taken = {*self._sites.samples, *self._sites.deterministics, *self._sites.plates}
        return self.variable(f"{argument}_data") if argument in taken else argument

    def of_new_data(self, model: Callable, inputs: Inputs) -> dict[str, Any]:
        """Dims and coords of predictions for these data. Labels of the fit are those of axes that latent sites have,
        whose elements stay the same where their number does."""
        traced, _ = trace_program(model, None, inputs)
        if lengths := {n: p.size for n, p in traced.sites.subsampled.items()}:
            traced, _ = trace_program(model, None, inputs, lengths)
        own = Axes(traced, inputs, {}, self.dims).named()
        lasting = {dim for name in self._sites.latents for dim in self._named[name]}
        kept = {dim: values for dim, values in self._labels.items() if dim in lasting}
        return {"dims": own["dims"], "coords": {**kept, **own["coords"]}}

    def check(self) -> None:
        """Do the user's dims and coords fit the model?

        Raises:
            ValueError: an unknown variable or dim, or names or labels of another number than its axes or elements; the
                message has what was expected and what was given.
        """
        sizes: dict[str, tuple[int, str]] = {}
        for name, names in self.dims.items():
            if name not in self._shapes:
                raise ValueError(f"dims: no variable is called {name!r}; the variables are {sorted(self._shapes)}")
            shape = self._shapes[name]
            listed = isinstance(names, list | tuple)
            if not listed or len(names) != len(shape):
                count = f"{len(names)}, {list(names)}" if listed else f"a {type(names).__name__}"
                raise ValueError(
                    f"dims[{name!r}]: expected a list of {how_many(len(shape), 'name')}, one for each axis of shape "
                    f"{shape}, got {count}"
                )
        for name, axes in self._named.items():
            for dim, size in zip(axes, self._shapes[name], strict=True):
                known, first = sizes.setdefault(str(dim), (size, name))
                if known != size:
                    raise ValueError(
                        f"dims: {dim!r} has length {known} in {first!r}, but {size} in {name!r}; give them different "
                        "names"
                    )
        for dim, values in self.coords.items():
            self._check_coordinate(dim, values, {**sizes, **{n: (k, "") for n, k in self._plate_sizes.items()}})

    def _check_coordinate(self, dim: str, values: Any, sizes: Mapping[str, tuple[int, str]]) -> None:
        if dim not in sizes:
            raise ValueError(f"coords: nothing has the dim {dim!r}; the dims are {sorted(sizes)}")
        if isinstance(values, str) or np.ndim(values) == 0 or not hasattr(values, "__len__"):
            raise ValueError(f"coords[{dim!r}]: expected a list of labels, got {values!r}")
        size, variable = sizes[dim]
        if len(values) != size:
            where = f" (in {variable!r})" if variable else ""
            raise ValueError(
                f"coords[{dim!r}]: expected {size} labels, the length of the dim{where}, got {len(values)}"
            )

    @property
    def _sites(self) -> Sites:
        return self.traced.sites

    @cached_property
    def _plate_sizes(self) -> dict[str, int]:
        return {p.name: p.size for p in self._sites.plates.values()}

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every variable that may be in a group."""
        graph = self.traced.graph
        arrays = {self.variable(n): np.shape(a) for n, a in self.inputs.arrays.items()}
        sites = {n: s.shape for n, s in self._sites.samples.items() if not s.auxiliary}
        return {**arrays, **sites, **{n: graph.shape(f"value:{n}") for n in self._sites.deterministics}}

    @cached_property
    def _default(self) -> Dims:
        """The names that all axes have by themselves."""
        plates = {n: _plate_names(s) for n, s in self._sites.samples.items()}
        plates |= {n: list(names) for n, names in self._sites.deterministics.items()}
        plates |= {self.variable(n): self._data_dims(n, np.shape(a)) for n, a in self.inputs.arrays.items()}
        whole: Dims = {}
        for name, shape in self._shapes.items():
            names = [*plates[name], *[None] * len(shape)][: len(shape)]
            whole[name] = [f"{name}_dim_{i}" if dim is None else dim for i, dim in enumerate(names)]
        return whole

    @cached_property
    def _named(self) -> Dims:
        """The names of all axes, those of the user first."""
        given = {n: names for n, names in self.dims.items() if len(names) == len(self._default.get(n, ()))}
        return {
            name: [own if dim is None else dim for dim, own in zip(given.get(name, axes), axes, strict=True)]
            for name, axes in self._default.items()
        }

    @cached_property
    def _labels(self) -> dict[str, Any]:
        """Coords by dim. An axis that the user names keeps the labels that it has by itself."""
        own = {**self._shared, **self._column_coords, **self._plates, **self.coords}
        renamed: dict[str, list[Any]] = {}
        for name, axes in self._named.items():
            for dim, default in zip(axes, self._default[name], strict=True):
                if dim != default and default in own:
                    renamed.setdefault(str(dim), []).append(np.asarray(own[default]))
        carried = {dim: values for dim, found in renamed.items() if (values := agreed(found)) is not None}
        return {**carried, **own}

    @cached_property
    def _plates(self) -> dict[str, Any]:
        plates = {dim: values for dim, values in self._shared.items() if dim in self._plate_sizes}
        return plate_coords(self._plate_sizes, self.inputs.labels, plates)

    @cached_property
    def _shared(self) -> dict[str, Any]:
        """Labels of axes of sites which the program shows to be those of a column of codes or of a matrix's columns."""
        labels, graph = self.inputs.labels, self.traced.graph
        columns = {n: label.categories for n, label in labels.items() if label.categories is not None}
        codes = [Codes(n, len(names), self._told_apart(n)) for n, names in columns.items()]
        matrices = {
            (n, axis): values
            for n, label in labels.items()
            for axis, values in enumerate(label.coords[1:], start=1)
            if values is not None and label.dims[axis] not in self._plate_sizes
        }
        found: dict[str, list[Any]] = {}
        if codes:
            for path, axes in indexed_axes(graph, codes).items():
                for dim in {self._axis_name(*axis) for axis in axes}:
                    found.setdefault(dim, []).append(columns[path])
        stacked = [n for n, array in self.inputs.arrays.items() if np.ndim(array) == 1]
        if matrices or len(stacked) > 1:
            for data, axes in multiplied_axes(graph, matrices, stacked).items():
                names = matrices[data] if data in matrices else np.array([_last_name(path) for path in data])
                for dim in {self._axis_name(*axis) for axis in axes}:
                    found.setdefault(dim, []).append(names)
        return {dim: values for dim, values in ((d, agreed(v)) for d, v in found.items()) if values is not None}

    def _told_apart(self, name: str) -> np.ndarray | None:
        """A column that is a constant of the program, unless something else could have its values."""
        array = np.asarray(self.inputs.arrays[name])
        counting = np.array_equal(array, np.arange(array.size)) or np.ptp(array) == 0
        others = [other for n, other in numbers_of(self.inputs).items() if n != name]
        twice = any(np.array_equal(array, other) for other in others)
        return array if self.inputs.concrete and not counting and not twice else None

    def _axis_name(self, variable: str, axis: int) -> str:
        sites = {**self._sites.samples}
        names = _plate_names(sites[variable]) if variable in sites else list(self._sites.deterministics[variable])
        dim = names[axis] if axis < len(names) else None
        return f"{variable}_dim_{axis}" if dim is None else dim

    def _data_dims(self, name: str, shape: tuple[int, ...]) -> list[str | None]:
        """The plates among a data array's axes: those that its labels name, else the only one of that length."""
        labels, sizes = self.inputs.labels.get(name), self._plate_sizes
        names: list[str | None] = []
        for axis, size in enumerate(shape):
            dim, values = (None, None) if labels is None else (labels.dims[axis], labels.coords[axis])
            fitting = [plate for plate in sizes if sizes[plate] == size]
            plate = dim if dim is not None else fitting[0] if len(fitting) == 1 else None
            # The columns of a table are no plate, though there be as many.
            foreign = plate not in fitting or (values is not None and not _same(values, self._plates.get(plate)))
            names.append(None if foreign or plate in names else plate)
        return names

    @cached_property
    def _column_coords(self) -> dict[str, Any]:
        """Labels of the axes of data arrays that are no plates."""
        labels: dict[str, Labels] = {self.variable(n): label for n, label in self.inputs.labels.items()}
        return {
            f"{n}_dim_{axis}": values
            for n, label in labels.items()
            for axis, values in enumerate(label.coords)
            if values is not None and n in self._default and self._default[n][axis] == f"{n}_dim_{axis}"
        }


def as_dicts(coords: Any, dims: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Copies of a user's coords and dims, lists of labels and names included; None is an empty dict.

    Raises:
        TypeError: something else than a dict.
    """
    for argument, what, given in (("coords", "dim -> labels", coords), ("dims", "variable -> names", dims)):
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(f"{argument}: expected a dict, {what}, got a {type(given).__name__}")
    own = lambda given: {name: v.copy() if hasattr(v, "copy") else v for name, v in (given or {}).items()}  # noqa: E731
    return own(coords), own(dims)


def numbers_of(inputs: Inputs) -> dict[str, np.ndarray]:
    """The arrays of the data, keys of random numbers apart."""
    return {n: np.asarray(a) for n, a in inputs.arrays.items() if not is_key(a)}


def _last_name(path: str) -> str:
    """ "age" of "df['age']"."""
    return path.rsplit("[", 1)[-1].strip("'\"]")


def _plate_names(site: Site) -> list[str | None]:
    names: list[str | None] = [None] * len(site.batch_shape)
    for plate in site.plates:
        if -plate.dim <= len(names) and site.batch_shape[plate.dim] == plate.size:
            names[plate.dim] = plate.name
    return names


def _same(values: np.ndarray, other: np.ndarray | None) -> bool:
    return other is not None and np.array_equal(values, other)
