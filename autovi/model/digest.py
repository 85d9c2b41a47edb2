"""Digests of Python objects: functions by code and by what they read, objects by type and state."""

from __future__ import annotations

import copyreg
import dis
import enum
import functools
import hashlib
import itertools
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from autovi.model.libraries import MADE_AT_RUN_TIME, class_name, is_installed, is_of_jax, is_of_library, reference

_NEVER = itertools.count()  # stands for a state that cannot be read: no two are equal
_ADDRESS = re.compile(r"0x[0-9a-f]+")
_PLAIN = bool | int | float | complex | str | range | np.dtype | types.EllipsisType | types.NotImplementedType
_PLAIN_MODULES = ("builtins", "numpy", "numpy.dtypes")  # of one's own, they may have attributes
_BOUND = (
    *(types.MethodType, types.BuiltinMethodType, types.MethodWrapperType, functools.partial),
    *(property, staticmethod, classmethod, functools.cached_property),
)
# What Python writes into every class, and what dataclasses keep beside the methods they make.
_CLASS_NOISE = frozenset(
    "__dict__ __weakref__ __doc__ __module__ __firstlineno__ __static_attributes__ __annotations__ __annotate__ "
    "__annotate_func__ __annotations_cache__ __dataclass_fields__ __dataclass_params__ __parameters__ _abc_impl "
    "__orig_bases__ __match_args__ __slots__ __abstractmethods__ __signature__ __slotnames__".split()
)


def digest(value: Any) -> str:
    """A digest of `value` by type and content; equal digests mean objects that compute alike.

    Functions count by their code, defaults, closure and the globals they read, objects by their class and state, what
    is installed (standard library, site-packages, autovi) by its name. A state that cannot be read (a lock, an object
    of a C extension that does not pickle) gives a digest that no other equals, itself taken again included. Not seen:
    names that code makes up as it runs (`globals()[name]`, `getattr(module, name)`).

    Example:
        >>> digest(lambda x, k=1: x + k) == digest(lambda x, k=2: x + k)
        False
    """
    walk = walk_over([value])
    return walk.program() + walk.state()


def walk_over(roots: Iterable[Any]) -> Walk:
    """The walk over these objects, one after the other."""
    walk = Walk()
    try:
        for root in roots:
            walk.add(root)
    except RecursionError:  # a chain of objects longer than Python follows
        walk.opaque = True
    return walk


def without_addresses(text: str) -> str:
    """`text` without the addresses in it, which differ from object to object."""
    return _ADDRESS.sub("", text)


