"""Engines that are kept for the next fit of the same program: which are the same, how many, for how long."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import Lock
from types import BuiltinMethodType, MethodType
from typing import Any, Protocol, TypeVar

import jax
from numpyro.distributions import Distribution

MAX_ENGINES = 16
MAX_CONSTANT_BYTES = 256 * 2**20
# Settings of JAX that change what is told of a program, or where it is kept, and not what it computes.
_IDLE_SETTINGS = (
    "jax_compilation_cache",
    "jax_compiler_detailed_logging",
    "jax_debug_log",
    "jax_dump",
    "jax_enable_compilation_cache",
    "jax_explain",
    "jax_include",
    "jax_log",
    "jax_persistent_cache",
    "jax_pprint",
    "jax_raise_persistent_cache_errors",
    "jax_trace",
)


class Latest:
    """A user's function in a kept engine: a reference that does not keep it alive, nor the data that it closes over.

    Functions that compute the same follow one another here, and the latest one that is still in use is called.
    """

    def __init__(self, function: Callable):
        self._functions: list[Callable[[], Callable | None]] = []
        self.use(function)

    def use(self, function: Callable) -> None:
        """Takes this function from now on."""
        living = [r for r in self._functions if (other := r()) is not None and not _is_same(other, function)]
        self._functions = [*living[1 - MAX_ENGINES :], _weakly(function)]

    @property
    def function(self) -> Callable:
        """The function itself."""
        for reference in reversed(self._functions):
            if (function := reference()) is not None:
                return function
        raise ReferenceError("the function that was fitted is gone; keep the fit while its engine is in use")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def _is_same(function: Callable, other: Callable) -> bool:
    # A method is a new object whenever it is looked up; of other objects equality may be anything.
    return function is other or (isinstance(function, MethodType) and function == other)


def _weakly(function: Callable) -> Callable[[], Callable | None]:
    if isinstance(function, MethodType):
        return weakref.WeakMethod(function)
    try:
        # A method of a builtin object is kept by nobody else either, and cannot be made again from its object.
        return (lambda: function) if isinstance(function, BuiltinMethodType) else weakref.ref(function)
    except TypeError:  # an object with slots
        return lambda: function


class Kept(Protocol):
    """An engine, as far as it concerns its keeping."""

    @property
    def constant_bytes(self) -> int:
        """Bytes of constants in its programs."""

    def forget(self) -> None:
        """Drops what it has compiled."""


K = TypeVar("K", bound=Kept)


class Cache:
    """The engines of the last fits, the least recently used dropped first.

    At most `size` of them, whose programs hold at most `max_bytes` of constants. Data that are arguments of a program
    are not held.
    """

    def __init__(self, size: int = MAX_ENGINES, max_bytes: int = MAX_CONSTANT_BYTES):
        self.size, self.max_bytes = size, max_bytes
        self.engines = OrderedDict[Any, Any]()
        self._lock = Lock()

    def get(self, key: Any, make: Callable[[], K]) -> K:
        """The engine of this key, made if it is not there."""
        with self._lock:
            engine = self.engines.get(key)
        engine = make() if engine is None else engine
        with self._lock:
            engine = self.engines.setdefault(key, engine)
            self.engines.move_to_end(key)
            while len(self.engines) > self.size or self.constant_bytes > self.max_bytes:
                self.engines.popitem(last=False)
        return engine

    @property
    def constant_bytes(self) -> int:
        """Bytes of constants in the programs of all engines."""
        return sum(engine.constant_bytes for engine in self.engines.values())

    def clear(self) -> None:
        """Drops all engines and what they have compiled."""
        with self._lock:
            engines, self.engines = list(self.engines.values()), OrderedDict()
        for engine in engines:
            engine.forget()


CACHE = Cache()


def clear_cache() -> None:
    """Drops the compiled programs that autovi keeps for further fits, and the memory that they take.

    The last 16 programs are kept, as long as their constants (arrays that a model closes over) take less than 256 MiB
    together. A fit that exists stays what it is, and compiles anew what it needs. What JAX has compiled for others is
    not touched (`jax.clear_caches()` drops that), nor are files (`use_compilation_cache`).

    Example:
        >>> autovi.clear_cache()
    """
    CACHE.clear()


def environment() -> tuple[Any, ...]:
    """All settings outside of the program that change what is compiled from it. Hashable."""
    # The attribute knows of a `with` block, such as jax.default_matmul_precision; not all settings have one.
    values = {name: getattr(jax.config, name, value) for name, value in jax.config.values.items()}
    settings = tuple((name, repr(value)) for name, value in values.items() if not name.startswith(_IDLE_SETTINGS))
    mesh, validated = str(jax.sharding.get_abstract_mesh()), Distribution._validate_args
    return settings, jax.default_backend(), mesh, validated


def sorted_items(batch_size: Any) -> Any:
    """A batch size as part of a key."""
    return tuple(sorted(batch_size.items())) if isinstance(batch_size, Mapping) else batch_size
