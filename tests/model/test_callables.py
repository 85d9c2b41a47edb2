"""What may stand for a model or a guide, and what is said of what may not."""

import functools

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.autoguide import AutoNormal

import autovi
from autovi.model.callables import check_function


def model(y=None):
    numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal()), 1.0), obs=y)


class Model:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, y=None):
        model(y)

    def method(self, y=None):
        model(y)


@functools.wraps(model)
def wrapped(*args, **kwargs):
    return model(*args, **kwargs)


@pytest.mark.parametrize(
    "function",
    [
        model,
        lambda y: model(y),
        Model(1.0),
        Model(1.0).method,
        functools.partial(model, y=0.5),
        jax.tree_util.Partial(model, y=0.5),
        wrapped,
        handlers.scale(model, 2.0),
        handlers.mask(functools.partial(model), mask=True),
        jax.named_scope("scope")(model),
    ],
)
def test_functions_and_what_behaves_as_one(function):
    check_function(function, "model")
    check_function(function, "guide")


def test_an_autoguide_is_a_guide_and_no_model():
    check_function(AutoNormal(model), "guide")
    with pytest.raises(TypeError, match="model: .* got the guide AutoNormal"):
        check_function(AutoNormal(model), "model")


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (jax.jit(model), "jit"),
        (jax.jit(model, static_argnames="y"), "jit"),
        (jax.jit(functools.partial(model)), "jit"),
        (jax.vmap(model), "vmap"),
        (jax.vmap(jax.jit(model)), "vmap"),
        (jax.grad(model), "grad"),
        (jax.checkpoint(model), "checkpoint"),
        (jax.custom_jvp(model), "custom_jvp"),
        (functools.partial(jax.jit(model), y=0.5), "jit"),
        (functools.partial(functools.partial(jax.vmap(model)), y=0.5), "vmap"),
        (handlers.scale(jax.jit(model), 2.0), "jit"),
        (handlers.mask(handlers.scale(jax.jit(model), 2.0), mask=True), "jit"),
    ],
)
@pytest.mark.parametrize("what", ["model", "guide"])
def test_what_jax_made_of_a_function(function, name, what):
    with pytest.raises(
        TypeError, match=f"^{what}: expected a plain NumPyro function, got one under jax.{name}, .*plain"
    ):
        check_function(function, what)


def test_functions_that_only_use_jax_inside_are_models():
    scaled = jax.jit(lambda x: 2.0 * x)

    def with_jit(y):
        mu = numpyro.sample("mu", dist.Normal())
        numpyro.sample("y", dist.Normal(scaled(mu) + jax.vmap(jnp.sin)(jnp.ones(1))[0], 1.0), obs=y)

    assert autovi.plan(with_jit, {"y": 0.5})["mu"].family == "full_rank"


def test_a_guide_under_jit():
    def guide(y):
        numpyro.sample("mu", dist.Normal(numpyro.param("loc", 0.0), 1.0))

    assert autovi.plan(model, {"y": 0.5}, guide=guide)["mu"].family == "guide"
    with pytest.raises(TypeError, match="guide: .* got one under jax.jit, .* `guide` itself"):
        autovi.plan(model, {"y": 0.5}, guide=jax.jit(guide))


@pytest.mark.parametrize("transform", [jax.jit, jax.checkpoint, lambda f: lambda y: jax.vmap(f)(jnp.ones(3))])
def test_sites_inside_of_what_jax_transforms(transform):
    with pytest.raises(ValueError, match="site 'mu': it is inside of a function that JAX transforms"):
        autovi.plan(lambda y: transform(model)(y), {"y": jnp.ones(3)[0]})
