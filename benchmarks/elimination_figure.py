"""The picture of an elimination on the page of discrete latents, from the plan of a small model.

    python -m benchmarks.elimination_figure docs/figures/elimination.svg

On the left is the model with its plates, on the right what is held: the tables of the terms, and what is left of them
after each sum. Tables, sizes and order are those of the plan. The figure is text, the same for the same plan.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import autovi
from autovi.elimination.eliminate import eliminated
from autovi.elimination.factors import Factor
from autovi.elimination.group import Group
from autovi.elimination.semirings import Counted

PLATES = {"school": 3, "pupil": 4}
WIDTH, HEIGHT, LEFT, BOX, GAP, ROW = 980, 344, 296, 220, 8, 84
STYLE = (
    "text{font:12px sans-serif;fill:#444}.small{font-size:11px}.site{fill:#fff;stroke:#1b6ca8;stroke-width:1.5}"
    ".data{fill:#ddd;stroke:#444}.plate{fill:none;stroke:#aaa}.line{fill:none;stroke:#888}"
    ".table{fill:#e8f1f8;stroke:#1b6ca8}.over{stroke:#fff;stroke-width:4;paint-order:stroke}"
)


def model(y=None) -> None:
    """Schools of two kinds, and pupils of three, as often as in their kind of school."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)).expand([2]).to_event(1))
    with numpyro.plate("school", PLATES["school"], dim=-2):
        kind = numpyro.sample("kind", dist.Bernoulli(0.4))
        with numpyro.plate("pupil", PLATES["pupil"], dim=-1):
            z = numpyro.sample("z", dist.Categorical(weights[kind]))
            numpyro.sample("y", dist.Normal(z - 1.0, 1.0), obs=y)


@dataclass
class Table:
    """One box: its title, axes with lengths, what it is made of, and where it stands."""

    title: str
    axes: dict[str, int]
    above: list["Table"] = field(default_factory=list)
    x: float = 0.0
    row: int = 0

    @property
    def shape(self) -> str:
        """Axes and lengths, as the plan says them."""
        return " x ".join(f"{a} {n}" for a, n in self.axes.items()) or "one number"


def tables(group: Group) -> list[Table]:
    """The terms, and the result of each sum in the order of the elimination. A sum takes in all tables that have what
    is summed out, and is multiplied over the plates that the next has not."""
    counted, sizes = Counted(), group.network.sizes
    names = {n: plate for plate, n in PLATES.items()}
    named = lambda axes: {names.get(sizes[a], a) if a.startswith("%") else a: sizes[a] for a in axes}  # noqa: E731
    empty = {t: jax.ShapeDtypeStruct([sizes[a] for a in p.axes], jnp.float32) for t, p in group.terms.items()}

    def run(given: dict[str, jax.Array]) -> list[jax.Array]:
        factors = [Factor(given[t], p.axes, frozenset({t})) for t, p in group.terms.items()]
        return [f.table for f in eliminated(group.network, factors, counted)]

    jax.eval_shape(run, empty)
    found = [Table(f"log {t.replace(':', '(')} | above)", named(p.axes)) for t, p in group.terms.items()]
    live = list(found)
    for gone, axes, _, _ in counted.sums:
        taken = [t for t in live if set(gone) & t.axes.keys()]
        left = {a: n for a, n in named(axes).items() if a not in gone}
        made = Table(f"sum over {', '.join(gone)}", left, taken)
        found.append(made)
        live = [t for t in live if t not in taken] + [made]
    found.append(Table("sum of the logarithms", {}, live))
    return found


def placed(found: Sequence[Table]) -> None:
    """Each below what it is made of, and between."""
    terms = [t for t in found if not t.above]
    for i, table in enumerate(terms):
        table.x = LEFT + (BOX + GAP) * i
    for table in found:
        if table.above:
            table.row = 1 + max(t.row for t in table.above)
            table.x = sum(t.x for t in table.above) / len(table.above)


def drawn(found: Sequence[Table]) -> list[str]:
    """The boxes, and lines from each to what it goes into; what is multiplied on the way is said beside the line."""
    parts = []
    for table in found:
        top = 34 + ROW * table.row
        parts.append(f'<rect class="table" x="{table.x:.0f}" y="{top}" width="{BOX}" height="42" rx="4"/>')
        middle = table.x + BOX / 2
        count = prod(table.axes.values())
        held = f"{table.shape}" + (f" = {count}" if len(table.axes) > 1 else "")
        parts.append(f'<text x="{middle:.0f}" y="{top + 17}" text-anchor="middle">{table.title}</text>')
        parts.append(f'<text class="small" x="{middle:.0f}" y="{top + 34}" text-anchor="middle">{held}</text>')
        widest = {a for t in table.above for a in t.axes}
        for above in table.above:
            start = above.x + BOX / 2
            parts.append(f'<path class="line" d="M{start:.0f} {34 + ROW * above.row + 42}L{middle:.0f} {top}"/>')
        over = [p for p in PLATES if p in widest and p not in table.axes]
        if over:
            said = f"added up over {' and '.join(f'the {p}s' for p in over)}"
            parts.append(f'<text class="small over" x="{middle + 12:.0f}" y="{top - 8}">{said}</text>')
    return parts


def pictured() -> list[str]:
    """The model: its sites in their plates."""
    at = {"weights": (45, 170), "kind": (190, 60), "z": (190, 170), "y": (190, 260)}
    parts = [
        '<rect class="plate" x="100" y="24" width="180" height="296" rx="6"/>',
        '<text class="small" x="108" y="312">school 3</text>',
        '<rect class="plate" x="112" y="132" width="156" height="164" rx="6"/>',
        '<text class="small" x="120" y="290">pupil 4</text>',
    ]
    for one, other in (("kind", "z"), ("z", "y"), ("weights", "z")):
        (x1, y1), (x2, y2) = at[one], at[other]
        parts.append(f'<path class="line" d="M{x1} {y1}L{x2} {y2}"/>')
    for name, (x, y) in at.items():
        kind = "data" if name == "y" else "site"
        parts.append(f'<circle class="{kind}" cx="{x}" cy="{y}" r="25"/>')
        parts.append(f'<text class="small" x="{x}" y="{y + 4}" text-anchor="middle">{name}</text>')
    return parts


def figure() -> str:
    """The picture as SVG."""
    (group,) = autovi.plan(model, {"y": jnp.zeros(tuple(PLATES.values()))}).groups
    found = tables(group)
    placed(found)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}">'
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", ground, *pictured(), *drawn(found), "</svg>\n"])


def main(argv: list[str] | None = None) -> None:
    """Write the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    args = parser.parse_args(argv)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(figure())


if __name__ == "__main__":
    main()
