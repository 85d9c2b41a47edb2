"""A fit pickles, copies and comes back from another process as it was, or says what cannot and why."""

import copy
import functools
import io
import os
import pickle
import sys
import threading
from collections import namedtuple
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pandas as pd
import pytest
import travelling
from numpyro.infer.autoguide import AutoGuideList, AutoNormal
from test_process import FIT, in_a_process_of_its_own, needs_fork
from travelling import QUICK, Model, OwnElbo, OwnEnumerate, Wide

import autovi

Width = namedtuple("Width", "a b")
Y = np.array([0.5, 1.5])
FRAME = pd.DataFrame({"x": Y, "y": Y, "note": "text"})


def quick(model, data, **options):
    return autovi.fit(model, data, **{**QUICK, **options})


def sent(item, by=pickle):
    return pickle.loads(by.dumps(item))


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def assert_same_fit(again, fit):
    """Bit for bit: what is held, and what is computed from it."""
    assert again is not fit
    assert_same(again.state, fit.state)
    assert_same(again.losses, fit.losses)
    assert again.plan.to_dict() == fit.plan.to_dict() and again.plan.blocks == fit.plan.blocks
    assert repr(again) == repr(fit)
    assert_same(again.sample(4), fit.sample(4))
    assert_same(again.sample(4, rng_key=9), fit.sample(4, rng_key=9))


@pytest.fixture(scope="module")
def fit():
    rng = np.random.default_rng(0)
    y = pd.Series(rng.normal(size=6), index=pd.Index([f"r{i}" for i in range(6)], name="row"))
    data = {"x": rng.normal(size=6), "y": y, "spread": 0.8}
    return quick(travelling.model, data, estimators={"k": "enumerate", "c": {"baseline": "moving_average"}}, rng_key=3)


@pytest.fixture(scope="module")
def simple_fit():
    return travelling.fitted(0)


@pytest.fixture
def alone(monkeypatch):
    """Without cloudpickle."""
    monkeypatch.setitem(sys.modules, "cloudpickle", None)


# --- what comes back -------------------------------------------------------------------------------------------------


def by_joblib(item):
    joblib = pytest.importorskip("joblib")
    file = io.BytesIO()
    joblib.dump(item, file)
    file.seek(0)
    return joblib.load(file)


WAYS = {
    **{f"pickle {n}": functools.partial(lambda n, x: pickle.loads(pickle.dumps(x, n)), n) for n in (2, 5)},
    "pickle in Python": lambda x: pickle._loads(pickle._dumps(x)),
    "cloudpickle": lambda x: sent(x, cloudpickle),
    "dill": lambda x: sent(x, pytest.importorskip("dill")),
    "joblib": by_joblib,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_fit_comes_back(fit, way):
    again = WAYS[way](fit)
    assert type(again) is autovi.Fit and again.model is travelling.model
    assert_same_fit(again, fit)
    assert_same(again.draws, fit.draws)
    assert (again.elbo, again.elbo_se, again.khat) == (fit.elbo, fit.elbo_se, fit.khat)
    assert list(again.idata["posterior"]["row"].values) == [f"r{i}" for i in range(6)]
    assert_same(again.predict({"x": np.zeros(2)}), fit.predict({"x": np.zeros(2)}))


def test_what_was_computed_need_not_travel(fit):
    assert fit.draws and fit.idata
    assert len(pickle.dumps(fit)) < 40_000
    assert "draws" not in vars(sent(fit)) and "draws" not in vars(copy.deepcopy(fit))


def test_a_fit_travels_twice(fit):
    assert pickle.dumps(sent(fit)) == pickle.dumps(fit)


def test_fits_inside_other_things(fit):
    """One fit stays one, and its model the model beside it."""
    box = sent({"fits": [fit, fit], "model": fit.model})
    assert box["fits"][0] is box["fits"][1] and box["fits"][0].model is box["model"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "data", "options"),
    [
        (travelling.local, {"y": np.arange(6.0)}, {}),
        (travelling.local, {"y": np.arange(6.0)}, {"batch_size": 2, "rng_key": jax.random.key(1, impl="rbg")}),
        (travelling.simple, (Y,), {"optimizer": optax.adam(0.1)}),
        (travelling.simple, (jnp.asarray(Y),), {"objective": OwnElbo()}),
        (travelling.pair, {"y": 0.5}, {"families": {"mu": Wide(1.5)}, "estimators": {"k": OwnEnumerate()}}),
        (travelling.pair, {"y": 0.5}, {"guide": travelling.pair_guide}),
        (travelling.by_column, {"df": FRAME, "parts": [Y, {"more": Y}]}, {}),
        (Model(2.0), {"y": Y}, {}),
        (Model(2.0).method, {"y": Y}, {}),
        (functools.partial(travelling.spread_out, spread=0.3), {"y": Y}, {}),
        (autovi.LogDensity(travelling.log_density, {"mu": 0.0}), {"y": Y}, {}),
    ],
    ids="subsampled batch_size optimizer objective instances guide columns object method partial log_density".split(),
)
def test_other_fits_come_back(model, data, options):
    fit = quick(model, data, num_steps=3, **options)
    for again in (sent(fit), copy.deepcopy(fit)):
        assert_same_fit(again, fit)
        assert type(again.engine.program.objective) is type(fit.engine.program.objective)


