"""Fingerprints of traced programs: which models may share a compiled program, and which may not."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.experimental import io_callback

import autovi
from autovi.distributions.densities import log_density
from autovi.model.fingerprint import has_custom_derivatives
from autovi.model.inputs import bind
from autovi.model.targets import trace_program
from autovi.preparation import Options, prepare


def key_of(model):
    return trace_program(model, None, bind(model, None))[0].fingerprint.key


def shifted(function):
    """A model whose only peculiarity is what `function` makes of its latent value."""

    def model():
        numpyro.sample("y", dist.Normal(function(numpyro.sample("x", dist.Normal(0.0, 1.0))), 1.0), obs=0.5)

    return model


def called_back(callback, by=jax.pure_callback):
    return shifted(lambda x: x + by(callback, jax.ShapeDtypeStruct((), jnp.float32), 1.0))


def noticed(callback):
    def function(x):
        jax.debug.callback(callback, x)
        return x

    return shifted(function)


class Counter:
    def __init__(self, k):
        self.k = k

    def __call__(self, x):
        return np.float32(self.k * x)


def plain(x):
    return np.float32(x)


def keyword(k):
    def callback(x, *, k=k):
        return np.float32(k * x)

    return callback


def named(name):
    exec(f"def callback(x): return np.{name}(x)", namespace := {"np": np})
    return namespace["callback"]


def globally(k):
    exec("def callback(x): return np.float32(k * x)", namespace := {"np": np, "k": k})
    return namespace["callback"]


CALLBACKS = {
    "name": (named, "sin", "cos"),
    "keyword": (keyword, 1.0, 2.0),
    "global": (globally, 1.0, 2.0),
    "attribute": (Counter, 1.0, 2.0),
    "partial": (lambda k: functools.partial(lambda k, x: np.float32(k * x), k), 1.0, 2.0),
    "method": (lambda k: Counter(k).__call__, 1.0, 2.0),
    "under jit": (lambda k: jax.jit(keyword(k)), 1.0, 2.0),
}
WAYS = {"pure": called_back, "io": functools.partial(called_back, by=io_callback), "debug": noticed}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CALLBACKS)
def test_callbacks_that_differ_are_told_apart(case, way):
    make, one, other = CALLBACKS[case]
    callback = make(one)
    model = WAYS[way]
    assert key_of(model(callback)) == key_of(model(callback)) != key_of(model(make(other)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [Counter, lambda k: Counter(k).__call__, lambda k: lambda x: np.float32(k * x)])
def test_callbacks_that_may_change_apart_are_told_apart(make, way):
    """They are equal now. But a compiled program would call the one when the other is meant."""
    one, other = make(1.0), make(1.0)
    model = WAYS[way]
    assert trace_program(model(one), None, bind(model(one), None))[0].fingerprint == (
        trace_program(model(other), None, bind(model(other), None))[0].fingerprint
    )
    assert key_of(model(one)) == key_of(model(one)) != key_of(model(other))


def test_callbacks_without_a_state_are_the_same():
    assert key_of(called_back(named("sin"))) == key_of(called_back(named("sin")))
    assert key_of(called_back(lambda x: np.float32(x))) == key_of(called_back(lambda x: np.float32(x)))
    assert key_of(noticed(plain)) == key_of(noticed(plain))
    assert key_of(noticed([].append)) != key_of(noticed([].append))


def test_a_callback_whose_state_changes_is_another():
    rng = np.random.default_rng(0)
    model = called_back(lambda x: np.float32(rng.normal()))
    before = key_of(model)
    assert key_of(model) == before
    rng.normal()
    assert key_of(model) != before


def own_rule(slope, square=False):
    @jax.custom_jvp
    def function(x):
        return x**2 if square else x

    function.defjvp(lambda primals, tangents: (function(*primals), slope * tangents[0]))
    return function


def own_reverse_rule(slope):
    @jax.custom_vjp
    def function(x):
        return x

    function.defvjp(lambda x: (x, None), lambda _, g: (slope * g,))
    return function


def own_gradient(slope):
    """JAX defines this one's rule in a file of its own, from what the user's function says."""
    return jax.custom_gradient(lambda x: (x, lambda g: (slope * g,)))


def nested_rule(slope):
    """The value and the first derivative of both are the same."""
    inner = own_rule(slope)

    @jax.custom_jvp
    def function(x):
        return x

    function.defjvp(lambda primals, tangents: (function(*primals), inner(primals[0]) * tangents[0]))
    return function


def of_a_neighbour(slope):
    """In a folder beside JAX's, whose name begins as its own."""
    file = Path(jax.__file__).parent.with_name("jax_extra") / "functions.py"
    space = {}
    exec(compile("def function(x):\n    return x", file, "exec"), space)
    function = jax.custom_jvp(space["function"])
    function.defjvp(lambda primals, tangents: (function(*primals), slope * tangents[0]))
    return function


