"""Compiled programs are shared by fits of the same program, and by no others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro import handlers

import autovi
from autovi.estimators import Score
from autovi.preparation import Options, optimizer_fingerprint, prepare

DATA = {"y": np.array(1.0)}


def engine_of(model, **options):
    return prepare(model, DATA, Options(**options))[0]


def make_model(loc=0.0, power=1, mask=None, scale=None, closed_over=None):
    """A new function object at every call, so that only what it computes can be recognized."""
    shift = jnp.zeros(3) if closed_over is None else closed_over
    shifted = jax.jit(lambda x: x + shift.sum())

    def model(y):
        a = numpyro.param("a", 1.0)
        mu = numpyro.sample("mu", dist.Normal(loc, 1.0))
        with handlers.mask(mask=np.array(True if mask is None else mask)), handlers.scale(scale=scale or 1.0):
            numpyro.sample("y", dist.Normal(shifted(mu) * a**power, 1.0), obs=y)

    return model


def make_guide(factor=1.0, scale=1.0):
    def guide(y):
        loc = numpyro.param("loc", 0.0)
        with handlers.scale(scale=scale):
            numpyro.sample("mu", dist.Normal(factor * loc, 1.0))

    return guide


def test_the_same_program_is_compiled_once():
    assert engine_of(make_model()) is engine_of(make_model())
    guided = {"guide": make_guide(), "optimizer": optax.adam(0.01)}
    again = {"guide": make_guide(), "optimizer": optax.adam(0.01)}
    assert engine_of(make_model(), **guided) is engine_of(make_model(), **again)


@pytest.mark.parametrize(
    "other",
    [
        {"loc": 1e-7},
        {"power": 2},
        {"mask": False},
        {"scale": 10.0},
        {"closed_over": jnp.array([0.0, 0.0, 1e-6])},
    ],
)
def test_models_that_differ_are_told_apart(other):
    assert engine_of(make_model()) is not engine_of(make_model(**other))


@pytest.mark.parametrize("other", [{"factor": 2.0}, {"scale": 3.0}])
def test_guides_that_differ_are_told_apart(other):
    assert engine_of(make_model(), guide=make_guide()) is not engine_of(make_model(), guide=make_guide(**other))


def test_options_that_differ_are_told_apart():
    @dataclasses.dataclass(frozen=True)
    class Other(Score):
        pass

    options = [
        {},
        {"num_particles": 3},
        {"guide": "mean_field"},
        {"estimators": {"mu": "score"}},
        {"estimators": {"mu": Score()}},
        {"estimators": {"mu": Other()}},
        {"optimizer": optax.adam(0.01)},
        {"optimizer": optax.adam(0.02)},
        {"optimizer": optax.adam(optax.cosine_decay_schedule(0.01, 100))},
    ]
    engines = [engine_of(make_model(), **o) for o in options]
    assert len({id(e) for e in engines}) == len(engines)


def test_an_optimizer_that_is_none_is_refused():
    with pytest.raises(TypeError, match="optimizer: expected an optax.GradientTransformation, got the number 0.01"):
        prepare(make_model(), {"y": np.zeros(3)}, Options(optimizer=0.01))
    with pytest.raises(TypeError, match="optimizer: its update needs more than gradients"):
        optimizer_fingerprint(optax.lbfgs())


LEVEL = 1.0


def reads_a_global(y):
    mu = numpyro.sample("mu", dist.Normal(LEVEL, 1.0))
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def test_draws_of_a_model_that_has_changed_since_the_fit_are_refused(monkeypatch):
    """Draws are traced when they are first asked for: not another model's, then."""
    before = autovi.fit(reads_a_global, DATA, num_steps=5, progress_bar=False)
    monkeypatch.setattr(f"{__name__}.LEVEL", 50.0)
    after = autovi.fit(reads_a_global, DATA, num_steps=5, progress_bar=False)
    with pytest.raises(ValueError, match="model: it has changed since the fit"):
        _ = before.elbo
    assert np.isfinite(after.elbo)
    monkeypatch.undo()
    assert before.elbo > -20 > after.elbo


def test_a_fit_keeps_to_its_own_function():
    """Two functions with one program share an engine; each fit looks at its own for what is traced later."""

    def make(box):
        def model(y):
            mu = numpyro.sample("mu", dist.Normal(box[0], 1.0))
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

        return model

    boxes = [1.25], [1.25]
    fits = [autovi.fit(make(box), DATA, num_steps=5, progress_bar=False) for box in boxes]
    assert fits[0].engine is fits[1].engine
    boxes[1][0] = 9.0
    assert np.isfinite(fits[0].elbo)
    with pytest.raises(ValueError, match="model: it has changed since the fit"):
        _ = fits[1].elbo
