"""Which arguments are observed, what is simulated in their place, and which models are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from numpyro.contrib.control_flow import scan

import autovi
from autovi.calibration.generating import generating
from autovi.calibration.simulating import Simulator

X = np.array([1.0, 2.0, 3.0])
KEY = jax.random.key(0)


def simulator(model, data, told=None, allow_nan=()):
    return Simulator(generating(model, data, allow_nan, told or {}, KEY), KEY)


def simulations(model, data, count=200, **more):
    return list(simulator(model, data, **more).each(range(count)))


def line(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0.0, 2.0))
    with numpyro.plate("row", len(x)):
        mean = numpyro.deterministic("mean", slope * x)
        numpyro.sample("y", dist.Normal(mean, 0.1), obs=y)


def places(model, data, **more):
    made = simulator(model, data, **more).made
    return {(found.argument, found.site): (found.at.tolist(), found.of.tolist()) for found in made.observed}


# --- where observations lie ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        {"x": X, "y": np.zeros(3)},
        (X, [0, 1, 0]),
        {"x": X, "y": np.array([True, False, True])},
        {"x": X, "y": None},
        (X,),
    ],
    ids=["floats", "a tuple, integers", "booleans", "None", "left out"],
)
def test_the_observed_argument_is_found(data):
    assert places(line, data) == {("y", "y"): ([0, 1, 2], [0, 1, 2])}
    made = simulations(line, data)
    y = np.stack([s.inputs.arrays["y"] for s in made])
    slope = np.array([s.truth["slope"] for s in made])
    assert y.dtype.kind == "f" and all(np.array_equal(s.inputs.arrays["x"], X) for s in made)
    # y / x is the slope up to an error of 0.1 / x.
    assert np.abs(y / X - slope[:, None]).max() < 0.5 and 1.5 < slope.std() < 2.5
    assert set(made[0].truth) == {"slope", "mean"}


def test_a_name_that_differs_can_be_told():
    def model(counts=None):
        rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
        numpyro.sample("y", dist.Poisson(rate), obs=counts)

    assert places(model, None, told={"counts": "y"}) == {("counts", "y"): ([0], [0])}
    assert np.shape(simulations(model, {}, 1, told={"counts": "y"})[0].inputs.arrays["counts"]) == ()
    with pytest.raises(ValueError, match="data: no site of the model is observed with these data"):
        autovi.calibrate(model)
    with pytest.raises(
        ValueError, match=r"observed\['counts'\]: no site is called 'z'; expected one of \['rate', 'y'\]"
    ):
        autovi.calibrate(model, observed={"counts": "z"})
    with pytest.raises(ValueError, match=r"observed: no argument of the model is called 'k'; expected .*counts"):
        autovi.calibrate(model, observed={"k": "y"})


def test_parts_of_arguments_in_other_shapes():
    """A row to a site each, turned round; a column that is no observation stays what it is."""

    def model(table):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        for i in range(2):
            numpyro.sample(f"y{i}", dist.Normal(mu, 1.0).expand([3]).to_event(1), obs=table[i, 2::-1])

    table = np.arange(8.0).reshape(2, 4)
    assert places(model, {"table": table}) == {
        ("table", "y0"): ([2, 1, 0], [0, 1, 2]),
        ("table", "y1"): ([6, 5, 4], [0, 1, 2]),
    }
    made = simulations(model, {"table": table}, 2)
    for s in made:
        assert s.inputs.arrays["table"][:, 3].tolist() == [3.0, 7.0]
    assert len({*np.concatenate([s.inputs.arrays["table"][:, :3].ravel() for s in made]).tolist()}) == 12


def test_a_column_of_a_frame():
    def model(df):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        with numpyro.plate("row", len(df["x"])):
            numpyro.sample("y", dist.Normal(a * df["x"], 1.0), obs=df["y"])

    frame = pd.DataFrame({"x": X, "y": [1, 2, 3], "group": pd.Categorical(["a", "b", "a"])})
    assert places(model, {"df": frame}) == {("df['y']", "y"): ([0, 1, 2], [0, 1, 2])}


def test_a_model_that_needs_values_of_its_data_has_one_program():
    def model(group, y):
        with numpyro.plate("groups", int(group.max()) + 1):
            mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("row", len(y)):
            numpyro.sample("y", dist.Normal(mu[group], 1.0), obs=y)

    made = simulator(model, {"group": np.array([0, 1, 1]), "y": np.zeros(3)}).made
    assert not made.inputs.concrete and list(made.inputs.arrays) == ["y"]

    def of_y(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0).expand([int(y.max()) + 1]).to_event(1))
        numpyro.sample("y", dist.Categorical(logits=mu).expand([3]).to_event(1), obs=y)

    with pytest.raises(ValueError, match="data: the model reads the values of what it observes"):
        simulator(of_y, {"y": np.array([0, 1, 1])})


def test_a_subsampled_plate_is_simulated_whole():
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        with numpyro.plate("row", 6, subsample_size=2) as i:
            numpyro.sample("y", dist.Normal(mu, 0.1), obs=y[i])

    for s in simulations(model, {"y": np.zeros(6)}, 20):
        assert np.ptp(s.inputs.arrays["y"]) < 1 and abs(s.inputs.arrays["y"].mean() - s.truth["mu"]) < 0.3


def test_a_series_goes_on_from_its_draws():
    """A scan in which the next step reads what was sampled: the spread of a random walk grows."""

    def model(y):
        drift = numpyro.sample("drift", dist.Normal(0.0, 0.1))

        def step(before, now):
            after = numpyro.sample("y", dist.Normal(before + drift, 1.0), obs=now)
            return after, after

        scan(step, 0.0, y)

    last = np.array([s.inputs.arrays["y"][-1] for s in simulations(model, {"y": np.zeros(25)}, 300)])
    # Variance 25 + 25^2 / 100: a standard error of 8 %.
    assert 0.6 < last.var() / 31.25 < 1.5


def test_each_simulation_has_a_key_of_its_own():
    few, more = simulations(line, {"x": X}, 3), simulations(line, {"x": X}, 70)
    for one, other in zip(few, more, strict=False):
        np.testing.assert_array_equal(one.inputs.arrays["y"], other.inputs.arrays["y"])
    assert len({float(s.truth["slope"]) for s in more}) == 70


def test_missing_observations_are_part_of_the_truth():
    def model(seen, y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("row", 3):
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y, obs_mask=seen)

    (made,) = simulations(model, {"seen": np.array([True, False, True]), "y": np.zeros(3)}, 1)
    assert made.arguments == ("y",) and set(made.truth) == {"mu", "y_unobserved"}


# --- what is refused -------------------------------------------------------------------------------------------------


def transformed(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mu, 1.0).expand([3]).to_event(1), obs=jnp.log(y))


def cut_off(y):
    """Which no two values of the data show, but draws do."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mu, 1.0).expand([3]).to_event(1), obs=jnp.clip(y, 0.0, 9.0))