@pytest.mark.slow
def test_arguments_that_no_file_holds(tmp_path):
    data = {"link": travelling.tanh, "pair": {"width": Width(np.float32(0.5), jnp.ones(2))}, "y": Y}
    fit = quick(travelling.linked, data)
    with pytest.raises(ValueError, match="'link' is a function"):
        fit.save(tmp_path / "fit", with_data=True)
    again = sent(fit)
    assert_same_fit(again, fit)
    assert dict(again.inputs.static) == {"link": travelling.tanh}


@pytest.mark.slow
def test_keys_among_the_data():
    def keyed(key, y):
        mu = numpyro.sample("mu", dist.Normal(jax.random.normal(key), 1.0))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    fit = quick(keyed, {"key": jax.random.key(5), "y": Y})
    assert_same_fit(sent(fit, cloudpickle), fit)


@pytest.mark.slow
def test_autoguides(alone):
    guide = AutoNormal(travelling.simple, init_scale=0.3)
    fit = quick(travelling.simple, {"y": Y}, guide=guide)
    assert guide.prototype_trace is not None
    again = sent(fit)
    assert_same_fit(again, fit)
    assert again.guide is not guide and again.guide.prototype_trace is not None
    assert guide.prototype_trace is not None  # that of the fit is left as it is
    twin = copy.deepcopy(fit)
    assert twin.guide is not guide and twin.guide.prototype_trace is not None
    assert_same_fit(sent(twin), fit)


@pytest.mark.slow
def test_guides_inside_a_guide_travel_by_cloudpickle():
    guide = AutoGuideList(travelling.spread_out)
    for hidden in ("a", "b"):
        guide.append(AutoNormal(numpyro.handlers.block(travelling.spread_out, hide=[hidden])))
    fit = quick(travelling.spread_out, {"y": Y}, guide=guide)
    assert_same_fit(sent(fit), fit)


def test_plans_and_targets(fit):
    for again in (sent(fit.plan), copy.deepcopy(fit.plan)):
        assert again == fit.plan and str(again) == str(fit.plan)
        assert again.block("c") == fit.plan.block("c")
    target = autovi.LogDensity(travelling.log_density, {"mu": 0.0, "w": jax.ShapeDtypeStruct((2,), jnp.float32)})
    assert sent(target) == target and copy.deepcopy(target) == target


def test_a_deep_copy_shares_nothing_that_changes(simple_fit):
    before = pickle.dumps(simple_fit)
    twin = copy.deepcopy(simple_fit)
    twin.inputs.arrays["y"][:] = 7.0
    twin.progress.losses[0][:] = 0.0
    twin.progress.status = "stopped"
    twin.state.params["guide"].clear()
    jax.tree.map(lambda leaf: leaf.delete(), twin.state.average)  # as a step does that is given the state
    twin.num_draws = 3
    assert pickle.dumps(simple_fit) == before
    assert_same(simple_fit.sample(4), travelling.fitted(0).sample(4))
    assert copy.deepcopy([simple_fit, simple_fit])[0] is not simple_fit


@pytest.mark.slow
def test_a_deep_copy_outlives_the_fit():
    fit = quick(Model(3.0), {"y": Y})
    expected, twin = fit.sample(3), copy.deepcopy(fit)
    assert twin.model is not fit.model
    del fit
    again = sent(twin)
    assert_same(twin.sample(3), expected)
    assert_same(again.sample(3), expected)


# --- what cannot -----------------------------------------------------------------------------------------------------


def local_model():
    def inner(y):
        travelling.simple(y)

    return inner


REMEDY = "Define it at the top level of a module, install cloudpickle.*fit.save.path.*autovi.load.path, model"


@pytest.mark.parametrize(
    ("model", "name"),
    [(lambda y: travelling.simple(y), "<lambda>"), (local_model(), "local_model.<locals>.inner")],
    ids=["lambda", "local"],
)
def test_a_function_without_a_name_of_its_own(alone, model, name):
    fit = quick(model, {"y": Y})
    with pytest.raises(pickle.PicklingError, match=f"pickle cannot take its model, .*{name} .*{REMEDY}"):
        pickle.dumps(fit)
    assert_same_fit(copy.deepcopy(fit), fit)


