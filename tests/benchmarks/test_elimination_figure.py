"""The picture of an elimination is that of today's plan."""

from pathlib import Path
from xml.etree import ElementTree

from benchmarks import elimination_figure

STORED = Path(__file__).resolve().parents[2] / "docs" / "figures" / "elimination.svg"


def test_the_stored_figure_is_what_the_plan_says(tmp_path):
    elimination_figure.main([str(tmp_path / "figure.svg")])
    text = (tmp_path / "figure.svg").read_text()
    ElementTree.fromstring(text)
    assert text == STORED.read_text()
    # Terms of 2 x 3, 2 x 3 x 12 and 3 x 12 numbers; z goes first, in each pupil, and kind then, in each school.
    held = [part.split("</text>")[0] for part in text.split(" = ")[1:]]
    assert held == ["6", "72", "36", "24"]
    assert text.index("sum over z") < text.index("the pupils") and text.index("sum over kind") < text.index(
        "the schools"
    )
