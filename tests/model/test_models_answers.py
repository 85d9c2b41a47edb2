"""Fits of models whose posteriors are known: closed forms, linear algebra, enumeration, quadrature.

Means are held to 6 % of a posterior sd and sds to 4 %: 20,000 draws leave an error under 1 %, the rest is the
optimizer's. Several independent parts share a fit, since compiling costs more than running.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer.reparam import LocScaleReparam

import autovi
from autovi.preparation import Options, prepare

Y = np.array([0.5, -1.2, 2.0, 0.3], np.float32)


def fitted(model, data=None, **options):
    return autovi.fit(model, data, num_steps=3000, num_particles=16, progress_bar=False, **options)


def check_moments(draws, mean, sd):
    mean, sd = np.broadcast_arrays(np.asarray(mean), np.asarray(sd))
    assert draws.shape[1:] == mean.shape
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.06 * sd.min(), rtol=0)
    np.testing.assert_allclose(draws.std(0), sd, rtol=0.04)


def test_normal_posteriors():
    """No data, an improper prior, tempering, a parameter fitted by maximum likelihood, a factor, nested plates."""

    def model():
        numpyro.sample("prior", dist.Normal(2.0, 0.5))
        flat = numpyro.sample("flat", dist.ImproperUniform(dist.constraints.real, (), ()))
        with numpyro.plate("four", 4):
            numpyro.sample("y_flat", dist.Normal(flat, 1.0), obs=Y)
        with handlers.scale(scale=10.0):
            tempered = numpyro.sample("tempered", dist.Normal(0.0, 1.0))
            numpyro.sample("y_tempered", dist.Normal(tempered, 1.0), obs=2.0)
        centre = numpyro.param("centre", 0.0)
        hyper = numpyro.sample("hyper", dist.Normal(centre, 1.0))
        numpyro.sample("y_hyper", dist.Normal(hyper, 1.0), obs=1.5)
        tilted = numpyro.sample("tilted", dist.Normal(0.0, 1.0))
        numpyro.factor("tilt", 0.7 * tilted)
        with numpyro.plate("outer", 2, dim=-1):
            mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
            with numpyro.plate("inner", 3, dim=-2):
                numpyro.sample("y_mu", dist.Normal(mu, 1.0), obs=jnp.arange(6.0).reshape(3, 2))

    fit = fitted(model)
    draws = fit.sample(20_000)
    check_moments(draws["prior"], 2.0, 0.5)
    check_moments(draws["flat"], Y.mean(), 0.5)
    check_moments(draws["tempered"], 1.0, np.sqrt(1 / 20))  # ten times prior and likelihood, each of precision 1
    np.testing.assert_allclose(fit.params["centre"], 1.5, atol=0.03)  # y ~ N(centre, 2)
    check_moments(draws["hyper"], 1.5, np.sqrt(1 / 2))
    check_moments(draws["tilted"], 0.7, 1.0)
    check_moments(draws["mu"], np.array([6.0, 9.0]) / 4, 0.5)


@pytest.mark.slow
def test_random_walk_in_a_scan():
    """x_0 = 0, x_t ~ N(0.8 x_{t-1}, 1), y_t ~ N(x_t, 0.5): the posterior is normal, its precision tridiagonal."""

    def model(y):
        def step(x, y):
            x = numpyro.sample("x", dist.Normal(0.8 * x, 1.0))
            numpyro.sample("y", dist.Normal(x, 0.5), obs=y)
            return x, x

        _, xs = scan(step, 0.0, y)
        numpyro.deterministic("rise", xs[-1] - xs[0])

    difference = np.eye(4) - 0.8 * np.eye(4, k=-1)
    covariance = np.linalg.inv(difference.T @ difference + 4.0 * np.eye(4))
    mean = covariance @ (4.0 * Y)
    fit = fitted(model, {"y": Y})
    draws = fit.sample(20_000)
    check_moments(draws["x"], mean, np.sqrt(np.diag(covariance)))
    contrast = np.array([-1.0, 0.0, 0.0, 1.0])
    check_moments(draws["rise"], contrast @ mean, np.sqrt(contrast @ covariance @ contrast))
    log_evidence = dist.MultivariateNormal(
        jnp.zeros(4), jnp.linalg.inv(difference.T @ difference) + 0.25 * jnp.eye(4)
    ).log_prob(Y)
    np.testing.assert_allclose(fit.elbo, log_evidence, atol=0.02)


@pytest.mark.slow
def test_non_centred_by_a_reparam_handler():
    """theta_i ~ N(m, 2), y_i ~ N(theta_i, 1), m ~ N(0, 1), fitted non-centred: theta is read off as a deterministic."""

    def centred(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        with numpyro.plate("p", 4):
            theta = numpyro.sample("theta", dist.Normal(m, 2.0))
            numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)

    prior = np.ones((5, 5)) + np.diag([0.0, 4.0, 4.0, 4.0, 4.0])
    gain = prior[:, 1:] @ np.linalg.inv(prior[1:, 1:] + np.eye(4))
    mean, covariance = gain @ Y, prior - gain @ prior[1:]
    fit = fitted(handlers.reparam(centred, config={"theta": LocScaleReparam(centered=0.0)}), {"y": Y})
    draws = fit.sample(20_000)
    together = np.concatenate([draws["m"][:, None], draws["theta"]], axis=1)
    check_moments(together, mean, np.sqrt(np.diag(covariance)))


@pytest.mark.slow
def test_local_latents_of_a_subsampled_plate():
    """z_i ~ Bern(0.3), w_i ~ N(2 z_i, 1), x_i ~ N(w_i, 1), two of four at a step: draws have the full plate's size.

    z is summed out given w; with w normal in the guide the bound is that of a normal fitted to a mixture of two, so
    the comparison is with the best such normal by quadrature, and with z given w.
    """
    x = np.array([-0.5, 3.0, 0.2, 2.2])

    def model(x):
        with numpyro.plate("n", 4, subsample_size=2) as idx:
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            w = numpyro.sample("w", dist.Normal(2.0 * z, 1.0))
            numpyro.sample("x", dist.Normal(w, 1.0), obs=x[idx])

    grid = np.linspace(-5.0, 7.0, 481)
    log_joint = np.stack(
        [
            np.log(p) - 0.5 * (grid[:, None] - 2.0 * k) ** 2 - 0.5 * (x - grid[:, None]) ** 2
            for k, p in enumerate((0.7, 0.3))
        ]
    )
    log_w = np.logaddexp(*log_joint)  # of w and x, up to a constant: grid point, element
    given = np.exp(log_joint[1] - log_w)
    best = [best_normal(grid, log_w[:, i]) for i in range(4)]
    mean, sd = np.array(best).T
    weights = np.exp(-0.5 * ((grid[:, None] - mean) / sd) ** 2)
    probability = (weights * given).sum(0) / weights.sum(0)
    fit = fitted(model, {"x": x})
    draws = fit.sample(20_000)
    check_moments(draws["w"], mean, sd)
    np.testing.assert_allclose(draws["z"].mean(0), probability, atol=0.02)


def best_normal(grid, log_density):
    """Mean and sd of the normal that maximizes the ELBO for a density given on a grid, by coordinate search."""
    mean, sd, step = grid[np.argmax(log_density)], 0.7, 0.2

    def elbo(m, s):
        q = np.exp(-0.5 * ((grid - m) / s) ** 2)
        return (q / q.sum()) @ log_density + np.log(s)

    while step > 1e-4:
        moves = [(mean + a * step, sd + b * step) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        new = max(moves, key=lambda move: elbo(*move))
        mean, sd, step = (*new, step if new != (mean, sd) else step / 2)
    return mean, sd


@pytest.mark.slow
def test_missing_observations_are_imputed():
    """m ~ N(0, 1), four y_i ~ N(m, 1), one of them missing: exact, the missing one being drawn from the model."""

    def model(y, seen):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        with numpyro.plate("n", 4):
            numpyro.sample("y", dist.Normal(m, 1.0), obs=y, obs_mask=seen)

    seen = np.array([True, False, True, True])
    draws = fitted(model, {"y": Y, "seen": seen}).sample(20_000)
    centre = Y[seen].sum() / 4
    check_moments(draws["m"], centre, np.sqrt(1 / 4))
    check_moments(draws["y"][:, 1], centre, np.sqrt(5 / 4))
    np.testing.assert_array_equal(draws["y"][:, seen], np.broadcast_to(Y[seen], (20_000, 3)))


@pytest.mark.slow
def test_two_discrete_sites():
    """a -> b -> y, both enumerated: mean field, by coordinate ascent on the joint posterior's table."""
    prior_a, prior_b = np.array([0.3, 0.7]), np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])

    def model(y):
        a = numpyro.sample("a", dist.Categorical(jnp.asarray(prior_a)))
        b = numpyro.sample("b", dist.Categorical(jnp.asarray(prior_b)[a]))
        numpyro.sample("y", dist.Normal(a + 2.0 * b, 1.0), obs=y)

    means = np.arange(2)[:, None] + 2.0 * np.arange(3)
    joint = prior_a[:, None] * prior_b * np.exp(-0.5 * (2.2 - means) ** 2)
    joint /= joint.sum()
    fit = fitted(model, {"y": 2.2}, estimators={"a": "enumerate", "b": "enumerate"})
    best_a, best_b = mean_field(joint)
    draws = fit.sample(20_000, resample=False)
    np.testing.assert_allclose(np.bincount(draws["a"], minlength=2) / 20_000, best_a, atol=0.015)
    np.testing.assert_allclose(np.bincount(draws["b"], minlength=3) / 20_000, best_b, atol=0.015)


