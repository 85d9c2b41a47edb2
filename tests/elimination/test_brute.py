"""The oracle itself: against numbers computed by hand, forward-backward, a plain loop, and NumPyro's densities."""

from fractions import Fraction
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_checks import ONCE
from hypothesis import HealthCheck, given, settings
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy import stats
from scipy.special import expit, logit

from elimination.brute import Oracle, by_all, configurations, log_sum
from elimination.comparing import check_draws, check_marginals, check_most_likely
from elimination.description import Parent, Program, Site
from elimination.model import SD, model_of
from elimination.programs import SHAPES, program_of, programs

QUARTERS = [0.25, 0.5, 0.75]


def site(name, kind, base, parents=(), depth=0, shape=(), thetas=0, slope=None, **more):
    base = np.asarray(base, float)
    slope = np.zeros((thetas, *base.shape)) if slope is None else np.asarray(slope, float)
    return Site(name, kind, depth, shape, base, slope, tuple(map(Parent, parents)), **more)


def coin(y_scale=1.0, z_mask=True, y_mask=True):
    """z is 1 with probability 1/4, y is 1 with probability 1/2 or, if z is 1, 3/4; y is seen to be 1."""
    z = site("z", "bernoulli", logit(0.25), size=2, mask=np.array(z_mask))
    y = site("y", "bernoulli", logit([0.5, 0.75]), ["z"], data=np.array(1), scale=y_scale, mask=np.array(y_mask))
    return Oracle(Program("coin", (), (z, y)))


@pytest.mark.parametrize(
    ("change", "evidence", "one"),
    [
        ({}, Fraction(9, 16), Fraction(1, 3)),  # 3/4 1/2 + 1/4 3/4
        ({"y_scale": 2.0}, Fraction(21, 64), Fraction(9, 21)),  # 3/4 1/4 + 1/4 9/16
        ({"z_mask": False}, Fraction(5, 4), Fraction(3, 5)),  # a flat prior: 1/2 + 3/4
        ({"y_mask": False}, Fraction(1), Fraction(1, 4)),
        ({"z_mask": False, "y_mask": False}, Fraction(1), Fraction(1, 4)),  # not 2: it has no part in the evidence
    ],
)
def test_one_site_by_hand(change, evidence, one):
    oracle = coin(**change)
    assert oracle.log_evidence == pytest.approx(np.log(float(evidence)), abs=1e-12)
    assert oracle.joint(("z", ()))[1] == pytest.approx(float(one), abs=1e-12)


def test_a_parent_outside_of_a_plate_by_hand():
    """c is a fair coin; two z are 1 with probability 1/4 or, if c is 1, 3/4; each y is seen to be 1, of probability 1/4
    or, if its z is 1, 1/2. A row has 5/16 if c is 0 and 7/16 if c is 1."""
    c = site("c", "bernoulli", 0.0, size=2)
    z = site("z", "bernoulli", logit([0.25, 0.75]), ["c"], 1, (2,), size=2)
    y = site("y", "bernoulli", logit([0.25, 0.5]), ["z"], 1, (2,), data=np.array([1, 1]))
    oracle = Oracle(Program("parent", (2,), (c, z, y)))
    assert oracle.log_evidence == pytest.approx(np.log((25 + 49) / 512), abs=1e-12)
    assert oracle.joint(("c", ()))[1] == pytest.approx(49 / 74, abs=1e-12)
    # 1/2 (1/8 1/8 + 3/8 3/8) over 37/256.
    assert oracle.joint(("z", (0,)), ("z", (1,)))[1, 1] == pytest.approx(20 / 37, abs=1e-12)
    weight, values = oracle.most_likely
    assert weight == pytest.approx(2 * np.log(3 / 8) + np.log(1 / 2), abs=1e-12)
    assert values["c"] == 1 and values["z"].tolist() == [1, 1]


