"""Compiled programs on disk, for the next process: JAX's persistent compilation cache, set for autovi's programs."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache


def use_compilation_cache(folder: str | os.PathLike[str] | None = None) -> str:
    """Keeps compiled programs in a folder, so that a further process that fits the same model does not compile it.

    Sets JAX's persistent compilation cache for this process, for all of JAX; nothing is set unless you call this. Say
    it before the first fit of every process. A folder may serve many processes at once, and may be deleted at any time.
    Whoever can write to it decides what code runs here: take one that is yours alone. Programs that call back into
    Python are not kept on disk.

    Args:
        folder: made if it is not there; None: `autovi` in the user's folder for caches, which is `$XDG_CACHE_HOME` or
            `~/.cache` on Linux, `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on Windows.

    Returns:
        The folder.

    Raises:
        OSError: the folder cannot be made or written; nothing is set then.

    Example:
        >>> autovi.use_compilation_cache()
        '/home/ada/.cache/autovi'
    """
    path = Path(_default_folder() if folder is None else folder).expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise type(error)(
            error.errno, f"folder: the compilation cache cannot be written ({error.strerror}); name another", str(path)
        ) from error
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", str(path))
    # JAX keeps by default what took it a second to compile, and most of autovi's programs take less.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # JAX decides at its first compilation whether there is a cache, and which.
    compilation_cache.reset_cache()
    return str(path)


def _default_folder() -> Path:
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        # Relative paths are to be ignored (XDG Base Directory Specification).
        named = os.environ.get("XDG_CACHE_HOME", "")
        base = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
    return Path(base) / "autovi"
