"""Which kept engine serves a fit, what a kept engine holds, and how it is dropped."""

import dataclasses
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import autovi
from autovi.estimators import Score
from autovi.families import Normal
from autovi.model.inputs import bind
from autovi.preparation import Options, optimizer_fingerprint, prepare
from autovi.run.cache import CACHE, Cache, Latest

DATA = {"y": np.array([1.0, 2.0, 3.0], np.float32)}
QUICK = {"num_steps": 2, "progress_bar": False}


@pytest.fixture(autouse=True)
def empty_cache():
    autovi.clear_cache()
    yield
    autovi.clear_cache()


def model(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
    with numpyro.plate("n", y.shape[0]):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def engine_of(fn=model, data=DATA, **options):
    return prepare(fn, data, Options(**options))[0]


SETTINGS = {
    "jax_default_prng_impl": "rbg",
    "jax_default_matmul_precision": "highest",
    "jax_threefry_partitionable": False,
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_enable_custom_prng": True,
    "jax_debug_nans": True,
    "jax_random_seed_offset": 1,
    "jax_enable_x64": True,
    "jax_default_device": "cpu",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_jax_are_part_of_the_key(name):
    first, before = engine_of(), getattr(jax.config, name)
    jax.config.update(name, SETTINGS[name])
    try:
        assert engine_of() is not first
    finally:
        jax.config.update(name, before)
    assert engine_of() is first


def test_settings_in_a_with_block_are_part_of_the_key():
    first = engine_of()
    for block in (
        jax.default_matmul_precision("highest"),
        jax.default_prng_impl("rbg"),
        jax.default_device(jax.devices()[0]),
        jax.enable_x64(True),
        numpyro.validation_enabled(not dist.Distribution._validate_args),
    ):
        with block:
            assert engine_of() is not first
    assert engine_of() is first


@pytest.mark.parametrize("name", ["jax_log_compiles", "jax_explain_cache_misses"])
def test_settings_that_only_tell_are_no_part_of_it(name):
    first, before = engine_of(), getattr(jax.config, name)
    jax.config.update(name, not before)
    try:
        assert engine_of() is first
    finally:
        jax.config.update(name, before)


def test_another_generator_gives_other_numbers():
    losses = []
    for kind in ("threefry2x32", "rbg"):
        with jax.default_prng_impl(kind):
            losses.append(autovi.fit(model, DATA, **QUICK).losses)
    assert (losses[0] != losses[1]).all()
    of_key = [autovi.fit(model, DATA, rng_key=jax.random.key(0, impl=kind), **QUICK).losses for kind in ("rbg", None)]
    np.testing.assert_array_equal(of_key, losses[::-1])


def test_weak_types_and_constants_are_part_of_the_key():
    assert engine_of(data={"y": jnp.ones(3)}) is engine_of(data={"y": jnp.zeros(3)})
    weak = jax.jit(lambda: jnp.asarray(1.0) * jnp.ones(3))
    assert bind(model, {"y": jnp.ones(3)}).signature() == bind(model, {"y": weak()}).signature()
    weak = jnp.asarray([1.0]).sum() * 0 + 1.0
    assert not weak.weak_type
    one = bind(lambda y: None, {"y": jnp.asarray(1.0)}).signature()
    assert jnp.asarray(1.0).weak_type and one != bind(lambda y: None, {"y": jnp.float32(1.0)}).signature()


def test_keys_among_the_data_are_arguments_too():
    def keyed(key):
        mu = numpyro.sample("mu", dist.Normal(jax.random.normal(key), 1.0))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=0.3)

    one, other = jax.random.key(0), jax.random.key(1)
    assert engine_of(keyed, {"key": one}) is engine_of(keyed, {"key": other})
    assert engine_of(keyed, {"key": one}) is not engine_of(keyed, {"key": jax.random.key(0, impl="rbg")})


def by_value(group, y):
    mean = numpyro.sample("mean", dist.Normal(jnp.zeros(int(np.asarray(group).max()) + 1), 1.0).to_event(1))
    with numpyro.plate("n", len(y)):
        numpyro.sample("y", dist.Normal(mean[jnp.asarray(group)], 1.0), obs=y)


def test_data_that_are_constants_are_part_of_the_key_by_digest():
    def engine(group):
        return engine_of(by_value, {"group": np.asarray(group), "y": np.zeros(1000)})

    group = np.arange(1000) % 2
    assert engine(group) is engine(group.copy()) is not engine(1 - group)
    key = next(iter(CACHE.engines))
    assert group.tobytes() not in repr(key).encode() and len(repr(key[0])) < 1000


class Level:
    """A static argument: hashable by identity, and changeable."""

    def __init__(self, k):
        self.k = k


def test_static_arguments_count_by_content():
    """By identity, a changed object would be the old one, and a new one at the address of one that is gone too."""

    def with_level(level):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=1.0)

    level = Level(1.0)
    first = engine_of(with_level, {"level": level})
    assert engine_of(with_level, {"level": Level(1.0)}) is first
    level.k = 2.0
    assert engine_of(with_level, {"level": level}) is not first


def own_family(width):
    class Own(Normal):
        def init(self, start, layout):
            return {**super().init(start, layout), "log_scale": jnp.full_like(start, width)}

    return Own()


class Wide(Normal):
    """A family whose setting equality leaves out, and which can be changed."""

    width = 0.0


@dataclasses.dataclass(frozen=True)
class Rated(Score):
    rate: float = 1.0
    note: str = dataclasses.field(default="", compare=False)


