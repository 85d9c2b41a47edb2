"""What is written is read back, and no damaged, foreign or hostile file is ever read as something else."""

import json
import os
import pickle
import zipfile

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from autovi.result.storage import FORMAT_VERSION, flatten, read, seal, unflatten, write

ARRAYS = {
    "params/loc": np.arange(6, dtype=np.float32).reshape(2, 3),
    "params/scale": np.float64(0.5),
    "count": np.array([1, 2**40]),
}
META = {"step": 3, "plan": [{"site": "x", "why": "é / \u2264"}], "elbo": -1.25}


class Bomb:
    """Unpickling it makes a file: the proof that code would have run."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return (open, (self.trace, "w"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fit.autovi"


@pytest.fixture
def saved(path):
    write(path, ARRAYS, META)
    return path


def same(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3).T,
        np.arange(6)[::-2],
        np.zeros((0, 3)),
        np.array(True),
        np.array([np.nan, np.inf, -0.0], np.float16),
        np.arange(3, dtype=">i4"),
        np.array([1 + 2j], np.complex64),
        np.array(["a", "\u2264"]),
        np.array(["2026-01-01"], "M8[D]"),
        np.arange(4, dtype=ml_dtypes.bfloat16).reshape(2, 2),
        np.array(1.5, ml_dtypes.float8_e4m3fn),
        jnp.arange(3.0, dtype=jnp.bfloat16),
        jnp.ones((2, 2)),
        np.float32(2.0),
        3,
    ],
    ids=lambda a: f"{getattr(a, 'dtype', type(a))}{np.shape(a)}",
)
def test_arrays_come_back_bit_for_bit(path, array):
    write(path, {"a": array}, {})
    arrays, meta = read(path)
    assert type(arrays["a"]) is np.ndarray and same(arrays["a"], array) and meta == {}


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_random_keys_come_back_typed(path, impl):
    keys = jax.random.split(jax.random.key(1, impl=impl), 3)
    write(path, {"rng_key": keys, "old": jax.random.PRNGKey(0)}, {})
    arrays, _ = read(path)
    assert arrays["rng_key"].dtype == keys.dtype
    assert same(jax.random.key_data(arrays["rng_key"]), jax.random.key_data(keys))
    assert same(arrays["old"], jax.random.PRNGKey(0))


@pytest.mark.parametrize("name", ["", ".", "../up", "a/b~1", "a%2Fb", "\0", "\ud800", "x y", "autovi.json", "A", "é"])
def test_any_string_names_an_array(path, name):
    write(path, {name: np.ones(2), "a": np.zeros(1)}, {})
    arrays, _ = read(path)
    assert list(arrays) == [name, "a"] and same(arrays[name], np.ones(2))


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        (META, META),
        ({"a": {"b": [True, None, 2**80, 1e-320, ""]}}, None),
        ({"t": (1, (2, 3))}, {"t": [1, [2, 3]]}),
        ({"n": np.float32(0.5), "i": np.int8(1), "b": np.bool_(True), "j": jnp.array(2)},)
        + ({"n": 0.5, "i": 1, "b": True, "j": 2},),
        ({"x": [float("inf"), -float("inf")], "y": {"z": np.float32("inf")}},)
        + ({"x": [float("inf"), -float("inf")], "y": {"z": float("inf")}},),
        ({"$float": "nan", "$dict": {"$float": 1.0}}, None),
        ({"$dict": {"$dict": [{"$float": float("inf")}]}}, None),
    ],
)
def test_meta_comes_back(path, meta, expected):
    write(path, {}, meta)
    assert read(path)[1] == (meta if expected is None else expected)


def test_nan_in_meta_comes_back(path):
    write(path, {}, {"loss": float("nan")})
    assert np.isnan(read(path)[1]["loss"])


@pytest.mark.parametrize(
    ("arrays", "meta", "message"),
    [
        ({"a": np.array([{}])}, {}, "'a': it has dtype object"),
        ({"a": np.zeros(1, "f4,i4")}, {}, "'a': it has dtype"),
        ({1: np.zeros(1)}, {}, "expected strings"),
        ({}, {"a": [{"b": np.zeros(2)}]}, r"meta\['a'\]\[0\]\['b'\]: JSON cannot hold a ndarray"),
        ({}, {"a": {1: 2}}, r"meta\['a'\]: it has the keys \[1\]"),
        ({}, {"a": {1, 2}}, "hold a set"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(saved, arrays, meta, message):
    before = saved.read_bytes()
    with pytest.raises(TypeError, match=message):
        write(saved, arrays, meta)
    assert saved.read_bytes() == before and os.listdir(saved.parent) == [saved.name]


def test_writing_is_all_or_nothing(saved, monkeypatch):
    before = saved.read_bytes()

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write(saved, {"a": np.ones(3)}, {})
    assert saved.read_bytes() == before and os.listdir(saved.parent) == [saved.name]


def test_writing_replaces_and_is_reproducible(saved):
    before = saved.read_bytes()
    write(saved, {"a": np.ones(3)}, {})
    assert list(read(saved)[0]) == ["a"]
    write(str(saved), ARRAYS, META)
    assert saved.read_bytes() == before


def test_numpy_reads_the_file_too(saved):
    with np.load(saved, allow_pickle=False) as file:
        assert same(file["arrays/params/loc"], ARRAYS["params/loc"])


def test_missing_file(path):
    with pytest.raises(FileNotFoundError):
        read(path)


def test_every_truncation_is_an_error(saved):
    whole = saved.read_bytes()
    for length in range(len(whole)):
        saved.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"fit\.autovi"):
            read(saved)


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80, 0xFF])
def test_every_flipped_byte_is_an_error(saved, flip):
    whole = saved.read_bytes()
    for i in range(len(whole)):
        saved.write_bytes(whole[:i] + bytes([whole[i] ^ flip]) + whole[i + 1 :])
        with pytest.raises(ValueError, match=r"fit\.autovi"):
            read(saved)


@pytest.mark.parametrize("more", [b"\0", b"x", b"PK\x05\x06" + bytes(18)])
def test_what_is_added_is_an_error(saved, more):
    whole = saved.read_bytes()
    for content in (whole + more, more + whole, whole[:100] + more + whole[100:]):
        saved.write_bytes(content)
        with pytest.raises(ValueError, match=r"fit\.autovi"):
            read(saved)


def rewrite(path, change):
    """The same zip with its members passed through `change`, CRCs and seal recomputed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members = change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.comment = b"sha256:" + bytes(64)
    with open(path, "r+b") as file:
        seal(file)


