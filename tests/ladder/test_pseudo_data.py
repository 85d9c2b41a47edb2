"""What the data say of the elements of non-centred sites: exact for normal likelihoods, at any point and scales."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import ONCE
from numpyro.contrib.control_flow import scan

from autovi.ladder.pseudo_data import FARTHEST, from_the_last, place_at, places_of, pseudo_data_of, told_at
from autovi.ladder.scales import Site, rescaled
from autovi.model.traced import pseudo_inputs
from autovi.preparation import Options, prepare

NOISE = 0.5
SD = 2.0
CLASS = np.repeat(np.arange(3), 4)  # of each pupil
Y = np.random.default_rng(0).normal(size=(12, 5))  # five marks of each pupil


def nested(y):
    """Pupils in classes, with effects that are written centred and by hand."""
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    with numpyro.plate("class", 3):
        above = numpyro.sample("above", dist.Normal(0.0, tau))
    with numpyro.plate("pupil", 12):
        below = numpyro.sample("below", dist.Normal(above[CLASS], SD * jnp.ones(12)))
        with numpyro.plate("mark", 5):
            numpyro.sample("y", dist.Normal(below, NOISE), obs=y.T)


def by_hand(y):
    mu, tau = numpyro.sample("mu", dist.Normal(0.0, 1.0)), numpyro.sample("tau", dist.HalfNormal(1.0))
    with numpyro.plate("pupil", 12):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        with numpyro.plate("mark", 5):
            numpyro.sample("y", dist.Normal(mu + tau * z, NOISE), obs=y.T)


def positive(y):
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    rate = numpyro.sample("rate", dist.HalfNormal(tau * jnp.ones(12)).to_event(1))
    numpyro.sample("y", dist.LogNormal(jnp.log(rate)[:, None] * jnp.ones(5), NOISE).to_event(2), obs=jnp.exp(y))


def process(y):
    length = numpyro.sample("length", dist.LogNormal(0.0, 1.0))
    gap = jnp.arange(12.0)[:, None] - jnp.arange(12.0)
    covariance = jnp.exp(-0.5 * (gap / length) ** 2) + 1e-3 * jnp.eye(12)
    f = numpyro.sample("f", dist.MultivariateNormal(jnp.zeros(12), covariance))
    numpyro.sample("y", dist.Normal(f, NOISE).to_event(1), obs=y[:, 0])


def walk(y):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    x = numpyro.sample("x", dist.GaussianRandomWalk(scale, 12))
    numpyro.sample("y", dist.Normal(x, NOISE).to_event(1), obs=y[:, 0])


def steps(y):
    """Backward, so that the order of elements matters."""
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))

    def step(after, y):
        x = numpyro.sample("x", dist.Normal(after, scale))
        numpyro.sample("y", dist.Normal(x, NOISE), obs=y)
        return x, None

    scan(step, 0.0, y[:, 0], reverse=True)


def found_by(model):
    """The pseudo-data of all sites at a point that is no mode, those of the last sites first."""
    engine, inputs = prepare(model, {"y": Y}, Options())
    program, arrays = engine.program, jax.tree.map(jnp.asarray, inputs.arrays)
    params = engine.initial_params(arrays)
    constants = {n: jnp.zeros_like(c) for n, c in program.constants().items() if not isinstance(c, dict)}
    point = jnp.asarray(np.random.default_rng(1).normal(size=program.start_size), jnp.float32)
    given = lambda c: {**params, "constants": c}  # noqa: E731
    place = jax.jit(lambda c, x: place_at(program, given(c), arrays, x), compiler_options=ONCE)(constants, point)
    of_sites = jax.jit(lambda c, x, a: told_at(program, given(c), arrays, x, a, 4), compiler_options=ONCE)
    found = {}
    for names in from_the_last(program):
        asked = {n: jnp.float32(n in names) for n in program.traced.noncentred}
        told = of_sites(constants, place.values, asked)
        for name in names:
            # As in `pseudo_data_of`, which holds data near, since at a mode they are.
            precision = np.asarray(told.curvature[name])
            found[name] = precision, np.asarray(place.images[name] + told.gradient[name] / precision)
            constants |= {n: jnp.asarray(x) for n, x in zip(pseudo_inputs(name), found[name], strict=True)}
    return program, found


def check(data, precision, value):
    np.testing.assert_allclose(data[0], precision, rtol=1e-3)
    np.testing.assert_allclose(data[1], value, atol=2e-3)


def test_of_a_hierarchy():
    """A pupil's is the mean of the marks. That of a class is what it would be with the pupils integrated out."""
    _, found = found_by(nested)
    check(found["below"], np.full(12, 5 / NOISE**2), Y.mean(1))
    each = 1 / (SD**2 + NOISE**2 / 5)
    check(found["above"], np.full(3, 4 * each), Y.reshape(3, 20).mean(1))


def test_of_an_image():
    """Of a site that is written non-centred by hand, they are of what the model makes of it."""
    _, found = found_by(by_hand)
    check(found["z"], np.full(12, 5 / NOISE**2), Y.mean(1))


def test_of_positive_values():
    """They are of the logarithm, which a scale shifts."""
    program, found = found_by(positive)
    check(found["rate"], np.full(12, 5 / NOISE**2), Y.mean(1))
    assert program.plan.scales == ("tau",)


@pytest.mark.parametrize(("model", "site"), [(process, "f"), (walk, "x"), (steps, "x")])
def test_of_vectors(model, site):
    _, found = found_by(model)
    check(found[site], np.full(12, NOISE**-2), Y[:, 0])


def test_sites_below_come_first():
    program, _ = found_by(nested)
    assert list(from_the_last(program)) == [["below"], ["above"]]


def test_no_curvature_makes_no_data_and_a_slope_alone_none_that_are_far():
    image, log_scale = np.zeros(5), np.zeros(5)
    precision, value = pseudo_data_of(
        image, log_scale, np.array([1.0, 1.0, 0.5, np.nan, -6.0]), np.array([4.0, -1.0, 1e-3, 1.0, 0.0])
    )
    np.testing.assert_allclose(precision, [4.0, 0.0, (0.5 / FARTHEST) ** 2, 0.0, 0.0])
    np.testing.assert_allclose(value[:2], [0.25, 0.0])
    assert abs(value[2]) * precision[2] ** 0.5 == pytest.approx(FARTHEST)


def test_a_scale_moves_to_where_the_pseudo_data_are_most_likely():
    """Against the evidence of independent normals, with the change to the logarithm; at most by one and a half."""
    program, _ = found_by(by_hand)
    place, rng = places_of(program)["tau"].start, np.random.default_rng(2)
    precision = rng.uniform(1.0, 9.0, 50)

    def moved(sd):
        value = rng.normal(size=50) * np.sqrt(sd**2 + 1 / precision)
        slope = np.zeros(program.start_size)
        slope[place] = 1.0
        site = Site(precision, value, np.zeros(50), np.zeros(50), slope)
        return value, rescaled(program, np.zeros(program.start_size), {"z": site})

    value, point = moved(2.0)
    grid = np.linspace(-1.5, 1.5, 3001)
    variance = np.exp(2 * grid[:, None]) + 1 / precision
    expected = grid[np.argmax(grid - 0.5 * (np.log(variance) + value**2 / variance).sum(1))]
    assert point[place] == pytest.approx(expected, abs=0.02) and np.count_nonzero(point) == 1
    assert moved(1e4)[1][place] == 1.5