class Walk:
    """Digests of objects in two parts: `program()` of what cannot change, `state()` of what can.

    `objects` are the changeable objects that were met, the mutable ones a compiled program keeps hold of when it calls
    back into Python. Two programs are exchangeable only if these are the same objects.
    """

    def __init__(self) -> None:
        self._fixed, self._changing = hashlib.sha256(), hashlib.sha256()
        self._below = 0  # how many changeable objects we are inside of
        self._in_jax = True  # in what JAX puts around a callback: new at every trace, and nobody changes it
        self._held = False  # in one of `objects`: who shares that shares all in it
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []  # an id is of one object only as long as that lives
        self.objects: list[Any] = []
        self.opaque = False

    def program(self) -> str:
        """The digest of code and of constants."""
        return self._fixed.hexdigest()

    def state(self) -> str:
        """The digest of cells, globals, containers and attributes; unique if one of them cannot be read."""
        return self._changing.hexdigest() + (f" {next(_NEVER)}" if self.opaque else "")

    def content(self) -> str:
        """The digest of both, as far as they can be read."""
        return self._fixed.hexdigest() + self._changing.hexdigest()

    def put(self, kind: str, content: bytes | str = b"") -> None:
        """Adds a piece of content. Kind and length go with it, so that no two sequences of pieces look alike."""
        content = content.encode(errors="surrogatepass") if isinstance(content, str) else content
        hasher = self._changing if self._below else self._fixed
        hasher.update(f"{kind} {len(content)}:".encode() + content)

    def add(self, value: Any) -> None:
        """Adds any object."""
        if value is None or (isinstance(value, _PLAIN) and type(value).__module__ in _PLAIN_MODULES):
            return self.put(type(value).__name__, repr(value))
        if type(value) in (bytes, np.bytes_):
            return self.put("bytes", value)
        if isinstance(value, jax.core.Tracer | jax.core.AbstractValue):
            return self.put("traced", str(jax.typeof(value) if isinstance(value, jax.core.Tracer) else value))
        if isinstance(value, jax.Array | np.generic) and not isinstance(value, np.ndarray):
            return self.array(value)
        if isinstance(value, types.MappingProxyType):
            value = dict(value)
        if type(value) in (tuple, frozenset, slice):
            return self._immutable(value)
        if isinstance(value, jax.tree_util.PyTreeDef | jax.ShapeDtypeStruct):
            return self.put(type(value).__name__, without_addresses(str(value)))
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, types.CellType):
            return self._changeable(value, "cell", lambda: self._cell(value))
        if (name := reference(value)) is not None:
            return self.put("reference", name)
        if id(value) in self._seen:
            return self.put("again", str(self._seen[id(value)]))
        self._seen[id(value)] = len(self._seen)
        self._alive.append(value)
        self._object(value)

    def array(self, value: Any) -> None:
        """Adds an array or a JAX key by type, shape and bytes."""
        if isinstance(value, jax.core.Tracer):  # what it will be is not known: it equals nothing
            self.opaque = True
            return
        kind = f"{type(value).__name__} {getattr(value, 'weak_type', '')}"
        if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            kind, value = f"{kind} {value.dtype}", jax.random.key_data(value)
        array = np.asarray(value)
        self.put("array", f"{kind} {array.dtype.str} {array.dtype} {array.shape}")
        if array.dtype.hasobject:
            return self._each(array.ravel().tolist())
        self.put("bytes", np.ascontiguousarray(array).tobytes())

    def _object(self, value: Any) -> None:
        if isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.ModuleType):
            self.put("module", value.__name__)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, _BOUND):
            outside, self._in_jax = self._in_jax, False
            name: Any = getattr(value, "__name__", "")
            self.put(class_name(type(value)), str(name))
            self._each(_parts(value))
            self._in_jax = outside
        elif isinstance(value, enum.Enum):
            self.put("enum", value.name)
            self.add(type(value))
        else:
            self._changeable(value, "object", lambda: self._instance(value))

    def _each(self, items: Iterable[Any]) -> None:
        items = list(items)
        self.put("items", str(len(items)))
        for item in items:
            self.add(item)

    def _immutable(self, value: Any) -> None:
        self.put(type(value).__name__)
        if isinstance(value, frozenset):
            return self._unordered(value)
        self._each((value.start, value.stop, value.step) if isinstance(value, slice) else value)

    def _unordered(self, items: Iterable[Any]) -> None:
        parts = []
        for item in items:
            inner = Walk()
            inner.add(item)
            parts.append(inner.program() + inner.state())
            self.opaque |= inner.opaque
            self.objects += inner.objects
        self._each(sorted(parts))

    def _changeable(self, value: Any, kind: str, content: Any) -> None:
        self.put(kind, class_name(type(value)))
        held = not self._held and not (self._in_jax and _is_jax_or_plain(value))
        if held:
            self.objects.append(value)
        self._held |= held
        self._below += 1
        content()
        self._below -= 1
        self._held &= not held

    def _cell(self, cell: types.CellType) -> None:
        try:
            self.add(cell.cell_contents)
        except ValueError:
            self.put("empty")

    def _code(self, code: types.CodeType) -> None:
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_name)
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        self.put("code", code.co_code)
        self._each((names, counts, getattr(code, "co_exceptiontable", b""), code.co_consts))

    def _function(self, function: types.FunctionType) -> None:
        outside, library = self._in_jax, is_of_library(function)
        self._in_jax = library and is_of_jax(function)
        self.put("function", function.__qualname__)
        self._code(function.__code__)
        self._each((function.__defaults__, *sorted((function.__kwdefaults__ or {}).items())))
        if attributes := {k: v for k, v in vars(function).items() if k not in ("__wrapped__", "__isabstractmethod__")}:
            self._changeable(function, "attributes", lambda: self._mapping(attributes))
        for cell in function.__closure__ or ():
            self.add(cell)
        if not library:
            self._globals(function)
        self._in_jax = outside

    def _globals(self, function: types.FunctionType) -> None:
        """The globals that the code reads; of a module of the user's own, the attributes that it may read of it."""
        namespace, names = function.__globals__, sorted(_names(function.__code__))
        found = {n: namespace[n] for n in sorted(_global_names(function.__code__)) if n in namespace}
        if all(reference(v) is not None for v in found.values()):
            return self._each(found.items())

        def read() -> None:
            for name, value in found.items():
                self.put("global", name)
                self.add(value)
                if isinstance(value, types.ModuleType):
                    self._module(value, names)

        self._changeable(namespace, "globals", read)

    def _module(self, module: types.ModuleType, names: list[str], above: tuple[Any, ...] = ()) -> None:
        """The attributes of a module of the user's own, and of those in it, that code with these names may read."""
        for name in names:
            if name in vars(module) and module not in above and not is_installed(module.__name__):
                value = vars(module)[name]
                self._each((name, value))
                if isinstance(value, types.ModuleType):
                    self._module(value, names, (*above, module))

    def _class(self, cls: type) -> None:
        self.put("class", class_name(cls))
        if not cls.__flags__ & MADE_AT_RUN_TIME:  # mappingproxy, method and the like, which no module has by name
            return
        self._each(cls.__bases__)
        self._each([type(cls)])
        for name, value in sorted(vars(cls).items()):
            if name in _CLASS_NOISE or isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType):
                continue
            self.put("attribute", name)
            fixed = isinstance(value, types.FunctionType | property | staticmethod | classmethod | type)
            self._below += not fixed
            self.add(value)
            self._below -= not fixed

    def _mapping(self, items: Mapping[Any, Any]) -> None:
        self._each(part for pair in items.items() for part in pair)

    def _instance(self, value: Any) -> None:
        outside = self._in_jax
        if type(value) not in (list, dict, set):
            self._in_jax = is_of_jax(type(value))
        self.add(type(value))
        if type(value) is np.ndarray:
            self.array(value)
        elif type(value) in (list, dict, set):
            (self._mapping if type(value) is dict else self._unordered if type(value) is set else self._each)(value)
        elif _state_is_in_attributes(type(value)):
            self._attributes(value)
        elif callable(value) and hasattr(value, "__wrapped__"):  # of jax.jit, functools.lru_cache
            self._attributes(value, without=("_fun", "_jit_info", "__doc__", "__annotations__"))
        else:
            self._by_pickle(value)
        self._in_jax = outside

    def _attributes(self, value: Any, without: tuple[str, ...] = ()) -> None:
        attributes = dict(_slots(value))
        attributes.update(getattr(value, "__dict__", {}))
        self._mapping({k: v for k, v in sorted(attributes.items(), key=lambda i: str(i[0])) if k not in without})

    def _by_pickle(self, value: Any) -> None:
        """An object with a state in C, as pickle would write it."""
        try:
            reduce = copyreg.dispatch_table.get(type(value))
            reduced: Any = value.__reduce_ex__(4) if reduce is None else reduce(value)
            parts = [list(p) if isinstance(p, Iterator) else p for p in reduced]
        except Exception:  # of whatever kind: the object does not tell its state
            self.opaque = True
            return
        if isinstance(reduced, str):  # a name, at which there need not be this object
            self.opaque = True
        self._each(parts)


