"""Cases of docs/errors.md about saved fits: files that are no longer what was written, and fits without their data."""

import errors_page_models as m
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import autovi

OPTIONS = {"num_steps": 20, "num_draws": 10, "progress_bar": False}


def mixture(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    numpyro.deterministic("line", mu * y)
    with numpyro.plate("n", len(y)):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(mu + z, 1.0), obs=jnp.asarray(y))


def saved(folder, model=m.normal, **options):
    path = folder / "fit.autovi"
    autovi.fit(model, m.DATA, **OPTIONS).save(path, **options)
    return path


def truncated(tmp_path):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    autovi.load(path, m.normal)


def flipped(tmp_path):
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    autovi.load(path, m.normal)


def foreign(tmp_path):
    (tmp_path / "foreign.autovi").write_text("text")
    autovi.load(tmp_path / "foreign.autovi", m.normal)


def without_data(tmp_path):
    return autovi.load(saved(tmp_path), m.normal).elbo


def drawn_without_data(tmp_path):
    autovi.load(saved(tmp_path, mixture), mixture).sample(3)


def other_data(tmp_path):
    autovi.load(saved(tmp_path), m.normal, data={"y": m.Y + 1})


def data_twice(tmp_path):
    autovi.load(saved(tmp_path, with_data=True), m.normal, data=m.DATA)


CASES = {
    "a saved fit that is truncated, foreign, or of which a single bit has changed": [truncated, foreign, flipped],
    "what needs the data of a fit that was loaded without them": [without_data],
    "`sample` of such a fit whose model has sites that are summed out or computed from data": [drawn_without_data],
    "`autovi.load` with other data than those of the fit, or with data that the file holds": [other_data, data_twice],
}
