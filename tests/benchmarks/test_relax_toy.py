"""The benchmark of the RELAX paper's toy: variances at the start in closed form, and a short run of the command."""

import json

import numpy as np
import pytest

from benchmarks import relax_toy


@pytest.mark.parametrize("name", relax_toy.CLOSED)
def test_the_first_variance_is_that_of_the_closed_form(name):
    logits, variances = relax_toy.train(relax_toy.CONTENDERS[name], 40, 20, points=2)
    assert (logits[:, 0] == 0.0).all() and (logits[:, 1] != 0.0).all()
    assert variances[:, 0].mean() == pytest.approx(relax_toy.CLOSED[name], rel=0.05, abs=relax_toy.FLOOR)


@pytest.mark.slow
def test_a_short_run(tmp_path, capsys):
    names = ["leave-one-out, 2", "RELAX, black box"]
    relax_toy.main(["--steps", "1000", "--seeds", "2", "--estimators", *names, "--output", str(tmp_path)])
    assert "| RELAX, black box |" in capsys.readouterr().out
    found = json.loads((tmp_path / "relax_toy.json").read_text())["results"]
    assert set(found) == set(names) and (tmp_path / "relax_toy.png").stat().st_size > 10_000
    steps, variances = found["RELAX, black box"]["step"], np.asarray(found["RELAX, black box"]["variance"])
    assert variances.shape == (2, len(steps)) and (variances[:, 0] > 1e-3).all()
    # The target of the trained estimator at the starting logit, where leave-one-out has 2.5e-7.
    assert np.median(variances[:, -20:]) < 2e-7
    losses = np.asarray(found["leave-one-out, 2"]["loss"])
    np.testing.assert_allclose(losses[:, 0], relax_toy.exact_loss(np.zeros(())))
    assert (losses[:, -1] < 0.2495).all()
