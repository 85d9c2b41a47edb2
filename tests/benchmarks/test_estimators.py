"""The benchmark of estimators: what it counts, that it sees a bias, and a small run of the whole command."""

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import ClassVar
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autovi.estimators import ESTIMATORS, Score
from benchmarks.estimators import __main__ as command
from benchmarks.estimators import pages
from benchmarks.estimators.counting import evaluations, marked
from benchmarks.estimators.measuring import Budget, Row, exact_gradient, measure, variants
from benchmarks.estimators.problems import problems
from benchmarks.estimators.report import ranked
from benchmarks.estimators.training import curve

QUICK = Budget(training=0.2, measuring=0.2, training_steps=200, most=100_000)


@dataclass(frozen=True)
class Shrunk(Score):
    """The score function, a tenth too small."""

    name: ClassVar[str] = "shrunk"

    def surrogate(self, q, draw, cost, params):
        value, loss = super().surrogate(q, draw, cost, params)
        return 0.9 * value, loss


@dataclass(frozen=True)
class Confessed(Shrunk):
    """The same, which says so."""

    biased: ClassVar[bool] = True


@dataclass(frozen=True)
class Broken(Score):
    """An error of its own."""

    name: ClassVar[str] = "broken"

    def surrogate(self, q, draw, cost, params):
        raise ValueError("no such thing")


def cost(x):
    return marked(jnp.sum(x**2))


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (cost, 1),
        (lambda x: cost(x) + 2 * cost(x), 1),  # XLA computes it once
        (lambda x: cost(x) + cost(x + 1), 2),
        (lambda x: (cost(x + 1), x)[1], 0),  # what nobody needs
        (jax.value_and_grad(cost), 1),
        (jax.grad(cost), 1),
        (lambda x: jnp.sum(jax.vmap(cost)(x[:, None])), 3),
        (lambda x: jax.lax.map(cost, jnp.stack([x] * 5)), 5),
    ],
)
def test_evaluations_are_counted_once_each(program, expected):
    assert evaluations(program, jnp.arange(3.0)) == expected


def test_a_mark_changes_nothing():
    x = jnp.array([0.3, -0.7])
    plain = lambda x: jnp.sum(x**2)  # noqa: E731
    assert cost(x) == plain(x)
    np.testing.assert_array_equal(jax.grad(cost)(x), jax.grad(plain)(x))


@pytest.mark.parametrize(("kind", "said"), [(Shrunk, False), (Confessed, True)])
def test_a_bias_of_a_tenth_is_seen(kind, said):
    row = measure(problems()["categorical"], "shrunk", kind(), Budget(measuring=2.0, most=500_000))
    assert row.verdict == "biased" and row.as_said is said
    assert row.bias == pytest.approx(0.1, abs=4 * row.error)


def test_a_figure_of_the_literature_comes_out():
    row = measure(problems()["toy"], "score", Score(), QUICK)
    assert row.variance == pytest.approx(2.5e-7, rel=0.05)
    assert (row.particles, row.evaluations, row.verdict) == (2, 2, "unbiased")


def test_what_is_refused_says_why():
    row = measure(problems()["gamma"], "enumerate", ESTIMATORS["enumerate"](), QUICK)
    assert "its values are continuous" in row.refused and not row.failed


def test_what_fails_is_no_refusal():
    row = measure(problems()["categorical"], "broken", Broken(), QUICK)
    assert row.failed and row.refused == "no such thing"


@pytest.mark.parametrize("name", sorted(problems()))
def test_exact_gradients_are_those_of_differences(name):
    problem = problems()[name]
    leaves, tree = jax.tree.flatten(jax.tree.map(lambda x: np.asarray(x, float), problem.params))
    rng = np.random.default_rng(0)
    ways = [rng.normal(size=x.shape) for x in leaves]
    moved = lambda h: jax.tree.unflatten(tree, [x + h * d for x, d in zip(leaves, ways, strict=True)])  # noqa: E731
    with jax.enable_x64(True):
        difference = (float(problem.exact(moved(1e-5))) - float(problem.exact(moved(-1e-5)))) / 2e-5
    along = exact_gradient(problem) @ np.concatenate([d.ravel() for d in ways])
    assert along == pytest.approx(difference, rel=1e-5)


def test_every_row_of_the_table_has_a_variant():
    assert {type(made) for _, made in variants(ESTIMATORS)} == set(ESTIMATORS.values())
    labels = [label for label, _ in variants(ESTIMATORS)]
    assert len(labels) == len(set(labels)) and "score, leave_one_out" in labels


def test_the_biased_have_no_rank():
    rows = [
        Row("p", "a", variance=1.0, microseconds=1.0, error=0.01),
        Row("p", "b", variance=0.1, microseconds=1.0, error=0.01, z=9.0),
        Row("p", "c", variance=0.5, microseconds=1.0, error=0.01),
        Row("p", "d", refused="no"),
    ]
    assert ranked(rows) == {"c": 1, "a": 2}


@pytest.mark.slow
def test_disarm_loses_its_noise_where_the_pair_differs():
    found = curve(problems()["toy"], ESTIMATORS["disarm"]())
    assert found["variance"][0] < 1e-15 and found["loss"][-1] < found["loss"][0] == pytest.approx(0.250001, abs=1e-6)


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    arguments = ["--only", "score", "--problems", "toy", "mixture at 2", "--seconds", "0.05", "--no-curves"]
    assert command.main([*arguments, "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| score, leave_one_out |" in printed and "Found biased, and not said to be: none" in printed
    rows = json.loads((tmp_path / "estimators.json").read_text())["results"]["rows"]
    assert {r["problem"] for r in rows} == {"toy", "mixture at 2"}
    for figure in ("toy", "mixture"):
        assert (tmp_path / f"estimators_{figure}.png").stat().st_size > 10_000


def test_the_figure_of_a_page_has_a_dot_a_measurement(tmp_path):
    rows = [
        Row("p", "score, leave_one_out", variance=4.0),
        Row("p", "disarm", variance=0.04),
        Row("p", "concrete", variance=0.0, said_biased=True),
        Row("p", "arm", refused="no"),
        Row("q", "disarm", variance=2.0),
        Row("q", "arms", variance=1.0),
        Row("q", "relax", variance=float("nan")),
    ]
    drawn, bare = pages.write(rows, ["disarm", "concrete", "arm", "relax"], tmp_path)
    assert (drawn, bare) == (["disarm", "concrete"], ["arm", "relax"])
    text = (tmp_path / "disarm.svg").read_text()
    ElementTree.fromstring(text)
    middle, hundredth, half = (f'cx="{x}"' for x in (280.0, 195.0, 267.2))
    own, others = (re.findall(rf'<circle class="{kind}" (cx="[^"]*") cy="(?!16")', text) for kind in ("own", "other"))
    assert own == [hundredth, middle] and others == [middle, half]  # of q the noisiest is 1
    assert text.count('<path class="other biased"') == 1 and ">q *<" in text
    files = [tmp_path / f"{name}.json" for name in "ab"]
    for path, variance in zip(files, (1.0, 2.0), strict=True):
        path.write_text(json.dumps({"results": {"rows": [dataclasses.asdict(Row("p", "arm", variance=variance))]}}))
    assert [r.variance for r in pages.read(*files)] == [2.0]
