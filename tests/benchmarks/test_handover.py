"""The benchmark of NUTS from a fit: how gradients are counted, and what its table says."""

import json

import numpy as np
import pytest

from benchmarks import handover

RNG = np.random.default_rng(0)


def test_gradients_are_counted_to_the_effective_size():
    """Of independent draws the effective size is their number, to a third at most, so that 400 of four chains are there
    after 100 each; and of the warm-up every step counts."""
    draws = {"x": RNG.normal(size=(4, 500, 2)), "fixed": np.ones((4, 500))}
    steps = np.full((4, 500), 3)
    found = handover.evaluations(np.full((4, 10), 7), steps, draws)
    assert found["reached"] and 75 <= found["draws"] <= 150 and found["ess"] >= 400
    assert (found["warmup"], found["gradients"]) == (280, 280 + 12 * found["draws"])
    slow = {"x": np.cumsum(RNG.normal(size=(4, 500)), axis=1)}
    never = handover.evaluations(np.zeros((4, 10)), steps, slow)
    assert not never["reached"] and (never["draws"], never["gradients"]) == (500, 6000)


def run(gradients, reached=True):
    return {"gradients": gradients, "reached": reached}


def test_the_table_counts_the_best_of_nuts_by_itself():
    short, usual = handover.OWN
    results = {
        "saved": {"fit": 100, "from the fit": run(1000), short: run(4000), usual: run(9000)},
        "with the fit not": {"fit": 5000, "from the fit": run(1000), short: run(3000, False), usual: run(4000)},
        "not reached": {"fit": 10, "from the fit": run(100, False), short: run(4000), usual: run(4000)},
        "failed": {"failed": "no answer"},
    }
    assert handover.best_own(results["with the fit not"]) == 4000 and handover.best_own({}) is None
    told = handover.report(results)
    assert told.endswith("At most half of the gradients: 2 of 4; with those of the fit: 1.")
    assert "| saved | 100 | 1,000 | 4,000 | 9,000 | 0.25 | 0.28 |" in told
    assert (
        "| not reached | 10 | over 100 | 4,000 | 4,000 | - | - |" in told
        and "| failed | 0 | - | - | - | - | - |" in told
    )


def test_every_case_is_saved_as_it_comes(tmp_path, monkeypatch, capsys):
    (tmp_path / "models.py").write_text("MODELS = {}")
    for case in ("b", "a"):
        (tmp_path / case).mkdir()
        (tmp_path / case / "reference.json").write_text("{}")
    monkeypatch.setattr(handover, "apart", lambda folder, case, seed, timeout: {"fit": seed, "failed": case})
    handover.main(
        ["--references", str(tmp_path), "--cases", "a", "b", "--seed", "3", "--output", str(tmp_path / "out")]
    )
    saved = json.loads((tmp_path / "out" / "handover.json").read_text())["results"]
    assert saved == {"a": {"fit": 3, "failed": "a"}, "b": {"fit": 3, "failed": "b"}}
    assert "0 of 2" in capsys.readouterr().out


@pytest.mark.slow
def test_a_case_in_a_process_of_its_own(tmp_path):
    """What a process printed last is taken, and why it ended otherwise is kept."""
    (tmp_path / "models.py").write_text("MODELS = {'broken': (None, lambda: 1 / 0)}")
    assert handover.apart(str(tmp_path), "broken", 0, 120.0) == {"failed": "ZeroDivisionError: division by zero"}
