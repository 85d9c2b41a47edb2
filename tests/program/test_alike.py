"""What is computed together is what would be computed apart: like sites, and branches in batches."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi
from autovi.preparation import Options, prepare
from autovi.program import branches, summing
from autovi.program.surrogate import Step

Y = np.linspace(-1.0, 1.5, 12).astype(np.float32)


def scalars(y):
    """Twelve real and twelve positive sites of one shape each, a parent of some of them, and one unlike the others."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    z = [numpyro.sample(f"z{i}", dist.Normal(mu, 1.0)) for i in range(12)]
    s = [numpyro.sample(f"s{i}", dist.HalfNormal(1.0 + 0.1 * i)) for i in range(12)]
    odd = numpyro.sample("odd", dist.StudentT(4.0, 0.0, 1.0))
    numpyro.sample("y", dist.Normal(jnp.stack(z) + odd, jnp.stack(s)).to_event(1), obs=y)


@pytest.fixture(scope="module")
def step():
    engine, inputs = prepare(scalars, {"y": Y}, Options(guide="mean_field", num_particles=3))
    program = engine.program
    params = program.init(jax.random.key(0), inputs.traced(), 0.2 * jnp.ones(program.start_size))
    return program, params, inputs, Step(program, params, inputs.traced(), {}, jax.random.key(1), 3)


def test_like_sites_are_found(step):
    program, *_ = step
    groups = [set(group.names) for group in program.alike]
    assert {f"p:z{i}" for i in range(12)} in groups
    assert all("p:odd" not in group and "p:mu" not in group for group in groups)


def test_together_they_are_what_they_are_apart(step):
    program, params, inputs, step = step
    sums = dict(zip(program.term_names, np.asarray(step.sums)[step.places], strict=True))
    assert len(set(step.places)) == len(step.sums)
    for particle in range(3):
        shared = program.shared(params, inputs.traced(), {}, program.everything)
        noise = jax.tree.map(lambda x, k=particle: x[k], step.noise)
        apart = program.particle(shared, step.keys[particle], noise).terms(program.term_names)
        for name, term in apart.items():
            np.testing.assert_allclose(sums[name][particle], jnp.sum(term), rtol=2e-5, atol=1e-6, err_msg=name)


def test_draws_are_those_of_their_sites():
    fit = autovi.fit(scalars, {"y": Y}, guide="mean_field", num_steps=50, num_draws=20, progress_bar=False)
    draws = fit.sample(500)
    assert list(draws) == ["mu", *(f"z{i}" for i in range(12)), *(f"s{i}" for i in range(12)), "odd"]
    block = fit.plan["mu"].block
    sites = next(b.sites for b in fit.plan.blocks if b.name == block)
    loc, scale = fit.params[f"{block}.loc"], np.exp(fit.params[f"{block}.log_scale"])
    for site in ("mu", "z3", "z11", "odd"):
        at = sites.index(site)
        assert draws[site].shape == (500,)
        assert draws[site].mean() == pytest.approx(float(loc[at]), abs=5 * float(scale[at]) / 500**0.5)
        assert draws[site].std() == pytest.approx(float(scale[at]), rel=0.2)
    assert all((draws[f"s{i}"] > 0).all() for i in range(12))


def mixture(y):
    weight = numpyro.sample("weight", dist.Beta(2.0, 2.0))
    with numpyro.plate("n", len(y)):
        z = numpyro.sample("z", dist.Categorical(jnp.stack([weight, 1 - weight, 0.5 * weight]) / (1 + 0.5 * weight)))
        numpyro.sample("y", dist.Normal(jnp.array([-1.0, 0.5, 2.0])[z], 0.7), obs=y)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["marginalize", "enumerate"])
@pytest.mark.parametrize("budget", [1, 150])
def test_branches_in_batches_are_those_at_once(estimator, budget, monkeypatch):
    """One at a time, and two of the three at a time: value and gradient."""
    engine, inputs = prepare(mixture, {"y": Y}, Options(estimators={"z": estimator}, num_particles=1))
    params = engine.program.init(jax.random.key(0), inputs.traced(), 0.2 * jnp.ones(engine.program.start_size))

    def both():
        loss = lambda p: engine.estimate(p, {}, inputs.traced(), jax.random.key(2))  # noqa: E731
        return jax.grad(loss, has_aux=True)(params)

    expected = both()
    monkeypatch.setattr(branches, "BUDGET", budget)
    monkeypatch.setattr(summing, "BUDGET", budget)
    batched = both()
    assert "scan" in str(jax.make_jaxpr(lambda: both()[0])())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), batched, expected)


def test_a_fit_runs_the_model_once():
    runs = []

    def model(y):
        runs.append(None)
        z = [numpyro.sample(f"z{i}", dist.Bernoulli(0.3)) for i in range(4)]
        numpyro.sample("y", dist.Normal(jnp.sum(jnp.stack(z)), 1.0), obs=y[0])

    autovi.fit(model, {"y": Y}, estimators={"*": "enumerate"}, num_steps=2, progress_bar=False)
    assert len(runs) == 1