def of_a_library(slope):
    """JAX's function with a rule that a helper of JAX's makes of the user's."""
    function = jax.custom_jvp(jnp.floor)
    function.defjvps(lambda tangent, ans, x: slope * tangent)
    return function


def attached(slope):
    return lambda x: autovi.implicit.attach(1.0, x, lambda x, value, moving: slope * moving)


@pytest.mark.parametrize("function", [jax.nn.relu, lambda x: log_density(dist.BernoulliLogits(x), 1)])
def test_what_libraries_differentiate_is_not_traced_again(function):
    """Two derivatives of a whole model take longer than the model itself."""
    assert not has_custom_derivatives(jax.make_jaxpr(function)(0.3))


@pytest.mark.parametrize(
    "make", [own_rule, own_reverse_rule, own_gradient, nested_rule, of_a_neighbour, of_a_library, attached]
)
def test_rules_of_derivatives_are_part_of_the_program(make):
    assert key_of(shifted(make(1.0))) == key_of(shifted(make(1.0))) != key_of(shifted(make(2.0)))


def test_a_rule_that_only_a_parameter_meets_is_part_of_the_program():
    def with_param(rule):
        return shifted(lambda x: x + rule(numpyro.param("p", 1.0)))

    assert key_of(with_param(own_rule(1.0))) == key_of(with_param(own_rule(1.0)))
    assert key_of(with_param(own_rule(1.0))) != key_of(with_param(own_rule(2.0)))


def test_a_rule_that_cannot_be_traced_is_like_no_other():
    """A callback without a derivative beside it: the rule stays unseen."""

    def hidden(slope):
        return shifted(lambda x: own_rule(slope)(x) + jax.pure_callback(plain, jax.ShapeDtypeStruct((), x.dtype), x))

    assert key_of(hidden(1.0)) != key_of(hidden(1.0))


def test_functions_of_jax_need_no_derivative():
    """Their rules are known, so that a model with a softplus is not traced twice, nor its callback's derivative."""
    model = shifted(lambda x: jax.nn.softplus(x) + jax.pure_callback(plain, jax.ShapeDtypeStruct((), x.dtype), x))
    assert key_of(model) == key_of(model)


def own_distribution(factor, where="sample"):
    class Mine(dist.Normal):
        def sample(self, key, sample_shape=()):
            return self.loc + (factor if where == "sample" else 1.0) * jax.random.normal(key, sample_shape)

        def cdf(self, value):
            return (factor if where == "cdf" else 1.0) * super().cdf(value)

    return Mine


def own_transform(factor):
    class Mine(dist.transforms.AffineTransform):
        def __call__(self, x):
            return self.loc + factor * self.scale * x

    return lambda: dist.TransformedDistribution(dist.Normal(0.0, 1.0), Mine(0.0, 1.0))


def by_instance(factor):
    return lambda: Tilted(factor)


class Tilted(dist.Normal):
    """Its draws depend on what its density does not know."""

    def __init__(self, tilt):
        super().__init__(0.0, 1.0)
        self.tilt = tilt

    def sample(self, key, sample_shape=()):
        return self.tilt * jax.random.normal(key, sample_shape)


