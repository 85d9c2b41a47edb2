"""The benchmark of accelerators at toy size, its budget of time, and that its programs solve the same problem."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.infer.util import log_density

from benchmarks import accelerator, autoencoder
from benchmarks.problem import NUM_COLUMNS, NUM_DIMENSIONS, NUM_GROUPS, log_joint, model, simulate
from benchmarks.timing import Budget, alternating, slope
from examples.digits_vae import BATCH, LATENTS, digits, encoder, programs

CONTENDERS = ["by hand", "NumPyro", "autovi"]


@pytest.fixture
def clock():
    """`clock()` is a time that stands still but for `clock.add`."""

    class Clock:
        now = 0.0

        def add(self, seconds: float) -> None:
            self.now += seconds

        def __call__(self) -> float:
            return self.now

    return Clock()


@pytest.mark.slow
def test_the_whole_benchmark_at_toy_size(tmp_path, capsys):
    arguments = ["--toy", "--particles", "2", "--cases", "Gamma(5)", "VonMises(2)", "--output", str(tmp_path)]
    assert accelerator.main(arguments) == 0
    results = json.loads((tmp_path / "accelerator.json").read_text())["results"]
    assert results["missing"] == {}
    assert results["copy_bytes_per_second"] > 0
    for found in (results["steps"]["2"], results["autoencoder"]):
        assert list(found) == CONTENDERS
        # They move about the same: none of them counts another program, or the whole run for one step.
        assert max(r["bytes"] for r in found.values()) < 2.5 * min(r["bytes"] for r in found.values())
        assert all([len(times) for times in r["times"]] == [3, 3] for r in found.values())
    losses = [r["loss"] for r in results["autoencoder"].values()]
    np.testing.assert_allclose(losses, losses[0], rtol=0.1)  # few steps from the same weights, other batches
    assert set(results["draws"]["Gamma(5)"]) == {"autovi", "jax.random"}
    assert set(results["draws"]["VonMises(2)"]) == {"autovi"}
    printed = capsys.readouterr().out
    assert printed.startswith("Device: cpu") and "Nothing was left out." in printed
    assert all(f"| {what} | {name} |" in printed for what in ("2 particles", "autoencoder") for name in CONTENDERS)
    assert "| no gradient |" in printed


def test_what_there_is_no_time_for_is_named(tmp_path, capsys):
    arguments = ["--toy", "--minutes", "0", "--cases", "Gamma(5)", "--particles", "1", "--output", str(tmp_path)]
    assert accelerator.main(arguments) == 0
    results = json.loads((tmp_path / "accelerator.json").read_text())["results"]
    expected = {f"{what}, {name}" for what in ("1 particle", "autoencoder") for name in CONTENDERS}
    expected |= {"copy", "Gamma(5), autovi", "Gamma(5), jax.random"}
    assert set(results["missing"]) == expected
    printed = capsys.readouterr().out
    assert all(f"- {name}: left out" in printed for name in expected)


def test_a_unit_starts_only_where_the_longest_one_would_end_in_time(clock):
    budget = Budget(100.0, longest=5.0, clock=clock)
    assert budget.unit("first", lambda: clock.add(40.0) or "done") == "done"
    assert budget.unit("second", lambda: clock.add(30.0) or "done") == "done"
    assert budget.unit("third", lambda: "done") is None
    assert budget.missing == {"third": "left out: 30 s left, it may take 40 s"}
    assert budget.unit("fourth", lambda: "done", needs=30.0) == "done"
    assert not budget.failed


def test_a_unit_that_fails_is_named_and_costs_no_other(clock, tmp_path, monkeypatch):
    budget = Budget(100.0, longest=5.0, clock=clock)

    def fail():
        raise MemoryError("no memory")

    assert budget.unit("large", fail) is None
    assert budget.unit("small", lambda: 1) == 1
    assert budget.missing == {"large": "failed: MemoryError: no memory"} and budget.failed

    monkeypatch.setattr(accelerator, "by_numpyro", lambda case: fail())
    monkeypatch.setattr(accelerator, "draw_rows", lambda found: [])
    arguments = ["--toy", "--parts", "draws", "--cases", "VonMises(2)", "--output", str(tmp_path)]
    assert accelerator.main(arguments) == 1


def test_rounds_alternate_and_end():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    times = alternating(calls, rounds=5, seconds=0.0)
    assert order == list("abbaab")  # the first three rounds are always done
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}
    assert [len(values) for values in alternating(calls, rounds=5, seconds=60.0).values()] == [5, 5]
    assert [len(values) for values in alternating(calls, rounds=5, seconds=60.0, limit=0.0).values()] == [1, 1]


def test_the_slope_is_of_medians():
    assert slope([1.0, 1.1, 9.0], [2.1, 2.0, 2.2], 10) == pytest.approx(0.1)
    assert slope([1.0], [1.0], 10) is None


def test_the_density_by_hand_is_that_of_the_model():
    data = simulate(num_rows=40)
    z = 0.3 * np.random.default_rng(0).standard_normal(NUM_DIMENSIONS).astype(np.float32)
    values = {"beta": z[:NUM_COLUMNS], "effect": z[NUM_COLUMNS : NUM_COLUMNS + NUM_GROUPS], "mu": z[-2]}
    expected = log_density(model, (), data, values | {"tau": np.exp(z[-1])})[0] + z[-1]
    np.testing.assert_allclose(log_joint(data)(jnp.asarray(z)), expected, rtol=1e-5)


@pytest.mark.slow
def test_the_autoencoder_by_hand_has_the_loss_of_the_example():
    """The losses' means differ by their standard error, which is under 2 % of what the code costs, KL(q, p)."""
    images = digits()[0]
    params = autoencoder.initial_params(images)
    loss = numpyro.infer.Trace_ELBO().loss
    keys = jax.random.split(jax.random.key(0), 4000)
    theirs = jax.jit(jax.vmap(lambda key: loss(key, params, *programs(LATENTS["normal"]), jnp.asarray(images))))(keys)
    ours = jax.jit(jax.vmap(lambda key: autoencoder.loss_by_hand(params, key, jnp.asarray(images))))(keys)
    with numpyro.handlers.substitute(data=params):
        q = encoder(LATENTS["normal"], jnp.asarray(images)).base_dist
    cost = float(jnp.sum(0.5 * (q.loc**2 + q.scale**2 - 1) - jnp.log(q.scale)))
    error = float(jnp.sqrt((jnp.var(ours) + jnp.var(theirs)) / len(keys)))
    assert error < 0.02 * cost
    assert abs(float(jnp.mean(ours) - jnp.mean(theirs))) < 4.5 * error
    assert BATCH < len(images)
