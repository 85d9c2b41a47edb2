"""The user's data as arguments of a compiled program: what is traced, what is static, and when a program is kept."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from numpyro import handlers

import autovi
from autovi.model.inputs import bind, lengths_said
from autovi.model.targets import trace_program
from autovi.preparation import Options, prepare

Y = np.array([0.5, -0.2, 1.0, 0.3])
Pair = collections.namedtuple("Pair", ["left", "right"])


def anything(*args, **kwargs):
    pass


def normal(y, scale=1.0):
    mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("n", len(y)):
        numpyro.sample("y", dist.Normal(mu, scale), obs=y)


# --- binding -------------------------------------------------------------------------------------------------------


def test_rebuild_gives_back_what_was_bound():
    data = {"y": Y, "tree": {"a": jnp.ones(2), "b": [np.zeros(3), "text"]}, "flag": True, "none": None, "x": [1, 2]}
    inputs = bind(anything, data)
    assert list(inputs.arrays) == ["tree['a']", "tree['b'][0]", "x", "y"]
    assert dict(inputs.static) == {"flag": True, "none": None, "tree['b'][1]": "text"}
    doubled = {name: 2 * np.asarray(a) for name, a in inputs.arrays.items()}
    args, kwargs = inputs.rebuild(doubled)
    assert args == () and list(kwargs) == sorted(data)
    np.testing.assert_array_equal(kwargs["y"], 2 * Y)
    np.testing.assert_array_equal(kwargs["tree"]["a"], [2.0, 2.0])
    np.testing.assert_array_equal(kwargs["x"], [2, 4])
    assert kwargs["tree"]["b"][1] == "text" and kwargs["flag"] is True and kwargs["none"] is None


def test_lists_of_lists_of_arrays_are_no_array():
    inputs = bind(anything, {"x": [[Y, Y[:2]], [Y]], "y": [[1, 2], [3, 4]]})
    assert list(inputs.arrays) == ["x[0][0]", "x[0][1]", "x[1][0]", "y"]


def test_constants_stay_what_they_were():
    inputs = bind(anything, (Y,)).as_constants()
    assert inputs.traced() == {}
    np.testing.assert_array_equal(inputs.rebuild({})[0][0], Y)


def test_positional_arguments_have_the_names_of_the_parameters():
    assert bind(normal, (Y, np.float32(1.0))).paths == ("y", "scale")
    assert bind(anything, (Y, Y)).paths == ("argument 0", "argument 1")

    def later(y, *more, scale=1.0):
        pass

    assert bind(later, (Y, Y, Y)).paths == ("y", "argument 1", "argument 2")


def test_nothing_to_bind():
    assert bind(lambda: None, None).rebuild({}) == ((), {})
    assert bind(anything, ()).rebuild({}) == ((), {})


def test_named_tuples_stay_named_tuples():
    inputs = bind(anything, {"p": Pair(Y, 2.0), "q": Pair(1.0, 2.0)})
    assert inputs.paths == ("p.left", "p.right", "q.left", "q.right")
    (_, kwargs) = inputs.rebuild(inputs.arrays)
    assert isinstance(kwargs["p"], Pair) and kwargs["q"] == Pair(1.0, 2.0)


def test_labels_are_taken_off_and_kept():
    series = pd.Series(Y, index=pd.Index(list("abcd"), name="school"))
    array = xr.DataArray(np.ones((2, 3)), dims=("time", "place"), coords={"time": [10, 20]})
    inputs = bind(anything, {"series": series, "array": array, "plain": Y})
    assert set(inputs.labels) == {"series", "array"}
    assert inputs.labels["series"].dims == ("school",)
    assert list(inputs.labels["series"].coords[0]) == list("abcd")
    assert inputs.labels["array"].dims == ("time", "place")
    assert list(inputs.labels["array"].coords[0]) == [10, 20] and inputs.labels["array"].coords[1] is None
    assert type(inputs.arrays["series"]) is type(inputs.arrays["array"]) is np.ndarray


def test_a_data_set_is_a_mapping_of_arguments():
    data = xr.Dataset({"y": ("school", Y)}, coords={"school": list("abcd")})
    inputs = bind(normal, data)
    assert inputs.paths == ("y",) and inputs.labels["y"].dims == ("school",)


def test_keys_are_data():
    inputs = bind(anything, {"key": jax.random.key(0)})
    assert list(inputs.arrays) == ["key"]


def test_the_user_s_data_are_not_changed():
    data = {"y": Y.copy(), "tree": {"a": [1.0, 2.0]}}
    bind(anything, data)
    assert list(data) == ["y", "tree"] and data["tree"] == {"a": [1.0, 2.0]}


def test_data_changed_in_place_later_do_not_matter():
    y = Y.copy()
    inputs = bind(anything, {"y": y, "view": y[:2]})
    y[:] = 9.0
    np.testing.assert_array_equal(inputs.arrays["y"], Y)
    np.testing.assert_array_equal(inputs.arrays["view"], Y[:2])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"x": np.ones(4), "y": np.ones(5)}, ". The data: 'x' has 4 rows, 'y' has 5"),
        (
            {"x": np.ones((4, 2)), "w": np.ones(5), "y": np.ones(4)},
            ". The data: 'w' has 5 rows, 'x' and 'y' have 4",
        ),
        ({c: np.ones(3 + (c == "f")) for c in "abcdef"}, ". The data: 'a', 'b', 'c' and 2 more have 3 rows, 'f' has 4"),
        ({"t": {"x": np.ones(4)}, "y": [1.0]}, """. The data: "t['x']" has 4 rows, 'y' has 1"""),
        ({"x": np.ones(4), "y": np.ones(4), "scale": np.ones(()), "name": "rows"}, ""),
        (None, ""),
    ],
)
def test_unequal_lengths_are_said(data, said):
    assert lengths_said(bind(anything, data)) == said


# --- signatures ----------------------------------------------------------------------------------------------------


def signature(data):
    return bind(anything, data).signature()


def test_equal_shapes_have_equal_signatures():
    assert signature({"y": Y, "k": 2}) == signature({"y": Y + 1, "k": 2})
    assert hash(signature({"y": Y, "k": 2})) == hash(signature({"y": Y + 1, "k": 2}))


@pytest.mark.parametrize(
    "other",
    [
        {"y": Y[:3], "k": 2},
        {"y": Y.astype(np.float32), "k": 2},
        {"y": Y[None], "k": 2},
        {"y": Y, "k": 3},
        {"y": Y, "k": 2.0},
        {"y": Y, "k": None},
        {"y": Y, "k": np.int64(2)},
        {"y": Y},
        {"y": {"y": Y}, "k": 2},
        {"x": Y, "k": 2},
    ],
)
def test_other_shapes_and_settings_have_other_signatures(other):
    assert signature({"y": Y, "k": 2}) != signature(other)


def test_true_is_not_one():
    assert signature({"k": True}) != signature({"k": 1}) != signature({"k": 1.0})


# --- data whose values the program needs ---------------------------------------------------------------------------


def by_group(y, g):
    with numpyro.plate("group", int(g.max()) + 1):
        mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("n", len(y)):
        numpyro.sample("y", dist.Normal(mu[g], 1.0), obs=y)


def by_unique_group(y, g):
    levels, codes = np.unique(g, return_inverse=True)
    with numpyro.plate("group", len(levels)):
        mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("n", y.shape[0]):
        numpyro.sample("y", dist.Normal(mu[codes], 1.0), obs=y)


@pytest.mark.parametrize("model", [by_group, by_unique_group])
def test_values_may_decide_shapes(model):
    data = {"y": Y, "g": np.array([0, 1, 2, 1])}
    engine, inputs = prepare(model, data, Options())
    assert inputs.concrete and inputs.traced() == {}
    assert engine.program.sites.latents["mu"].shape == (3,)
    assert prepare(model, data, Options())[0] is engine
    fewer, _ = prepare(model, data | {"g": np.array([0, 1, 0, 1])}, Options())
    assert fewer.program.sites.latents["mu"].shape == (2,)
    # The data are constants of the program: other values are another program.
    assert prepare(model, data | {"y": Y + 1}, Options())[0] is not engine


def test_lengths_alone_do_not_make_constants():
    _, inputs = prepare(normal, {"y": Y}, Options())
    assert not inputs.concrete and list(inputs.traced()) == ["y"]


def test_branches_on_settings_are_fine():
    def model(y, wide):
        mu = numpyro.sample("mu", dist.Normal(0.0, 10.0 if wide else 1.0))
        numpyro.sample("y", dist.Normal(mu, 1.0).expand([4]).to_event(1), obs=y)

    one, inputs = prepare(model, {"y": Y, "wide": True}, Options())
    other, _ = prepare(model, {"y": Y, "wide": False}, Options())
    assert not inputs.concrete and one is not other


# --- when a compiled program is kept -------------------------------------------------------------------------------


def fit(model, data=None, **options):
    return autovi.fit(model, data, num_steps=60, num_draws=10, progress_bar=False, **options)


def location(result):
    return float(result.sample(400)["mu"].mean())


def test_new_data_of_the_same_shapes_use_the_same_program_and_give_their_own_answer():
    first, second = fit(normal, {"y": Y}), fit(normal, {"y": Y + 5.0})
    assert first.engine is second.engine
    assert location(second) > location(first) + 2.0
    assert location(fit(normal, {"y": Y})) == location(first)


SHIFT = {"value": np.zeros(4)}


def shifted(y):
    mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("n", 4):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y - jnp.asarray(SHIFT["value"]))


@pytest.mark.slow
def test_a_changed_global_array_is_never_stale(monkeypatch):
    first = location(fit(shifted, {"y": Y}))
    monkeypatch.setitem(SHIFT, "value", np.full(4, 5.0))
    assert location(fit(shifted, {"y": Y})) < first - 2.0
    monkeypatch.setitem(SHIFT, "value", np.full(4, -5.0))
    assert location(fit(shifted, {"y": Y})) > first + 2.0


GLOBALS = {}
LARGE = np.zeros(5000)
LARGE_WITH_ONE = np.where(np.arange(5000) == 2500, 1.0, 0.0)


def one_latent(loc=0.0, **options):
    mu = numpyro.sample("mu", dist.Normal(loc, 1.0), **options)
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=0.5)


def with_large(transform):
    mu = numpyro.sample("mu", dist.Normal())
    numpyro.sample("y", dist.Normal(transform(mu), 1.0), obs=0.5)


def scaled():
    with handlers.scale(scale=GLOBALS["v"]):
        one_latent()


def masked():
    with handlers.mask(mask=GLOBALS["v"]):
        one_latent()


def renamed():
    numpyro.sample("y", dist.Normal(numpyro.sample(GLOBALS["v"], dist.Normal()), 1.0), obs=0.5)


def plate_of_size():
    mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("n", GLOBALS["v"], subsample_size=2):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=jnp.zeros(2))


def in_scan():
    with_large(lambda mu: jax.lax.scan(lambda c, _: (c + jnp.asarray(GLOBALS["v"])[2500], None), mu, None, 2)[0])


def with_param():
    one_latent(numpyro.param("loc", GLOBALS["v"]))


def with_constraint():
    one_latent(numpyro.param("loc", 1.0, constraint=GLOBALS["v"]))


def with_deterministic():
    one_latent()
    numpyro.deterministic("d", GLOBALS["v"])


CHANGES = {
    "number": (lambda: one_latent(GLOBALS["v"]), 1.0, 1.0000001),
    "whole number": (lambda: one_latent(GLOBALS["v"]), 1, 2),
    "one in a large array": (lambda: with_large(lambda mu: mu + GLOBALS["v"][2500]), LARGE, LARGE_WITH_ONE),
    "large array": (lambda: with_large(lambda mu: (mu + GLOBALS["v"]).sum()), LARGE, LARGE_WITH_ONE),
    "under jit": (lambda: with_large(jax.jit(lambda mu: (mu + GLOBALS["v"]).sum())), LARGE, LARGE_WITH_ONE),
    "in a scan": (in_scan, LARGE, LARGE_WITH_ONE),
    "scale": (scaled, 1.0, 10.0),
    "mask": (masked, True, False),
    "infer": (lambda: one_latent(infer={"autovi": {"estimator": GLOBALS["v"]}}), "explicit", "score"),
    "site name": (renamed, "a", "b"),
    "plate size": (plate_of_size, 4, 8),
    "start of a parameter": (with_param, 0.0, 1.0),
    "constraint of a parameter": (with_constraint, dist.constraints.real, dist.constraints.positive),
    "deterministic": (with_deterministic, 0.0, 1.0),
    "random key": (lambda: one_latent(jax.random.normal(jax.random.key(GLOBALS["v"]))), 0, 1),
}


@pytest.mark.parametrize("case", CHANGES)
def test_the_fingerprint_holds_what_the_model_closes_over(case):
    model, before, after = CHANGES[case]

    def fingerprint(value):
        GLOBALS["v"] = value
        return trace_program(model, None, bind(model, None))[0].fingerprint

    assert fingerprint(before) == fingerprint(before) != fingerprint(after)


def test_models_that_differ_in_a_scale_alone_share_nothing():
    plain, heavier = handlers.scale(one_latent, 1.0), handlers.scale(one_latent, 10.0)
    assert prepare(plain, None, Options())[0] is not prepare(heavier, None, Options())[0]


def test_two_functions_that_compute_the_same_share_a_program():
    again = functools.partial(normal)
    assert prepare(normal, {"y": Y}, Options())[0] is prepare(again, {"y": Y}, Options())[0]
