"""The folder of a checkpoint: one process writes into it, a file at a time, each whole or not at all."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from filelock import FileLock, Timeout

from autovi.result import storage
from autovi.result.paths import checked_path

SUFFIX = ".autovi"
LOCK = "lock"


class Folder:
    """A folder that this process alone writes into, until `close`.

    Raises:
        NotADirectoryError: there is a file of that name.
        OSError: it cannot be made.
        BlockingIOError: another process, or another fit of this one, has it.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = checked_path(path)
        self.is_lost = False  # nothing is written any more, and a warning was given
        try:
            os.makedirs(self.path, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(f"checkpoint: {self.path!r} is a file and no folder") from None
        except OSError as error:
            raise type(error)(
                error.errno, f"checkpoint: no folder can be made there ({error.strerror})", self.path
            ) from error
        self._lock = FileLock(os.path.join(self.path, LOCK), timeout=0, is_singleton=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise BlockingIOError(
                f"checkpoint: another fit is writing into {self.path!r}, in this process or in another one; wait until "
                "it has ended, or give this one a folder of its own"
            ) from None
        except OSError as error:
            raise type(error)(
                error.errno, f"checkpoint: nothing can be written there ({error.strerror})", self.path
            ) from error
        self._sweep()

    def close(self) -> None:
        """Lets others write."""
        self._lock.release()

    def _sweep(self) -> None:
        """Removes what a process left that was killed as it wrote."""
        for name in os.listdir(self.path):
            if name.endswith(".tmp"):
                with suppress(OSError):
                    os.remove(os.path.join(self.path, name))

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name + SUFFIX)

    def read(self, name: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Arrays and description of a file; None where there is none.

        Raises:
            ValueError: it is damaged; the message has its path.
        """
        path = self._file(name)
        return storage.read(path) if os.path.exists(path) else None

    def write(self, name: str, arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """Writes a file in the place of an earlier one, and says whether it is there. Where it cannot be written (a
        full disk, a folder that is gone or read-only), a warning says so, and nothing is written any more."""
        if self.is_lost:
            return False
        try:
            storage.write(self._file(name), arrays, meta)
            _settle(self.path)
        except OSError as error:
            self.is_lost = True
            warnings.warn(
                f"checkpoint: nothing more is saved in {self.path!r} ({type(error).__name__}: {error}); the fit goes "
                "on without",
                UserWarning,
                stacklevel=2,
            )
        return not self.is_lost


def _settle(folder: str) -> None:
    """Makes sure that a renaming in a folder outlives a power cut, where the system can."""
    with suppress(OSError, AttributeError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
