"""A fit to another process and back, by pickle: the bytes of its file, and beside them what a file does not hold."""

from __future__ import annotations

import copyreg
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import jax
import optax

from autovi.estimators import ESTIMATORS, Estimator
from autovi.families import FAMILIES, Family
from autovi.loading import data_of, restored_fit
from autovi.model.guides import not_set_up
from autovi.model.inputs import Inputs
from autovi.objectives import OBJECTIVES, Objective
from autovi.process import FORKED, is_fork_of_running_jax
from autovi.result import storage
from autovi.result.fit import Fit
from autovi.result.saving import contents

BY_VALUE = "cloudpickle"  # takes functions along that pickle only names
REMEDIES = (
    f"Define it at the top level of a module, install {BY_VALUE}, which takes functions as they are, or write "
    "fit.save(path) and read it there by autovi.load(path, model)"
)


def register() -> None:
    """Tells `pickle`, and all that stand on it, how a `Fit` travels."""
    copyreg.pickle(Fit, _reduced)


@dataclass(frozen=True)
class ArrayAt:
    """An array of the data, in the place that it has among the model's arguments."""

    path: str


class Baggage(NamedTuple):
    """What of a fit is in no file: functions and objects of the user's own."""

    model: Callable
    guide: Any
    arguments: Any  # of the model, with `ArrayAt` in place of arrays
    families: Mapping[str, Family]
    estimators: Mapping[str, Estimator]
    objective: Objective | None
    optimizer: optax.GradientTransformation | None

    def named(self) -> dict[str, Any]:
        """Each thing by what messages call it."""
        leaves = jax.tree_util.tree_leaves_with_path(self.arguments, is_leaf=_is_leaf)
        return {
            "model": self.model,
            "guide": self.guide,
            "objective": self.objective,
            **{f"family of site {n!r}": family for n, family in self.families.items()},
            **{f"estimator of site {n!r}": estimator for n, estimator in self.estimators.items()},
            **{f"model's argument at {jax.tree_util.keystr(path[1:])}": leaf for path, leaf in leaves},
        }


@dataclass(frozen=True)
class ByValue:
    """Bytes that unpickle to what they were made of."""

    content: bytes

    def __reduce__(self) -> Any:
        return pickle.loads, (self.content,)


class LostInFork:
    """A fit that arrived in a process in which it cannot be made. Whoever asks it for anything is told so: an error on
    arrival would end a worker of `multiprocessing.Pool`, and leave whoever waits for it waiting."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError(FORKED)


def _reduced(fit: Fit) -> tuple[Callable, tuple[bytes, Any]]:
    """What pickle writes for a fit.

    Raises:
        pickle.PicklingError: something of the user's own cannot be pickled; the message names it.
    """
    arrays, meta = contents(fit, with_data=not fit.lacks_data)
    return _arrived, (storage.to_bytes(arrays, meta), _packed(_baggage(fit)))


def _arrived(content: bytes, baggage: Baggage) -> Any:
    if is_fork_of_running_jax():
        return LostInFork()
    arrays, meta = storage.from_bytes(content, "pickle")
    data = data_of(arrays, meta)
    filled = lambda leaf: data[leaf.path] if isinstance(leaf, ArrayAt) else leaf  # noqa: E731
    arguments = jax.tree.map(filled, baggage.arguments, is_leaf=_is_leaf)
    try:
        return restored_fit(arrays, meta, **{**baggage._asdict(), "arguments": arguments})
    except (ValueError, TypeError) as error:
        raise ValueError(f"pickle: {error}") from error


def _baggage(fit: Fit) -> Baggage:
    plan, objective = fit.engine.program.plan, fit.engine.program.objective
    blocks = [(site, block) for block in (*plan.blocks, *plan.marginal.values()) for site in block.sites]
    return Baggage(
        model=fit.model,
        guide=not_set_up(fit.guide),
        arguments=_arguments(fit.inputs),
        families={s: b.family for s, b in blocks if b.family is not None and not _in(FAMILIES, b.family)},
        estimators={s: b.estimator for s, b in blocks if not _in(ESTIMATORS, b.estimator)},
        objective=None if _in(OBJECTIVES, objective) else objective,
        optimizer=fit.engine.optimizer.transform,
    )


def _arguments(inputs: Inputs) -> Any:
    static = dict(inputs.static)
    leaves = [ArrayAt(path) if path in inputs.arrays else static[path] for path in inputs.paths]
    return jax.tree.unflatten(inputs.tree, leaves)


def _is_leaf(value: Any) -> bool:
    """Whatever arrays may lie in (dicts, tuples, lists, the columns of a frame) is gone into."""
    return isinstance(value, ArrayAt)


def _in(table: Mapping[str, type], instance: Any) -> bool:
    """Is it of autovi's own class of that name? Then the file says how to make it again."""
    return table.get(instance.name) is type(instance)


def _packed(baggage: Baggage) -> Baggage | ByValue:
    """What the pickler at work can take: things as they are, or bytes where pickle cannot take one of them."""
    # Tried once: it is not told which pickler asks, and in the midst of its work no message of ours would be heard.
    if _fault(baggage) is None:
        return baggage
    by_value = _by_value()
    if by_value is not None and _fault(baggage, by_value) is None:
        return ByValue(by_value.dumps(baggage))
    pickler = by_value or pickle
    for name, part in baggage.named().items():
        if fault := _fault(part, pickler):
            called = getattr(part, "__qualname__", None) or repr(part)
            tried = f", nor can {BY_VALUE}" if by_value is not None else ""
            raise pickle.PicklingError(
                f"this fit cannot be pickled: pickle cannot take its {name}, {called}{tried} ({fault}). {REMEDIES}"
            )
    fault = _fault(baggage.optimizer, pickler)
    if fault is None:
        raise pickle.PicklingError(f"this fit cannot be pickled: {_fault(baggage, pickler)}. {REMEDIES}")
    warnings.warn(
        f"the optimizer of this fit cannot be pickled ({fault}): the copy goes without it, and so without what it "
        f"remembers. Install {BY_VALUE} to keep it",
        UserWarning,
        stacklevel=3,
    )
    return _packed(baggage._replace(optimizer=None))


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)


def _fault(item: Any, pickler: Any = pickle) -> Exception | None:
    """What a pickler says of something that it cannot take."""
    try:
        pickler.Pickler(_Nowhere(), pickle.HIGHEST_PROTOCOL).dump(item)
    except Exception as error:  # reducers of users' objects may raise anything
        return error
    return None


def _by_value() -> Any:
    try:
        return import_module(BY_VALUE)
    except ImportError:
        return None
