"""The documentation: its code runs as it stands, its links lead somewhere, and every public name is in it."""

import functools
import inspect
import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_architecture import ORDER

import autovi
from autovi.preparation import Options, prepare
from autovi.result.posterior import Posterior
from oracles import ORACLES

ROOT = Path(__file__).resolve().parents[1]
OF_ESTIMATORS = sorted((ROOT / "docs" / "estimators").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *OF_ESTIMATORS]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TABLES = {"FAMILIES", "ESTIMATORS"}


def blocks(page: Path) -> list[tuple[str, str, int]]:
    """Language, text and first line of every fenced block."""
    text = page.read_text()
    return [(m[1], m[2], text.count("\n", 0, m.start()) + 1) for m in FENCE.finditer(text)]


@functools.cache
def run_page(page: Path, name: str = "__main__") -> dict:
    """The page's Python blocks in order, in one namespace, which is returned."""
    namespace = {"__name__": name}
    for language, source, line in blocks(page):
        if language == "python":
            # Line numbers of the page, so that a traceback points into it.
            exec(compile("\n" * line + source, str(page), "exec"), namespace)
    return namespace


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """Pages save files by bare names; nothing of that lands in the repository."""
    monkeypatch.chdir(tmp_path)


def pages_with_code() -> list:
    coded = [p for p in PAGES if any(language == "python" for language, _, _ in blocks(p))]
    return [pytest.param(p, id=p.relative_to(ROOT).with_suffix("").as_posix().removeprefix("docs/")) for p in coded]


@pytest.mark.filterwarnings("ignore:The default .*:FutureWarning")
@pytest.mark.parametrize("page", pages_with_code())
def test_code_runs(page, in_folder, capsys):
    run_page.__wrapped__(page)  # again, if it was run for another test: what it prints is looked at
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    shown = [text for language, text, _ in blocks(page) if language == "" and "Plan:" in text]
    for text in shown:
        plan = text[text.index("Plan:") :].split("\n\n")[0]
        # The plan does not depend on chance; what follows it in the block may, and ArviZ's table on its version.
        lines = [line for line in plan.splitlines() if re.match(r" {4}\S", line) or "particle" in line]
        assert len(lines) > 1
        for line in lines:
            assert re.sub(r"\s+", " ", line).strip() in printed, f"{page.name} shows what is not printed: {line}"


