"""docs/errors.md, message by message: every row of its tables has a case here that brings the message about."""

import functools
import pickle
import re
import signal
import sys
import warnings
from pathlib import Path

import errors_page_calibration
import errors_page_checkpoints
import errors_page_data
import errors_page_handover
import errors_page_models as m
import errors_page_restarts
import errors_page_saved
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer import NUTS, SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from tqdm import tqdm

import autovi

PAGE = Path(__file__).resolve().parents[1] / "docs" / "errors.md"
QUOTE = re.compile(r"``(.+?)``(?!`)|`([^`]+)`")
NAN = np.array([1.0, 1.0, np.nan, 1.0])


def rows():
    """First cell -> second, of every table of the page."""
    cells = [line.strip("| \n").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return {first: second for first, second in cells if first not in ("Input", "What happens")}


def quotes(cell):
    """The messages that a cell quotes, as patterns: the dots stand for anything."""
    found = [(double or single).strip() for double, single in QUOTE.findall(re.sub(r"\]\([^)]*\)", "]", cell))]
    return [".*".join(re.escape(part.strip()) for part in quote.split("…")) for quote in found]


# --- how messages are brought about ---------------------------------------------------------------------------------


def said(call):
    """The messages of an error, or of the warnings, that a call makes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            call()
        except Exception as error:
            return [f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])]
    assert caught, "neither an error nor a warning"
    return [str(w.message) for w in caught]


def plan(model=m.normal, data=m.DATA, **options):
    return lambda: autovi.plan(model, data, **options)


def fit(model=m.normal, data=m.DATA, num_steps=5, **options):
    return lambda: autovi.fit(model, data, num_steps=num_steps, num_draws=10, progress_bar=False, **options)


def used(*names):
    return [plan(m.using(m.USES[name])) for name in names]


@functools.cache
def fitted():
    return fit()()


@functools.cache
def fitted_columns():
    return fit(m.of_columns, {"x": np.ones((4, 3)), "y": m.Y})()


def run(model, data=m.DATA, **options):
    """How a fit ends."""

    def call():
        result = fit(model, data, **options)()
        raise ValueError(f"{result.status}: {result.message}")

    return call


def interrupted():
    class Bar(tqdm):
        interrupted = False

        def update(self, n=1):
            if not Bar.interrupted:
                Bar.interrupted = True
                signal.raise_signal(signal.SIGINT)
            return super().update(n)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autovi.run.loop.tqdm", Bar)
        result = autovi.fit(m.normal, m.DATA, num_steps=50_000)
    raise ValueError(f"{result.status}: {result.message}")


ASKED = {"estimators": {"*": "enumerate"}}
IMPOSSIBLE, COUPLED = [fit(m.impossible, **ASKED)], [run(m.coupled, num_steps=None, **ASKED)]
LEVEL = 1.0


def changed():
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(LEVEL, 1.0))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y[0])

    result = fit(model)()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{__name__}.LEVEL", 2.0)
        return result.elbo


def saved(folder):
    path = folder / "fit.autovi"
    fitted().save(path, with_data=True)
    return path


def with_another_optimizer(tmp_path):
    fit(optimizer=optax.adam(0.01))().save(tmp_path / "adam.autovi", with_data=True)
    autovi.load(tmp_path / "adam.autovi", m.normal, optimizer=optax.sgd(0.01))


def linked():
    fit(m.with_function, {"y": m.Y, "link": lambda y: y})().save("link.autovi", with_data=True)


def not_pickled():
    result = fit(lambda y: m.normal(y))()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cloudpickle", None)
        pickle.dumps(result)


def forked():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autovi.process._FORK.lost_threads", True)  # as a fork would find it; see test_process.py
        autovi.plan(m.normal, m.DATA)


def of_other_precision():
    content = pickle.dumps(fitted())
    with jax.enable_x64(True):
        pickle.loads(content)


COUNTS = np.array([7, 9, 12, 5, 8])
COLUMNS = {"x": np.ones((4, 3)), "y": m.Y}
WRONG_COUNTS = ["num_steps", "max_steps", "num_draws", "num_restarts", "num_particles", "batch_size"]

# First cell of the row -> calls; together they say all that the row quotes. A function of the folder `tmp_path` too.
CASES = {
    **errors_page_data.CASES,
    # The data
    "NaN or infinite data, nested or not": [plan(data={"y": NAN})],
    "integers or numbers beyond 32 bits, without `jax_enable_x64`": [plan(data={"y": np.array([1, 2, 3, 2**40])})],
    "NaN as a number that is no array": [plan(m.of_scalars, {"y": 1.0, "scale": float("nan")})],
    "a key that the model does not take, or a missing one": [plan(m.of_columns, {"x": np.ones((4, 3)), "q": m.Y})],
    "data that is neither dict, tuple nor None (`TypeError`)": [plan(data=m.Y)],
    "numbers that vanish in 32 bits, such as 1e-50": [plan(data={"y": np.array([1e-50, 1.0, 2.0, 3.0])})],
    "an argument that is None, where the model computes with it: in the fit, or in `predict` without `y`": [
        plan(m.halved, {"x": m.Y}),
        lambda: fit(m.halved, {"x": m.Y, "y": m.Y})().predict({"x": m.Y}),
    ],
    # The model
    "a model that is no function (`TypeError`)": [plan(3)],
    "a model under `jax.jit`, `jax.vmap` or the like (`TypeError`)": [
        plan(jax.jit(m.normal)),
        plan(functools.partial(jax.jit(m.normal), y=m.Y), None),
        plan(numpyro.handlers.scale(jax.jit(m.normal), 2.0)),
    ],
    "a class (`TypeError`)": [plan(m.Model)],
    "a generator function, or an async one (`TypeError`)": [plan(m.generator), plan(m.asynchronous)],
    "`NUTS(model)`, `MCMC`, `SVI`, `Predictive` (`TypeError`)": [
        plan(NUTS(m.normal)),
        plan(SVI(m.normal, AutoNormal(m.normal), numpyro.optim.Adam(0.1), Trace_ELBO())),
        plan(Predictive(m.normal, num_samples=1)),
    ],
    "an AutoGuide in the place of the model (`TypeError`)": [plan(AutoNormal(m.normal))],
    "a model that returns before its first site": [plan(m.returns_early)],
    "no latent site": [plan(m.all_observed)],
    "no observed site, or `obs` forgotten": [plan(m.unobserved)],
    "a model that draws from NumPy's or Python's global random numbers": [plan(m.random)],
    "sites inside of a function under `jax.jit`, `jax.vmap`, `jax.lax.scan`": [plan(m.jitted_inside)],
    "a site whose name is no string": [plan(m.numbered)],
    "a site name that appears twice": [plan(m.twice)],
    "a site named like a plate or a parameter": [plan(m.like_a_plate)],
    "two site names with one hash, which would draw the same numbers": [plan(m.one_hash)],
    "one plate name with two sizes": [plan(m.two_sizes)],
    "a plate inside of itself": [plan(m.plated(4, 4, names="nn"))],
    "two plates along one dimension": [plan(m.plated(4, 4, dims=(-1, -1)))],
    "a plate of another size than its data": [plan(m.plated(5))],
    "other shapes that do not go together": [
        plan(m.without_plate),
        plan(errors_page_data.unequal, {"x": m.Y, "y": np.ones(5)}),
    ],
    "indices in the data beyond what they index, such as groups counted from 1": [
        plan(m.grouped, {"g": np.arange(1, 5), "y": m.Y})
    ],
    "arrays that do not broadcast": [plan(m.not_broadcast)],
    "rows of a batch that meet: a mean, a rank, a neighbour within the batch": [plan(m.rows_that_meet)],
    "a plate that is subsampled inside of a scan": [plan(m.sequences, {"y": np.zeros((4, 6)), "size": 3})],
    "NumPy, or `math`, on a latent site": used("numpy", "math"),
    "Python `if`": used("if"),
    "`a if z > 0 else b`; `0 < z < 1`; `and`, `or`, `not`": used("chosen", "chained", "and"),
    "`while`": used("while"),
    "`float(z)`, `int(z)`, `z.item()`": used("float", "int", "item"),
    "`range(z)`": used("range"),
    "`x[z > 0]`": used("masked"),
    "a list or a NumPy array indexed by a latent site, or by a plate's indices": used("table"),
    "`x[0] = z`, `x[0] += z`": used("in place", "added in place"),
    "a shape that would depend on a latent site": used("shape"),
    "a parameter outside of what its distribution allows": [plan(m.of_scalars, {"y": 1.0, "scale": -1.0})],
    "the same, where it depends on the latent sites or comes with the data": [
        fit(m.scaled_by, {"y": m.Y, "scale": -np.ones(4)})
    ],
    "a log density that is finite at none of the ten starting points for another reason": [fit(m.not_finite)],
    "discrete sites, not summed out, of which some values together have probability zero, at every start": IMPOSSIBLE,
    "observations outside the support (masked ones may be)": [fit(m.counts, {"y": np.array([0, -1, 2])})],
    "the same, where a latent site is the bound: a latent number of trials": [fit(m.latent_trials, {"y": COUNTS})],
    "the same, where the latent bound is continuous": [fit(m.below, {"y": np.array([50.0, 100.0, 200.0])})],
    "mutable state (`numpyro.mutable`)": [plan(m.mutable)],
    "a ValueError or TypeError of the model's own": [plan(m.raises(ValueError("boom")))],
    "another exception of the model's own": [plan(m.raises(KeyError("boom")))],
    # The arguments
    "a site or glob that matches nothing (an observed site does not)": [plan(estimators={"q": "score"})],
    "an unknown family, estimator or baseline, also in `infer`": [
        plan(families={"mu": "gaussian"}),
        plan(m.asked(estimator="reinforce")),
        plan(estimators={"mu": {"baseline": "nn"}}),
    ],
    "an unknown guide or objective": [plan(guide="meanfield"), fit(objective="elbow")],
    "`families` or `estimators` that is no dict (`TypeError`)": [plan(families="normal")],
    '`infer={"autovi": …}` with an unknown key': [plan(m.asked(familly="normal"))],
    "a family or estimator that would be wrong": [plan(families={"mu": "gamma"})],
    "a biased estimator without `allow_bias=True`": [plan(m.switched, estimators={"z": "concrete"})],
    "one that relaxes a categorical site whose integers are mixed over elements": [
        plan(m.summed_indices, {}, estimators={"z": "rebar"})
    ],
    "a baseline for an estimator without one": [plan(estimators={"mu": {"estimator": "explicit", "baseline": "none"}})],
    "a guide that is neither a name, a function nor an AutoGuide (`TypeError`)": [plan(guide=3)],
    "an AutoGuide's class, not an instance (`TypeError`)": [plan(guide=AutoNormal)],
    "an AutoGuide that was made for another model": [plan(guide=AutoNormal(m.other))],
    "a guide site that the model lacks or observes": [plan(guide=m.guide_of("nu", dist.Normal()))],
    "a latent site that the guide lacks": [plan(guide=lambda y: None)],
    "a guide site of another shape than the model's": [
        plan(guide=m.guide_of("mu", dist.Normal().expand([3]).to_event(1)))
    ],
    "a guide site drawn outside of the model's subsampled plate": [
        plan(m.local, guide=m.guide_of("z", dist.Normal().expand([2])))
    ],
    "a guide site drawn from outside the model's support": [plan(m.positive, guide=m.guide_of("z", dist.Normal()))],
    "`num_steps`, `max_steps`, `num_draws`, `num_restarts`, `num_particles`, `batch_size` that is no integer of at "
    "least 1": [lambda name=name: autovi.fit(m.normal, m.DATA, **{name: 0}) for name in WRONG_COUNTS],
    "fewer particles than a baseline needs": [plan(m.switched, estimators={"z": "score"}, num_particles=1)],
    "a `batch_size` larger than its plate, or for no plate": [plan(batch_size=9), plan(batch_size={"m": 2})],
    "an `rng_key` that is neither an integer of 32 bits nor a JAX key": [fit(rng_key=1.5)],
    "a `callback` that is no function (`TypeError`)": [fit(callback=3), lambda: fitted().resume(5, callback=3)],
    "an optimizer given as a name or as a learning rate (`TypeError`)": [fit(optimizer="adam"), fit(optimizer=0.01)],
    "NumPyro's optimizers, Optax's functions not called, schedules (`TypeError`)": [
        fit(optimizer=numpyro.optim.Adam(0.1)),
        fit(optimizer=optax.adam),
        fit(optimizer=optax.exponential_decay(0.1, 10, 0.9)),
    ],
    "an optimizer that needs more than gradients (`TypeError`)": [fit(optimizer=optax.lbfgs())],
    **errors_page_checkpoints.CASES,
    **errors_page_calibration.CASES,
    # During the run
    "some steps are not finite": [run(m.root(0.0, 0.45), None, num_steps=200)],
    "the cost is finite and its gradient is not": [run(m.rooted, num_steps=None, learning_rate=0.05)],
    "discrete sites of the guide that meet in the model": COUPLED,
    "more than half of them, or the last one": [run(m.root(3.0, 0.5), None, num_steps=100)],
    "nine in ten of 1,000 are not finite": [run(m.rooted, num_steps=None, learning_rate=0.05)],
    "the support of a likelihood moves with a parameter and can leave an observation behind": [
        run(m.below, {"y": np.array([0.5, 1.0, 2.0])}, num_steps=100)
    ],
    "Ctrl-C": [interrupted],
    # After the fit
    "a global or closure that the model reads has changed since the fit": [changed],
    "`predict` with other columns than the fit had": [lambda: fitted_columns().predict({"x": np.ones((4, 2))})],
    "a model that draws from a random generator of its own, or reads the clock": [
        lambda: fit(m.random_of_its_own)().elbo,
        lambda: fit(m.timed)().elbo,
    ],
    "`save` into a folder that is not there (`FileNotFoundError`), or to the path of a folder (`IsADirectoryError`)": [
        lambda: fitted().save("runs/fit.autovi", with_data=True),
        lambda tmp_path: fitted().save(tmp_path, with_data=True),
    ],
    "`autovi.load` of a file that is not there (`FileNotFoundError`)": [lambda: autovi.load("fit.autovi", m.normal)],
    "a model that pickle cannot take, without cloudpickle (`pickle.PicklingError`)": [not_pickled],
    "anything that computes, in a process that was forked after JAX was used (`RuntimeError`)": [forked],
    "a fit that comes to a process where `jax_enable_x64` is another": [of_other_precision],
    **errors_page_saved.CASES,
    **errors_page_handover.CASES,
    **errors_page_restarts.CASES,
    "a saved fit with an optimizer that is not the one it had": [with_another_optimizer],
    "a saved fit of another model": [lambda tmp_path: autovi.load(saved(tmp_path), m.twice)],
    "a fit whose data hold what a file cannot": [linked],
    "an unknown group of `to_arviz`": [lambda: fitted().to_arviz(groups=["likelihood"])],
    "`groups` of predictions without new data": [lambda: fitted().to_arviz(groups=["predictions"])],
}


def test_every_row_has_a_case():
    assert sorted(rows()) == sorted(CASES)


@pytest.mark.parametrize("row", CASES)
def test_what_is_said(row, tmp_path, monkeypatch):
    quoted = quotes(rows()[row])
    assert quoted, "the row quotes no message"
    monkeypatch.chdir(tmp_path)
    calls = [functools.partial(c, tmp_path) if c.__code__.co_varnames[:1] == ("tmp_path",) else c for c in CASES[row]]
    messages = ["\n".join(said(call)) for call in calls]
    for pattern in quoted:
        assert any(re.search(pattern, text, re.DOTALL) for text in messages), (pattern, messages)
    for text in messages:
        assert any(re.search(pattern, text, re.DOTALL) for pattern in quoted), (text, quoted)
        assert text.startswith("TypeError") == ("`TypeError`" in row)


def test_cells_are_read_right():
    assert quotes("a warning: `x: … y`; ``write `jnp.exp(z)` ``") == [r"x:.*y", re.escape("write `jnp.exp(z)`")]
    assert len(rows()) > 80


# --- the user's own line --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", sorted(m.USES))
def test_the_user_s_line_is_the_last(use):
    (message,) = said(used(use)[0])[:1]
    file, source = message.splitlines()[-2:]
    assert "errors_page_models.py" in file and ", in " in file
    assert source.strip() in Path(m.__file__).read_text()
    assert "jax/_src" not in message and "Traced<" not in message


def test_the_line_of_a_site_is_the_last():
    for model, line in (
        (m.plated(5), 'numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)'),
        (m.like_a_plate, 'with numpyro.plate("n", 4):'),
        (m.latent_trials, 'numpyro.sample("y", dist.Binomial(n, 0.4), obs=y)'),
    ):
        (message,) = said(fit(model, {"y": COUNTS if model is m.latent_trials else m.Y}))
        assert message.splitlines()[-1].strip() == line


def test_frames_of_jax_are_left_out_unless_jax_is_told_to_show_them():
    def chained():
        with pytest.raises(ValueError) as caught:
            used("numpy")[0]()
        return caught.value.__cause__

    assert chained() is None
    before = jax.config.jax_traceback_filtering
    try:
        jax.config.update("jax_traceback_filtering", "off")
        assert isinstance(chained(), jax.errors.TracerArrayConversionError)
    finally:
        jax.config.update("jax_traceback_filtering", before)


# --- what the messages advise is right ------------------------------------------------------------------------------


def test_bounds_that_are_constants_are_told_from_bounds_that_move():
    def truncated_normal(y):
        mu = numpyro.sample("mu", dist.Normal())
        with numpyro.plate("n", 3):
            numpyro.sample("y", dist.TruncatedNormal(mu, 1.0, low=0.0, high=10.0), obs=y)

    (message,) = said(fit(truncated_normal, {"y": np.array([5.0, 100.0, 2.0])}))
    assert "such as 100 at (1,); check the data" in message and "bound of" not in message