def test_the_gradient_by_hand():
    """The same coin with its probability at the logit theta: (3/4 - 1/2) p (1 - p) over the evidence."""
    z = site("z", "bernoulli", 0.0, thetas=1, slope=[1.0], size=2)
    y = site("y", "bernoulli", logit([0.5, 0.75]), ["z"], thetas=1, data=np.array(1))
    p = expit(0.4)
    exact = 0.25 * p * (1 - p) / (0.5 * (1 - p) + 0.75 * p)
    np.testing.assert_allclose(Oracle(Program("slope", (), (z, y), thetas=1), [0.4]).gradient, [exact], rtol=1e-10)


# --- the chains on which faults were found ---


def test_two_yes_or_no_sites_of_each_row():
    """y with probability .3, z with .1 or .75 given y, an observation around 2 z: rows of four numbers."""
    seen, share, z_if = np.array([0.3, 1.2, 2.6, -0.7]), 0.3, np.array([0.1, 0.75])
    y = site("y", "bernoulli", logit(share), (), 1, (4,), size=2)
    z = site("z", "bernoulli", logit(z_if), ["y"], 1, (4,), size=2)
    x = site("x", "normal", [0.0, 2.0], ["z"], 1, (4,), data=seen)
    oracle = Oracle(Program("rows", (4,), (y, z, x)))
    four = (
        np.array([1 - share, share])[None, :, None]
        * np.stack([1 - z_if, z_if], axis=1)
        * stats.norm.pdf(seen[:, None, None], [0.0, 2.0], SD)
    )
    assert oracle.log_evidence == pytest.approx(np.log(four.sum((1, 2))).sum(), abs=1e-12)
    exact = four / four.sum((1, 2), keepdims=True)
    for i in range(4):
        np.testing.assert_allclose(oracle.joint(("y", (i,)), ("z", (i,))), exact[i], atol=1e-12)


def hidden_markov(seen, steps, means):
    """A chain that starts from the row of state 0, in a scan."""
    z = Site(
        "z", "categorical", 0, seen.shape, np.log(steps), np.zeros((0, *steps.shape)), (Parent("z", 1),), len(means)
    )
    y = Site("y", "normal", 0, seen.shape, means, np.zeros((0, len(means))), (Parent("z"),), data=seen)
    return Oracle(Program("hmm", (), (), (z, y), len(seen)))


def forward_backward(seen, steps, means):
    """Log evidence, probabilities of every state `[T, K]`, and of neighbours `[T - 1, K, K]`."""
    given = stats.norm.pdf(seen[:, None], means, SD)
    alpha, norms = [steps[0] * given[0]], []
    for t in range(len(seen)):
        if t:
            alpha.append(alpha[-1] @ steps * given[t])
        norms.append(alpha[-1].sum())
        alpha[-1] = alpha[-1] / norms[-1]
    beta = [np.ones(len(means))]
    for t in range(len(seen) - 1, 0, -1):
        beta.insert(0, steps @ (given[t] * beta[0]) / norms[t])
    pairs = [alpha[t][:, None] * steps * given[t + 1] * beta[t + 1] / norms[t + 1] for t in range(len(seen) - 1)]
    return np.log(norms).sum(), np.array(alpha) * np.array(beta), np.array(pairs)


def viterbi(seen, steps, means):
    """The most likely states of the chain."""
    given = stats.norm.logpdf(seen[:, None], means, SD)
    score, back = np.log(steps[0]) + given[0], []
    for t in range(1, len(seen)):
        to = score[:, None] + np.log(steps)
        back.append(to.argmax(0))
        score = to.max(0) + given[t]
    states = [int(score.argmax())]
    for pointer in reversed(back):
        states.insert(0, int(pointer[states[0]]))
    return score.max(), states


