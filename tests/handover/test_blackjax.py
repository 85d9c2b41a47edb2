"""BlackJAX takes the density, the starts and the mass matrix as they are."""

import handover.handed_models as m
import jax
import numpy as np
import pytest

import autovi

blackjax = pytest.importorskip("blackjax")


def chains(start, num_draws, rng_key):
    """Positions `(num_chains, num_draws, ...)` of NUTS, at the step size that the fit proposes."""
    kernel = blackjax.nuts(start.logdensity_fn, start.step_size, start.flat_inverse_mass_matrix)

    def one(position, key):
        step = lambda state, key: (lambda new: (new, new.position))(kernel.step(key, state)[0])  # noqa: E731
        return jax.lax.scan(step, kernel.init(position), jax.random.split(key, num_draws))[1]

    return jax.jit(jax.vmap(one))(start.init_params, jax.random.split(rng_key, start.num_chains))


@pytest.mark.parametrize("model", [m.normal, m.switched], ids=lambda model: model.__name__)
def test_nuts_of_blackjax_agrees_with_the_fit(model):
    data = {} if model is m.normal else {"y": m.Y}
    fit = autovi.fit(model, data, progress_bar=False)
    start = fit.to_nuts(4)
    positions = jax.tree.map(lambda u: u[:, 100:].reshape(-1, *u.shape[2:]), chains(start, 1100, jax.random.key(0)))
    values = {n: np.asarray(v, float) for n, v in jax.jit(jax.vmap(start.constrain))(positions).items()}
    for name, right in fit.sample(4000).items():
        found = values[name].reshape(20, -1, *values[name].shape[1:]).mean(axis=1)
        error = np.hypot(found.std(0, ddof=1) / 20**0.5, right.std(0) / 4000**0.5)
        assert np.all(np.abs(found.mean(0) - right.mean(0)) < 5 * error), name
