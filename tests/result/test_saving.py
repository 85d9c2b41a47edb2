"""A fit comes back from its file as it was, and a file that cannot is an error that says which and why."""

import os
import pickle
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from numpyro.infer.autoguide import AutoNormal

import autovi
from autovi.estimators import Enumerate
from autovi.families import Normal
from autovi.result import storage

ROWS = [f"r{i}" for i in range(6)]
VERSION = b'"format_version": 1'


def model(x, y=None, *, spread=1.0, options=None):
    """Sites of every kind of block: joint, on their own scale, enumerated, marginalized, by score function."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    k = numpyro.sample("k", dist.Categorical(jnp.array([0.3, 0.7])))
    c = numpyro.sample("c", dist.Poisson(2.0))
    b = numpyro.param("b", 0.5)
    with numpyro.plate("row", x.shape[0]):
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        numpyro.sample("y", dist.Normal(mu + b * x + z + 0.3 * k + 0.1 * c, spread), obs=y)
    numpyro.sample("n", dist.Poisson(rate), obs=3)


def data():
    rng = np.random.default_rng(0)
    y = pd.Series(rng.normal(size=6), index=pd.Index(ROWS, name="row"))
    return {"x": rng.normal(size=6), "y": y, "spread": 0.8, "options": {"deep": ["a", None, (1, 2.5)]}}


def quick(model, data=None, **options):
    return autovi.fit(model, data, **{"num_steps": 20, "num_draws": 50, "progress_bar": False, **options})


@pytest.fixture(scope="module")
def fit():
    return quick(model, data(), estimators={"k": "enumerate", "c": {"baseline": "moving_average"}}, rng_key=3)


@pytest.fixture(scope="module")
def path(fit, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "fit.autovi"
    fit.save(path, with_data=True)
    return path


@pytest.fixture(scope="module")
def loaded(path):
    return autovi.load(path, model)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


# --- what comes back -------------------------------------------------------------------------------------------------


def test_everything_comes_back(fit, loaded):
    assert_same(loaded.params, fit.params)
    assert_same(loaded.raw_params, fit.raw_params)
    assert loaded.plan.to_dict() == fit.plan.to_dict() and str(loaded.plan) == str(fit.plan)
    assert_same(loaded.losses, fit.losses)
    # The message last: its warnings take draws, and these time.
    for field in ("seconds", "status", "skipped_steps", "num_draws", "message"):
        assert getattr(loaded, field) == getattr(fit, field)
    assert repr(loaded) == repr(fit)


def test_draws_are_the_same(fit, loaded):
    assert_same(loaded.sample(10), fit.sample(10))
    assert_same(loaded.sample(10, rng_key=5), fit.sample(10, rng_key=5))
    assert (loaded.elbo, loaded.elbo_se) == (fit.elbo, fit.elbo_se)
    assert loaded.khat == fit.khat


def test_arviz_is_the_same(fit, loaded):
    for group in ("posterior", "posterior_predictive", "log_likelihood", "observed_data", "constant_data"):
        for name, array in fit.idata[group].data_vars.items():
            again = loaded.idata[group][name]
            assert again.dims == array.dims
            np.testing.assert_array_equal(again.values, array.values)
            for dim in array.dims:
                np.testing.assert_array_equal(again[dim].values, array[dim].values)
    assert list(loaded.idata["posterior"]["row"].values) == ROWS
    assert loaded.idata.attrs["plan"] == fit.idata.attrs["plan"]


def test_predictions_of_new_data(fit, loaded):
    new = {"x": np.zeros(2)}
    assert_same(loaded.predict(new), fit.predict(new))
    assert loaded.predict(new)["y"].shape == (50, 2)


def test_a_loaded_fit_can_be_saved(loaded, path, tmp_path):
    loaded.save(tmp_path / "again", with_data=True)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", [str, Path])
def test_path_types(fit, tmp_path, kind):
    path = kind(tmp_path / "a name.fit")
    fit.save(path, with_data=True)
    assert os.listdir(tmp_path) == ["a name.fit"]  # no suffix is added, nothing else is left
    assert autovi.load(path, model).status == fit.status


def test_files_hold_no_pickle(path):
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as member:
                    np.lib.format.read_array(member, allow_pickle=False)


def local(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("n", 6, subsample_size=3) as index:
        b = numpyro.sample("b", dist.Normal(mu, 1.0))
        numpyro.sample("y", dist.Normal(b, 1.0), obs=y[index])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "options"),
    [
        (local, {}),
        (local, {"batch_size": 2}),
        (local, {"guide": "mean_field"}),
        (lambda y: numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal(0.0, 1.0)), 1.0), obs=y), {}),
        (local, {"rng_key": jax.random.PRNGKey(1)}),
        (local, {"num_particles": 3, "families": {"mu": "delta"}}),
    ],
    ids=["subsampled", "batch_size", "mean_field", "lambda", "old key", "overrides"],
)
def test_other_fits_come_back(tmp_path, model, options):
    fit = quick(model, (np.arange(6.0),), **{"num_steps": 3, "num_draws": 5, **options})
    fit.save(tmp_path / "fit", with_data=True)
    again = autovi.load(tmp_path / "fit", model)
    assert again.plan.to_dict() == fit.plan.to_dict()
    assert again.engine.program.plan.blocks == fit.engine.program.plan.blocks
    assert_same(again.sample(4), fit.sample(4))


def test_arguments_of_many_kinds(tmp_path):
    def model(key, table, pair, weights, label=None, flag=False):
        mu = numpyro.sample("mu", dist.Normal(jax.random.normal(key), 1.0))
        assert label == "text" and flag is True and isinstance(pair, tuple) and set(table) == {1, 2}
        for i, y in enumerate((table[1], table[2], *pair, weights)):
            numpyro.sample(f"y{i}", dist.Normal(mu, 1.0), obs=jnp.asarray(y, float))

    data = {
        "key": jax.random.key(5),
        "table": {1: np.ones(2), 2: jnp.zeros(3)},
        "pair": (np.float32(0.5), np.ones(3)),
        "weights": jnp.ones(2, jnp.bfloat16),
        "label": "text",
        "flag": True,
    }
    fit = quick(model, data, num_steps=3, num_draws=5)
    fit.save(tmp_path / "fit", with_data=True)
    assert_same(autovi.load(tmp_path / "fit", model).sample(4), fit.sample(4))


def scoped(y):
    mu = numpyro.sample("a/mu", dist.Normal(0.0, numpyro.param("a/scale", jnp.ones(()))))
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def test_names_with_slashes_and_parameters_that_are_trees(tmp_path):
    def guide(y):
        layers = numpyro.param("layers", lambda key: [{"w": jnp.ones(2)}, (jnp.zeros(()),)])
        numpyro.sample("a/mu", dist.Normal(layers[0]["w"].sum() + layers[1][0], 0.5))

    fit = quick(scoped, {"y": 0.5}, guide=guide)
    fit.save(tmp_path / "fit", with_data=True)
    again = autovi.load(tmp_path / "fit", scoped, guide=guide)
    assert_same(again.raw_params, fit.raw_params)
    assert_same(again.sample(3), fit.sample(3))


# --- guides and classes of the user's own ----------------------------------------------------------------------------


def pair(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    k = numpyro.sample("k", dist.Bernoulli(0.4))
    numpyro.sample("y", dist.Normal(mu + k, 1.0), obs=y)


def pair_guide(y):
    numpyro.sample("mu", dist.Normal(numpyro.param("loc", 0.0), 0.5))


def test_guide_functions_are_asked_for(tmp_path):
    fit = quick(pair, {"y": 0.5}, guide=pair_guide)
    fit.save(tmp_path / "fit", with_data=True)
    assert_same(autovi.load(tmp_path / "fit", pair, guide=pair_guide).sample(3), fit.sample(3))
    with pytest.raises(ValueError, match=r"fit'.*guide function.*pass guide="):
        autovi.load(tmp_path / "fit", pair)


def test_autoguides_are_asked_for(tmp_path):
    def model(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal(0.0, 1.0)), 1.0), obs=y)

    fit = quick(model, {"y": 0.5}, guide=AutoNormal(model))
    fit.save(tmp_path / "fit", with_data=True)
    assert_same(autovi.load(tmp_path / "fit", model, guide=AutoNormal(model)).sample(3), fit.sample(3))
    with pytest.raises(ValueError, match="pass guide="):
        autovi.load(tmp_path / "fit", model)


def test_a_guide_that_the_fit_had_not(path):
    with pytest.raises(ValueError, match="leave out guide="):
        autovi.load(path, model, guide=pair_guide)


@dataclass(frozen=True)
class Wide(Normal):
    """Starts wide."""

    width: float = 2.0

    def init(self, start, layout):
        return {**super().init(start, layout), "log_scale": jnp.full_like(start, self.width)}


@dataclass(frozen=True)
class OwnEnumerate(Enumerate):
    """Another class of the same name as autovi's."""