def test_three_states_in_a_scan():
    seen = np.array([0.2, 0.9, 1.1, 1.9, 2.3, 1.0, 0.6, -0.4, 0.1, 1.6, 2.2, 1.5])
    steps, means = 0.7 * np.eye(3) + 0.1, np.array([0.0, 1.0, 2.0])
    oracle = hidden_markov(seen, steps, means)
    assert configurations(oracle.written) == 3**12
    evidence, states, pairs = forward_backward(seen, steps, means)
    assert oracle.log_evidence == pytest.approx(evidence, abs=1e-11)
    for t in (0, 5, 11):
        np.testing.assert_allclose(oracle.joint(("z", (t,))), states[t], atol=1e-12)
    np.testing.assert_allclose(oracle.joint(("z", (4,)), ("z", (5,))), pairs[4], atol=1e-12)
    weight, found = oracle.most_likely
    best, expected = viterbi(seen, steps, means)
    assert weight == pytest.approx(best, abs=1e-11) and found["z"].tolist() == expected


def test_two_states_in_a_scan_at_several_parameters():
    seen = np.random.default_rng(7).normal(0.0, 1.3, 16)
    for stay, means in ((0.9, np.array([-1.0, 1.0])), (0.6, np.array([0.5, 0.7]))):
        steps = np.array([[stay, 1 - stay], [0.15, 0.85]])
        evidence, states, _ = forward_backward(seen, steps, means)
        oracle = hidden_markov(seen, steps, means)
        assert oracle.log_evidence == pytest.approx(evidence, abs=1e-11)
        np.testing.assert_allclose(oracle.joint(("z", (15,))), states[15], atol=1e-12)


# --- random programs ---


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.filter_too_much])
@given(programs())
def test_sums_in_parts_are_those_of_one_loop(program):
    oracle = Oracle(program)
    sizes = oracle.written.sizes
    if prod(sizes.values()) > 2_000:
        return
    keys = list(sizes)
    np.testing.assert_allclose(oracle.log_evidence, by_all(program, oracle.theta), rtol=1e-11)
    keep = (keys[-1], keys[0])[: min(2, len(keys))]
    found = log_sum(keys, oracle.written.tables, sizes, keep)
    np.testing.assert_allclose(found, by_all(program, oracle.theta, keep), rtol=1e-11)


@pytest.mark.parametrize("at_once", [1, 30])
def test_taking_large_parts_apart_changes_nothing(at_once, monkeypatch):
    def answers():
        oracle = Oracle(program_of(3))
        pair = oracle.joint(("g", (1,)), ("z", (0, 1)))
        return np.array([oracle.log_evidence, *pair.ravel(), oracle.most_likely[0]]), configurations(oracle.written)

    whole, of_whole = answers()
    monkeypatch.setattr("elimination.brute.AT_ONCE", at_once)
    apart, of_apart = answers()
    assert of_apart != of_whole
    np.testing.assert_allclose(apart, whole, rtol=1e-11)


def test_the_same_seed_is_the_same_program():
    first, again = program_of(19), program_of.__wrapped__(19)
    assert first is not again and Oracle(first).log_evidence == Oracle(again).log_evidence
    assert all(np.array_equal(first.data[n], again.data[n]) for n in first.data)


def test_the_forty_programs_have_what_they_are_for():
    every = [program_of(seed) for seed in range(40)]
    sites = [s for p in every for s in p.every]
    assert {s.kind for s in sites} == {
        "categorical", "categorical_probs", "bernoulli", "bernoulli_probs", "uniform", "binomial", "normal", "poisson",
        "factor",
    }  # fmt: skip
    assert {s.size for p in every for s in p.latents.values()} == {2, 3, 4, 5}
    assert {s.lookup for s in sites} == {"index", "take", "one_hot", "where"}
    assert {p.thetas for p in every} == {0, 1, 2} and {len(p.plates) for p in every} == {0, 1, 2}
    assert {p.length for p in every} >= {3, 8}
    has = {
        "zero probabilities": lambda s: np.isneginf(s.base).any(),
        "masked latents": lambda s: s.latent and s.mask is not None,
        "masks that are off in some elements of a loop": lambda s: s.name == "z2" and s.mask is not None and s.parents,
        "masked observations": lambda s: s.data is not None and s.mask is not None,
        "scaled latents": lambda s: s.latent and s.scale != 1,
        "scaled observations": lambda s: s.data is not None and s.scale != 1,
        "observations of several parents": lambda s: s.data is not None and len(s.parents) > 1,
        "values that do not start at 0": lambda s: s.low != 0,
        "numbers of their own in each element": lambda s: s.offset is not None and s.shape != (),
        "products with the values": lambda s: s.line is not None,
        "missing values": lambda s: s.seen is not None,
    }
    for what, test in has.items():
        assert any(map(test, sites)), what
    assert any(p.scale != 1 for p in every)
    unfelt = [o.program.name for o in map(Oracle, every) if o.written.counts != set(o.written.sizes)]
    assert {n.split("-")[0] for n in unfelt} >= {"jointly", "history", "sequences", "imputed"}, unfelt
    assert all(np.isfinite(Oracle(p).log_evidence) for p in every)


