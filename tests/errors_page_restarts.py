"""Cases of docs/errors.md about restarts."""

import functools

import errors_page_models as m

import autovi


@functools.cache
def restarted():
    return autovi.fit(m.normal, m.DATA, num_restarts=2, num_steps=20, num_draws=50, progress_bar=False)


def loaded(tmp_path):
    restarted().save(tmp_path / "fit.autovi")
    autovi.load(tmp_path / "fit.autovi", m.normal).restarts.sample(10)


def alone():
    autovi.fit(m.normal, m.DATA, num_steps=20, num_draws=50, progress_bar=False).to_arviz(chains="restarts")


CASES = {
    '`chains="restarts"` of a fit without restarts': [alone],
    "weights of restarts that are no probabilities": [lambda: restarted().restarts.sample(10, weights=[1.0])],
    "draws of the restarts of a loaded fit": [loaded],
}
