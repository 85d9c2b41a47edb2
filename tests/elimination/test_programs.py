"""Forty random programs with discrete sites: log evidence and gradient given the continuous parameters against brute
force, and three of them fitted."""

import jax
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from scipy.special import logsumexp

import autovi
from elimination.brute import Oracle
from elimination.comparing import check_draws
from elimination.evaluate import evaluate
from elimination.model import model_of
from elimination.programs import program_of, programs


def assert_exact(program):
    """In float64, of which these programs lose no more than 1e-12."""
    with jax.enable_x64(True):
        found = evaluate(program)
    oracle = Oracle(program)
    assert found.log_evidence == pytest.approx(oracle.log_evidence, abs=1e-5)
    np.testing.assert_allclose(found.gradient, oracle.gradient, rtol=0, atol=1e-4)


def case(seed):
    """With its marks; to compile a loop written out takes some seconds."""
    name = program_of(seed).name
    marks = [pytest.mark.slow] if name.startswith(("loop", "history")) else []
    return pytest.param(seed, marks=marks, id=name)


CASES = [case(seed) for seed in range(40)]


@pytest.mark.parametrize("seed", CASES)
def test_evidence_and_gradient(seed):
    assert_exact(program_of(seed))


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(programs())
def test_evidence_and_gradient_of_any_program(program):
    """Without shrinking: each try compiles."""
    assert_exact(program)


@pytest.mark.parametrize("seed", (0, 15, 23))
def test_in_float32(seed):
    """To 1e-5 of the largest of what is added: a sum of some hundred terms of at most ten nats."""
    program = program_of(seed)
    found, oracle = evaluate(program), Oracle(program)
    assert found.log_evidence == pytest.approx(oracle.log_evidence, rel=1e-5, abs=1e-5)
    np.testing.assert_allclose(found.gradient, oracle.gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 29])
def test_a_fit_of_discrete_sites_alone_is_exact(seed):
    program = program_of(seed)
    assert program.thetas == 0
    result = autovi.fit(model_of(program), program.data, progress_bar=False)
    oracle = Oracle(program)
    assert result.elbo == pytest.approx(oracle.log_evidence, rel=1e-5, abs=1e-5)
    check_draws(oracle, result.sample(20_000))


@pytest.mark.slow
def test_a_fit_with_a_parameter_beside_a_scan():
    """Against a grid over theta: the bound is below the evidence, by what a normal cannot follow; theta is right."""
    program = program_of(8)
    assert program.thetas == 1
    grid = np.linspace(-6.0, 6.0, 241)
    log = np.array([Oracle(program, [t]).log_evidence for t in grid]) - grid**2 / 2 - np.log(2 * np.pi) / 2
    evidence = logsumexp(log) + np.log(grid[1] - grid[0])
    weights = np.exp(log - logsumexp(log))
    mean = weights @ grid
    sd = (weights @ (grid - mean) ** 2) ** 0.5
    result = autovi.fit(model_of(program), program.data, progress_bar=False)
    assert evidence - 0.1 < result.elbo < evidence + 5 * result.elbo_se + 1e-4
    draws = np.asarray(result.sample(20_000)["theta0"])
    assert abs(draws.mean() - mean) < 0.15 * sd
    assert draws.std() == pytest.approx(sd, rel=0.15)
