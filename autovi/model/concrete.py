"""What to write where a model asks for the number that a traced value will have, which a program does not know."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autovi.model.places import Spot, code, spots_of

CONCRETE_ERRORS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
SHAPES = (
    "it with a fixed size (the shape of what it gives may not depend on the value), and jnp.where or a mask for what "
    "is too much"
)
LOOPS = "jax.lax.fori_loop, or numpyro.contrib.control_flow.scan over a fixed number of steps, for `{}`"
# A function of Python's own -> what to write for a call of it, given its first argument.
BUILTINS: dict[Any, str] = {
    builtins.float: "`{}` as it is, or jnp.asarray({}, float)",
    builtins.complex: "`{}` as it is, or jnp.asarray({}, complex)",
    builtins.int: "jnp.floor({}).astype(int)",
    builtins.bool: "`{}` as it is, in jnp.where",
    builtins.max: "jnp.maximum, or jnp.max",
    builtins.min: "jnp.minimum, or jnp.min",
    builtins.sorted: "jnp.sort({})",
    builtins.range: LOOPS.format("for ... in range"),
    builtins.any: "jnp.any({})",
    builtins.all: "jnp.all({})",
    builtins.list: "`{}` as it is",
    builtins.print: 'jax.debug.print("{{}}", {})',
}
METHODS = {"item": "`{}` as it is", "tolist": "`{}` as it is", "any": "jnp.any", "all": "jnp.all"}
OTHERWISE = "jax.numpy for numpy, jnp.where or jax.lax.cond for an `if`, and jnp.asarray(x)[i] for x[i]"


def is_concrete_error(error: BaseException) -> bool:
    """Does JAX say that it was asked for a number that a traced value does not have yet?"""
    return isinstance(error, CONCRETE_ERRORS) or ("Tracer" in str(error) and isinstance(error, TypeError | ValueError))


def asks_for_number(error: BaseException) -> bool:
    """Was such a number asked for, whether JAX, NumPy or Python complain of it, or an array changed in place?"""
    return is_concrete_error(error) or is_assignment(error) or _leaves_jax(error)


def remedy(error: BaseException) -> str:
    """What asked for the number, of which variable, and what to write instead."""
    spot, path = _innermost(error)
    if spot is None or not path:
        return f"a number was asked for that only the run will give; write {OTHERWISE}"
    part, written = _written(spot, path)
    if is_assignment(error):
        return f"`{code(part)}` changes an array in place, which arrays of JAX and data do not allow; write {written}"
    traced = [f"`{name}`" for name in spot.names(part, jax.core.Tracer)]
    whose = " and ".join(traced) if traced else "a traced value"
    return (
        f"`{code(part)}` needs the concrete value of {whose} (a latent site, the indices of a plate, or computed from "
        f"them), which is not known when the program is compiled; write {written}"
    )


def is_assignment(error: BaseException) -> bool:
    """Was an array changed in place that cannot be?"""
    spot, path = _innermost(error)
    if spot is None or not isinstance(error, TypeError | ValueError):
        return False
    changed = [target for node in path[:2] if (target := _target(node)) is not None]
    if not changed or isinstance(path[0], ast.Call):
        return False
    array = changed[0].value if isinstance(changed[0], ast.Subscript) else changed[0]
    return isinstance(spot.value(array), jax.Array | np.ndarray)


def _innermost(error: BaseException) -> tuple[Spot | None, list[ast.AST]]:
    spots = spots_of(error)
    return (spots[-1], spots[-1].path()) if spots else (None, [])


def _leaves_jax(error: BaseException) -> bool:
    """Does Python itself complain of a traced value, whose name its message does not say?"""
    spot, path = _innermost(error)
    if spot is None or not path or not isinstance(error, TypeError | ValueError):
        return False
    node = path[0]
    return (
        isinstance(node, ast.Call)
        and bool(spot.names(node, jax.core.Tracer))
        and _builtin(spot.value(node.func)) is not None
    )


def _builtin(function: Any) -> str | None:
    """What the table says of a function of Python's own."""
    return next((text for known, text in BUILTINS.items() if known is function), None)


def _target(node: ast.AST) -> ast.Subscript | ast.Name | None:
    """What a statement changes in place: an element of an array, or all of it."""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
        return node.targets[0]
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Subscript | ast.Name):
        return node.target
    return None


# A method of `.at[...]` for every operation in place.
IN_PLACE: dict[type, str] = {ast.Add: "add", ast.Mult: "multiply", ast.Div: "divide", ast.Pow: "power"}