@pytest.mark.parametrize("seed", range(len(SHAPES)), ids=SHAPES)
def test_the_model_is_the_description(seed):
    """NumPyro's log density of the model at three configurations is the weight that the oracle gives them."""
    program = program_of(seed)
    oracle, theta, rng = Oracle(program), program.theta(), np.random.default_rng(seed)

    def density(values):
        known = {**values, **{f"theta{i}": t for i, t in enumerate(theta)}}
        return log_density(handlers.seed(model_of(program), 0), (), program.data, known)[0]

    with jax.enable_x64(True):
        compiled = jax.jit(density, compiler_options=ONCE)
        for _ in range(3):
            values = {n: rng.integers(s.low, s.low + s.size, s.shape) for n, s in program.latents.items()}
            found = float(compiled(jax.tree.map(jnp.asarray, values))) - stats.norm.logpdf(theta).sum()
            expected = oracle.log_weight(values)
            # NumPyro's logarithm of a probability of zero is the least finite number.
            assert found < -1e30 if np.isneginf(expected) else found == pytest.approx(expected, abs=1e-9)


# --- the comparisons ---


def exact_draws(oracle, number):
    """Draws of all elements, from the table of all configurations."""
    keys = tuple(oracle.written.sizes)
    joint = oracle.joint(*keys)
    chosen = np.random.default_rng(1).choice(joint.size, number, p=joint.ravel() / joint.sum())
    found = {n: np.zeros((number, *s.shape), int) for n, s in oracle.program.latents.items()}
    for (name, index), value in zip(keys, np.unravel_index(chosen, joint.shape), strict=True):
        found[name][(slice(None), *index)] = value + oracle.program.latents[name].low
    return found


@pytest.mark.parametrize("seed", [1, 2, 8, 13])
def test_right_draws_pass_and_those_of_marginals_alone_do_not(seed):
    oracle = Oracle(program_of(seed))
    draws = exact_draws(oracle, 20_000)
    check_draws(oracle, draws)
    rng = np.random.default_rng(2)
    apart = {n: np.reshape([rng.permutation(c) for c in v.reshape(len(v), -1).T], (-1, len(v))).T.reshape(v.shape)
             for n, v in draws.items()}  # fmt: skip
    with pytest.raises(AssertionError, match="has the values number"):
        check_draws(oracle, apart)


def test_wrong_answers_are_found():
    oracle = Oracle(program_of(1))
    exact = oracle.marginals
    check_marginals(oracle, exact)
    with pytest.raises(AssertionError, match="z1"):
        check_marginals(oracle, {**exact, "z1": exact["z1"][..., ::-1]})
    with pytest.raises(AssertionError, match="no probabilities of"):
        check_marginals(oracle, {})
    weight, best = oracle.most_likely
    check_most_likely(oracle, best)
    other = (best["z1"] + 1) % oracle.program.latents["z1"].size
    with pytest.raises(AssertionError, match="the largest is"):
        check_most_likely(oracle, {**best, "z1": other})
    draws = exact_draws(oracle, 200)
    with pytest.raises(AssertionError, match="outside of its support"):
        check_draws(oracle, {**draws, "z1": draws["z1"] + 5})
