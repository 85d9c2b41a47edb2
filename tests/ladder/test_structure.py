"""Which numbers belong to the elements of plates, and which of them the density ties to each other."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from autovi.ladder.couplings import halves_of, levels_to_take, meetings, tied
from autovi.ladder.density import joint_density
from autovi.ladder.richer import richer_families
from autovi.preparation import Options, prepare
from autovi.program.hierarchy import plate_levels, structure_of

GROUP = np.repeat(np.arange(4), 3)
Y = np.linspace(-1.0, 2.0, 12)


def nested(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    with numpyro.plate("patients", 3, dim=-1):
        b = numpyro.sample("b", dist.Normal(mu, tau))
        with numpyro.plate("visits", 4, dim=-2):
            e = numpyro.sample("e", dist.Normal(0.0, tau))
            numpyro.sample("y", dist.Normal(b + e, 1.0), obs=y.reshape(4, 3))


def indexed(y):
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    with numpyro.plate("groups", 4):
        a = numpyro.sample("a", dist.Normal(0.0, tau))
        v = numpyro.sample("v", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)))
    numpyro.sample("y", dist.Normal(a[GROUP] + v[GROUP, 0] - v[GROUP, 1], 1.0), obs=y)


def regression(y):
    x = np.random.default_rng(0).normal(size=(12, 4))
    with numpyro.plate("columns", 4):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(jnp.asarray(x) @ w, 1.0), obs=y)


def bounded(y):
    mean = numpyro.sample("mean", dist.Uniform(0.0, 1.0))
    sigma = numpyro.sample("sigma", dist.Uniform(0.0, 10.0))
    with numpyro.plate("groups", 4):
        b = numpyro.sample("b", dist.Normal(jnp.log(mean) - jnp.log1p(-mean), sigma))
    numpyro.sample("y", dist.Normal(b[GROUP], 1.0), obs=y)


def crossed(y):
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    with numpyro.plate("rows", 4):
        r = numpyro.sample("r", dist.Normal(0.0, tau))
    with numpyro.plate("columns", 3):
        c = numpyro.sample("c", dist.Normal(0.0, tau))
    numpyro.sample("y", dist.Normal(r[GROUP] + c[np.tile(np.arange(3), 4)], 1.0), obs=y)


def walk(y):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    z = numpyro.sample("z", dist.GaussianRandomWalk(scale, 12))
    numpyro.sample("y", dist.Normal(z, 1.0), obs=y)


def of(model):
    engine, inputs = prepare(model, {"y": Y}, Options())
    (block,) = engine.program.plan.blocks
    density = joint_density(engine.program, engine.initial_params(inputs.traced()), inputs.traced())
    point = jnp.linspace(-0.5, 0.7, engine.program.start_size)
    meets = lambda halves: np.asarray(meetings(density, point, jnp.asarray(halves)))  # noqa: E731
    return engine.program, block, meets


def test_coordinates_of_nested_plates():
    program, block, _ = of(nested)
    levels = plate_levels(program.sites, block.sites)
    assert levels == (("b",), ("e",))
    structure = structure_of(program.sites, block.sites, levels)
    # mu, tau; the three patients; the visits of all patients, in the order of the array (visits, patients).
    assert structure.common.array.tolist() == [0, 1]
    assert structure.levels[0].index.array.tolist() == [[2], [3], [4]]
    assert structure.levels[1].index.array.ravel().tolist() == list(range(5, 17))
    (above,) = structure.levels[1].above
    # The plate dims are (-2, -1) = (visits, patients): element 5 is the second visit of the third patient.
    assert above.level == 0 and above.element.array.tolist() == [0, 1, 2] * 4


def test_several_sites_of_one_plate_are_one_element_each():
    program, block, _ = of(indexed)
    structure = structure_of(program.sites, block.sites, plate_levels(program.sites, block.sites))
    # tau; a (4,); v (4, 2).
    assert structure.levels[0].index.array.tolist() == [[1, 5, 6], [2, 7, 8], [3, 9, 10], [4, 11, 12]]


@pytest.mark.parametrize(
    ("model", "within", "across"),
    [
        (nested, [False, False], False),
        (indexed, [False], False),
        (regression, [True], False),
        (crossed, [False] * 2, True),
    ],
    ids=["nested", "indexed", "regression", "crossed"],
)
def test_what_the_density_ties(model, within, across):
    program, block, meets = of(model)
    structure = structure_of(program.sites, block.sites, plate_levels(program.sites, block.sites))
    halves = halves_of(structure)
    found = tied(structure, halves, meets(halves))
    assert np.diagonal(found).tolist() == within
    assert bool(found[~np.eye(len(found), dtype=bool)].any()) is across


@pytest.mark.parametrize(
    ("model", "levels", "together"),
    [
        (nested, (("mu",), ("b",), ("e",)), (0,)),
        (indexed, (("a", "v"),), ()),
        (bounded, (("mean",), ("b",)), (0,)),
        (regression, (("w",),), (0,)),
        (crossed, (("c",), ("r",)), (0,)),
        (walk, (("z",),), (0,)),
    ],
    ids=["nested", "indexed", "bounded", "regression", "crossed", "walk"],
)
def test_the_family_by_structure(model, levels, together):
    program, block, meets = of(model)
    (richer,) = richer_families(program, block, meets)
    assert (richer.family.levels, richer.family.together) == (levels, together)
    assert sorted(richer.sites) == sorted(block.sites)
    assert richer.sites[len(block.sites) - sum(map(len, levels)) :] == tuple(n for level in levels for n in level)


def test_large_levels_that_are_tied_are_left_apart():
    structure = structure_of(*_two_levels())
    single, together = levels_to_take(structure, np.array([[True, True], [True, True]]))
    assert (single, together) == ([0, 1], [])


def _two_levels():
    def model():
        with numpyro.plate("i", 400):
            numpyro.sample("a", dist.Normal(0.0, 1.0))
        with numpyro.plate("j", 500):
            numpyro.sample("b", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=0.0)

    engine, _ = prepare(model, None, Options())
    names = engine.program.plan.blocks[0].sites
    return engine.program.sites, ("a", "b"), plate_levels(engine.program.sites, names)
