"""The verdict: a word for what is known of a fit, and a sentence that says what to do."""

import doctest
import re
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from autovi.result import findings, verdict
from autovi.result.evidence import Evidence
from autovi.result.findings import RICHER
from autovi.result.signs import Signs, signs_of
from autovi.result.verdict import WORDS, verdict_of, warnings_of
from autovi.run.starts import Agreement, Mode, Modes
from autovi.run.stopping import Progress
from autovi.run.thresholds import THRESHOLDS

ROOT = Path(__file__).resolve().parents[2]
GOOD = Signs("converged", num_weighed=1000, khat=0.2, efficiency=0.97, log_weight_sd=0.17, elbo=-3.0, elbo_se=0.005)
USABLE = replace(GOOD, khat=0.6, efficiency=0.4)
BAD = replace(GOOD, khat=0.9, efficiency=0.03, log_weight_sd=2.0)
TWO = Modes((Mode(-3.0, 0.0, 6), Mode(-3.1, 0.0, 2)))


def test_examples_in_the_docstrings():
    tried = doctest.testmod(verdict)
    assert tried.failed == 0 and tried.attempted == 2


# Word -> signs that lead to it, and whether it warns.
CASES = {
    "good": [
        (GOOD, False),
        (replace(GOOD, khat=0.4, efficiency=0.82), False),
        # Weights that are all but equal have no tail to speak of: a one-parameter conjugate fit.
        (replace(GOOD, khat=1.96, efficiency=0.996), False),
        (replace(GOOD, khat=nan, efficiency=1.0, equal=True), False),
        # Few draws that are equal.
        (replace(GOOD, num_weighed=50), False),
        # The weights see the posterior, however the run ended.
        (replace(GOOD, status="max_steps", gain=3.0), False),
        (replace(GOOD, status="noisy", loss_se=50.0), False),
    ],
    "usable": [(USABLE, False), (replace(GOOD, khat=0.69, efficiency=0.11), False)],
    "family_too_small": [
        (BAD, True),
        (replace(BAD, khat=1.4), True),
        (replace(BAD, khat=inf), True),
        # A tail that looks light where hardly any draw carries weight.
        (replace(BAD, khat=0.4), True),
        (replace(BAD, khat=0.72, efficiency=0.9), True),
    ],
    "not_converged": [
        (replace(BAD, status="max_steps", gain=2.0), True),
        (replace(BAD, status="max_steps", asked_steps=True), True),
        (replace(BAD, status="stopped"), True),
        (Signs("max_steps", gain=2.0), True),
    ],
    "noisy": [(replace(BAD, status="noisy", loss_se=3.0, gain_se=9.0), True), (Signs("noisy", loss_se=50.0), True)],
    "bad_start": [(replace(BAD, modes=Modes((), 8, 5)), True), (replace(BAD, modes=Modes((), 8)), True)],
    "other_modes": [(replace(GOOD, modes=TWO), True), (replace(USABLE, modes=TWO), True)],
    "starts_disagree": [(replace(GOOD, restarts=Agreement(1.3, "mu", 4)), True)],
    "mean_field": [
        (replace(BAD, status="mean_field", coupled=("x", "y")), True),
        (replace(GOOD, status="mean_field", khat=nan, equal=True, coupled=("x", "y")), True),
        (replace(GOOD, status="mean_field", khat=nan, tied=True, coupled=("x", "y")), True),
    ],
    "biased": [
        (replace(BAD, status="biased", biased=(("z", "concrete"),)), True),
        (Signs("biased", biased=(("z", "concrete"),)), True),
    ],
    "point_estimate": [(replace(GOOD, khat=nan, efficiency=1.0, equal=True, points=("w",)), False)],
    "too_few_draws": [
        (replace(GOOD, khat=nan, num_weighed=20), False),
        (replace(USABLE, num_weighed=100), False),
        (replace(USABLE, num_weighed=100, status="max_steps", asked_steps=True), False),
    ],
    "not_weighed": [(Signs("converged"), False), (Signs("max_steps", asked_steps=True), False)],
    "failed": [
        (Signs("failed"), True),
        (replace(GOOD, status="failed"), True),
        (replace(GOOD, khat=inf, efficiency=nan), True),
    ],
}