@pytest.mark.slow
def test_classes_of_the_users_own(tmp_path):
    fit = quick(pair, {"y": 0.5}, families={"mu": Wide(1.5)}, estimators={"k": OwnEnumerate()})
    fit.save(tmp_path / "fit", with_data=True)
    again = autovi.load(tmp_path / "fit", pair, families={"m*": Wide(1.5)}, estimators={"k": OwnEnumerate()})
    assert type(again.engine.program.plan.estimator_of("k")) is OwnEnumerate
    assert again.plan.to_dict() == fit.plan.to_dict()
    assert_same(again.sample(3), fit.sample(3))
    with pytest.raises(ValueError, match=r"'mu': it had 'normal'.*families=\{'mu'"):
        autovi.load(tmp_path / "fit", pair, estimators={"k": OwnEnumerate()})
    with pytest.raises(ValueError, match=r"'k': it had 'enumerate'.*estimators=\{'k'"):
        autovi.load(tmp_path / "fit", pair, families={"mu": Wide()})


# --- what cannot be saved or read ------------------------------------------------------------------------------------


class Opaque:
    """Neither an array nor JSON."""


@pytest.mark.parametrize("value", [np.sin, Opaque(), {"inner": np.sin}], ids=["function", "object", "nested"])
def test_arguments_that_no_file_holds_are_named(tmp_path, value):
    def model(link, y):
        numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal(0.0, 1.0)), 1.0), obs=y)

    fit = quick(model, {"link": value, "y": 0.5}, num_steps=2)
    with pytest.raises(ValueError, match=r"argument .*link"):
        fit.save(tmp_path / "fit", with_data=True)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.7, 0.99, 0.9999])
