"""A state moves from plan to plan, and q stays what it is."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from autovi.preparation import Options, prepare
from autovi.run.loop import make_chunk
from autovi.run.stopping import CHUNK, Progress

Y = np.array([0.5, 1.0, 1.5, 3.0], np.float32)
KEY = jax.random.key(5)


def model(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    with numpyro.plate("n", 4):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        on = numpyro.sample("on", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(theta + on, 1.0), obs=y)


def engine_of(**options):
    return prepare(model, {"y": Y}, Options(**options))


@pytest.fixture(scope="module")
def fitted():
    """A mean-field fit after some steps, with a score site whose baseline has learned something."""
    score = {"on": {"estimator": "score", "baseline": "moving_average"}}
    engine, inputs = engine_of(guide="mean_field", estimators=score)
    start, chunk = engine.compile(inputs.traced(), 0)
    state = start(inputs.traced(), 0)[0]
    for i in range(2):
        state, _ = chunk(state, inputs.traced(), Progress(300, 300).schedule(i * CHUNK))
    return engine, inputs, jax.tree.map(jnp.asarray, state)


def log_q(engine, params, constants, values):
    """log q of unconstrained values by site (indices for discrete ones), all blocks together."""
    total = 0.0
    distributions = engine.program.blocks.distributions(params["guide"], constants)
    for block in engine.program.plan.blocks:
        parts = [jnp.ravel(values[s]) for s in block.sites]
        value = jnp.concatenate(parts) if block.flat else values[block.name]
        total += jnp.sum(distributions[block.name].log_prob(value))
    return float(total)


VALUES = [
    {"mu": jnp.float32(m), "tau": jnp.float32(t), "theta": jnp.linspace(m, t, 4), "on": jnp.array([0, 1, 1, 0])}
    for m, t in ((0.3, -0.5), (1.4, 0.2), (-0.7, 0.6))
]


def assert_same_q(old, state, new, moved):
    for params, others in ((state.params, moved.params), (state.average, moved.average)):
        for values in VALUES:
            before = log_q(old, params, state.constants, values)
            after = log_q(new, others, moved.constants, values)
            assert after == pytest.approx(before, abs=2e-4)


def test_growing_from_mean_field_to_full_rank(fitted):
    old, _, state = fitted
    new, _ = engine_of(guide="full_rank", estimators={"on": {"estimator": "score", "baseline": "moving_average"}})
    assert {b.family.name for b in new.program.plan.blocks} == {"full_rank", "bernoulli"}
    moved = state.moved_to(new.program, old.program, new.optimizer, KEY)
    assert_same_q(old, state, new, moved)
    # What the plans share is kept: the block, its estimator's baseline, the optimizer's memory of it, the counters.
    np.testing.assert_array_equal(moved.params["guide"]["on"]["logits"], state.params["guide"]["on"]["logits"])
    jax.tree.map(np.testing.assert_array_equal, moved.estimators, state.estimators)
    assert (np.concatenate([np.ravel(x) for x in jax.tree.leaves(moved.estimators)]) != 0).all()
    assert int(moved.step) == int(state.step) == 2 * CHUNK


def test_the_optimizer_remembers_the_blocks_that_stay(fitted):
    old, _, state = fitted
    new, _ = engine_of(guide="full_rank", estimators={"on": "score"})
    moved = state.moved_to(new.program, old.program, new.optimizer, KEY)
    before, after = (np.asarray(of.optimizer.mu["guide"]["on"]["logits"]) for of in (state, moved))
    assert np.abs(before).max() > 0 and int(moved.optimizer.count) == 2 * CHUNK
    np.testing.assert_array_equal(after, before)
    assert np.abs(np.asarray(moved.optimizer.mu["guide"]["joint"]["loc"])).max() == 0  # made of other blocks


def test_an_estimator_is_swapped(fitted):
    old, _, state = fitted
    new, _ = engine_of(guide="mean_field", estimators={"on": "enumerate"})
    moved = state.moved_to(new.program, old.program, new.optimizer, KEY)
    jax.tree.map(np.testing.assert_array_equal, moved.params, state.params)
    jax.tree.map(np.testing.assert_array_equal, moved.optimizer, state.optimizer)
    assert moved.estimators == {} and old.program.plan["on"].estimator == "score"


def mapped(engine):
    """The same plan with a fixed map before its joint block."""
    plan = engine.program.plan
    blocks = tuple(replace(b, map=True) if b.flat else b for b in plan.blocks)
    return replace(engine, program=replace(engine.program, plan=replace(plan, blocks=blocks)), **functions(engine))


def functions(engine):
    return {"model": model, "guide_function": None, "_jitted": {}}


@pytest.fixture(scope="module")
def whitened(fitted):
    old, inputs, state = fitted
    plain, _ = engine_of(guide="full_rank", estimators={"on": "enumerate"})
    new = mapped(plain)
    (block,) = (b for b in new.program.plan.blocks if b.flat)
    rng = np.random.default_rng(0)
    scale_tril = np.tril(rng.normal(size=(6, 6)) * 0.3, -1) + np.diag(rng.uniform(0.5, 2.0, 6))
    shift = jnp.asarray(rng.normal(size=6), jnp.float32)
    constants = {block.name: {"loc": shift, "scale_tril": jnp.asarray(scale_tril, jnp.float32)}}
    return old, state, new, state.moved_to(new.program, old.program, new.optimizer, KEY, constants), inputs


def test_a_map_is_put_before_a_block(whitened):
    old, state, new, moved, _ = whitened
    assert_same_q(old, state, new, moved)


def test_a_mapped_block_is_trained_and_its_map_is_not(whitened):
    _, _, new, moved, inputs = whitened
    before = jax.tree.map(np.asarray, (moved.params, moved.constants))
    chunk = make_chunk(new.program, new.source, new.optimizer)
    # A chunk takes over the memory of its state.
    after, losses = chunk(jax.tree.map(jnp.copy, moved), inputs.traced(), Progress(300, 300).schedule(0))
    assert np.isfinite(losses).all() and int(after.skipped) == 0
    jax.tree.map(np.testing.assert_array_equal, after.constants, before[1])
    changed = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), after.params, before[0])
    assert any(jax.tree.leaves(changed))


def test_what_a_family_cannot_hold_is_refused(fitted):
    old, _, state = fitted
    full, _ = engine_of(guide="full_rank", estimators={"on": "enumerate"})
    grown = state.moved_to(full.program, old.program, full.optimizer, KEY)
    mean_field, _ = engine_of(guide="mean_field", estimators={"on": "enumerate"})
    with pytest.raises(ValueError, match="block 'joint': family 'normal' does not hold"):
        grown.moved_to(mean_field.program, full.program, mean_field.optimizer, KEY)
