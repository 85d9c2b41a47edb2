"""One file on disk: named arrays and a JSON description, written at once and checked when read.

A file is an ordinary ``.npz`` (a zip of ``.npy`` members, not compressed) with one member more,
``autovi.json``, which names the format and lists every array with its dtype and shape. Nothing is ever
pickled: reading a file from a stranger cannot run code. The zip's comment, the file's last bytes, is the
SHA-256 of all before: a file of which a single bit is another is an error and never a wrong load.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import uuid
import zipfile
from collections.abc import Mapping
from typing import IO, Any
from urllib.parse import quote

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from autovi.result.paths import checked_path, unreadable, unwritable

FORMAT = "autovi"
FORMAT_VERSION = 1

_HEADER = "autovi.json"
_ZIP_MAGIC = b"PK\x03\x04"
_DIGITS = hashlib.sha256().digest_size * 2  # of the digest, at the very end
_SEAL = b"sha256:"
_AT_ONCE = 1 << 20  # bytes that are hashed at once
_NPY_KINDS = "biufcSUmM"  # what an .npy header describes fully without pickling
_FLOAT_TAG = "$float"
_DICT_TAG = "$dict"


def write(path: str | os.PathLike[str], arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Write `arrays` and `meta` to the one file `path`; a file already there is replaced, all or nothing.

    Args:
        path: the file's name, used as given (no suffix is added). Its folder must exist.
        arrays: name -> array (NumPy, JAX or anything `numpy.asarray` takes), of any shape. The dtypes of
            `ml_dtypes` (bfloat16, the float8s) and JAX's typed random keys are kept.
        meta: nested dicts and lists of strings, numbers, booleans and None, with string keys. Non-finite
            floats are kept; tuples come back as lists, NumPy and JAX scalars as Python numbers.

    Raises:
        TypeError: something that this format does not hold, with its name.
        OSError: the file cannot be written; a previous file is then still whole. `FileNotFoundError`: its folder is
            not there. `IsADirectoryError`: the path is a folder.

    Example:
        >>> write("fit.autovi", {"params/loc": np.zeros(3)}, {"step": 100})
    """
    text, stored = _described(arrays, meta)
    path = checked_path(path)
    if fault := unwritable(path):
        raise fault
    # In the same folder, because `os.replace` is atomic only within one file system.
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "x+b") as file:
            _write_zip(file, text, stored)
            file.flush()
            # Without this a power cut may leave the new name on an empty file.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except PermissionError as error:
        raise PermissionError(error.errno, f"path: no file can be written there ({error.strerror})", path) from error
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def to_bytes(arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> bytes:
    """The bytes of the file that `write` would write.

    Raises:
        TypeError: as `write`.
    """
    file = io.BytesIO()
    _write_zip(file, *_described(arrays, meta))
    return file.getvalue()


def _described(arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> tuple[bytes, dict[str, np.ndarray]]:
    """The header and the arrays as a file holds them."""
    stored, manifest = {}, {}
    for name, value in arrays.items():
        stored[name], manifest[name] = _pack(name, value)
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, "arrays": manifest}
    header["meta"] = _to_json(dict(meta), "meta")
    return json.dumps(header, allow_nan=False).encode(), stored


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `write` wrote: `(arrays, meta)`, with NumPy arrays (typed random keys are JAX arrays).

    Raises:
        ValueError: the file is damaged, is not autovi's, holds objects, or was written by a newer autovi. The
            message has the path and what to do.
        OSError: the file cannot be opened. `FileNotFoundError`: it is not there. `IsADirectoryError`: it is a folder.

    Example:
        >>> arrays, meta = read("fit.autovi")
    """
    path = checked_path(path)
    if fault := unreadable(path):
        raise fault
    with open(path, "rb") as file:
        return _read(file, path)


def from_bytes(content: bytes, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads what `to_bytes` made; `name` stands for the path in messages.

    Raises:
        ValueError: as `read`.
    """
    return _read(io.BytesIO(content), name)


def _read(file: IO[bytes], path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    if file.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:
        raise ValueError(
            f"path {path!r}: it is not a file that autovi wrote, or its beginning is lost. Give the path of a "
            "file from `fit.save` or of a checkpoint."
        )
    file.seek(0)
    try:
        return _read_zip(file, path)
    except (_Refused, MemoryError):
        raise
    # On damaged bytes zipfile and NumPy raise BadZipFile, RuntimeError, NotImplementedError, EOFError,
    # KeyError, OverflowError and others: all of them mean the same thing here.
    except Exception as error:
        raise ValueError(
            f"path {path!r}: it is damaged or cut short ({type(error).__name__}: {error}). Nothing of it was "
            "loaded; use another copy, or save again."
        ) from error


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a nested dict into a flat one whose names are the keys joined with "/".

    A "/" inside a key is written "~1" and a "~" is written "~0", so that `unflatten` is the exact inverse. A
    dict with nothing in it leaves no trace.

    Raises:
        TypeError: a key is not a string, or a list or tuple is in the tree.

    Example:
        >>> flatten({"a": {"b/c": 1}})
        {'a/b~1c': 1}
    """
    if not isinstance(tree, Mapping):
        raise TypeError(f"tree: expected a nested dict of arrays, got {type(tree).__name__}")
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if not isinstance(key, str):
            raise TypeError(f"tree: expected strings as keys, got {key!r}")
        name = key.replace("~", "~0").replace("/", "~1")
        if isinstance(value, (list, tuple)):
            raise TypeError(f"tree: expected a nested dict of arrays, got a {type(value).__name__} at {name!r}")
        if isinstance(value, Mapping):
            flat.update({f"{name}/{below}": leaf for below, leaf in flatten(value).items()})
        else:
            flat[name] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the names that `flatten` made back into nested dicts.

    Raises:
        ValueError: one name is also the beginning of another ("a" beside "a/b").

    Example:
        >>> unflatten({"a/b~1c": 1})
        {'a': {'b/c': 1}}
    """
    paths = {name: tuple(_unescape(part) for part in name.split("/")) for name in flat}
    inner = {path[:i] for path in paths.values() for i in range(1, len(path))}
    tree: dict[str, Any] = {}
    for name, path in paths.items():
        if path in inner:
            raise ValueError(f"name {name!r}: it is an array and also the beginning of another name")
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = flat[name]
    return tree


def _unescape(key: str) -> str:
    return key.replace("~1", "/").replace("~0", "~")


class _Refused(ValueError):
    """A fault that has its own message; the catch-all for damaged bytes lets it through."""


def _pack(name: str, value: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """The array as `.npy` can hold it, and the line of the manifest that undoes what that took."""
    if not isinstance(name, str):
        raise TypeError(f"arrays: expected strings as the names of arrays, got {name!r}")
    entry: dict[str, Any] = {}
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        entry["key_impl"] = str(jax.random.key_impl(value))
        value = jax.random.key_data(value)
    array = np.asarray(value)
    if array.dtype.type.__module__ == "ml_dtypes":
        # .npy would write these as raw bytes without a name.
        entry["view"] = array.dtype.name
        array = array.view(f"u{array.dtype.itemsize}")
    if array.dtype.kind not in _NPY_KINDS:
        raise TypeError(f"array {name!r}: it has dtype {array.dtype}; only numbers and strings can be stored")
    return array, {**entry, "dtype": array.dtype.str, "shape": list(array.shape)}


def _unpack(array: np.ndarray, entry: Mapping[str, Any]) -> Any:
    if "view" in entry:
        return array.view(np.dtype(getattr(ml_dtypes, entry["view"])))
    if "key_impl" in entry:
        return jax.random.wrap_key_data(jnp.asarray(array), impl=entry["key_impl"])
    return array


def _member(name: str) -> str:
    # Percent-encoding keeps the names readable by `numpy.load` and takes out what zip cannot carry (NUL).
    return f"arrays/{quote(name, safe='/~ ', errors='surrogatepass')}.npy"


def _write_zip(file: Any, header: bytes, arrays: Mapping[str, np.ndarray]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        # ZipInfo's own date (1980) and not the clock's: the same content gives the same bytes.
        archive.writestr(zipfile.ZipInfo(_HEADER), header)
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(_member(name)), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        archive.comment = _SEAL + bytes(_DIGITS)
    seal(file)


def seal(file: IO[bytes]) -> None:
    """Writes the digest of a file over its last bytes, which are there for it."""
    digest, end = _digest(file)
    file.seek(end)
    file.write(digest)


def _is_sealed(file: IO[bytes]) -> bool:
    """Do the last bytes have the digest of all before?"""
    digest, _ = _digest(file)
    return file.read() == digest


def _digest(file: IO[bytes]) -> tuple[bytes, int]:
    """The digest of all but the last bytes, where it stands, and where these begin; the file is there then."""
    end = max(0, file.seek(0, os.SEEK_END) - _DIGITS)
    file.seek(0)
    content, left = hashlib.sha256(), end
    while left and (part := file.read(min(left, _AT_ONCE))):
        content.update(part)
        left -= len(part)
    return content.hexdigest().encode(), end


def _read_zip(file: Any, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    with zipfile.ZipFile(file) as archive:
        members = archive.namelist()
        header = _read_header(archive, members, path)
        if not _is_sealed(file):
            raise _Refused(
                f"path {path!r}: it is damaged or cut short (its checksum is another). Nothing of it was loaded; use "
                "another copy, or save again."
            )
        manifest = header["arrays"]
        expected = [_HEADER, *(_member(name) for name in manifest)]
        if lost := sorted(set(expected) - set(members)):
            raise _Refused(f"path {path!r}: it lacks the arrays {lost}. Use another copy, or save again.")
        if len(members) != len(expected):
            more = sorted(set(members) - set(expected)) or "a name twice"
            raise _Refused(f"path {path!r}: it holds more than autovi wrote: {more}. Use the file as it was saved.")
        arrays = {name: _read_array(archive, name, entry, path) for name, entry in manifest.items()}
    return arrays, _from_json(header["meta"])


def _read_header(archive: zipfile.ZipFile, members: list[str], path: str) -> dict[str, Any]:
    foreign = (
        f"path {path!r}: it is an .npz or zip file, but not one that autovi wrote. Give the path of a file from "
        "`fit.save` or of a checkpoint."
    )
    if _HEADER not in members:
        raise _Refused(foreign)
    header = json.loads(archive.read(_HEADER))
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _Refused(foreign)
    version = header.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise _Refused(f"path {path!r}: it has the format version {version!r}, which no autovi writes. Save it again.")
    if version > FORMAT_VERSION:
        raise _Refused(
            f"path {path!r}: it was written by a newer autovi (format {version}; this one reads up to "
            f"{FORMAT_VERSION}). Upgrade autovi to read it."
        )
    return header


def _read_array(archive: zipfile.ZipFile, name: str, entry: Mapping[str, Any], path: str) -> Any:
    # All bytes first: zipfile has then compared the CRC, before the .npy header is believed.
    data = archive.read(_member(name))
    if _holds_objects(io.BytesIO(data)):
        raise _Refused(
            f"path {path!r}: it holds Python objects under {name!r}. autovi writes none and never unpickles: "
            "do not use this file."
        )
    array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    if array.dtype.str != entry["dtype"] or list(array.shape) != entry["shape"]:
        raise _Refused(
            f"path {path!r}: expected array {name!r} with dtype {entry['dtype']} and shape {entry['shape']}, got "
            f"{array.dtype.str} and {list(array.shape)}. Use the file as it was saved."
        )
    return _unpack(array, entry)


def _holds_objects(stream: io.BytesIO) -> bool:
    major, _ = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    return read_header(stream)[2].hasobject


def _to_json(value: Any, where: str) -> Any:
    """`value` in what strict JSON can say; `where` names it in an error."""
    if isinstance(value, (np.generic, jax.Array, np.ndarray)) and np.ndim(value) == 0:
        value = np.asarray(value).item()
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT_TAG: str(value)}
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_to_json(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return _dict_to_json(value, where)
    raise TypeError(f"{where}: JSON cannot hold a {type(value).__name__}; put arrays among the arrays")


def _dict_to_json(value: Mapping[Any, Any], where: str) -> dict[str, Any]:
    if bad := [key for key in value if not isinstance(key, str)]:
        # json.dumps would turn 1 into "1" and the file would come back with another key.
        raise TypeError(f"{where}: it has the keys {bad}; expected strings")
    items = {key: _to_json(item, f"{where}[{key!r}]") for key, item in value.items()}
    return {_DICT_TAG: items} if _FLOAT_TAG in items or _DICT_TAG in items else items


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _FLOAT_TAG in value:
        return float(value[_FLOAT_TAG])
    return {key: _from_json(item) for key, item in value.get(_DICT_TAG, value).items()}