def edited(**fields):
    def change(members):
        header = json.loads(members["autovi.json"]) | fields
        return members | {"autovi.json": json.dumps(header).encode()}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edited(format_version=FORMAT_VERSION + 1), "newer autovi .*Upgrade"),
        (edited(format_version="x"), "no autovi writes"),
        (edited(format_version=0), "no autovi writes"),
        (edited(format="other"), "not one that autovi wrote"),
        (edited(arrays=None), "damaged"),
        (edited(arrays={}), "holds more"),
        (edited(meta=[]), None),
        (lambda m: {k: v for k, v in m.items() if k != "arrays/count.npy"}, "lacks the arrays .*count"),
        (lambda m: {k: v for k, v in m.items() if k != "autovi.json"}, "not one that autovi wrote"),
        (lambda m: m | {"extra.npy": b""}, "holds more .*extra"),
        (lambda m: m | {"arrays/count.npy": m["arrays/params/loc.npy"]}, "expected array 'count' with dtype"),
        (lambda m: m | {"autovi.json": b"[]"}, "not one that autovi wrote"),
        (lambda m: m | {"autovi.json": b"{"}, "damaged"),
    ],
)
def test_altered_files_are_refused(saved, change, message):
    rewrite(saved, change)
    if message is None:
        assert read(saved)[1] == []
        return
    with pytest.raises(ValueError, match=message) as raised:
        read(saved)
    assert str(saved) in str(raised.value)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x93NUMPY\x01\x00", b"PK\x05\x06" + bytes(18)])
def test_foreign_files_are_refused(path, data):
    path.write_bytes(data)
    with pytest.raises(ValueError, match="not a file that autovi wrote"):
        read(path)


def test_foreign_npz_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones(2))
    with pytest.raises(ValueError, match="not one that autovi wrote"):
        read(tmp_path / "a.npz")


def test_pickles_never_run(saved, tmp_path):
    trace = tmp_path / "ran"
    bomb = np.array([Bomb(trace)], dtype=object)
    saved_whole = saved.read_bytes()

    saved.write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(ValueError, match="not a file that autovi wrote"):
        read(saved)

    np.save(tmp_path / "bomb.npy", bomb, allow_pickle=True)
    payload = (tmp_path / "bomb.npy").read_bytes()
    saved.write_bytes(saved_whole)
    rewrite(saved, lambda members: members | {"arrays/count.npy": payload})
    with pytest.raises(ValueError, match="never unpickles"):
        read(saved)
    # The manifest may lie too.
    entry = {"count": {"dtype": "|O", "shape": [1]}}
    rewrite(saved, lambda members: {k: v for k, v in members.items() if "params" not in k})
    rewrite(saved, edited(arrays=entry))
    with pytest.raises(ValueError, match="never unpickles"):
        read(saved)

    assert not trace.exists()
    pickle.loads(pickle.dumps(Bomb(trace))).close()
    assert trace.exists()  # the payload works where pickles are read


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"a": 1},
        {"a": {"b": {"c": 1}, "d": 2}, "e": 3},
        {"a/b": 1, "a": {"b": 2}},
        {"a~1b": 1, "~": {"/": 2, "~0": 3}},
        {"": {"": 1, "x": 2}},
    ],
)
def test_trees_are_flattened_without_loss(tree):
    flat = flatten(tree)
    assert all(not isinstance(leaf, dict) for leaf in flat.values())
    assert unflatten(flat) == tree


def test_names_are_readable():
    assert list(flatten({"params": {"loc": 1, "a/b": 2}})) == ["params/loc", "params/a~1b"]


@pytest.mark.parametrize("tree", [{"a": {1: 2}}, {"a": [1, 2]}, np.ones(2)])
def test_what_is_no_tree_of_dicts_is_refused(tree):
    with pytest.raises(TypeError, match="expected"):
        flatten(tree)


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b/c", "a/b"]])
def test_a_name_is_an_array_or_a_folder(names):
    with pytest.raises(ValueError, match="beginning of another"):
        unflatten(dict.fromkeys(names, 0))
