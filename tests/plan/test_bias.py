"""Biased estimators: only where they are allowed, and said wherever their results are."""

import json
from dataclasses import dataclass, replace
from math import nan
from typing import ClassVar

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi
from autovi.estimators import Score
from autovi.plan.bias import TOLD, warning
from autovi.result.signs import Signs
from autovi.result.verdict import verdict_of

DATA = {"y": np.array([0.3, 1.2, -0.4])}


@dataclass(frozen=True)
class Halved(Score):
    """Half of the gradient."""

    name: ClassVar[str] = "halved"
    biased: ClassVar[bool] = True

    def surrogate(self, q, draw, cost, params):
        surrogate, loss = super().surrogate(q, draw, cost, params)
        return 0.5 * surrogate, loss


def model(y):
    with numpyro.plate("rows", 3):
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)


@pytest.fixture(scope="module")
def fit():
    return autovi.fit(model, DATA, estimators={"z": Halved()}, allow_bias=True, num_steps=50, progress_bar=False)


def test_not_without_being_allowed():
    asked = {"z": Halved()}
    assert TOLD in autovi.plan(model, DATA, estimators=asked, allow_bias=True)["z"].why
    # Also where an engine of a fit that was allowed it is kept.
    with pytest.raises(ValueError, match="^site 'z' .*'halved' is biased: .*say allow_bias=True.*'disarm'.*'score'"):
        autovi.plan(model, DATA, estimators=asked)
    with pytest.raises(ValueError, match="'halved' is biased"):
        autovi.fit(model, DATA, estimators=asked, progress_bar=False)
    with pytest.raises(TypeError, match="^allow_bias: expected True or False, got 'halved'"):
        autovi.plan(model, DATA, allow_bias="halved")


def test_it_takes_nothing_biased_by_itself():
    plan = autovi.plan(model, DATA, allow_bias=True)
    assert (plan["z"].estimator, plan.biased) == ("marginalize", {})


def test_the_names_that_are_valid_hold_those_on_request():
    with pytest.raises(ValueError, match="'explicit' would be wrong.*valid: .*'arm'.*'disarm'.*'score'") as error:
        autovi.plan(model, DATA, estimators={"z": "explicit"})
    assert "'implicit'" not in str(error.value)


def test_whatever_shows_the_fit_says_so(fit):
    assert fit.plan.biased == {"z": "halved"}
    assert "biased gradients at 1 site 'z' (halved)" in fit.message and TOLD in fit.plan["z"].why
    assert "biased gradients" in " ".join(repr(fit).split())
    assert "biased: " in str(fit.verdict) and "'z' (halved)" in str(fit.verdict)
    attrs = fit.to_arviz("posterior").attrs
    assert json.loads(attrs["biased"]) == {"z": "halved"} and "biased" in attrs["message"]


def test_saved_loaded_and_resumed(fit, tmp_path):
    fit.save(tmp_path / "fit.autovi", with_data=True)
    again = autovi.load(tmp_path / "fit.autovi", model, estimators={"z": Halved()})
    assert (again.plan.biased, again.message) == ({"z": "halved"}, fit.message)
    on = again.resume(10, data={"y": DATA["y"] + 1.0}, progress_bar=False)
    assert on.plan.biased == {"z": "halved"} and "biased gradients" in on.message


def test_a_loss_that_stands_still_is_no_convergence():
    ended = autovi.fit(model, DATA, estimators={"z": Halved()}, allow_bias=True, progress_bar=False, num_particles=32)
    assert ended.status == "biased", ended.message


GOOD = Signs("biased", num_weighed=1000, khat=0.2, efficiency=0.97, biased=(("z", "halved"),))


def test_the_verdict_blames_the_bias_where_the_weights_do_not_vouch_for_q():
    good, bad = verdict_of(GOOD), verdict_of(replace(GOOD, khat=0.9, efficiency=0.03))
    assert [f.word for f in good.findings] == ["good", "biased"] and not good.warns
    assert bad.word == "biased" and bad.warns and "do not vouch" in bad.sentence
    unknown = verdict_of(Signs("biased", biased=GOOD.biased))
    assert unknown.word == "biased" and unknown.warns
    # What is worse comes first.
    failed = verdict_of(replace(GOOD, status="failed", khat=nan))
    assert [f.word for f in failed.findings][0] == "failed" and "biased" in [f.word for f in failed.findings]


def test_nothing_is_said_where_nothing_is_biased():
    assert warning({}) == ""