def test_families_and_estimators_count_by_class_and_content():
    assert engine_of(families={"mu": own_family(1.0)}) is engine_of(families={"mu": own_family(1.0)})
    assert engine_of(families={"mu": own_family(1.0)}) is not engine_of(families={"mu": own_family(2.0)})
    family = Wide()
    assert family == Wide()
    first = engine_of(families={"mu": family})
    object.__setattr__(family, "width", 1.0)
    assert engine_of(families={"mu": family}) is not first
    estimators = [Rated(rate=1), Rated(), Rated(rate=True), Rated(note="other")]
    assert estimators == [Rated()] * 4
    assert len({id(engine_of(estimators={"mu": e})) for e in estimators}) == 4


def masked(rate, name="a"):
    """It looks parameters up by name, so that it cannot be traced on others."""
    return optax.multi_transform({"x": optax.sgd(rate)}, lambda params: {**dict.fromkeys(params, "x"), name: "x"})


def test_optimizers_that_cannot_be_traced_count_by_content():
    assert optimizer_fingerprint(masked(0.1, "c")) == optimizer_fingerprint(masked(0.1, "c"))
    assert optimizer_fingerprint(masked(0.1, "c")) != optimizer_fingerprint(masked(0.2, "c"))


# --- what is held -----------------------------------------------------------------------------------------------------


def test_a_kept_engine_holds_no_data():
    """Neither the user's arrays, nor the copies that a fit makes of them, nor what the model function closes over."""

    class Table:
        pass

    def fitted():
        table, y = Table(), np.arange(50.0, dtype=np.float32)

        def closed(y):
            assert table is not None
            return model(y)

        fit = autovi.fit(closed, {"y": y}, **QUICK)
        fit.sample(3)
        fit.predict()
        copies = [*fit.inputs.arrays.values(), *jax.tree.leaves(fit.arrays)]
        return fit.engine, [weakref.ref(v) for v in (table, y, closed, fit, *copies)]

    engine, references = fitted()
    gc.collect()
    (kept,) = CACHE.engines.values()
    assert engine is kept or any(engine is derived for derived in kept._derived.values())
    assert [r() for r in references] == [None] * 6


def test_a_kept_engine_serves_after_its_first_model_is_gone():
    def again(shift=0.0):
        return lambda y: model(y)

    first = autovi.fit(again(), DATA, **QUICK)
    engine = first.engine
    del first
    gc.collect()
    second = autovi.fit(again(), DATA, **QUICK)
    assert second.engine is engine
    assert second.sample(3)["mu"].shape == (3,) and second.predict()["y"].shape == (1000, 3)


def test_a_guide_lives_as_long_as_its_fit():
    def fitted():
        guide = lambda y: numpyro.sample("mu", dist.Normal(numpyro.param("loc", 0.0), 1.0))  # noqa: E731
        return autovi.fit(model, DATA, guide=guide, **QUICK)

    fit = fitted()
    gc.collect()
    assert fit.sample(3)["mu"].shape == (3,)


def test_the_latest_function_that_lives_is_called():
    one, two = (lambda: 1), (lambda: 2)
    latest = Latest(one)
    latest.use(two)
    assert latest() == 2
    del two
    gc.collect()
    assert latest() == 1
    latest.use(one)
    assert latest() == 1
    bound = Latest(np.zeros(3).sum)  # which nothing else holds, and no reference can be weak to
    assert bound() == 0.0
    del one
    gc.collect()
    with pytest.raises(ReferenceError, match="the function that was fitted is gone"):
        latest()


def test_methods_are_one_function_however_often_they_are_looked_up():
    class Model:
        def run(self, y):
            return model(y)

    own = Model()
    latest = Latest(own.run)
    for _ in range(3):
        latest.use(own.run)
    assert len(latest._functions) == 1 and latest.function == own.run
    assert autovi.fit(own.run, DATA, **QUICK).sample(3)["mu"].shape == (3,)


def closing_over(number):
    constant = jnp.full(1000, float(number))
    return lambda y: model(y + constant.sum())


def test_the_bytes_of_constants_are_bounded():
    engines = [engine_of(closing_over(i)) for i in range(4)]
    assert [e.constant_bytes // 4000 for e in engines] == [1] * 4
    assert engine_of(by_value, {"group": np.arange(1000) % 2, "y": np.zeros(1000)}).constant_bytes >= 8000
    cache = Cache(size=16, max_bytes=3 * engines[0].constant_bytes)
    for i, engine in enumerate(engines):
        assert cache.get(i, lambda engine=engine: engine) is engine
    assert list(cache.engines) == [1, 2, 3]
    assert cache.constant_bytes <= cache.max_bytes
    tiny = Cache(max_bytes=10)
    assert tiny.get(0, lambda: engines[0]) is engines[0] and not tiny.engines


def test_clearing_drops_engines_and_what_they_compiled():
    fit = autovi.fit(model, DATA, **QUICK)
    before = fit.sample(3)["mu"]
    engine = weakref.ref(fit.engine)
    assert CACHE.engines and fit.engine._jitted
    autovi.clear_cache()
    assert not CACHE.engines and not fit.engine._jitted
    np.testing.assert_array_equal(fit.sample(3)["mu"], before)
    other = autovi.fit(model, DATA, **QUICK)
    assert other.engine is not fit.engine
    np.testing.assert_array_equal(other.losses, fit.losses)
    del fit
    gc.collect()
    assert engine() is None