@pytest.mark.parametrize("page", LINKED, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_local_links_resolve(page):
    for target in LINK.findall(page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = page if not path else (page.parent / path).resolve()
        assert linked.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_every_page_is_in_the_index():
    linked = set(LINK.findall((ROOT / "docs" / "index.md").read_text()))
    pages = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").glob("*.md")}
    assert pages | {"estimators/index.md"} == linked | {"index.md"}


def test_every_estimator_has_a_page_after_the_template():
    parts = ["Claim", "Formula", "Biased when", "Cost", "Wins", "Does not", "Paper"]
    chart = set(LINK.findall((ROOT / "docs" / "estimators" / "index.md").read_text()))
    pages = {p.stem: p.read_text() for p in OF_ESTIMATORS if p.stem != "index"}
    assert set(pages) == {made.name for made in autovi.estimators.ESTIMATORS.values()}
    for name, text in pages.items():
        assert re.findall(r"^\*\*([^*]+)\.\*\*", text, re.MULTILINE) == parts, name
        assert f"`{name}`" in text and f"autovi.estimators.{autovi.estimators.ESTIMATORS[name].__name__}`" in text
        assert f"{name}.md" in chart, name
        assert autovi.estimators.ESTIMATORS[name].biased == ("allow_bias=True" in text), name


def public_names() -> list:
    modules = (autovi, autovi.distributions, autovi.families, autovi.estimators)
    return [pytest.param(m, n, id=f"{m.__name__}.{n}") for m in modules for n in m.__all__]


@pytest.mark.parametrize("module, name", public_names())
def test_public_names_are_documented(module, name):
    pages = "\n".join(p.read_text() for p in PAGES)
    assert re.search(rf"\b{name}\b", pages), f"{name} is on no page"
    if name in TABLES:  # a dictionary has no docstring of its own; its entries do
        return
    value = getattr(module, name)
    doc = inspect.getdoc(value) or ""
    assert len(doc) > 60, f"{name} says next to nothing: {doc!r}"
    if inspect.isclass(value):
        assert value.__dict__.get("__doc__"), f"{name} has its parent's docstring"
        assert not doc.startswith(f"{name}("), f"{name} has the docstring that dataclass makes up"


@pytest.mark.parametrize("cls", [autovi.Fit, Posterior, autovi.Plan], ids=lambda c: c.__name__)
def test_public_members_are_documented(cls):
    members = {n: v for n, v in vars(cls).items() if not n.startswith("_")}
    callables = {n: v for n, v in members.items() if callable(v) or hasattr(v, "__get__")}
    assert callables
    assert not [n for n, v in callables.items() if not inspect.getdoc(v)]


@pytest.mark.parametrize("name", sorted(autovi.families.FAMILIES) + sorted(autovi.estimators.ESTIMATORS))
def test_table_entries_are_on_the_choosing_page(name):
    assert f'`"{name}"`' in (ROOT / "docs" / "choosing.md").read_text()


def test_worked_estimator_is_unbiased(in_folder):
    """The class of docs/extending.md on two dependent Bernoullis, where the draw of the second depends on the first.

    The mean of 200,000 gradient estimates against the exact gradient; the standard error is below 1 % of its norm.
    """
    two_point = run_page(ROOT / "docs" / "extending.md")["TwoPoint"]()
    oracle = next(o for o in ORACLES if o.name == "dependent_pair")
    options = Options(guide=oracle.guide, estimators=dict.fromkeys(oracle.estimators, two_point), num_particles=1)
    engine, inputs = prepare(oracle.model, oracle.data, options)
    assert {c.estimator for c in engine.program.plan.choices} == {"two_point"}
    params = {k: jnp.asarray(v, jnp.float32) for k, v in oracle.params.items()}

    def gradient(key):
        loss = lambda p: engine.estimate({"guide": {}, "param": p}, {}, inputs.traced(), key)[0]  # noqa: E731
        return jnp.concatenate([-jnp.ravel(g) for g in jax.tree.leaves(jax.grad(loss)(params))])

    sampled = np.asarray(jax.jit(jax.vmap(gradient))(jax.random.split(jax.random.key(0), 200_000)), np.float64)
    exact = np.concatenate([np.ravel(g) for g in jax.tree.leaves(jax.grad(oracle.exact_elbo)(params))])
    se = sampled.std(0) / np.sqrt(len(sampled))
    assert np.linalg.norm(se) < 0.01 * np.linalg.norm(exact)
    assert (np.abs(sampled.mean(0) - exact) < 4.5 * se + 1e-5).all(), (sampled.mean(0), exact, se)


def test_readme_example_is_short():
    first = next(source for language, source, _ in blocks(ROOT / "README.md") if language == "python")
    assert len([line for line in first.splitlines() if line.strip()]) <= 15


def test_how_it_works_has_every_room_in_order():
    page = (ROOT / "docs" / "how-it-works.md").read_text()
    assert re.findall(r"^\| `(\w+)(?:\.py|/)` \|", page, re.MULTILINE) == ORDER


def test_pages_name_files_that_exist():
    """Files in backticks, such as `planning.py` or `autovi/registry.py`, are in the package or at that path."""
    known = {p.name for p in ROOT.joinpath("autovi").rglob("*.py")}
    for page in PAGES:
        for name in re.findall(r"`([\w/]+\.py)`", page.read_text()):
            assert name in known or (ROOT / name).exists() or os.path.exists(ROOT / "autovi" / name), (page.name, name)