def mean_field(joint):
    """The product of marginals nearest to a joint of two variables, by coordinate ascent."""
    a, b = np.ones(2) / 2, np.ones(3) / 3
    for _ in range(500):
        a = np.exp(np.log(joint) @ b)
        a /= a.sum()
        b = np.exp(a @ np.log(joint))
        b /= b.sum()
    return a, b


def test_support_that_depends_on_a_discrete_site():
    """z ~ Uniform(0, 1 + k), k summed out: the ELBO at fixed parameters against a quadrature over z's own scale."""
    prior = np.array([0.2, 0.3, 0.5])

    def model():
        k = numpyro.sample("k", dist.Categorical(jnp.asarray(prior)))
        z = numpyro.sample("z", dist.Uniform(0.0, 1.0 + k))
        numpyro.sample("y", dist.Normal(z, 0.5), obs=1.3)

    engine, inputs = prepare(model, None, Options(num_particles=1))
    assert engine.program.plan["k"].estimator == "marginalize"
    loc, scale = 0.4, 0.3
    guide = {"z": {"loc": jnp.array([loc]), "log_diagonal": jnp.log(jnp.array([scale])), "lower": jnp.zeros((1, 1))}}
    params = {"guide": guide, "param": {}}
    elbo = jax.jit(jax.vmap(lambda key: engine.estimate(params, {}, {}, key)[1].elbo))
    sampled = np.asarray(elbo(jax.random.split(jax.random.key(0), 20_000)))
    u = loc + scale * np.linspace(-8.0, 8.0, 2001)
    q = np.exp(-0.5 * ((u - loc) / scale) ** 2)
    inside = 1 / (1 + np.exp(-u))
    # Uniform density and Jacobian: the width cancels.
    log_k = np.log(prior) + (np.log(inside) + np.log1p(-inside))[:, None]
    log_k += -0.5 * ((1.3 - inside[:, None] * (1.0 + np.arange(3))) / 0.5) ** 2 - np.log(0.5) - 0.5 * np.log(2 * np.pi)
    expected = (q / q.sum()) @ np.logaddexp.reduce(log_k, axis=1) + np.log(scale) + 0.5 * (1 + np.log(2 * np.pi))
    se = sampled.std() / np.sqrt(sampled.size)
    assert se < 0.02 * abs(expected)
    np.testing.assert_allclose(sampled.mean(), expected, atol=5 * se)


