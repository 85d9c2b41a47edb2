"""Hierarchies of counts: zero-inflated, and proportions with a beta prior of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.handlers import reparam
from numpyro.infer.reparam import LocScaleReparam

from benchmarks.posteriors.base import Data, Posterior


def zero_inflated(site, depth, count, n_sites):
    """Animals seen at sites: excess zeros whose share depends on a covariate, and an effect of the site; centred."""
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 2.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 2.0))
    gate = numpyro.sample("gate", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(1.0))
    with numpyro.plate("sites", n_sites):
        a = numpyro.sample("a", dist.Normal(alpha, sigma))
    with numpyro.plate("visits", len(count)):
        empty = jax.nn.sigmoid(gate[0] + gate[1] * depth)
        seen = dist.ZeroInflatedPoisson(gate=empty, rate=jnp.exp(a[site] + slope * depth))
        numpyro.sample("count", seen, obs=count)


def zero_inflated_data() -> Data:
    """30 sites of 8 visits."""
    rng = np.random.default_rng(21)
    site = np.repeat(np.arange(30), 8)
    depth = rng.normal(size=len(site))
    rate = np.exp(0.8 + rng.normal(0, 0.4, 30)[site] - 0.3 * depth)
    empty = rng.random(len(site)) < 1 / (1 + np.exp(0.7 - 0.8 * depth))
    return {"site": site, "depth": depth, "count": np.where(empty, 0, rng.poisson(rate)), "n_sites": 30}


def beta_binomial(at_bats, hits):
    """Success rates of players with a beta prior: mean phi, concentration kappa, whose Pareto prior has no variance."""
    phi = numpyro.sample("phi", dist.Uniform(0.0, 1.0))
    kappa = numpyro.sample("kappa", dist.Pareto(1.0, 1.5))
    numpyro.deterministic("log_kappa", jnp.log(kappa))
    with numpyro.plate("players", len(hits)):
        rate = numpyro.sample("rate", dist.Beta(phi * kappa, (1.0 - phi) * kappa))
        numpyro.sample("hits", dist.Binomial(at_bats, rate), obs=hits)


def beta_binomial_by_hits(at_bats, hits):
    """The same joint density, as that of the hits without the rates and that of the rates given the hits, the latter in
    coordinates z that are all but standard normal whatever kappa: logit rate = logit(mean) + sd z."""
    phi = numpyro.sample("phi", dist.Uniform(0.0, 1.0))
    kappa = numpyro.sample("kappa", dist.Pareto(1.0, 1.5))
    numpyro.deterministic("log_kappa", jnp.log(kappa))
    a, b = phi * kappa, (1.0 - phi) * kappa
    numpyro.sample("hits", dist.BetaBinomial(a, b, at_bats).to_event(1), obs=hits)
    mean = (a + hits) / (kappa + at_bats)
    sd = (mean * (1.0 - mean) * (kappa + at_bats + 1.0)) ** -0.5
    z = numpyro.sample("z", dist.ImproperUniform(constraints.real_vector, (), (len(hits),)))
    rate = numpyro.deterministic("rate", jax.nn.sigmoid(jnp.log(mean) - jnp.log1p(-mean) + sd * z))
    jacobian = jnp.log(rate) + jnp.log1p(-rate) + jnp.log(sd)
    numpyro.factor("rates", dist.Beta(a + hits, b + at_bats - hits).log_prob(rate) + jacobian)


def beta_binomial_data() -> Data:
    """45 players of 20 to 60 attempts."""
    rng = np.random.default_rng(22)
    at_bats = rng.integers(20, 61, 45)
    return {"at_bats": at_bats, "hits": rng.binomial(at_bats, rng.beta(0.27 * 60, 0.73 * 60, 45))}


def nested(school, classroom, score, n_schools, n_classes):
    """Pupils in classes in schools, standard deviations of both levels unknown; centred."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    sigma_school = numpyro.sample("sigma_school", dist.HalfCauchy(1.0))
    sigma_class = numpyro.sample("sigma_class", dist.HalfCauchy(1.0))
    shape = numpyro.sample("shape", dist.Gamma(2.0, 0.1))
    with numpyro.plate("schools", n_schools):
        s = numpyro.sample("s", dist.Normal(mu, sigma_school))
    with numpyro.plate("classes", n_classes):
        c = numpyro.sample("c", dist.Normal(s[school], sigma_class))
    with numpyro.plate("pupils", len(score)):
        numpyro.sample("score", dist.NegativeBinomial2(jnp.exp(c[classroom]), shape), obs=score)


def nested_data() -> Data:
    """25 schools of 3 to 6 classes of 5 pupils; counts with more variance than a Poisson's."""
    rng = np.random.default_rng(23)
    school = np.repeat(np.arange(25), rng.integers(3, 7, 25))
    classroom = np.repeat(np.arange(len(school)), 5)
    effect = 1.2 + rng.normal(0, 0.3, 25)[school] + rng.normal(0, 0.25, len(school))
    mean = np.exp(effect[classroom])
    score = rng.poisson(mean * rng.gamma(4.0, 0.25, len(mean)))
    data = {"school": school, "classroom": classroom, "score": score}
    return data | {"n_schools": 25, "n_classes": len(school)}


def _by_noise(model, *sites):
    return reparam(model, config={site: LocScaleReparam(0.0) for site in sites})


POSTERIORS = {
    "zero_inflated": Posterior(
        zero_inflated,
        zero_inflated_data,
        ("alpha", "slope", "gate", "sigma", "a"),
        _by_noise(zero_inflated, "a"),
    ),
    "beta_binomial": Posterior(beta_binomial, beta_binomial_data, ("phi", "log_kappa", "rate"), beta_binomial_by_hits),
    "nested": Posterior(
        nested,
        nested_data,
        ("mu", "sigma_school", "sigma_class", "shape", "s", "c"),
        _by_noise(nested, "s", "c"),
    ),
}