def in_the_prior(y):
    mu = numpyro.sample("mu", dist.Normal(y.mean(), 1.0))
    numpyro.sample("y", dist.Normal(mu, 1.0).expand([3]).to_event(1), obs=y)


def autoregression(y):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(a * y[:-1], 1.0).to_event(1), obs=y[1:])


def twice(y):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    for name in ("one", "two"):
        numpyro.sample(name, dist.Normal(a, 1.0).expand([3]).to_event(1), obs=y)


def enclosed(y):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(a, 1.0).expand([3]).to_event(1), obs=jnp.concatenate([y[:2], jnp.zeros(1)]))


def with_factor(y):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.factor("more", -a)
    numpyro.sample("y", dist.Normal(a, 1.0).expand([3]).to_event(1), obs=y)


def with_parameter(y):
    a = numpyro.param("a", 1.0)
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(a + b, 1.0).expand([3]).to_event(1), obs=y)


def improper(y):
    a = numpyro.sample("a", dist.ImproperUniform(dist.constraints.real, (), ()))
    numpyro.sample("y", dist.Normal(a, 1.0).expand([3]).to_event(1), obs=y)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (transformed, "site 'y': its observations are computed from the argument 'y'"),
        (cut_off, "site 'y': with its own draws as data it observes other values"),
        (in_the_prior, r"site 'mu': it is drawn from observations \(of 'y'\) as they are passed"),
        (autoregression, r"site 'y': it is drawn from observations \(of 'y'\) as they are passed"),
        (twice, "data: 'y' is the observation of sites 'one' and 'two'"),
        (enclosed, "site 'y': 1 observation of 3 are not among the arguments"),
        (with_factor, "site 'more': a factor is a term of the density that cannot be drawn from"),
        (with_parameter, r"site 'a': a parameter \(numpyro.param\) has no prior"),
        (improper, "site 'a': ImproperUniform has no sampler"),
    ],
)
def test_what_does_not_say_how_its_data_come_about_is_refused(model, said):
    with pytest.raises(ValueError, match=said):
        autovi.calibrate(model, {"y": np.array([1.0, 2.0, 3.0])}, progress_bar=False)


def test_a_density_alone_needs_a_generator():
    target = autovi.LogDensity(lambda p, x, y: -jnp.sum((y - p["slope"] * x) ** 2), {"slope": 0.0})
    with pytest.raises(TypeError, match="model: a LogDensity is a density alone"):
        autovi.calibrate(target, {"x": X, "y": X})


def test_a_deterministic_site_of_the_observations_has_no_truth():
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.deterministic("error", y - mu)
        numpyro.sample("y", dist.Normal(mu, 1.0).expand([3]).to_event(1), obs=y)

    made = simulator(model, {"y": np.zeros(3)})
    assert set(next(made.each([0])).truth) == {"mu"} and made.varying == {"error"}