@pytest.mark.parametrize("word", WORDS)
def test_every_word_has_its_signs(word):
    for signs, warns in CASES[word]:
        found = verdict_of(signs)
        assert (found.word, found.warns) == (word, warns), str(found)
        assert {finding.word for finding in found.findings} <= set(WORDS)
        assert len(found.sentence) > 20 and (found.remedies or word in ("good", "usable"))
        assert bool(warnings_of(found)) == warns


def test_the_verdict_does_not_depend_on_the_number_of_particles():
    """The loss of 128 particles has a quarter of the noise of 8; what draws say is the same."""
    for signs in (GOOD, USABLE, BAD):
        few, many = (
            replace(signs, num_particles=n, gain=0.01, gain_se=se, loss_se=se) for n, se in ((8, 0.02), (128, 0.005))
        )
        assert str(verdict_of(few)) == str(verdict_of(many))


@pytest.mark.parametrize(
    ("below", "at", "signs"),
    [
        ("good", "usable", lambda x: replace(GOOD, efficiency=0.9, khat=THRESHOLDS.khat_good + x)),
        ("usable", "family_too_small", lambda x: replace(USABLE, khat=THRESHOLDS.khat_usable + x)),
        ("usable", "good", lambda x: replace(GOOD, khat=0.3, efficiency=THRESHOLDS.efficiency_good + x)),
        ("usable", "good", lambda x: replace(GOOD, khat=0.6, efficiency=THRESHOLDS.efficiency_alike + x)),
        ("too_few_draws", "usable", lambda x: replace(USABLE, num_weighed=250 + 1000 * x)),
        ("family_too_small", "too_few_draws", lambda x: replace(USABLE, num_weighed=100, efficiency=0.1 + x)),
        ("good", "starts_disagree", lambda x: replace(GOOD, restarts=Agreement(THRESHOLDS.rhat + x + 2e-4, "mu", 2))),
    ],
)
def test_thresholds_are_those_of_the_table(below, at, signs):
    assert verdict_of(signs(-1e-3)).word == below and verdict_of(signs(1e-4)).word == at


def test_what_else_was_found_is_said_too():
    found = verdict_of(replace(BAD, status="max_steps", gain=2.0, modes=TWO, restarts=Agreement(1.3, "mu", 4)))
    assert [finding.word for finding in found.findings] == ["not_converged", "other_modes", "starts_disagree"]
    assert [finding.word for finding in verdict_of(replace(USABLE, modes=TWO)).findings] == ["other_modes", "usable"]
    assert str(found).count("\n") == 2 and len(warnings_of(found)) == 3
    assert found.numbers["other_modes"] == pytest.approx(0.5) and found.numbers["rhat"] == 1.3
    assert found.numbers["gain"] == 2.0 and "loss_se" not in found.numbers


def test_a_small_mode_and_one_without_a_mass_do_not_matter():
    small = Modes((Mode(0.0, 0.0, 6), Mode(-3.0, -3.0, 2)))
    assert verdict_of(replace(GOOD, modes=small)).word == "good"
    assert verdict_of(replace(GOOD, modes=Modes((Mode(0.0, nan, 8),)))).word == "good"


def test_sentences_have_the_numbers():
    assert verdict_of(BAD).sentence == (
        "the family cannot follow the posterior: do not trust intervals and tails (k-hat 0.9, efficiency 0.03 of 1,000 "
        "draws)"
    )
    modes = verdict_of(replace(GOOD, modes=TWO)).sentence
    assert "2 modes were found, and the one fitted holds 50 % of their mass by Laplace's approximation" in modes
    assert "R-hat 1.3 of 'mu'" in verdict_of(replace(GOOD, restarts=Agreement(1.3, "mu", 4))).sentence
    assert "known to 3 nats only" in verdict_of(replace(BAD, status="noisy", loss_se=3.0)).sentence
    assert "going on would gain about 2 nats" in verdict_of(replace(BAD, status="max_steps", gain=2.0)).sentence


def test_what_to_try_depends_on_what_was_asked_for():
    assert verdict_of(replace(BAD, guide="mean_field")).remedies[0] == "guide='auto'"
    assert "guide='full_rank'" not in verdict_of(replace(BAD, guide="full_rank")).remedies
    assert all("guide=" not in remedy for remedy in verdict_of(replace(BAD, guide="flow")).remedies)
    assert set(RICHER) == {"auto", "mean_field", "low_rank", "full_rank", "flow", "custom"}
    stopped = verdict_of(replace(BAD, status="stopped"))
    assert stopped.remedies[0].startswith("fit.resume()")