def _written(spot: Spot, path: list[ast.AST]) -> tuple[ast.AST, str]:
    """The part of the code that asks for the number, and what to write there: the innermost that the table knows."""
    for node in path:
        if isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            break
        for kind, advice in ADVICE.items():
            if isinstance(node, kind) and (text := advice(spot, node)):
                return node.test if isinstance(node, ast.If | ast.While) else node, text
    return path[0], OTHERWISE


def _assigned(spot: Spot, node: Any) -> str:
    target = _target(node)
    if target is None:
        return ""
    if isinstance(target, ast.Name):
        return f"`{target.id} = {ast.unparse(ast.BinOp(ast.Name(target.id), node.op, node.value))}`"
    array, index = ast.unparse(target.value), ast.unparse(target.slice)
    if isinstance(node, ast.Assign):
        method, value = "set", ast.unparse(node.value)
    else:
        method = IN_PLACE.get(type(node.op), "set")
        value = ast.unparse(node.value if method != "set" else ast.BinOp(target, node.op, node.value))
    is_numpy = isinstance(spot.value(target.value), np.ndarray)
    return f"`{array} = {f'jnp.asarray({array})' if is_numpy else array}.at[{index}].{method}({value})`"


def _indexed(spot: Spot, node: Any) -> str:
    if not isinstance(node.ctx, ast.Load):
        return ""
    if isinstance(node.value, ast.Dict) or isinstance(spot.value(node.value), dict):
        return "an array in place of the dict, indexed by the value"
    array, index = ast.unparse(node.value), node.slice
    index_value = spot.value(index)
    boolean = (
        isinstance(index, ast.Compare | ast.BoolOp | ast.UnaryOp) or str(getattr(index_value, "dtype", "")) == "bool"
    )
    if boolean:
        return f"`jnp.where({ast.unparse(index)}, {array}, 0.0)`, of a fixed shape"
    return f"`jnp.asarray({array})[{ast.unparse(index)}]`"


def _called(spot: Spot, node: Any) -> str:
    function, args = spot.value(node.func), ", ".join(map(ast.unparse, [*node.args, *node.keywords]))
    first = ast.unparse(node.args[0]) if node.args else ""
    if (text := _builtin(function)) is not None:
        return text.format(first, first)
    if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
        return METHODS[node.func.attr].format(ast.unparse(node.func.value))
    module, name = _module(function), getattr(function, "__name__", "")
    if module == "math" or isinstance(function, np.ufunc) or module.split(".")[0] == "numpy":
        return f"`jnp.{name}({args})`" if hasattr(jnp, name) else "a function of jax.numpy or jax.scipy"
    if module.split(".")[0] == "scipy":
        return f"the function of jax.scipy for {name}"
    if module.split(".")[0] in ("jax", "jaxlib"):
        return SHAPES
    if module.split(".")[0] == "numpyro":
        return "it with a value that is known before the fit, such as data, or give the site a finite support"
    return ""


def _module(function: Any) -> str:
    own = getattr(function, "__module__", None) or type(getattr(function, "__self__", None)).__module__
    return own if isinstance(own, str) else ""


def _chained(spot: Spot, node: Any) -> str:
    if len(node.ops) == 1:
        return ""
    values = [node.left, *node.comparators]
    pairs = zip(values[:-1], node.ops, values[1:], strict=True)
    return "`" + " & ".join(f"({ast.unparse(ast.Compare(a, [op], [b]))})" for a, op, b in pairs) + "`"


def _joined(spot: Spot, node: Any) -> str:
    symbol = " & " if isinstance(node.op, ast.And) else " | "
    return "`" + symbol.join(f"({ast.unparse(v)})" for v in node.values) + "`"


def _chosen(spot: Spot, node: Any) -> str:
    return f"`jnp.where({ast.unparse(node.test)}, {ast.unparse(node.body)}, {ast.unparse(node.orelse)})`"


# What asks for a number -> what to write, "" where that kind of code does not ask here.
ADVICE: dict[type, Callable[[Spot, Any], str]] = {
    ast.Assign: _assigned,
    ast.AugAssign: _assigned,
    ast.Subscript: _indexed,
    ast.Call: _called,
    ast.Compare: _chained,
    ast.BoolOp: _joined,
    ast.UnaryOp: lambda spot, node: f"`~({ast.unparse(node.operand)})`" if isinstance(node.op, ast.Not) else "",
    ast.IfExp: _chosen,
    ast.If: lambda spot, node: "jnp.where to choose between values, or jax.lax.cond between computations, for `if`",
    ast.While: lambda spot, node: "jax.lax.while_loop for `while`",
    ast.Assert: lambda spot, node: "the check on the data, before the fit, for `assert`",
    ast.JoinedStr: lambda spot, node: 'jax.debug.print("{}", x) for what is to be printed',
    ast.FormattedValue: lambda spot, node: 'jax.debug.print("{}", x) for what is to be printed',
}
