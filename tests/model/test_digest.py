"""Digests of objects: equal ones compute alike, and what cannot be read equals nothing."""

import collections
import dataclasses
import datetime
import functools
import math
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from autovi.model.digest import digest

LEVEL = {"value": 1.0}
INNER = types.ModuleType("inner_settings")
OUTER = types.ModuleType("outer_settings")
OUTER.inner = INNER


class Plain:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Slotted:
    __slots__ = ("k",)

    def __init__(self, k):
        self.k = k


class Listed(list):
    pass


@dataclasses.dataclass(frozen=True)
class Settings:
    k: float
    note: str = dataclasses.field(default="", compare=False)


def with_default(k):
    def function(x, factor=k, *, shift=0.0):
        return factor * x + shift

    return function


def with_keyword(k):
    def function(x, *, factor=k):
        return factor * x

    return function


def with_closure(k):
    return lambda x: k * x


def with_attribute(k):
    def function(x):
        return function.k * x

    function.k = k
    return function


def with_inner_function(k):
    def function(x):
        return (lambda y, factor=k: factor * y)(x)

    return function


def by_name(name):
    exec(f"def function(x): return np.{name}(x)", namespace := {"np": np})
    return namespace["function"]


def by_global(k):
    exec("def function(x): return k * x", namespace := {"k": k})
    return namespace["function"]


def exec_object(k):
    exec(f"class C:\n  def __call__(self, x): return {k} * x", namespace := {})
    return namespace["C"]()


def own_class(k):
    class Own:
        factor = k

        def __call__(self, x):
            return self.factor * x

    return Own()


def own_method(k):
    class Own:
        def __call__(self, x):
            return k * x

    return Own()


def with_rule(k):
    @jax.custom_jvp
    def function(x):
        return x

    function.defjvp(lambda primals, tangents: (primals[0], k * tangents[0]))
    return function


def generator(k):
    rng = np.random.default_rng(0)
    rng.normal(size=int(k))
    return rng


# A maker, and two arguments for which what it makes differs.
CASES = {
    "default": (with_default, 1.0, 2.0),
    "keyword default": (with_keyword, 1.0, 2.0),
    "closure": (with_closure, 1.0, 2.0),
    "type in a closure": (with_closure, 1.0, 1),
    "sign of zero": (with_closure, 0.0, -0.0),
    "list in a closure": (with_closure, [1.0], [2.0]),
    "array in a closure": (with_closure, np.zeros(3), np.array([0.0, 0.0, 1e-9])),
    "type of an array": (with_closure, np.zeros(3, np.float32), np.zeros(3, np.int32)),
    "key": (with_closure, jax.random.key(0), jax.random.key(1)),
    "kind of key": (with_closure, jax.random.key(0, impl="rbg"), jax.random.key(0, impl="unsafe_rbg")),
    "function attribute": (with_attribute, 1.0, 2.0),
    "inner function": (with_inner_function, 1.0, 2.0),
    "name": (by_name, "sin", "cos"),
    "global": (by_global, 1.0, 2.0),
    "class that a string makes": (exec_object, 1.0, 2.0),
    "attribute": (lambda k: Plain(k=k), 1.0, 2.0),
    "name of an attribute": (lambda name: Plain(**{name: 1.0}), "a", "b"),
    "nested attribute": (lambda k: Plain(inner=Plain(values=[k])), 1.0, 2.0),
    "slot": (Slotted, 1.0, 2.0),
    "bound method": (lambda k: Plain(k=k).__init__, 1.0, 2.0),
    "builtin method": (lambda k: [k].count, 1.0, 2.0),
    "class attribute": (own_class, 1.0, 2.0),
    "closure of a method": (own_method, 1.0, 2.0),
    "field that equality leaves out": (lambda note: Settings(1.0, note), "a", "b"),
    "field of another type": (Settings, 1, True),
    "partial": (lambda k: functools.partial(math.pow, k), 1.0, 2.0),
    "keyword of a partial": (lambda k: functools.partial(dict, k=k), 1.0, 2.0),
    "inside jit": (lambda k: jax.jit(with_closure(k)), 1.0, 2.0),
    "inside lru_cache": (lambda k: functools.lru_cache(with_closure(k)), 1.0, 2.0),
    "inside vectorize": (lambda k: np.vectorize(with_closure(k)), 1.0, 2.0),
    "rule of a derivative": (with_rule, 1.0, 2.0),
    "state of a generator": (generator, 0, 1),
    "dict": (lambda k: {"a": {"b": k}}, 1.0, 2.0),
    "set": (lambda k: {1, k}, 2, 3),
    "subclass of list": (lambda k: Listed([k]), 1.0, 2.0),
    "deque": (lambda k: collections.deque([k]), 1.0, 2.0),
    "date": (lambda day: datetime.date(2020, 1, day), 1, 2),
    "array of objects": (lambda k: np.array([k, "a"], object), 1.0, 2.0),
    "optimizer": (lambda k: optax.masked(optax.adam(k), {"a": True}), 0.1, 0.2),
}


@pytest.mark.parametrize("case", CASES)
def test_objects_that_differ_are_told_apart(case):
    make, one, other = CASES[case]
    assert digest(make(one)) == digest(make(one)) != digest(make(other))


def test_neighbours_do_not_run_into_one_another():
    assert digest(["ab", "c"]) != digest(["a", "bc"])
    assert digest([["a"], "b"]) != digest([["a", "b"]])
    assert digest((1, 2)) != digest([1, 2])
    assert len({digest(v) for v in (1, 1.0, True, "1", b"1", np.float32(1), np.float64(1), jnp.float32(1))}) == 8


def test_the_same_code_elsewhere_is_the_same():
    exec("f = lambda x: x + 1", one := {})
    exec("\n\n\nf = lambda x: x + 1", two := {})
    assert digest(one["f"]) == digest(two["f"])


def reads_a_global(x):
    return LEVEL["value"] * x


def reads_a_module(x):
    return OUTER.inner.level * x


def test_globals_that_change_are_seen(monkeypatch):
    before = digest(reads_a_global)
    monkeypatch.setitem(LEVEL, "value", 2.0)
    assert digest(reads_a_global) != before
    INNER.level = 1.0
    before = digest(reads_a_module)
    monkeypatch.setattr(INNER, "level", 2.0)
    assert digest(reads_a_module) != before
    monkeypatch.undo()
    assert digest(reads_a_module) == before


def test_an_attribute_that_is_named_like_a_global_is_not_read_as_one(monkeypatch):
    reads = lambda x: x.LEVEL  # noqa: E731
    before = digest(reads)
    monkeypatch.setitem(LEVEL, "value", 2.0)
    assert digest(reads) == before


@pytest.mark.parametrize("make", [threading.Lock, lambda: (i for i in range(3)), lambda: np.frompyfunc(abs, 1, 1)])
def test_what_cannot_be_read_equals_nothing(make):
    value = make()
    assert digest(value) != digest(value)
    assert digest(Plain(inside=[value])) != digest(Plain(inside=[value]))


def test_what_a_library_has_counts_by_name():
    for value in (np.sin, np.sum, jnp.sin, jax.nn.relu, len, math.pow, np.ndarray, optax.adam):
        assert digest(value) == digest(value)
    assert digest(np.sin) != digest(np.cos)
    assert digest(jnp.sin) != digest(np.sin)


def test_cycles_and_long_chains_end():
    ring = Plain()
    ring.next = Plain(next=ring)
    assert digest(ring) == digest(ring)
    chain = None
    for _ in range(10_000):
        chain = Plain(next=chain)
    assert digest(chain) != digest(chain)