def test_how_many_particles_would_do():
    """A standard error of 0.4 nats from 8 of them: sixteen times as many make it 0.1."""
    noisy = replace(BAD, status="noisy", num_particles=8, loss_se=0.2, gain_se=0.4)
    assert "num_particles=128" in verdict_of(noisy).remedies
    hopeless = verdict_of(replace(noisy, loss_se=1e4)).remedies
    assert not any("num_particles" in remedy for remedy in hopeless) and hopeless
    assert verdict_of(replace(noisy, subsampled=True)).remedies[0] == "a larger batch_size"


def evidence(log_weights):
    weights = np.asarray(log_weights, np.float32)
    return Evidence(
        1000, weights.size, lambda n: (weights[:n], np.zeros(n, np.float32)), lambda: pytest.fail("batches"), ""
    )


def fitted(log_weights, **options):
    """What of a fit its signs are read from."""
    choices = [SimpleNamespace(site="w", family="delta")]
    plan = SimpleNamespace(guide="function", num_particles=4, coupled={}, biased={"z": "concrete"}, choices=choices)
    progress = Progress(None, 9000, modes=TWO, restarts=Agreement(1.3, "mu", 4))
    progress.gain, progress.loss_se = 0.03, 0.01
    engine = SimpleNamespace(program=SimpleNamespace(sites=SimpleNamespace(subsampled={})))
    known = {
        "plan": plan,
        "progress": progress,
        "engine": engine,
        "status": "converged",
        "is_light": True,
        "proposed": None,
    }
    return SimpleNamespace(**{**known, "evidence": evidence(log_weights), **options})


def test_signs_are_those_of_the_fit():
    rng = np.random.default_rng(0)
    signs = signs_of(fitted(0.1 * rng.normal(size=1000)))
    assert (signs.status, signs.guide, signs.points, signs.num_weighed) == ("converged", "custom", ("w",), 1000)
    assert signs.efficiency == pytest.approx(np.exp(-0.01), abs=1e-3) and signs.log_weight_sd == pytest.approx(
        0.1, rel=0.1
    )
    assert signs.biased == (("z", "concrete"),)
    assert (signs.gain, signs.gain_se, signs.loss_se) == (0.03, None, 0.01) and not signs.equal
    assert (
        signs.modes is TWO and signs.restarts.rhat == 1.3 and signs.elbo_se == pytest.approx(0.1 / 1000**0.5, rel=0.1)
    )
    assert signs_of(fitted(np.zeros(1000))).equal
    assert signs_of(fitted(np.where(np.arange(1000) < 500, 0.0, -1.0))).tied


def test_weights_of_corrected_draws_count():
    """Of the many that were weighed for it."""
    proposed = SimpleNamespace(num_proposals=20_000, weights=SimpleNamespace(khat=1.1, efficiency=0.01, why=""))
    weights = 0.9 * np.random.default_rng(1).normal(size=1000)
    signs = signs_of(fitted(weights, proposed=proposed))
    assert (signs.num_weighed, signs.khat, signs.efficiency) == (20_000, 1.1, 0.01)
    assert signs_of(fitted(weights, is_light=False)).num_weighed == 1000


def test_batches_are_not_weighed_for_a_look():
    signs = signs_of(fitted(np.zeros(0)))
    assert signs.num_weighed == 0 and np.isnan(signs.elbo)
    assert verdict_of(replace(signs, points=(), biased=(), modes=None, restarts=None)).word == "not_weighed"


def test_a_warning_names_what_to_try():
    (warning,) = warnings_of(verdict_of(BAD))
    assert "k-hat 0.9" in warning and "; try " in warning and findings.NUTS in warning


def test_the_words_are_those_of_the_docs():
    page = (ROOT / "docs" / "trusting.md").read_text().split("## What it looks at")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, re.MULTILINE))
    assert rows == {"word": "What it means", **WORDS}


def test_the_thresholds_are_in_the_docs():
    page = (ROOT / "docs" / "trusting.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", page, re.MULTILINE))
    assert {name: float(rows[name]) for name in THRESHOLDS._fields} == THRESHOLDS._asdict()
