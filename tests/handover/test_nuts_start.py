"""A start for NUTS: its mass matrix is the posterior's covariance, its points are overdispersed, and chains from it are
right."""

import handover.handed_models as m
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import potential_energy

import autovi
from autovi.result.handover.mass import dense_names, inverse_mass_matrix, shrunk_covariance


@pytest.fixture(scope="module")
def fit():
    return autovi.fit(m.normal, progress_bar=False)


def in_order(x):
    """From the order of the names, a before x, to that of MEAN and SIGMA."""
    return np.concatenate([x[..., 1:], x[..., :1]], axis=-1)


def test_the_mass_matrix_is_the_covariance(fit):
    start = fit.to_nuts()
    ((names, found),) = start.inverse_mass_matrix.items()
    assert names == ("a", "x") and not start.adapts and start.num_warmup == 100
    found = in_order(in_order(found).T)
    sd = np.sqrt(np.diag(m.SIGMA))
    # Of 4,000 draws an entry is known to sqrt((1 + r^2) / n) of its sds.
    np.testing.assert_allclose(found / np.outer(sd, sd), m.SIGMA / np.outer(sd, sd), atol=5 * (2 / 4000) ** 0.5)
    np.testing.assert_array_equal(start.flat_inverse_mass_matrix, next(iter(start.inverse_mass_matrix.values())))
    assert start.step_size == pytest.approx(3**-0.25)


@pytest.mark.parametrize("spread", [1.0, 2.0])
def test_starts_are_so_many_times_as_far_from_the_mean(fit, spread):
    """Squared Mahalanobis distances of 300 draws have mean 3 and variance 6."""
    start = fit.to_nuts(300, spread=spread)
    x = np.column_stack([start.init_params["x"], start.init_params["a"]]) - m.MEAN
    squared = np.einsum("ni,ij,nj->n", x, np.linalg.inv(m.SIGMA), x) / spread**2
    assert squared.mean() == pytest.approx(3.0, abs=5 * (6 / 300) ** 0.5)


def test_starts_have_a_finite_density_and_differ(fit):
    bounded = m.quick(m.bounded, guide="full_rank", num_steps=1500, learning_rate=0.01)
    start = bounded.to_nuts(20, spread=10.0)
    x = np.asarray(start.init_params["x"])
    assert np.all(np.abs(x - m.Y.mean()) < 0.6) and len(np.unique(x)) == 20
    values = jax.vmap(jax.grad(start.potential_fn))(start.init_params)
    assert np.isfinite(values["x"]).all()
    same, other = fit.to_nuts(), fit.to_nuts(rng_key=1)
    again = fit.to_nuts()
    np.testing.assert_array_equal(same.init_params["x"], again.init_params["x"])
    assert np.all(np.asarray(same.init_params["a"]) != np.asarray(other.init_params["a"]))
    assert np.shape(fit.to_nuts(1).init_params["x"]) == (2,)


def mean_and_error(draws, chains):
    """Of draws by chain, with the standard error of their mean by batches of 25."""
    batches = draws.reshape(chains, -1, 25, *draws.shape[2:]).mean(axis=2).reshape(-1, *draws.shape[2:])
    return batches.mean(axis=0), batches.std(axis=0, ddof=1) / len(batches) ** 0.5


def test_chains_from_it_are_right(fit):
    start = fit.to_nuts()
    assert start.why == "" and isinstance(start.kernel(), NUTS)
    mcmc = start.mcmc(500, chain_method="vectorized", progress_bar=False)
    mcmc.run(jax.random.key(0), init_params=start.init_params)
    samples = mcmc.get_samples(group_by_chain=True)
    assert samples["double"].shape == (4, 500, 2)
    x = np.concatenate([samples["x"], samples["a"][..., None]], axis=-1)
    mean, error = mean_and_error(x, 4)
    assert np.all(np.abs(mean - m.MEAN) < 5 * error), (mean, error)
    squared = (x - m.MEAN) ** 2
    mean, error = mean_and_error(squared, 4)
    assert np.all(np.abs(mean - np.diag(m.SIGMA)) < 5 * error), (mean, error)
    # The step size was adapted from one that fits the mass matrix; the matrix is that of the fit.
    state = mcmc.last_state.adapt_state
    ((_, used),) = state.inverse_mass_matrix.items()
    np.testing.assert_allclose(used[0], start.flat_inverse_mass_matrix, rtol=1e-6)


def test_a_kernel_takes_options(fit):
    start = fit.to_nuts(2)
    kernel = start.kernel(adapt_mass_matrix=True, max_tree_depth=5)
    mcmc = MCMC(kernel, num_warmup=40, num_samples=20, num_chains=2, chain_method="vectorized", progress_bar=False)
    mcmc.run(jax.random.key(0), init_params=start.init_params)
    assert not np.allclose(
        next(iter(mcmc.last_state.adapt_state.inverse_mass_matrix.values()))[0], start.flat_inverse_mass_matrix
    )
    assert repr(start) == (
        "NutsStart: 2 chains in 3 dimensions\n"
        f"    inverse mass matrix: dense of 3 (a, x); {start.said}\n"
        "    warm-up: 100 steps, for the step size alone\n"
        "    kernel: on the model"
    )


