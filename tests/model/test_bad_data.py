"""Data that cannot be right: said before any optimization, with the name of the argument and what to do."""

import datetime
import decimal
import fractions

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import scipy.sparse

import autovi
from autovi.model.inputs import bind

Y = np.array([0.5, -0.2, 1.0, 0.3])


def normal(y):
    mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("n", 4):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=jnp.asarray(y))


def of_scalars(y, scale):
    mu = numpyro.sample("mu", dist.Normal())
    numpyro.sample("y", dist.Normal(mu, scale), obs=y)


def of_a_tree(d):
    normal(d["obs"]["y"])


NAN = np.array([0.5, np.nan, 1.0, 0.3])
NOT_FINITE = {
    "numpy": (normal, {"y": NAN}, r"data\['y'\] has 1 NaN or infinite values, the first at \(1,\)"),
    "infinite": (normal, {"y": jnp.array([1.0, 2.0, jnp.inf, -jnp.inf])}, r"data\['y'\] has 2 .* first at \(2,\)"),
    "bfloat16": (normal, {"y": jnp.asarray(NAN, jnp.bfloat16)}, r"data\['y'\] has 1 .*\(1,\)"),
    "pandas": (normal, {"y": pd.Series(NAN, index=list("abcd"))}, r"data\['y'\] has 1 .*\(1,\)"),
    "pandas NA": (normal, {"y": pd.Series([1, pd.NA], dtype="Int64")}, r"data\['y'\] has 1 .*\(1,\)"),
    "nested list": (normal, {"y": [[0.5], [float("nan")]]}, r"data\['y'\] has 1 .*\(1, 0\)"),
    "tuple": (normal, (NAN,), r"data\['y'\] has 1 .*\(1,\)"),
    "tree": (of_a_tree, {"d": {"obs": {"y": NAN}}}, r"data\[\"d\['obs'\]\['y'\]\"\] has 1 .*\(1,\)"),
    "list of arrays": (of_a_tree, {"d": [Y, NAN]}, r"data\['d\[1\]'\] has 1 .*\(1,\)"),
    "scalar": (of_scalars, {"y": 1.0, "scale": float("nan")}, r"data\['scale'\] is NaN"),
    "numpy scalar": (of_scalars, {"y": np.float32(np.inf), "scale": 1.0}, r"data\['y'\] has 1 .*\(\)"),
}


@pytest.mark.parametrize("case", NOT_FINITE)
def test_nan_and_infinite_data(case):
    model, data, said = NOT_FINITE[case]
    with pytest.raises(ValueError, match=said):
        autovi.plan(model, data)


def test_nan_says_what_to_do():
    with pytest.raises(ValueError, match="drop them, or put any valid number in their place .* obs_mask"):
        autovi.plan(normal, {"y": NAN})


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        ({"y": Y, "x": Y}, ValueError, r"data.*'x'; the model takes \['y'\]"),
        ({}, ValueError, r"data.*missing a required argument: 'y'"),
        (None, ValueError, r"data.*missing a required argument: 'y'"),
        ((), ValueError, r"data.*missing a required argument: 'y'"),
        ((Y, Y), ValueError, r"data.*too many positional arguments; the model takes \['y'\]"),
        ({1: Y}, ValueError, "data.*keywords must be strings"),
        (Y, TypeError, r"data: expected a dict .* got ndarray; a single array is data=\(array,\)"),
        ([Y], TypeError, "data: expected a dict .* got list"),
        ("y", TypeError, "data: expected a dict .* got str"),
        (pd.Series(Y), TypeError, "data: expected a dict .* got Series"),
        (
            pd.DataFrame({"y": Y}),
            TypeError,
            r"data: expected a dict .* got DataFrame; as one argument it is data=\(frame,\), with a column for each "
            r"argument data=\{c: frame\[c\] for c in frame.columns\}$",
        ),
        ({"y": np.array(["a", "b"])}, TypeError, "y: expected numbers.*integer codes"),
        ({"y": pd.Series([None, 1.0], dtype=object)}, ValueError, "y: missing values"),
        ({"y": [[1.0], [1.0, 2.0]]}, ValueError, "y: expected nested lists of equal lengths"),
    ],
)
def test_data_that_do_not_fit_the_model(data, error, said):
    with pytest.raises(error, match=said):
        autovi.plan(normal, data)


def test_whole_numbers_and_lists_are_data_too():
    for y in ([1, 2, 3, 4], np.arange(4), [True, False, True, True], (1.0, 2.0, 3.0, 4.0)):
        assert autovi.plan(normal, {"y": y})["mu"].family == "full_rank"


# --- leaves that are no numbers: the text of each -------------------------------------------------------------------


class Tensor:
    """What PyTorch and the like offer to NumPy."""

    def __init__(self, values, fault=None):
        self.values, self.fault = values, fault

    def __array__(self, dtype=None, copy=None):
        if self.fault:
            raise RuntimeError(self.fault)
        return np.asarray(self.values, dtype)