def test_a_truncated_file(path, tmp_path, part):
    whole = path.read_bytes()
    broken = tmp_path / "broken.fit"
    broken.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match="broken.fit"):
        autovi.load(broken, model)


def test_foreign_files(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    np.savez(tmp_path / "foreign.npz", a=np.zeros(3))
    (tmp_path / "foreign.pickle").write_bytes(pickle.dumps(Trap()))
    np.save(tmp_path / "foreign.npy", np.array([Trap()], object), allow_pickle=True)
    storage.write(tmp_path / "foreign.autovi", {"x": np.zeros(2)}, {"kind": "checkpoint"})
    for name in ("foreign.npz", "foreign.pickle", "foreign.npy", "foreign.autovi"):
        with pytest.raises(ValueError, match=name):
            autovi.load(tmp_path / name, model)
    assert not (tmp_path / "ran").exists()


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        autovi.load(tmp_path / "nowhere", model)


def test_a_newer_version(path, tmp_path):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "newer.fit", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content.replace(VERSION, b'"format_version": 9') if VERSION in content else content)
    with pytest.raises(ValueError, match="newer.fit.*newer autovi"):
        autovi.load(tmp_path / "newer.fit", model)


def other_sites(x, y=None, *, spread=1.0, options=None):
    numpyro.sample("y", dist.Normal(numpyro.sample("nu", dist.Normal(0.0, 1.0)) + x, spread), obs=y)


def other_arguments(a):
    numpyro.sample("mu", dist.Normal(a, 1.0))


def other_distribution(x, y=None, *, spread=1.0, options=None):
    mu = numpyro.sample("mu", dist.Cauchy(0.0, 2.0))
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    k = numpyro.sample("k", dist.Categorical(jnp.array([0.3, 0.7])))
    c = numpyro.sample("c", dist.Poisson(2.0))
    b = numpyro.param("b", 0.5)
    with numpyro.plate("row", x.shape[0]):
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        numpyro.sample("y", dist.Normal(mu + b * x + z + 0.3 * k + 0.1 * c, spread), obs=y)
    numpyro.sample("n", dist.Poisson(rate), obs=3)


def one_site_more(x, y=None, *, spread=1.0, options=None):
    model(x, y, spread=spread)
    numpyro.sample("more", dist.Normal(0.0, 1.0), obs=0.5)


def other_parameter(x, y=None, *, spread=1.0, options=None):
    numpyro.param("slope", 0.0)
    with numpyro.handlers.block(hide=["b"]):
        model(x, y, spread=spread)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (other_sites, "the file belongs to another model than the one given.*no latent site matches"),
        (other_arguments, "the file belongs to another model than the one given.*takes \\['a'\\]"),
        (other_distribution, r"another model.*'mu' \(Normal.*'mu' \(Cauchy"),
        (one_site_more, "another model.*'more'"),
        (other_parameter, r"another model.*'slope'"),
    ],
)
def test_the_wrong_model(path, wrong, says):
    with pytest.raises(ValueError, match=f"fit.autovi.*{says}"):
        autovi.load(path, wrong)


def rewrite(path, to, **changes):
    arrays, meta = storage.read(path)
    storage.write(to, {**arrays, **changes}, meta)


def test_wrong_shapes(path, tmp_path):
    arrays, _ = storage.read(path)
    name = next(n for n in arrays if n.startswith("state/.params") and "logits" in n)
    rewrite(path, tmp_path / "odd.fit", **{name: np.zeros(5)})
    with pytest.raises(ValueError, match=r"odd.fit.*logits.*\(5,\)"):
        autovi.load(tmp_path / "odd.fit", model)
    rewrite(path, tmp_path / "more.fit", **{"state/.params['guide']['more']": np.zeros(5)})
    with pytest.raises(ValueError, match=r"more.fit.*'more'"):
        autovi.load(tmp_path / "more.fit", model)


def test_a_crash_while_writing_leaves_the_old_file(fit, tmp_path, monkeypatch):
    path = tmp_path / "fit"
    fit.save(path, with_data=True)
    before = path.read_bytes()
    longer = replace(fit, progress=replace(fit.progress, losses=[np.zeros(1000, np.float32)]))

    def crash(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="no space left"):
        longer.save(path, with_data=True)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["fit"]
    monkeypatch.undo()
    longer.save(path, with_data=True)
    assert autovi.load(path, model).losses.shape == (1000,)