@pytest.mark.parametrize(
    "make",
    [
        own_distribution,
        lambda factor: own_distribution(factor, "cdf"),
        lambda factor: lambda: own_distribution(factor)(0.0, 1.0).expand([2]).to_event(1),
        lambda factor: lambda: own_distribution(factor)(0.0, 1.0).mask(True),
        own_transform,
        by_instance,
    ],
    ids=["sampler", "cdf", "wrapped", "masked", "transform", "instance"],
)
@pytest.mark.parametrize("observed", [None, 0.5], ids=["latent", "observed"])
def test_samplers_are_part_of_the_program(make, observed):
    def model(made):
        def run():
            numpyro.sample("x", made(), obs=None if observed is None else jnp.full(made().shape(), observed))

        return run

    assert key_of(model(make(1.0))) == key_of(model(make(1.0))) != key_of(model(make(3.0)))


def test_a_rule_that_is_registered_again_is_part_of_the_program():
    class Mine(dist.Normal):
        pass

    def model():
        numpyro.sample("y", dist.Normal(numpyro.sample("x", Mine(0.0, 1.0).to_event(0)), 1.0), obs=0.5)

    def rule(factor):
        return lambda fn, value, moving: factor * moving.loc

    keys = []
    for factor in (1.0, 1.0, 2.0):
        autovi.implicit.register(Mine, rule(factor))
        keys.append(key_of(model))
    assert keys[0] == keys[1] != keys[2]


class Asked:
    """A setting of a site whose text says nothing of what it holds."""

    def __init__(self, k):
        self.k = k

    def __repr__(self):
        return "Asked()"


def test_settings_of_a_site_count_by_content_not_by_their_text():
    def model(k):
        return lambda: numpyro.sample("x", dist.Normal(0.0, 1.0), infer={"autovi": {"own": Asked(k)}})

    assert key_of(model(1.0)) == key_of(model(1.0)) != key_of(model(2.0))


def test_a_fit_of_a_counting_callback_can_be_drawn_from():
    """Its state changes as it runs, which is no change of the model."""
    seen = []
    model = noticed(seen.append)
    fit = autovi.fit(model, num_steps=3, progress_bar=False)
    assert fit.sample(5)["x"].shape == (5,)
    assert fit.sample(6)["x"].shape == (6,)
    assert len(seen) > 3


def test_a_fit_whose_callback_has_been_changed_is_not_drawn_from():
    counter = Counter(1.0)
    model = shifted(lambda x: x + jax.pure_callback(counter, jax.ShapeDtypeStruct((), jnp.float32), 1.0))
    fit = autovi.fit(model, num_steps=3, progress_bar=False)
    fit.sample(5)
    counter.k = 2.0
    with pytest.raises(ValueError, match="model: it has changed since the fit"):
        fit.sample(5)


def test_a_model_whose_state_cannot_be_read_is_fitted_and_never_kept():
    lock = __import__("threading").Lock()

    def callback(x):
        with lock:
            return np.float32(x)

    model = called_back(callback)
    assert prepare(model, None, Options())[0] is not prepare(model, None, Options())[0]
    fit = autovi.fit(model, num_steps=3, progress_bar=False)
    assert fit.sample(5)["x"].shape == (5,)


IN_ANOTHER_PROCESS = """
import jax.numpy as jnp, numpyro, numpyro.distributions as dist
from autovi.preparation import Options, prepare

def model(y):
    mu = numpyro.sample("mu", dist.Gamma(2.0, 1.5))
    s = numpyro.sample("s", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.StudentT(3.0, mu + s, 2.0), obs=y)

def guide(y):
    a = numpyro.param("a", jnp.ones(2))
    numpyro.sample("mu", dist.Gamma(jnp.exp(a[0]), jnp.exp(a[1])))
    inside = dist.StudentT(3.0 + a[0], a[1], 1.0)
    numpyro.sample("s", dist.TransformedDistribution(inside, dist.transforms.AffineTransform(a[0], 2.0)))

for options in (Options(), Options(guide=guide)):
    print(prepare(model, {"y": 0.3}, options)[0].fingerprint.program)
"""


@pytest.mark.slow
def test_a_program_has_one_digest_in_all_processes():
    """Files keep it. NumPyro takes distributions apart in the order of a set of names, which hashing shuffles."""
    found = set()
    for seed in ("1", "2", "4"):
        done = subprocess.run(
            [sys.executable, "-c", IN_ANOTHER_PROCESS],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1 and len(set(found.pop().split())) == 2
