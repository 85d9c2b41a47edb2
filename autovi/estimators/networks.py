"""Functions of a site's inputs, with parameters or without: what a baseline can be made of."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

NAME = "network"
Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Network(ABC):
    """A scalar function of the inputs of one element, with parameters: a tree of arrays, all of which are trained."""

    @abstractmethod
    def init(self, rng_key: jax.Array, shapes: Shapes) -> Any:
        """Parameters, for inputs of these shapes."""

    @abstractmethod
    def apply(self, params: Any, *inputs: jax.Array) -> jax.Array:
        """A number, or an array of one number."""

    def over(self, params: Any, inputs: tuple[jax.Array, ...], depth: int) -> jax.Array:
        """The values for inputs that have `depth` axes of particles and elements in front."""
        fn: Callable = lambda *own: jnp.reshape(self.apply(params, *own), ())  # noqa: E731
        for _ in range(depth):
            fn = jax.vmap(fn)
        return fn(*inputs)


@dataclass(frozen=True)
class Perceptron(Network):
    """One hidden layer of tanh over all numbers of the inputs; zero at the start."""

    width: int

    def init(self, rng_key: jax.Array, shapes: Shapes) -> Any:
        size = sum(int(np.prod(shape)) for shape in shapes)
        hidden = jax.random.normal(rng_key, (size, self.width)) / np.sqrt(max(1, size))
        return {"in": hidden, "bias": jnp.zeros(self.width), "out": jnp.zeros(self.width), "last": jnp.zeros(())}

    def apply(self, params: Any, *inputs: jax.Array) -> jax.Array:
        vector = jnp.concatenate([jnp.ravel(x).astype(params["in"].dtype) for x in inputs])
        return jnp.tanh(vector @ params["in"] + params["bias"]) @ params["out"] + params["last"]


@dataclass(frozen=True)
class Module(Network):
    """A module of Flax NNX, or one that is a tree of arrays itself, as Equinox's are; it starts as it is given."""

    module: Any

    def init(self, rng_key: jax.Array, shapes: Shapes) -> Any:
        leaves, _ = _taken_apart(self.module)
        return [jnp.asarray(x) for x in leaves if _is_trained(x)]

    def apply(self, params: Any, *inputs: jax.Array) -> jax.Array:
        leaves, put_together = _taken_apart(self.module)
        trained = iter(params)
        return put_together([next(trained) if _is_trained(x) else x for x in leaves])(*inputs)


@dataclass(frozen=True)
class Pair(Network):
    """`init(rng_key, *inputs)` and `apply(params, *inputs)`, as Flax Linen and most others write them."""

    functions: tuple[Callable, Callable]

    def init(self, rng_key: jax.Array, shapes: Shapes) -> Any:
        return self.functions[0](rng_key, *(jnp.zeros(shape) for shape in shapes))

    def apply(self, params: Any, *inputs: jax.Array) -> jax.Array:
        return self.functions[1](params, *inputs)


@dataclass(frozen=True)
class Function(Network):
    """A function of the inputs that has nothing to learn."""

    function: Callable

    def init(self, rng_key: jax.Array, shapes: Shapes) -> Any:
        return ()

    def apply(self, params: Any, *inputs: jax.Array) -> jax.Array:
        return self.function(*inputs)


def as_network(what: Any, width: int) -> Network | None:
    """The network that is meant, with `width` hidden units where it is meant by name; None where nothing is."""
    if isinstance(what, str):
        return Perceptron(width) if what == NAME else None
    if isinstance(what, tuple):
        return Pair(what) if len(what) == 2 and all(map(callable, what)) else None
    if _is_nnx(what):
        return Module(what)
    if callable(getattr(what, "init", None)) and callable(getattr(what, "apply", None)):
        return Pair((what.init, what.apply))
    if not callable(what) or isinstance(what, type):
        return None
    return Module(what) if any(map(_is_trained, jax.tree.leaves(what))) else Function(what)


def _is_trained(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray) and bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def _is_nnx(what: Any) -> bool:
    nnx = sys.modules.get("flax.nnx")  # who has such a module has imported it
    return nnx is not None and isinstance(what, nnx.Module)


def _taken_apart(module: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The leaves of a module, and the function that makes one of others like them."""
    if _is_nnx(module):
        nnx = sys.modules["flax.nnx"]
        graph, state = nnx.split(module)
        leaves, tree = jax.tree.flatten(state)
        return leaves, lambda new: nnx.merge(graph, jax.tree.unflatten(tree, new))
    leaves, tree = jax.tree.flatten(module)
    return leaves, lambda new: jax.tree.unflatten(tree, new)
