"""Chains that carry what depends on all steps before, and takes few values: evidence, gradients, probabilities and
draws against sums over all configurations."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from scipy.stats import chi2

from autovi.preparation import Options, prepare
from autovi.run.drawing import MOST_LIKELY, VALUES, draws_of, keys_of
from autovi.run.marginals import probabilities
from elimination.at_values import at_values
from elimination.carried_models import CASES, Exact

A = 0.7
DRAWS = 4_000


@pytest.mark.parametrize("name", CASES)
def test_evidence_and_gradient(name):
    model, data = CASES[name]
    with jax.enable_x64(True):
        exact = Exact(name, A)
        found = at_values(model, data, {"a": A})
    assert all(found.plan[n].estimator == "marginalize" for n in exact.shapes)
    assert found.value == pytest.approx(exact.evidence, abs=1e-9)
    assert found.gradient["a"] == pytest.approx(exact.slope, abs=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kept", "two steps before", "sequences"])
def test_probabilities_and_draws(name):
    """At one value of the slope: probabilities, the frequencies of configurations among draws, and the most likely."""
    model, data = CASES[name]
    with jax.enable_x64(True):
        exact = Exact(name, A)
        engine, inputs = prepare(numpyro.handlers.substitute(model, {"a": A}), data, Options())
        params = engine.program.init(jax.random.key(0), {}, jnp.zeros(engine.program.start_size))
        arrays = jax.device_put(inputs.traced())
        keys = keys_of(jax.random.key(1), DRAWS)
        found = probabilities(engine, params, arrays, keys.at(np.arange(2)))
        drawn = draws_of(engine, params, arrays, keys, (VALUES,)).values
        best = draws_of(engine, params, arrays, keys.at(np.arange(1)), (VALUES, MOST_LIKELY)).values
    marginals = exact.marginals()
    assert set(found) == set(marginals)
    for site, expected in marginals.items():
        np.testing.assert_allclose(found[site], expected, atol=1e-9)
    assert exact.log[exact.numbers(best)[0]] == pytest.approx(exact.log.max(), abs=1e-9)
    # Where cells have an expectation of ten and more, the rest together: chi-squared, a false alarm in 1e-6 of runs.
    counts = np.bincount(exact.numbers(drawn), minlength=len(exact.log))
    assert not counts[exact.weights < 1e-14].any()
    large = DRAWS * exact.weights >= 10
    expected = np.append(DRAWS * exact.weights[large], DRAWS * exact.weights[~large].sum())
    seen = np.append(counts[large], counts[~large].sum())
    assert ((seen - expected) ** 2 / expected)[expected > 0].sum() < chi2.isf(1e-6, (expected > 0).sum() - 1)