@pytest.mark.parametrize("model", [lambda y: travelling.simple(y), local_model()], ids=["lambda", "local"])
def test_cloudpickle_takes_it(model):
    fit = quick(model, {"y": Y})
    assert_same_fit(sent(fit), fit)
    assert_same_fit(sent(fit, cloudpickle), fit)


def guided(guide):
    return quick(travelling.pair, {"y": 0.5}, guide=guide)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: guided(lambda y: travelling.pair_guide(y)), r"its guide, .*<lambda>"),
        (lambda: quick(travelling.linked, linked_data()), r"its model's argument at \['link'\], .*<lambda>"),
        (lambda: quick(travelling.pair, {"y": 0.5}, families={"mu": local_family()}), r"its family of site 'mu', "),
    ],
    ids=["guide", "argument", "family"],
)
def test_what_else_cannot_is_named(alone, make, names):
    with pytest.raises(pickle.PicklingError, match=names):
        pickle.dumps(make())


def linked_data():
    return {"link": lambda mu: mu, "pair": {"width": Width(0.5, 1.0)}, "y": Y}


def local_family():
    class Inner(Wide):
        pass

    return Inner()


def test_what_cloudpickle_cannot_take_either():
    lock = threading.Lock()

    def locked(y):
        with lock:
            travelling.simple(y)

    fit = quick(locked, {"y": Y})
    with pytest.raises(pickle.PicklingError, match=r"its model, .*locked, nor can cloudpickle \(.*lock"):
        pickle.dumps(fit)


@pytest.mark.slow
def test_an_optimizer_that_cannot_is_left_behind(alone):
    fit = quick(travelling.simple, {"y": Y}, optimizer=optax.adam(0.1))
    with pytest.warns(UserWarning, match="the optimizer of this fit cannot be pickled .*without what it remembers"):
        content = pickle.dumps(fit)
    again = pickle.loads(content)
    assert_same(again.params, fit.params)
    assert_same(again.sample(3), fit.sample(3))
    assert again.state.optimizer is None and fit.state.optimizer is not None


def test_a_model_that_has_changed(monkeypatch):
    content = pickle.dumps(quick(travelling.simple, {"y": Y}))
    monkeypatch.setattr(travelling, "simple", travelling.pair)
    with pytest.raises(ValueError, match="pickle: model: the file belongs to another model"):
        pickle.loads(content)


@pytest.mark.slow
def test_another_precision(simple_fit, tmp_path):
    simple_fit.save(tmp_path / "fit", with_data=True)
    content = pickle.dumps(simple_fit)
    with jax.enable_x64(True):
        with pytest.warns(UserWarning, match="jax_enable_x64=False, which is True here: the draws of a key are others"):
            autovi.load(tmp_path / "fit", travelling.simple)
        wide = travelling.fitted(0)
        with pytest.warns(UserWarning, match="jax_enable_x64=False, which is True here"):
            assert pickle.loads(content).sample(2)["mu"].dtype == np.float64
        content = pickle.dumps(wide)
    with pytest.warns(UserWarning, match="=True, which is False here: its numbers are rounded to 32 bits"):
        assert pickle.loads(content).sample(2)["mu"].dtype == np.float32


# --- other processes -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_workers(simple_fit):
    """A worker fits and returns the fit; another is sent one and draws from it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        returned, answer = pool.submit(travelling.fitted, 0), pool.submit(travelling.sampled, simple_fit, 6)
        again = returned.result(timeout=120)
        assert again.seconds != simple_fit.seconds  # it is another fit, with the same key
        assert_same_fit(replace(again, seconds=simple_fit.seconds), simple_fit)
        draws, elbo, predicted = answer.result(timeout=120)
    assert_same(draws, simple_fit.sample(5, rng_key=6))
    assert elbo == simple_fit.elbo
    assert_same(predicted, simple_fit.predict(num_draws=3))


FORK = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import warnings

def draws(fit):
    return fit.sample(3)

if __name__ == "__main__":
    warnings.simplefilter("ignore")  # JAX warns of every fork
    fit = fitted()
    with get_context("fork").Pool(1) as pool:
        try:
            pool.map(draws, [fit])
        except RuntimeError as error:
            print(error)
"""


@needs_fork
@pytest.mark.slow
def test_a_fit_that_is_sent_to_a_forked_worker():
    assert in_a_process_of_its_own(FIT + FORK).startswith("this process was forked from one in which JAX was already")


@pytest.mark.slow
def test_a_fit_in_a_fresh_process(simple_fit, tmp_path):
    """Nothing but the pickle: autovi is imported by it."""
    (tmp_path / "fit.pickle").write_bytes(pickle.dumps(simple_fit))
    script = f"import pickle; print(repr(pickle.load(open({str(tmp_path / 'fit.pickle')!r}, 'rb')).elbo))"
    assert float(in_a_process_of_its_own(script)) == simple_fit.elbo
    assert os.listdir(tmp_path) == ["fit.pickle"]
