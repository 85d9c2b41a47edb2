"""A plan as text, in any width, and as HTML: what is grouped, what is left out, and that nothing runs over the edge."""

import doctest
import os
from html.parser import HTMLParser

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi
from autovi.plan import grouping
from autovi.plan.choices import Choice
from autovi.plan.coupling import warning
from autovi.plan.display import (
    MAX_LINES,
    MAX_ROWS,
    NARROWEST,
    REASON_ROWS,
    WIDEST,
    plan_html,
    plan_text,
    terminal_width,
)
from autovi.plan.grouping import groups_of, names
from autovi.plan.plan import Plan

VOID = {"br"}


def choice(
    site, family="normal", why="because", block=None, shape=(), support="real", estimator="explicit", baseline=None
):
    return Choice(site, "Normal", support, shape, family, estimator, baseline, why, block or site)


def plan_of(*choices, notes=()):
    return Plan(tuple(choices), (), notes=notes)


def scalars(count):
    return [choice(f"beta_{i}", block="joint") for i in range(count)]


def eight_schools(y):
    """Nothing linear is made of z, which would be said of it."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfNormal(5.0))
    with numpyro.plate("school", 8):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu + tau * jnp.sinh(z), 10.0), obs=y)


EIGHT = """\
Plan: 4 particles a step
site        support               shape              family     estimator
mu, tau, z  real, positive, real  scalar, scalar, 8  full_rank  explicit
    jointly normal with the other continuous sites on the unconstrained scale;
    explicit reparameterization, since the cost is smooth in it"""


def test_a_block_is_one_line_and_its_reason_is_wrapped(monkeypatch):
    plan = autovi.plan(eight_schools, {"y": np.ones(8)})
    assert plan_text(plan, 80) == EIGHT
    monkeypatch.setenv("COLUMNS", "80")
    assert str(plan) == repr(plan) == EIGHT
    monkeypatch.setenv("COLUMNS", "100")
    assert str(plan) == plan_text(plan, 100) != EIGHT


def test_the_width_is_that_of_the_terminal(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    no_terminal = lambda fd: (_ for _ in ()).throw(OSError)  # noqa: E731
    monkeypatch.setattr(os, "get_terminal_size", no_terminal)
    assert terminal_width() == 80
    for columns, width in {72: 72, 5: NARROWEST, 300: WIDEST}.items():
        monkeypatch.setattr(os, "get_terminal_size", lambda fd, c=columns: os.terminal_size((c, 24)))
        assert terminal_width() == width


def test_sites_with_one_reason_share_it():
    plan = plan_of(
        choice("a", block="joint"),
        choice("k", family="poisson", estimator="score", baseline="leave_one_out", support="integer nonnegative"),
        choice("b", block="joint", shape=(3, 2)),
        choice("g1", family="gamma", why="conjugate", support="positive"),
        choice("g2", family="gamma", why="conjugate", support="positive"),
        choice("g3", family="gamma", why="conjugate", support="positive", shape=(4,)),
        notes=("a note",),
    )
    assert plan_text(plan, 90).splitlines() == [
        "Plan: 1 particle a step",
        "site    support              shape        family   estimator  baseline",
        "a, b    real                 scalar, 3x2  normal   explicit   -",
        "    because",
        "k       integer nonnegative  scalar       poisson  score      leave_one_out",
        "    because",
        "g1, g2  positive             scalar       gamma    explicit   -",
        "g3      positive             4            gamma    explicit   -",
        "    conjugate",
        "note: a note",
    ]


def test_reasons_that_differ_in_the_names_of_other_sites_are_one():
    whys = {"s0": "meets 's1' in a term", "s1": "meets 's0', 's2' in a term", "s2": "meets 's1' in a term"}
    grouped = groups_of([choice(site, why=why) for site, why in whys.items()])
    assert [group.why for group in grouped] == ["meets … in a term (plan[site].why names them)"]
    # Of one reason nothing is left out, and what is no site stays.
    assert [g.why for g in groups_of([choice("s0", why=whys["s0"]), choice("s1", why="the term 'p:y' jumps")])] == [
        whys["s0"],
        "the term 'p:y' jumps",
    ]
    assert len(groups_of([choice("s0", why="the term 'p:x' jumps"), choice("s1", why="the term 'p:y' jumps")])) == 2


CASES = {
    "one": plan_of(choice("mu")),
    "none": plan_of(),
    "ten": plan_of(*[choice(f"{name}_parameter", block="joint") for name in "abcdefghij"]),
    "three hundred in a block": plan_of(*scalars(300), choice("sigma", block="joint", support="positive")),
    "three hundred alone": plan_of(*[choice(f"{'abc'[i % 3]}{i}", shape=(i,), family="gamma") for i in range(300)]),
    "three hundred reasons": plan_of(*[choice(f"x{i}", why=f"reason {i} " * 30) for i in range(300)]),
    "long names": plan_of(*[choice(f"{n}_of_the_regression_coefficients-of-this-model" * 2, block="j") for n in "abc"]),
    "long cells": plan_of(choice("w", family="f" * 40, estimator="e" * 40, baseline="b" * 90, shape=(10**6,) * 8)),
    "long reason": plan_of(choice("w", why="it meets " + ", ".join(f"'v{i}'" for i in range(500)))),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("width", [NARROWEST, 40, 80, 120])
def test_no_line_is_wider_and_the_length_is_bounded(name, width):
    lines = plan_text(CASES[name], width).splitlines()
    assert max(map(len, lines)) <= width
    if width >= 80:
        assert len(lines) <= 2 * MAX_ROWS
        assert len(CASES[name].choices) > 10 or len(lines) < 20


def test_what_is_left_out_is_counted():
    text = plan_text(CASES["three hundred in a block"], 80)
    assert "beta_0 … beta_299, sigma  real, positive  scalar  normal" in text
    text = plan_text(CASES["three hundred alone"], 80)
    assert f"    … and {300 - MAX_LINES} sites more; plan.to_dict() has all" in text.splitlines()
    shown = MAX_ROWS // (1 + REASON_ROWS)
    lines = plan_text(CASES["three hundred reasons"], 80).splitlines()
    assert lines[-1] == f"… and {300 - shown} sites more; plan.to_dict() has all"
    assert len(CASES["three hundred reasons"].to_dict()["sites"]) == 300
    assert "… (plan[site].why goes on)" in " ".join(plan_text(CASES["long reason"], 80).split())


def test_names_get_lines_of_their_own_where_columns_leave_no_room():
    lines = plan_text(plan_of(choice("a_" * 30, why="w", baseline="moving_average")), 70).splitlines()
    assert lines == [
        "Plan: 1 particle a step",
        "a_" * 30,
        "  support real; shape scalar; family normal; estimator explicit;",
        "  baseline moving_average",
        "    w",
    ]


@pytest.mark.parametrize(
    ("sites", "room", "said"),
    [
        (["a"], 5, "a"),
        (["a", "b"], 5, "a, b"),
        ([f"b{i}" for i in range(9, 12)], 20, "b9 … b11"),
        (["b1", "b2"], 20, "b1, b2"),
        (["b1", "b3", "b5"], 20, "b1, b3, b5"),
        (["l0.w", "l1.w", "l2.w", "l2.b"], 30, "l0.w … l2.w, l2.b"),
        (["alpha", "beta", "gamma", "delta"], 24, "alpha, beta, … (4 sites)"),
        (["alpha", "beta", "gamma", "delta"], 23, "alpha, … (4 sites)"),
        (["abcdefghij"], 7, "abc…hij"),
    ],
)
def test_names(sites, room, said):
    assert names(sites, room) == said


def test_a_message_names_many_coupled_sites_in_few_words():
    said = warning({f"state_{i}": [] for i in range(300)})
    assert said.startswith("discrete site(s) 'state_0' … 'state_299': independent in q of what they meet")
    assert "'a', 'b':" in warning({"a": ["b"], "b": ["a"]}) and warning({}) == ""


def test_examples_in_the_docstrings():
    tried = doctest.testmod(grouping)
    assert (tried.failed, tried.attempted) == (0, 2)


class Reader(HTMLParser):
    """Tags that open and close in order, the text between them, and no resource from elsewhere."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.counts = [], [], {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert not {"src", "href", "onclick"} & {name for name, _ in attrs}
        assert "color" not in dict(attrs).get("style", "")
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_html_is_a_table_with_the_same_content():
    read = Reader(autovi.plan(eight_schools, {"y": np.ones(8)})._repr_html_())
    assert (read.counts["table"], read.counts["tr"], read.counts["th"], read.counts["td"]) == (1, 3, 5, 6)
    assert read.text == [
        "Plan: 4 particles a step", "site", "support", "shape", "family", "estimator",
        "mu, tau, z", "real, positive, real", "scalar, scalar, 8", "full_rank", "explicit",
        "jointly normal with the other continuous sites on the unconstrained scale; explicit reparameterization, since "
        "the cost is smooth in it",
    ]  # fmt: skip


def test_html_is_escaped_and_bounded():
    html = plan_html(plan_of(choice("<script>x</script>", why="a < b & c"), notes=("<b>",)))
    assert "<script" not in html and "<b>" not in html
    assert {"<script>x</script>", "a < b & c", "note: <b>"} <= set(Reader(html).text)
    assert Reader(plan_html(CASES["three hundred alone"])).counts["tr"] == MAX_LINES + 2
    assert "… and 288 sites more; plan.to_dict() has all" in Reader(plan_html(CASES["three hundred reasons"])).text
