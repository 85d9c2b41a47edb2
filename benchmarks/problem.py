"""Hierarchical logistic regression, the benchmark's problem: a NumPyro model and a hand-written density.

    beta_p ~ N(0, 1) for 25 columns, mu ~ N(0, 1), tau ~ HalfNormal(1),
    a_g ~ N(mu, tau) for 50 groups, y_n ~ Bernoulli(logit = x_n . beta + a_[group of n]) for 10,000 rows.

77 dimensions. NumPyro is imported only by `model`, so that the hand-written program does not pay for it.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

NUM_ROWS, NUM_COLUMNS, NUM_GROUPS = 10_000, 25, 50
NUM_DIMENSIONS = NUM_COLUMNS + NUM_GROUPS + 2
LEARNING_RATE = 1e-2


def simulate(seed: int = 0, num_rows: int = NUM_ROWS) -> dict[str, np.ndarray]:
    """Data drawn from the model at coefficients of scale 0.5 and group effects N(0.3, 0.8)."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((num_rows, NUM_COLUMNS))
    group = rng.integers(NUM_GROUPS, size=num_rows)
    beta = 0.5 * rng.standard_normal(NUM_COLUMNS)
    effect = 0.3 + 0.8 * rng.standard_normal(NUM_GROUPS)
    probability = 1.0 / (1.0 + np.exp(-(x @ beta + effect[group])))
    y = rng.random(num_rows) < probability
    return {"x": x.astype(np.float32), "group": group.astype(np.int32), "y": y.astype(np.float32)}


def model(x: Any, group: Any, y: Any = None) -> None:
    """The problem as a NumPyro model."""
    import numpyro
    import numpyro.distributions as dist

    beta = numpyro.sample("beta", dist.Normal(0.0, 1.0).expand([NUM_COLUMNS]).to_event(1))
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    with numpyro.plate("group", NUM_GROUPS):
        effect = numpyro.sample("effect", dist.Normal(mu, tau))
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=x @ beta + effect[group]), obs=y)


def log_joint(data: dict[str, Any]) -> Callable[[Any], Any]:
    """The log joint density of the flat vector [beta, effect, mu, log tau], Jacobian of log tau included."""
    import jax
    import jax.numpy as jnp

    x, group, y = (jnp.asarray(data[name]) for name in ("x", "group", "y"))
    # Normalizing constants: 77 normal ones but for tau, whose half normal has an additional log 2.
    constant = -0.5 * NUM_DIMENSIONS * math.log(2.0 * math.pi) + math.log(2.0)

    def density(z: Any) -> Any:
        beta, effect, mu, log_tau = jnp.split(z, [NUM_COLUMNS, NUM_COLUMNS + NUM_GROUPS, NUM_DIMENSIONS - 1])
        tau = jnp.exp(log_tau)
        squares = jnp.sum(beta**2) + jnp.sum(mu**2) + jnp.sum(tau**2) + jnp.sum(((effect - mu) / tau) ** 2)
        prior = constant - 0.5 * squares + (1 - NUM_GROUPS) * jnp.sum(log_tau)
        logits = x @ beta + effect[group]
        return prior + jnp.sum(y * logits - jax.nn.softplus(logits))

    return density
