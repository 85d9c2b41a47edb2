"""Rows of tables: what a step does to those it sees, and that it leaves the others alone."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import autovi
from autovi.preparation import Options, prepare
from autovi.run.optimizer import Pace
from autovi.run.stopping import CHUNK, Progress

N, BATCH = 12, 3
Y = np.linspace(-2.0, 3.0, N).astype(np.float32)


def model(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("n", len(y), subsample_size=BATCH) as index:
        z = numpyro.sample("z", dist.Normal(mu, 1.0))
        numpyro.sample("y", dist.Normal(z, 0.5), obs=y[index])


@pytest.fixture(scope="module")
def engine():
    return prepare(model, {"y": Y}, Options())


def by_hand(transform, grads, steps, rate):
    """Rows updated one by one, each by an optimizer of its own: parameters, and the mean over a row's own visits."""
    params, means, visits = np.zeros(N), np.zeros(N), np.zeros(N, int)
    states = [transform.init(jnp.zeros(())) for _ in range(N)]
    for rows, grad in zip(steps, grads, strict=True):
        for row, g in zip(rows, grad, strict=True):
            update, states[row] = transform.update(jnp.asarray(g), states[row], jnp.asarray(params[row]))
            params[row] += -rate * float(update)
            visits[row] += 1
            means[row] += (params[row] - means[row]) / visits[row]
    return params, means


def stepped(engine, table, rows, grad, number, good=True):
    """The table after a step that saw these rows, with this gradient in every leaf."""
    site, optimizer = engine.program.node_site("z"), engine.optimizer
    indices = {"n": jnp.asarray(rows)}
    old = table.seen(site, indices)
    pace = Pace(jnp.float32(0.1), jnp.float32(number), jnp.float32(0.0))
    grads = {"loc": jnp.asarray(grad), "log_scale": jnp.zeros(BATCH)}
    return table.put(site, optimizer.step_rows(site, old, grads, pace, jnp.asarray(number), jnp.asarray(good)), indices)


def test_every_row_has_an_optimizer_of_its_own(engine):
    rng = np.random.default_rng(0)
    steps = [rng.choice(N, BATCH, replace=False) for _ in range(20)]
    grads = [rng.normal(size=BATCH).astype(np.float32) for _ in steps]
    params = {"loc": jnp.zeros(N), "log_scale": jnp.zeros(N)}
    table = engine[0].optimizer.init_table(engine[0].program.node_site("z"), params)
    for number, (rows, grad) in enumerate(zip(steps, grads, strict=True), start=1):
        table = stepped(engine[0], table, rows, grad, number)
    expected, means = by_hand(optax.scale_by_adam(), grads, steps, 0.1)
    np.testing.assert_allclose(table.rows.params["loc"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(table.rows.mean["loc"], means, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(table.rows.visits.times, np.bincount(np.concatenate(steps), minlength=N))


def test_a_step_leaves_unseen_rows_alone(engine):
    params = {"loc": jnp.arange(N) * 1.0, "log_scale": jnp.zeros(N)}
    table = engine[0].optimizer.init_table(engine[0].program.node_site("z"), params)
    rows = [2, 5, 7]
    seen = table.seen(engine[0].program.node_site("z"), {"n": jnp.array(rows)})
    np.testing.assert_array_equal(seen.params["loc"], [2.0, 5.0, 7.0])
    after = stepped(engine[0], table, rows, np.ones(BATCH, np.float32), 1)
    for tree in (after.rows.params, after.rows.mean):
        changed = np.asarray(tree["loc"]) != np.arange(N)
        np.testing.assert_array_equal(np.flatnonzero(changed), rows)
    np.testing.assert_array_equal(after.rows.memory.count, changed.astype(int))
    stayed = stepped(engine[0], table, rows, np.ones(BATCH, np.float32), 1, good=False)
    jax.tree.map(np.testing.assert_array_equal, stayed, table)


def test_local_posteriors_of_a_subsampled_plate():
    """Conjugate: every element's posterior, though a step sees a quarter of them."""
    fit = autovi.fit(model, {"y": Y}, num_steps=8000, progress_bar=False)
    # (mu, z) is jointly normal: precision of z given mu is 1 + 4, and mu's is 1 + N / (1 + 1 / 4).
    precision = 1 + N / 1.25
    mu = Y.sum() / 1.25 / precision
    draws = fit.sample(4000)
    assert draws["mu"].mean() == pytest.approx(mu, abs=0.1)
    # Mean field in z: the mean is right, the scale that of z given mu.
    np.testing.assert_allclose(draws["z"].mean(0), (mu + 4 * Y) / 5, atol=0.12)
    np.testing.assert_allclose(draws["z"].std(0), 5**-0.5, rtol=0.12)


def test_rows_of_an_estimator_are_seen_and_trained_alone():
    def model(y):
        with numpyro.plate("n", len(y), subsample_size=BATCH) as index:
            z = numpyro.sample("z", dist.Bernoulli(0.5))
            numpyro.sample("y", dist.Normal(z, 0.5), obs=y[index])

    options = Options(estimators={"z": {"estimator": "score", "baseline": "moving_average"}}, num_particles=1)
    engine, inputs = prepare(model, {"y": Y}, options)
    start, chunk = engine.compile(inputs.traced(), 0)
    state = start(inputs.traced(), 0)[0]
    assert state.estimators["z"].array.shape == (N,)
    schedule = Progress(1, 1).schedule(0)  # one step, and 99 of rate 0
    after, _ = chunk(state, inputs.traced(), schedule)
    assert np.count_nonzero(after.estimators["z"].array) == BATCH
    assert int(after.step) == 1 and CHUNK > 1