@pytest.mark.slow
def test_boolean_lists_and_own_families():
    """Data as lists; beta for a Bernoulli probability and gamma for a Poisson rate are exact."""

    def model(yes, counts):
        p = numpyro.sample("p", dist.Beta(2.0, 2.0))
        rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
        with numpyro.plate("n", len(yes)):
            numpyro.sample("yes", dist.Bernoulli(p), obs=yes)
        with numpyro.plate("m", len(counts)):
            numpyro.sample("counts", dist.Poisson(rate), obs=counts)

    fit = fitted(model, ([True, True, False, True], (3, 5, 1)))
    draws = fit.sample(20_000)
    check_moments(draws["p"], 5 / 8, np.sqrt(5 * 3 / 64 / 9))
    check_moments(draws["rate"], 11 / 4, np.sqrt(11) / 4)


@pytest.mark.slow
def test_double_precision():
    """A discrete and a continuous site in float64: z ~ Bern(0.4), m ~ N(0, 1), y ~ N(m + 2 z, 1)."""
    prior = np.array([0.6, 0.4])

    def model(y):
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        numpyro.sample("w", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal(m + 2.0 * z, 1.0), obs=y)

    with jax.enable_x64(True):
        fit = fitted(model, {"y": np.float64(1.8)}, estimators={"z": "score"})
        draws = fit.sample(20_000, resample=False)
    assert {v.dtype for v in jax.tree.leaves(fit.params)} == {np.dtype(np.float64)}
    assert draws["m"].dtype == np.float64
    # Mean field by coordinate ascent.
    r = 0.5
    for _ in range(500):
        m = (1.8 - 2 * r) / 2
        odds = np.log(prior[1] / prior[0]) + 2.0 * (1.8 - m) - 2.0
        r = 1 / (1 + np.exp(-odds))
    np.testing.assert_allclose(draws["z"].mean(), r, atol=0.02)
    np.testing.assert_allclose(draws["m"].mean(), (1.8 - 2 * r) / 2, atol=0.05)
    np.testing.assert_allclose(draws["m"].std(), np.sqrt(0.5), rtol=0.04)
