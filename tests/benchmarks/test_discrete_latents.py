"""The cases with discrete latents: programs without them have the density of the model summed over all their values."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

from benchmarks.discrete_latents import CASES, fits, forward, references, report
from benchmarks.discrete_latents.references import Moments

SUMMED = ["hmm_1", "hmm_2", "hmm_4", "hmm_5", "hmm_6", "capture_3", "capture_5", "capture_masked"]
RENAMED = {"noise": "phi_logit_decentered"}


def small(name):
    """Data of few steps, and how many values of a state of each sequence or animal do not count."""
    data = CASES[name].data()
    if "history" in data:
        history = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0]], np.int32)
        uncounted = 1 if name == "capture_masked" else 0  # of the third animal, the second has none but the last
        return data | {"history": history, **({"sex": np.array([0, 1, 1])} if "sex" in data else {})}, uncounted
    lengths = np.array([3, 2])  # a step of the second does not count
    return data | {"sequences": data["sequences"][:2, :3], "lengths": lengths}, 1


def assignments(latent, values):
    """All values of the discrete sites, a dict of arrays with a leading axis, given how many each element has."""
    sizes = {site: value.size for site, value in latent.items()}
    every = np.array(list(itertools.product(range(values), repeat=sum(sizes.values()))))
    parts = np.split(every, np.cumsum(list(sizes.values()))[:-1], axis=1)
    return {s: part.reshape(-1, *v.shape) for (s, v), part in zip(latent.items(), parts, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("name", SUMMED)
def test_a_program_without_states_has_the_models_density_summed_over_them(name):
    case, (data, uncounted) = CASES[name], small(name)
    with jax.enable_x64(True):
        drawn = handlers.trace(handlers.seed(case.marginal, 3)).get_trace(**data)
        values = {s: site["value"] for s, site in drawn.items() if site["type"] == "sample" and not site["is_observed"]}
        summed = float(log_density(case.marginal, (), data, values)[0])
        values = {RENAMED.get(site, site): value for site, value in values.items()}
        sites = handlers.trace(handlers.seed(case.model, 0)).get_trace(**data).items()
        latent = {s: site["value"] for s, site in sites if site["type"] == "sample" and site["fn"].is_discrete}
        latent = {s: value for s, value in latent.items() if not s.startswith("y")}
        count = 3 if name in ("hmm_1", "hmm_2", "hmm_5") else 2  # states
        every = assignments(latent, count)
        joint = jax.jit(jax.vmap(lambda chosen: log_density(case.model, (), data, values | chosen)[0]))(every)
        total = float(jax.nn.logsumexp(joint)) - uncounted * len(latent) * np.log(count)
    assert summed == pytest.approx(total, abs=1e-6)


@pytest.mark.slow
def test_the_forward_algorithm_by_hand_is_the_sum_over_all_states():
    y, states = forward.simulate(4, 2), 2
    z = np.random.default_rng(0).normal(size=6)
    with jax.enable_x64(True):
        found = float(forward.log_joint(y.astype(float), states)(jnp.asarray(z)))
        values = {"moves": jnp.asarray(z[:4].reshape(2, 2)), "loc": jnp.asarray(z[4:])}
        every = {"x": np.array(list(itertools.product(range(2), repeat=4)))}
        density = lambda x: log_density(forward.model, (y.astype(float), states), {}, values | {"x": x})[0]  # noqa: E731
        total = float(jax.nn.logsumexp(jax.jit(jax.vmap(density))(every["x"])))
    assert found == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_a_case_has_a_reference_whose_error_is_below_the_bar(name):
    case = CASES[name]
    about = json.loads((references.FOLDER / f"{name}.json").read_text())
    assert tuple(references.load(name)) == case.scored
    assert about["r_hat"] < 1.01 and about["mean_error"] < 0.04 and about["sd_error"] < 0.05
    first, second = case.data(), case.data()
    assert jax.tree.all(jax.tree.map(np.array_equal, first, second))


def test_errors_are_in_reference_sds():
    draws = {"a": np.array([[1.0, 0.0], [3.0, 4.4]])}  # means 2 and 2.2, sds sqrt 2 and 3.11
    reference = {"a": Moments(np.array([1.0, 2.0]), np.array([2.0, 2.0]))}
    found = fits.errors(draws, reference)
    assert found == {"mean": 0.5, "mean_of": "a[0]", "sd_ratio": pytest.approx(2.2 * 2**-0.5), "sd_of": "a[1]"}
    assert not fits.within(found) and fits.within(found | {"mean": -0.05, "sd_ratio": 1.05})
    with pytest.raises(ValueError, match="a: expected draws of shape"):
        fits.errors({}, reference)


def test_moments_of_chains_with_their_errors():
    chains = {"a": np.random.default_rng(0).normal(2.0, 3.0, (2, 2000))}
    found = references.summary(chains)
    assert found["parameters"]["a"]["mean"] == pytest.approx(chains["a"].mean(), abs=1e-5)
    # 4,000 independent draws of a normal: 1 / sqrt(n) and 1 / sqrt(2 n), as far as the sizes are estimated.
    assert found["mean_error"] == pytest.approx(4000**-0.5, rel=0.1)
    assert found["sd_error"] == pytest.approx(8000**-0.5, rel=0.15)


def test_a_table_says_what_failed():
    good = {"mean": 0.01, "mean_of": "a", "sd_ratio": 1.0, "sd_of": "a", "plan": {"marginalize": "1"}}
    good |= {"seconds": 1.0, "status": "converged", "verdict": "good"}
    shown = report.fits({"one": good, "two": {"failed": "ValueError: no"}}).splitlines()
    assert "| one | yes |" in shown[2] and "| two | no | ValueError: no |" in shown[3]
