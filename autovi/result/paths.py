"""Paths that cannot be written or read, told before they are tried."""

from __future__ import annotations

import errno
import os
from typing import Any


def checked_path(path: Any) -> str:
    """The path as text.

    Raises:
        TypeError: it is none.
    """
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(name, str):
        raise TypeError(f"path: expected a str or a pathlib.Path, got {type(path).__name__}")
    return name


def unwritable(path: str) -> OSError | None:
    """Why no file of that name can be written, as the error to be raised; None if nothing speaks against it."""
    if _is_folder(path):
        return IsADirectoryError(errno.EISDIR, "path: expected the name of a file, got that of a folder", path)
    folder = os.path.dirname(path)
    if not folder or os.path.isdir(folder):
        return None
    if os.path.exists(folder):
        return NotADirectoryError(errno.ENOTDIR, f"path: {folder!r} is a file and no folder", path)
    return FileNotFoundError(errno.ENOENT, f"path: there is no folder {folder!r}{_where(path)}; make it first", path)


def unreadable(path: str) -> OSError | None:
    """Why there is no file of that name to be read, as the error to be raised; None if there is one."""
    if _is_folder(path):
        return IsADirectoryError(errno.EISDIR, "path: expected a file from `fit.save`, got a folder", path)
    if os.path.exists(path):
        return None
    folder = os.path.dirname(path)
    what = f"folder {folder!r}" if folder and not os.path.exists(folder) else "such file"
    return FileNotFoundError(errno.ENOENT, f"path: there is no {what}{_where(path)}", path)


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) or path.endswith(os.sep) or not path


def _where(path: str) -> str:
    """What a path is relative to, where that may be the fault."""
    if path.startswith("~"):
        return " (a ~ is taken as it stands; os.path.expanduser replaces it)"
    return "" if os.path.isabs(path) else f" in {os.getcwd()!r}"
