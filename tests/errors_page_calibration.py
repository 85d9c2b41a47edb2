"""Cases of docs/errors.md about calibrations: models whose data cannot be simulated, and arguments."""

import errors_page_models as m
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import autovi

DATA = {"y": np.ones(4)}


def observing(obs, before=lambda y: 0.0, after=lambda mu: None):
    """A model whose prior mean and observations are made of its data."""

    def model(y=None):
        mu = numpyro.sample("mu", dist.Normal(before(y), 1.0))
        after(mu)
        with numpyro.plate("row", 4):
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=obs(y))

    return model


plain = observing(lambda y: y)


def twice(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    for name in ("y", "z"):
        numpyro.sample(name, dist.Normal(mu, 1.0).expand([4]).to_event(1), obs=y)


def counted(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0).expand([int(y.max()) + 1]).to_event(1))
    numpyro.sample("y", dist.Categorical(logits=mu).expand([4]).to_event(1), obs=y)


def with_parameter(y):
    numpyro.sample("y", dist.Normal(numpyro.param("mu", 0.0), 1.0).expand([4]).to_event(1), obs=y)


def stranger(y=None):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(z, 1.0).expand([4]).to_event(1), obs=y)


def calibrate(model=plain, data=DATA, **options):
    return lambda: autovi.calibrate(model, data, num_simulations=1, progress_bar=False, **options)


def of_another(tmp_path):
    calibrate(checkpoint=tmp_path)()
    calibrate(checkpoint=tmp_path, rng_key=1)()


def of_a_fit(tmp_path):
    autovi.fit(plain, DATA, num_steps=100, checkpoint=tmp_path, progress_bar=False)
    calibrate(checkpoint=tmp_path)()


CASES = {
    "`calibrate` without an observed site": [calibrate(observing(lambda y: None), None)],
    "`calibrate` with observations that are computed from an argument": [
        calibrate(observing(jnp.log)),
        calibrate(observing(lambda y: jnp.clip(y, 0.0, 5.0))),
    ],
    "`calibrate` where an observed argument has another part in the model": [
        calibrate(observing(lambda y: y, before=jnp.mean))
    ],
    "`calibrate` with observations that are not in the data, or at two sites": [
        calibrate(observing(lambda y: np.ones(4))),
        calibrate(twice),
    ],
    "`calibrate` of a model that needs the values of its observations, as a shape": [
        calibrate(counted, {"y": np.array([0, 1, 1, 0])})
    ],
    "`calibrate` of what cannot be drawn from: a factor, a parameter": [
        calibrate(observing(lambda y: y, after=lambda mu: numpyro.factor("more", -mu))),
        calibrate(with_parameter),
    ],
    "`calibrate` of a `LogDensity` (`TypeError`)": [
        calibrate(autovi.LogDensity(lambda p, y: -jnp.sum((y - p["mu"]) ** 2), {"mu": 0.0})),
    ],
    "`calibrate` with another's folder": [of_another, of_a_fit],
    "`calibrate` with a `generator` that has no site of the model": [calibrate(generator=stranger)],
    "`calibrate` with `observed`, `sites`, `level` or a name in `quantities` that cannot be": [
        calibrate(observed={"z": "y"}),
        calibrate(data=None, observed={"y": "z"}),
        calibrate(sites=["z"]),
        calibrate(quantities={"mu": m.normal}),
        calibrate(level=2),
    ],
    "`quantities` that are no functions by name (`TypeError`)": [
        calibrate(quantities=["mu"]),
        calibrate(quantities={"mu": 1}),
    ],
    "an option that neither `calibrate` nor `fit` has (`TypeError`)": [calibrate(steps=3)],
}