def _parts(value: Any) -> tuple[Any, ...]:
    match value:
        case property():
            return value.fget, value.fset, value.fdel
        case functools.partial():
            return value.func, value.args, *value.keywords.items()
        case types.MethodType():
            return value.__func__, value.__self__
        case types.BuiltinMethodType() | types.MethodWrapperType():
            return (value.__self__,)
        case functools.cached_property():  # whose lock is no state
            return (value.func,)
    return (value.__func__,)


def _is_jax_or_plain(value: Any) -> bool:
    return isinstance(value, types.CellType) or type(value) in (list, dict, set) or is_of_jax(type(value))


def _state_is_in_attributes(cls: type) -> bool:
    """Is there no memory in its instances but that of attributes and slots? A class written in C has some."""
    slots = sum(isinstance(m, types.MemberDescriptorType) for base in cls.__mro__ for m in vars(base).values())
    offsets: tuple[int, int] = cls.__dictoffset__, cls.__weakrefoffset__
    words = slots + sum(offset > 0 for offset in offsets)
    return cls.__basicsize__ <= object.__basicsize__ + 8 * words and not cls.__itemsize__


def _slots(value: Any) -> Iterator[tuple[str, Any]]:
    for cls in type(value).__mro__:
        for name, member in vars(cls).items():
            if isinstance(member, types.MemberDescriptorType) and name not in ("__weakref__", "__dict__"):
                try:
                    yield f"{cls.__qualname__}.{name}", member.__get__(value)
                except AttributeError:
                    continue


def _inner_codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _inner_codes(constant)


def _names(code: types.CodeType) -> set[str]:
    return {name for inner in _inner_codes(code) for name in inner.co_names}


def _global_names(code: types.CodeType) -> set[str]:
    """Names that the code looks up as globals, not as attributes."""
    instructions = (i for inner in _inner_codes(code) for i in dis.get_instructions(inner))
    return {str(i.argval) for i in instructions if "GLOBAL" in i.opname or "LOAD_NAME" in i.opname}
