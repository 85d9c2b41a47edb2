"""A file holds the whole state of a fit: steps from a loaded one are, bit for bit, those from the fit itself."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import autovi
from autovi.objectives import Iwae
from autovi.run.stored import stored

Y = np.array([0.4, -1.2, 2.0, 0.3, 1.1, -0.5], np.float32)


def model(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("rows", len(y)) as index:
        effect = numpyro.sample("effect", dist.Normal(mu, 1.0))
        on = numpyro.sample("on", dist.Bernoulli(0.4))
        numpyro.sample("y", dist.Normal(effect + on, 0.5), obs=jnp.asarray(y)[index])


def quick(**options):
    return autovi.fit(model, {"y": Y}, num_steps=130, num_draws=20, progress_bar=False, **options)


def fifty_more(fit):
    """The state and the losses of one more chunk, by the fit's own progress."""
    arrays = fit.inputs.traced()
    _, chunk = fit.engine.compile(arrays, 0)
    progress = fit.progress
    progress.num_steps = 180
    state = jax.tree.map(jnp.copy, fit.state)
    return chunk(state, arrays, progress.schedule(progress.step))


LEARNED = {"on": {"estimator": "score", "baseline": "moving_average"}}
OPTIMIZER = optax.chain(optax.clip(1.0), optax.adam(0.02))
CASES = {
    "full data": {"estimators": LEARNED},
    "tables of rows": {"estimators": LEARNED, "batch_size": 2},
    "an optimizer of one's own": {"batch_size": 2, "optimizer": OPTIMIZER},
    "an objective": {"estimators": {"on": {"estimator": "score", "baseline": "none"}}, "objective": "iwae"},
}


@pytest.mark.parametrize("case", CASES)
def test_it_goes_on_bit_for_bit(case, tmp_path):
    fit = quick(**CASES[case])
    fit.save(tmp_path / "fit", with_data=True)
    again = autovi.load(tmp_path / "fit", model, optimizer=CASES[case].get("optimizer"))
    assert int(again.state.step) == 130 and again.engine.program.objective == fit.engine.program.objective
    (state, losses), (other, same) = fifty_more(fit), fifty_more(again)
    assert int(state.step) == 180 and np.isfinite(losses[:50]).all()
    np.testing.assert_array_equal(losses, same)
    before, after = stored(state), stored(other)
    assert set(before) == set(after)
    key = before.pop(".rng_key")
    assert jax.random.key_data(key).tolist() == jax.random.key_data(after.pop(".rng_key")).tolist()
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name], err_msg=name)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_without_its_optimizer_a_fit_can_be_looked_at(batch_size, tmp_path):
    fit = quick(optimizer=OPTIMIZER, batch_size=batch_size)
    fit.save(tmp_path / "fit", with_data=True)
    again = autovi.load(tmp_path / "fit", model)
    np.testing.assert_array_equal(again.sample(10)["effect"], fit.sample(10)["effect"])
    assert again.state.optimizer is None and not any(".memory" in n for n in stored(again.state))
    again.save(tmp_path / "again", with_data=True)
    assert autovi.load(tmp_path / "again", model).state.optimizer is None


def test_an_optimizer_that_the_fit_had_not(tmp_path):
    quick().save(tmp_path / "fit", with_data=True)
    with pytest.raises(ValueError, match=r"this fit had autovi's own; leave out optimizer="):
        autovi.load(tmp_path / "fit", model, optimizer=OPTIMIZER)


@dataclass(frozen=True)
class Tempered(Iwae):
    """An objective of one's own."""

    name: ClassVar[str] = "tempered"


def test_an_objective_of_ones_own_is_asked_for(tmp_path):
    fit = quick(objective=Tempered(), estimators={"on": {"estimator": "score", "baseline": "none"}})
    fit.save(tmp_path / "fit", with_data=True)
    with pytest.raises(ValueError, match="'tempered', a class that is not autovi's own; pass objective="):
        autovi.load(tmp_path / "fit", model)
    again = autovi.load(tmp_path / "fit", model, objective=Tempered())
    assert again.engine.program.objective == Tempered()
    quick().save(tmp_path / "plain", with_data=True)
    with pytest.raises(ValueError, match=r"this fit had 'elbo', which the file holds; leave out objective="):
        autovi.load(tmp_path / "plain", model, objective=Tempered())
