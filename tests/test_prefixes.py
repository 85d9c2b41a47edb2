"""Every message of the package begins alike: the argument ("batch_size: ..."), or a kind and name ("site 'y': ...")."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "autovi"
FILES = [p for p in sorted(PACKAGE.rglob("*.py")) if "implicit" not in p.relative_to(PACKAGE).parts]
# {} stands for what is filled in: "site {}: ...", "{}: ...", "batch_size[{}]: ...", "rng_key: ..."
PREFIX = re.compile(
    r"^([a-zA-Z_]+(, [a-zA-Z_]+)*|\{\})(\[\{\}\])?( \{\})?( \([^)]*\))?: |^data(\[\{\}\])? (has|is|does) "
)
ERRORS = {"ValueError", "TypeError", "SiteError", "_Refused", "FileNotFoundError", "IsADirectoryError", "ImportError"}


def text_of(node):
    """A string with {} for what is filled in; None if it is made elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "with_places":
        return text_of(node.args[0])
    return None


def messages(source):
    for node in ast.walk(ast.parse(source)):
        call = node.exc if isinstance(node, ast.Raise) else None
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ERRORS and call.args:
            text = text_of(call.args[0])
            if text is not None and not text.startswith(("{}{}", "{}, ")) and text != "{}":
                yield node.lineno, text


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_messages_begin_with_what_they_are_about(path):
    wrong = [(line, text) for line, text in messages(path.read_text()) if not PREFIX.match(text)]
    assert not wrong


def test_prefixes_are_read_right():
    source = (
        'if a:\n    raise ValueError(f"the site {n!r} is wrong")\nelse:\n    raise ValueError(f"site {n!r}: wrong")'
    )
    found = dict(messages(source))
    assert found == {2: "the site {} is wrong", 4: "site {}: wrong"}
    assert not PREFIX.match(found[2]) and PREFIX.match(found[4])
    assert sum(len(list(messages(p.read_text()))) for p in FILES) > 60