CODES = (
    'make categories of them, pandas.Series(x).astype("category"), whose codes are taken and whose names label the '
    "results, or give integer codes"
)
MISSING = "drop them or fill them in; a missing observation is any valid number with obs_mask"
DATES = "turn dates and durations into numbers, such as days since the first"
UNEQUAL = "; pad them, and give their lengths or a mask as data of their own"
TEXT = f"such as 'a'; {CODES}. (Text that is a setting of the model goes into a tuple.)"
SAID = {
    "None in a list": ([1.0, None, 2.0], f"missing values among the data (None, 1 of 3); {MISSING}"),
    "None in a nested list": ([[1.0, None], [2.0, 3.0]], f"missing values among the data (None, 1 of 4); {MISSING}"),
    "text in a list": (["a", "b"], f"expected numbers, got a list with text {TEXT}"),
    "text beside numbers": ([1.0, "a"], f"expected numbers, got a list with text {TEXT}"),
    "text in an array": (np.array(["a", "b"]), f"expected numbers, got values of dtype <U1; {CODES}"),
    "text in a series": (
        pd.Series(["a", "b"], dtype=object),
        f"expected numbers, got values of dtype object, such as 'a'; {CODES}",
    ),
    "bytes in a list": (
        [b"a", b"b"],
        "expected numbers, got a list with bytes; numpy.frombuffer(x, dtype) reads numbers from them",
    ),
    "bytes": (b"abc", "expected numbers, got bytes; numpy.frombuffer(x, dtype) reads numbers from them"),
    "bytes in an array": (
        np.array([b"a"]),
        "expected numbers, got values of dtype |S1; numpy.frombuffer reads numbers from bytes",
    ),
    "a set": (
        {1.0, 2.0},
        "expected numbers, got a set, which has no order or no indices; give a sorted list or an array",
    ),
    "the values of a dict": (
        {"a": 1.0}.values(),
        "expected numbers, got a dict_values, which has no order or no indices; give a sorted list or an array",
    ),
    "a generator": (
        (float(i) for i in range(3)),
        "expected numbers, got a generator, which can be gone through once only; give list(x)",
    ),
    "a map": (map(float, "12"), "expected numbers, got a map, which can be gone through once only; give list(x)"),
    "complex numbers": (
        Y + 1j,
        "expected real numbers, got complex128; give x.real and x.imag as data of their own, and put them together in "
        "the model",
    ),
    "complex numbers of JAX": (
        jnp.asarray(Y) + 1j,
        "expected real numbers, got complex64; give x.real and x.imag as data of their own, and put them together in "
        "the model",
    ),
    "a complex number": (
        1j,
        "expected numbers, got the complex number 1j; give its real and imaginary part as data of their own",
    ),
    "numbers as objects": (
        np.array([1.0, 2], object),
        "expected numbers, got values of dtype object, all of which are numbers; use .astype(float)",
    ),
    "integers as objects": (
        pd.Series([1, 2], dtype=object),
        "expected numbers, got values of dtype object, all of which are numbers; use .astype(int)",
    ),
    "None among objects": (np.array([1.0, None]), f"missing values among the data (1 of 2); {MISSING}"),
    "arrays as objects": (
        pd.Series([np.ones(2), np.ones(3)]),
        "expected numbers, got values of dtype object that are ndarrays; make one array of them, padded if their "
        "lengths differ, with the lengths or a mask as data of their own",
    ),
    "an object": (
        np.array({"a": 1}),
        "expected numbers, got values of dtype object, such as a dict; give an array of numbers",
    ),
    "ragged lists": (
        [[1.0], [1.0, 2.0]],
        f"expected nested lists of equal lengths, got 1 and 2 (the first and number 2){UNEQUAL}",
    ),
    "ragged deeper down": (
        [[[1, 2], [3, 4]], [[5, 6], [7]]],
        f"expected nested lists of equal lengths, got 2 and 1 (the first and number 2){UNEQUAL}",
    ),
    "numbers beside lists": (
        [1.0, [2.0]],
        f"expected nested lists of equal lengths, got numbers beside lists{UNEQUAL}",
    ),
    "a date": (datetime.date(2026, 1, 1), f"expected numbers, got a date; {DATES}"),
    "dates in a list": ([datetime.datetime(2026, 1, 1)], f"expected numbers, got a list with a datetime; {DATES}"),
    "dates in an array": (
        np.array(["2026-01-01"], "M8[D]"),
        f"expected numbers, got values of dtype datetime64[D]; {DATES}",
    ),
    "dates as objects": (
        np.array([datetime.date(2026, 1, 1)]),
        f"expected numbers, got values of dtype object, among them a date; {DATES}",
    ),
    "a fraction": (fractions.Fraction(1, 3), "expected numbers, got a Fraction; give float(x)"),
    "decimals in a list": ([decimal.Decimal(1)], "expected numbers, got a list with a Decimal; give float(x)"),
    "a masked array": (
        np.ma.array([1.0, 2.0], mask=[True, False]),
        "a masked array has no numbers under its mask; give filled values, and the mask as data of its own (numpyro's "
        "obs_mask)",
    ),
    "a sparse matrix": (
        scipy.sparse.csr_matrix(np.eye(2)),
        "expected numbers, got a sparse matrix (csr_matrix); give x.toarray()",
    ),
    "a tensor that NumPy cannot read": (
        Tensor(None, "it requires grad"),
        "expected numbers, got a Tensor that NumPy cannot read (it requires grad); give a NumPy array, such as "
        "x.detach().cpu().numpy()",
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_what_is_said_of_leaves_that_are_no_numbers(case):
    value, said = SAID[case]
    with pytest.raises((TypeError, ValueError)) as raised:
        autovi.plan(normal, {"y": value})
    assert str(raised.value) == f"y: {said}"


def test_nested_leaves_are_named_by_their_path():
    with pytest.raises(ValueError, match=r"^d\['obs'\]\['y'\]: missing values"):
        autovi.plan(of_a_tree, {"d": {"obs": {"y": [1.0, None]}}})


def test_tensors_of_other_libraries_are_data():
    assert bind(normal, {"y": Tensor(Y)}).arrays["y"].shape == (4,)


def test_settings_stay_settings():
    settings = {"a": ("rows", 1), "b": range(3), "c": None, "d": np.str_("name"), "e": [None, None], "f": (1.0, None)}
    inputs = bind(lambda **kwargs: None, settings)
    assert not inputs.arrays
    assert inputs.rebuild({})[1] == settings
