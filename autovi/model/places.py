"""Where in the user's own code something happens: the line that a message ends with, and the expression there."""

from __future__ import annotations

import ast
import linecache
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from types import CodeType, FrameType, TracebackType
from typing import Any

import jax

from autovi.model.libraries import is_file_of, is_installed, is_installed_file

MAX_SHOWN = 3  # lines of the user's that lead to an error, the innermost ones
MAX_CODE = 60  # characters of an expression in a sentence


@dataclass(frozen=True)
class Place:
    """A line of a file, written as Python's tracebacks have it."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        source = linecache.getline(self.file, self.line).strip()
        return f'  File "{self.file}", line {self.line}, in {self.function}' + (f"\n    {source}" if source else "")


def here(until: CodeType) -> Place | None:
    """The innermost line of the user's that is being run inside of a function."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not until:
        if _is_users(frame):
            return Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname)
        frame = frame.f_back
    return None


def with_places(message: str, *places: Place | None) -> str:
    """A message that ends with lines of the user's, the innermost last."""
    lines = dict.fromkeys(str(place) for place in places if place is not None)
    return "\n".join([message, *list(lines)[-MAX_SHOWN:]])


def places_of(error: BaseException) -> list[Place]:
    """The user's lines that led to an error, the innermost last."""
    return [
        Place(spot.frame.f_code.co_filename, spot.traceback.tb_lineno, spot.frame.f_code.co_qualname)
        for spot in spots_of(error)
    ]


def place_of(eqn: Any) -> Place | None:
    """The line that made an equation of a traced program; None where a library other than JAX made it."""
    frames = getattr(eqn.source_info.traceback, "frames", ())
    frame = next((f for f in frames if not is_file_of(f.file_name, "jax", "jaxlib", "numpy")), None)
    if frame is None or is_installed_file(frame.file_name) or is_file_of(frame.file_name, "numpyro", "autovi"):
        return None
    return Place(frame.file_name, frame.line_num, frame.function_name)


@dataclass(frozen=True)
class Spot:
    """Where a function of the user's stood when an error passed through it."""

    traceback: TracebackType

    @property
    def frame(self) -> FrameType:
        """The function's frame, with its variables."""
        return self.traceback.tb_frame

    def path(self) -> list[ast.AST]:
        """The expression being evaluated and what it is part of, from inside to outside; empty without source."""
        positions = list(islice(self.frame.f_code.co_positions(), self.traceback.tb_lasti // 2 + 1))
        line, end_line, column, end_column = positions[-1] if positions else (None,) * 4
        if line is None or end_line is None or column is None or end_column is None:
            return []
        try:
            tree = ast.parse("".join(linecache.getlines(self.frame.f_code.co_filename)))
        except (SyntaxError, ValueError):
            return []
        return list(_covering(tree, (line, column), (end_line, end_column)))[::-1]

    def value(self, node: ast.AST) -> Any:
        """What a name, or an attribute of one, stands for there; None if that is not known."""
        if isinstance(node, ast.Attribute):
            return getattr(self.value(node.value), node.attr, None)
        if not isinstance(node, ast.Name):
            return None
        frame = self.frame
        for names in (frame.f_locals, frame.f_globals, frame.f_builtins):
            if node.id in names:
                return names[node.id]
        return None

    def names(self, node: ast.AST, kind: Any) -> list[str]:
        """The names in an expression whose value is of a class, such as a tracer or None."""
        found = [n for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(self.value(n), kind)]
        known = {**self.frame.f_builtins, **self.frame.f_globals, **self.frame.f_locals}
        return list(dict.fromkeys(n.id for n in found if n.id in known))


def spots_of(error: BaseException) -> list[Spot]:
    """Where the user's functions stood when an error came, the innermost last."""
    found, step = [], error.__traceback__
    while step is not None:
        if _is_users(step.tb_frame):
            found.append(Spot(step))
        step = step.tb_next
    return found


def code(node: ast.AST) -> str:
    """An expression as text, cut where it is long."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= MAX_CODE else f"{text[: MAX_CODE - 3]}..."


def cause_of(error: BaseException) -> BaseException | None:
    """What a complaint is raised from: nothing, so that frames of JAX and NumPyro do not hide the user's line, unless
    JAX is told to show them (JAX_TRACEBACK_FILTERING=off)."""
    return error if getattr(jax.config, "jax_traceback_filtering", None) == "off" else None


def _is_users(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__")
    # Code that runs in a namespace without a name says that it is of `builtins`.
    return module == "builtins" or not is_installed(module)


def _covering(node: ast.AST, start: tuple[int, int], end: tuple[int, int]) -> Iterator[ast.AST]:
    """The nodes that hold a stretch of the source, from outside to inside."""
    for child in ast.iter_child_nodes(node):
        for decorator in getattr(child, "decorator_list", ()):  # they stand before what they belong to
            yield from _covering(ast.Expr(decorator), start, end)
        here = getattr(child, "lineno", None), getattr(child, "col_offset", None)
        there = getattr(child, "end_lineno", None), getattr(child, "end_col_offset", None)
        if None in (*here, *there):  # arguments, comprehensions: they have no place, what is in them has
            yield from _covering(child, start, end)
        elif here <= start and end <= there:
            yield child
            yield from _covering(child, start, end)
