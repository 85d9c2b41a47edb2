"""What the steps of a chunk draw: the same, whether it is drawn for all of them at once or in each."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi
from autovi.run import ahead

Y = np.array([0.5, 1.0, 1.5, 3.0, -2.0, -1.5])


def model(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    with numpyro.plate("n", 6, subsample_size=3) as i:
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        numpyro.sample("y", dist.Normal(mu[z], 1.0), obs=y[i])


@pytest.mark.parametrize("particles", [1, 3])
def test_steps_are_those_that_draw_their_own(monkeypatch, particles):
    def fit(most):
        monkeypatch.setattr(ahead, "MAX_BYTES", most)
        estimators = {"z": "disarm"}
        options = {"num_particles": particles, "num_steps": 130, "num_draws": 1, "progress_bar": False}
        guide = {"guide": "mean_field", "learning_rate": 0.02, "rng_key": 3}
        # A function of its own, so that the other way's program is not found and used again.
        own = lambda y: model(y)  # noqa: E731
        return autovi.fit(own, {"y": Y}, estimators=estimators, **guide, **options)

    together, alone = fit(ahead.MAX_BYTES), fit(0)
    assert np.ptp(together.losses) > 1
    np.testing.assert_allclose(together.losses, alone.losses, rtol=1e-4)
    one, other = together.state.rng_key, alone.state.rng_key
    np.testing.assert_array_equal(jax.random.key_data(one), jax.random.key_data(other))


def test_noise_that_takes_much_memory_is_drawn_by_each_step(monkeypatch):
    program = autovi.fit(
        model, {"y": Y}, guide="mean_field", num_steps=1, num_draws=1, progress_bar=False
    ).engine.program
    drawn = jax.eval_shape(lambda key: ahead.drawn_ahead(program, key), jax.random.key(0))
    assert {x.shape[0] for x in jax.tree.leaves(drawn.noise)} == {ahead.CHUNK}
    monkeypatch.setattr(ahead, "MAX_BYTES", 100)
    assert jax.eval_shape(lambda key: ahead.drawn_ahead(program, key), jax.random.key(0)).noise is None
