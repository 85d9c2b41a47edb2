"""NaN in gradients and in what estimators learn: the steps change nothing, are counted, and the site is named."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi
from autovi.estimators import Score
from autovi.run import running

Y = np.array([0.4, -1.2, 2.0, 0.3, 1.1, -0.5], np.float32)
STEPS = 600


@dataclass(frozen=True)
class Poisoned(Score):
    """What its baseline learns from is NaN wherever a draw is 9."""

    name: ClassVar[str] = "poisoned"

    def surrogate(self, q, draw, cost, params):
        scored, loss = super().surrogate(q, draw, cost, params)
        poison = jnp.where(jnp.any(draw.value == 9), jnp.nan, 0.0)
        return scored, loss + sum(jnp.sum(poison * leaf) for leaf in jax.tree.leaves(params))


def counted(y, noise=lambda mu: mu):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("rows", len(y)) as i:
        k = numpyro.sample("k", dist.Poisson(2.0))
        numpyro.sample("y", dist.Normal(noise(mu) + 0.1 * k, 0.5), obs=y[i])


def fit(model=counted, **options):
    return autovi.fit(model, {"y": Y}, num_steps=STEPS, num_draws=50, progress_bar=False, **options)


def all_finite(fit):
    state = jax.tree.leaves((fit.state.params, fit.state.average, fit.state.optimizer, fit.state.estimators))
    results = [*fit.params.values(), *fit.sample(50).values()]
    return all(np.isfinite(np.asarray(x)).all() for x in (*state, *results))


@pytest.mark.parametrize("batch_size", [None, 2], ids=["whole", "batches"])
def test_in_what_an_estimator_learns_from(batch_size):
    poisoned = fit(estimators={"k": Poisoned(baseline="moving_average")}, batch_size=batch_size)
    assert 0 < poisoned.skipped_steps < STEPS / 2
    assert f"{poisoned.skipped_steps} of {STEPS} steps had a non-finite ELBO or gradient" in poisoned.message
    assert "(site(s) ['k'])" in poisoned.message
    assert all_finite(poisoned)
    # The estimates of the steps that are made are those of the plain estimator: the losses are, up to the first.
    plain = fit(estimators={"k": {"estimator": "score", "baseline": "moving_average"}}, batch_size=batch_size)
    assert plain.skipped_steps == 0
    np.testing.assert_array_equal(plain.losses[:2], poisoned.losses[:2])


def test_in_a_gradient():
    @jax.custom_jvp
    def noise(mu):
        return mu

    @noise.defjvp
    def _(primals, tangents):
        (mu,), (tangent,) = primals, tangents
        return mu, tangent * jnp.where(jnp.abs(mu) < 0.02, jnp.nan, 1.0)

    poisoned = fit(lambda y: counted(y, noise))
    assert 0 < poisoned.skipped_steps < STEPS / 2
    assert f"{poisoned.skipped_steps} of {STEPS} steps had a non-finite ELBO or gradient" in poisoned.message
    assert "(site(s) ['mu'])" in poisoned.message
    assert all_finite(poisoned)


def test_in_what_an_estimator_has_learned(monkeypatch):
    """From the third chunk on, for good: the fit keeps what it was, and says that it failed, and where."""
    optimize, calls = running.optimize, []

    def poisoning(chunk, state, arrays, progress, **options):
        def poisoned(state, *args):
            calls.append(1)
            if len(calls) == 3:
                state = state._replace(estimators=jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), state.estimators))
            return chunk(state, *args)

        return optimize(poisoned, state, arrays, progress, **options)

    monkeypatch.setattr(running, "optimize", poisoning)
    poisoned = fit(estimators={"k": {"estimator": "score", "baseline": "moving_average"}})
    assert poisoned.status == "failed" and poisoned.skipped_steps == STEPS - 200
    assert "(site(s) ['k'])" in poisoned.message
    results = [*poisoned.params.values(), *poisoned.sample(50).values()]
    assert all(np.isfinite(x).all() for x in results)


def test_in_data():
    with pytest.raises(ValueError, match="NaN"):
        autovi.fit(counted, {"y": np.where(np.arange(6) == 3, np.nan, Y)}, progress_bar=False)
