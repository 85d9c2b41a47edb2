"""Effects that cross, effects with a covariance, items and persons: what a plate of one effect each does not cover."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.handlers import reparam
from numpyro.infer.reparam import LocScaleReparam

from benchmarks.posteriors.base import Data, Posterior


def crossed(subject, item, condition, log_ms, n_subjects, n_items):
    """Log reaction times with an effect of the subject and one of the item, which cross; centred."""
    mu = numpyro.sample("mu", dist.Normal(6.0, 2.0))
    effect = numpyro.sample("effect", dist.Normal(0.0, 1.0))
    sigma_subject = numpyro.sample("sigma_subject", dist.HalfNormal(1.0))
    sigma_item = numpyro.sample("sigma_item", dist.HalfNormal(1.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    with numpyro.plate("subjects", n_subjects):
        s = numpyro.sample("s", dist.Normal(0.0, sigma_subject))
    with numpyro.plate("items", n_items):
        w = numpyro.sample("w", dist.Normal(0.0, sigma_item))
    with numpyro.plate("trials", len(log_ms)):
        numpyro.sample("log_ms", dist.Normal(mu + effect * condition + s[subject] + w[item], sigma), obs=log_ms)


def crossed_data() -> Data:
    """36 subjects, 24 items, 4 trials in 10 of all pairs."""
    rng = np.random.default_rng(11)
    pairs = np.argwhere(rng.random((36, 24)) < 0.4)
    subject, item = pairs.T
    condition = rng.integers(0, 2, len(pairs)) - 0.5
    mean = 6.3 + 0.08 * condition + rng.normal(0, 0.2, 36)[subject] + rng.normal(0, 0.06, 24)[item]
    log_ms = mean + rng.normal(0, 0.3, len(pairs))
    data = {"subject": subject, "item": item, "condition": condition, "log_ms": log_ms}
    return data | {"n_subjects": 36, "n_items": 24}


def slopes(group, x, y, n_groups):
    """Intercept and slope of each group, of unknown means and covariance (LKJ); centred."""
    beta = numpyro.sample("beta", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    tau = numpyro.sample("tau", dist.HalfNormal(2.0).expand([2]).to_event(1))
    corr = numpyro.sample("corr", dist.LKJCholesky(2, 2.0))
    numpyro.deterministic("rho", corr[1, 0])
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    with numpyro.plate("groups", n_groups):
        b = numpyro.sample("b", dist.MultivariateNormal(beta, scale_tril=tau[:, None] * corr))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(b[group, 0] + b[group, 1] * x, sigma), obs=y)


def slopes_by_noise(group, x, y, n_groups):
    """The same from standard normal noise."""
    beta = numpyro.sample("beta", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    tau = numpyro.sample("tau", dist.HalfNormal(2.0).expand([2]).to_event(1))
    corr = numpyro.sample("corr", dist.LKJCholesky(2, 2.0))
    numpyro.deterministic("rho", corr[1, 0])
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([n_groups, 2]).to_event(2))
    b = numpyro.deterministic("b", beta + z @ (tau[:, None] * corr).T)
    numpyro.sample("y", dist.Normal(b[group, 0] + b[group, 1] * x, sigma).to_event(1), obs=y)


def slopes_data() -> Data:
    """40 groups of 3 to 12 rows, correlation -0.4 of intercepts and slopes."""
    rng = np.random.default_rng(12)
    group = np.repeat(np.arange(40), rng.integers(3, 13, 40))
    b = rng.multivariate_normal([1.0, -0.5], [[0.64, -0.128], [-0.128, 0.16]], 40)
    x = rng.normal(size=len(group))
    y = b[group, 0] + b[group, 1] * x + rng.normal(0, 0.8, len(group))
    return {"group": group, "x": x, "y": y, "n_groups": 40}


def items(correct):
    """Two-parameter logistic item response: ability of persons, difficulty and discrimination of items."""
    persons, questions = correct.shape
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    spread = numpyro.sample("spread", dist.HalfNormal(2.0))
    easy = numpyro.sample("easy", dist.Normal(0.0, 2.0))
    with numpyro.plate("questions", questions, dim=-1):
        slope = numpyro.sample("slope", dist.LogNormal(0.0, scale))
        difficulty = numpyro.sample("difficulty", dist.Normal(easy, spread))
    with numpyro.plate("persons", persons, dim=-2):
        ability = numpyro.sample("ability", dist.Normal(0.0, 1.0))
        with numpyro.plate("questions", questions, dim=-1):
            numpyro.sample("correct", dist.Bernoulli(logits=slope * (ability - difficulty)), obs=correct)


def items_data() -> Data:
    """80 persons, 20 questions."""
    rng = np.random.default_rng(13)
    slope, difficulty = np.exp(rng.normal(0, 0.4, 20)), rng.normal(-0.3, 1.0, 20)
    logits = slope * (rng.normal(size=(80, 1)) - difficulty)
    return {"correct": (rng.random((80, 20)) < jax.nn.sigmoid(jnp.asarray(logits))).astype(int)}


def _by_noise(model, *sites):
    return reparam(model, config={site: LocScaleReparam(0.0) for site in sites})


POSTERIORS = {
    "crossed": Posterior(
        crossed,
        crossed_data,
        ("mu", "effect", "sigma_subject", "sigma_item", "sigma", "s", "w"),
        _by_noise(crossed, "w", "s"),
    ),
    "slopes_lkj": Posterior(slopes, slopes_data, ("beta", "tau", "rho", "sigma", "b"), slopes_by_noise),
    "items": Posterior(items, items_data, ("scale", "spread", "easy", "slope", "difficulty", "ability"), items),
}
