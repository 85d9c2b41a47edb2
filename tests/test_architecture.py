"""The files import one another in one direction, and the few rules about who may import what hold."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "autovi"

# Earliest first: a module imports only from its own room and from those before it.
ORDER = [
    "numbers",
    "keys",
    "compiling",
    "process",
    "versions",
    "distributions",
    "implicit",
    "model",
    "analysis",
    "elimination",
    "families",
    "estimators",
    "objectives",
    "plan",
    "claims",
    "program",
    "run",
    "ladder",
    "preparation",
    "stochastic",
    "result",
    "comparison",
    "checkpoints",
    "initial",
    "climbing",
    "starting",
    "restarting",
    "checking",
    "fitting",
    "loading",
    "travel",
    "prior",
    "calibration",
    "__init__",
]
# The same inside the folder.
IMPLICIT_ORDER = [
    "attach",
    "rule",
    "validation",
    "numerics",
    "log_concave",
    "generic",
    "dispatch",
    "univariate",
    "circular",
    "multivariate",
    "composite",
    "transported",
    "table",
]
# The folders whose members know `base` (and `base` the baselines) and no sibling; their `__init__` holds the table.
PLUGIN_FOLDERS = ["families", "estimators", "objectives"]
# NumPyro's effect handlers and primitives appear here only.
MAY_IMPORT_HANDLERS = ["model/execution.py", "model/guides.py", "model/unrolled.py"]
MAY_IMPORT_ARVIZ = ["result/export.py"]
# Only `preparation` sees every room before the first step, and only `fitting` what comes after.
STAGES = {
    "preparation": ["model", "analysis", "plan", "program", "run", "ladder"],
    "fitting": ["preparation", "starting", "run.together", "result.fit"],
}
MAX_LINES = 400


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports_of(source: str, package: str = "autovi") -> set[str]:
    """Dotted names that a module of `package` imports, at its top or in functions, relative ones resolved.

    `from a import b` gives both `a` and `a.b`. Imports for type checkers alone are no dependency and are left
    out.
    """
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if is_type_checking(node):
            nodes.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found |= {name} | {f"{name}.{alias.name}" for alias in node.names}
        nodes.extend(ast.iter_child_nodes(node))
    return found


def attributes_of(source: str) -> set[str]:
    """Dotted attribute chains used in a module, such as `numpyro.handlers.seed`."""
    return {ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}


def stages_imported(imports: set[str]) -> set[str]:
    """Top-level modules of autovi among the imports; `autovi` itself counts as `__init__`."""
    stages = {name.split(".")[1] for name in imports if name.startswith("autovi.")}
    found = stages & set(ORDER)
    # `from autovi import x` reads the package's own namespace, unless x is a module.
    return found | ({"__init__"} if stages - found or ("autovi" in imports and not stages) else set())


def stage_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parts[:-1])


def source_imports(path: Path) -> set[str]:
    return imports_of(path.read_text(), package_of(path))


def uses(path: Path, *prefixes: str) -> bool:
    """Does the file import, or reach by attribute, anything under one of the dotted names?"""
    names = source_imports(path) | attributes_of(path.read_text())
    return any(name == p or name.startswith(p + ".") for name in names for p in prefixes)


MODULES = sorted(PACKAGE.rglob("*.py"))
by_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))


def test_every_module_has_its_place():
    assert MODULES, "no modules found"
    assert sorted({stage_of(path) for path in MODULES}) == sorted(ORDER)


@by_module
def test_imports_run_one_way(path):
    stage = stage_of(path)
    assert stage in ORDER, f"give {stage} its place in ORDER"
    allowed = set(ORDER[: ORDER.index(stage)]) | {stage}
    assert stages_imported(source_imports(path)) <= allowed


@by_module
def test_plugins_do_not_know_their_siblings(path):
    folder = stage_of(path)
    if folder not in PLUGIN_FOLDERS or path.stem == "__init__":
        return
    own = f"autovi.{folder}"
    members = {p.stem for p in (PACKAGE / folder).glob("*.py")} - {"__init__"}
    imports = source_imports(path)
    siblings = {name.split(".")[2] for name in imports if name.startswith(own + ".")}
    shared = {"base", "baselines", "binary", "categories", "control", "networks", "onehot", "parts", "pathwise"}
    shared |= {"gated", "ordered", "relaxation", "sloped"}
    assert siblings & members <= shared - {path.stem}
    # Names outside the members come from the folder's own `__init__`, which imports every member.
    assert siblings <= members


@by_module
def test_foreign_libraries_stay_behind_their_files(path):
    file = str(path.relative_to(PACKAGE))
    if file not in MAY_IMPORT_ARVIZ:
        assert not uses(path, "arviz", "arviz_base", "arviz_stats", "arviz_plots")
    if file not in MAY_IMPORT_HANDLERS:
        assert not uses(path, "numpyro.handlers", "numpyro.primitives")
    assert not uses(path, "jax._src", "numpyro._src")


@pytest.mark.parametrize("whole", sorted(STAGES))
def test_one_file_imports_every_stage(whole):
    def complete(path):
        imports = source_imports(path)
        return all(any(f"{name}.".startswith(f"autovi.{part}.") for name in imports) for part in STAGES[whole])

    assert [stage_of(path) for path in MODULES if complete(path)] == [whole]


@pytest.mark.parametrize("folder", ["autovi", "tests", "examples", "benchmarks"])
def test_files_can_be_read_in_one_sitting(folder):
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}
    assert not [name for name in lengths if Path(name).name in ("utils.py", "_misc.py", "misc.py", "helpers.py")]


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("import autovi.model.sites", "autovi", {"model"}),
        ("from autovi.families.base import Family", "autovi", {"families"}),
        ("from . import keys", "autovi", {"keys"}),
        ("from .base import Family", "autovi.families", {"families"}),
        ("from ..model.sites import Site", "autovi.families", {"model"}),
        ("def f():\n    from autovi.result.export import to_arviz", "autovi", {"result"}),
        ("from autovi import fit", "autovi", {"__init__"}),
        ("import autovi", "autovi", {"__init__"}),
        ("from autovi import fitting", "autovi", {"fitting"}),
        (
            "if TYPE_CHECKING:\n    from autovi.result.fit import Fit\nelse:\n    import autovi.model",
            "autovi",
            {"model"},
        ),
        ("import jax.numpy as jnp", "autovi", set()),
    ],
)
def test_imports_are_read_right(source, package, expected):
    assert stages_imported(imports_of(source, package)) == expected


def test_attributes_are_read_right():
    assert "numpyro.handlers.seed" in attributes_of("import numpyro\nnumpyro.handlers.seed(f, 0)")


IMPLICIT = PACKAGE / "implicit"
IMPLICIT_MODULES = sorted(path for path in IMPLICIT.rglob("*.py") if path != IMPLICIT / "__init__.py")


@pytest.mark.parametrize("path", IMPLICIT_MODULES, ids=lambda path: str(path.relative_to(IMPLICIT)))
def test_the_parts_of_implicit_import_one_way(path):
    def part(module):
        return module.removeprefix("autovi.implicit.").split(".")[0]

    own = path.relative_to(IMPLICIT).parts[0].removesuffix(".py")
    assert own in IMPLICIT_ORDER, f"give {own} its place in IMPLICIT_ORDER"
    inside = {part(name) for name in source_imports(path) if name.startswith("autovi.implicit.")}
    assert inside & set(IMPLICIT_ORDER) <= set(IMPLICIT_ORDER[: IMPLICIT_ORDER.index(own) + 1])


def test_the_modules_of_implicit_import_one_another_without_a_cycle():
    dotted = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in IMPLICIT_MODULES}
    before = {name: (source_imports(path) & set(dotted)) - {name} for name, path in dotted.items()}
    assert any(before.values())
    assert set(TopologicalSorter(before).static_order()) == set(dotted)  # raises CycleError, which names the cycle