def test_discrete_sites_come_back_by_name():
    """On potential_fn, since NumPyro would need funsor to sum a site out. The exact posterior is by quadrature."""
    fit = autovi.fit(m.switched, {"y": m.Y}, progress_bar=False)
    start = fit.to_nuts()
    assert start.why == "'on' is summed out"
    mcmc = start.mcmc(500, chain_method="vectorized", progress_bar=False)
    mcmc.run(jax.random.key(1), y=m.Y, init_params=start.init_params)
    samples = mcmc.get_samples(group_by_chain=True)
    assert set(samples) == {"on", "rate", "level"}
    np.testing.assert_allclose(samples["level"], samples["on"] * samples["rate"], rtol=1e-5)
    rate = np.linspace(1e-4, 20.0, 20_001)
    prior = rate * np.exp(-rate)
    likelihood = np.exp(-0.5 * ((m.Y - rate[:, None]) ** 2).sum(1))
    both = np.stack([0.6 * prior * np.exp(-0.5 * (m.Y**2).sum()), 0.4 * prior * likelihood])
    both /= both.sum()
    for name, exact in (("on", both[1].sum()), ("rate", (both * rate).sum()), ("level", (both[1] * rate).sum())):
        mean, error = mean_and_error(np.asarray(samples[name], float), 4)
        assert mean == pytest.approx(exact, abs=5 * error), name


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (m.with_parameter, "the parameter 'scale' has its fitted value"),
        (m.in_batches, "the plate 'row' is taken whole"),
        (m.scaled, "NumPyro's potential of the model is another"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_where_numpyro_would_sample_something_else_the_kernel_is_on_the_density(model, why):
    start = m.quick(model).to_nuts()
    assert start.why.startswith(why)
    assert start.kernel().model is None
    values = jax.vmap(start.constrain)(start.init_params)
    assert all(np.isfinite(v).all() for v in values.values())


def test_numpyro_scales_a_jacobian_with_its_site():
    """Why the last of these is another density: a positive site under a scale of 1/2 has half of its Jacobian there."""
    start = m.quick(m.scaled).to_nuts()
    apart = [
        float(potential_energy(m.scaled, (m.Y,), {}, {"rate": jnp.asarray(u)}) + start.logdensity_fn({"rate": u}))
        for u in (0.0, 1.0)
    ]
    assert apart[1] - apart[0] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_chains": 0}, "num_chains: expected an integer of at least 1, got 0"),
        ({"num_draws": -3}, "num_draws: expected an integer of at least 1 or None, got -3"),
        ({"spread": 0.5}, "spread: expected a number of at least 1, got 0.5"),
        ({"spread": float("nan")}, "spread: expected a number of at least 1, got nan"),
    ],
)
def test_bad_arguments(fit, arguments, said):
    with pytest.raises(ValueError, match=said):
        fit.to_nuts(**arguments)


# --- mass matrices --------------------------------------------------------------------------------------------------


def test_shrinkage_costs_nothing_with_many_draws_and_helps_with_few():
    rng = np.random.default_rng(0)
    many = rng.multivariate_normal(m.MEAN, m.SIGMA, 20_000)
    np.testing.assert_allclose(shrunk_covariance(many), np.cov(many.T), atol=2e-3)
    few = rng.normal(size=(30, 60)) * np.arange(1, 61)
    shrunk = shrunk_covariance(few)
    np.testing.assert_allclose(np.diag(shrunk), few.var(axis=0, ddof=1))
    unit = shrunk / np.sqrt(np.outer(np.diag(shrunk), np.diag(shrunk)))
    # Without correlation in truth, of which the draws show sqrt(1 / 29) each.
    assert np.abs(unit - np.eye(60)).max() < 0.15 < np.abs(np.corrcoef(few.T) - np.eye(60)).max()
    assert np.linalg.eigvalsh(unit)[0] > 0.5
    repeated = np.repeat(rng.multivariate_normal(m.MEAN, m.SIGMA, 20), 100, axis=0)
    off = lambda x: abs(x[0, 1]) / np.sqrt(x[0, 0] * x[1, 1])  # noqa: E731
    assert off(shrunk_covariance(repeated, 20)) < off(shrunk_covariance(repeated)) - 1e-3


def test_large_sites_have_variances_and_small_ones_a_block():
    rng = np.random.default_rng(1)
    draws = {"big": rng.normal(size=(500, 30)) * 3, "b": rng.normal(size=(500, 2, 2)), "a": rng.normal(size=500)}
    assert dense_names({n: v.shape[1:] for n, v in draws.items()}, 10) == ("a", "b")
    found = inverse_mass_matrix(draws, 10)
    assert {n: v.shape for n, v in found.items()} == {("a", "b"): (5, 5), ("big",): (30,)}
    np.testing.assert_allclose(found["big",], draws["big"].var(axis=0, ddof=1))
    np.testing.assert_allclose(np.diag(found["a", "b"])[1:], draws["b"].reshape(500, 4).var(axis=0, ddof=1))


def test_numpyro_takes_blocks(fit):
    """With the block of a alone; the order of all is that of `ravel_pytree`, which BlackJAX goes by."""
    from dataclasses import replace

    whole = fit.to_nuts(2)
    x, a = np.array([4.0, 1.0]), np.array([[0.25]])
    start = replace(whole, inverse_mass_matrix={("a",): a, ("x",): x})
    mcmc = start.mcmc(10, 10, chain_method="vectorized", progress_bar=False)
    mcmc.run(jax.random.key(0), init_params=start.init_params)
    used = mcmc.last_state.adapt_state.inverse_mass_matrix
    np.testing.assert_allclose(used["x",][0], x)
    flat, _ = ravel_pytree({"x": jnp.asarray(x), "a": jnp.asarray(0.25)})
    np.testing.assert_allclose(start.flat_inverse_mass_matrix, flat)
    assert "dense of 1 (a); diagonal of 2 (x)" in repr(start)
