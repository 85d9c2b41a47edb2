"""Integrals of exp(log density) over R^d by importance sampling, each with a standard error. Double precision."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, logsumexp

LogDensity = Callable[[jax.Array], jax.Array]
NEWTON_STEPS = 40


def mode_of(log_density: LogDensity, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mode of a log-concave density by Newton's method, steps of at most length 2; the Cholesky factor of its
    negative Hessian there."""

    def step(x, _):
        move = jnp.linalg.solve(-jax.hessian(log_density)(x), jax.grad(log_density)(x))
        return x + move * jnp.minimum(1.0, 2.0 / (jnp.linalg.norm(move) + 1e-30)), None

    mode = jax.lax.scan(step, start, None, NEWTON_STEPS)[0]
    return mode, jnp.linalg.cholesky(-jax.hessian(log_density)(mode))


def weights_of(log_density: LogDensity, mean: jax.Array, tril: jax.Array, key: jax.Array, draws: int, df: float):
    """Draws from a Student-t of location `mean` and scale `tril tril'`, and their log weights."""
    d = len(mean)
    z_key, g_key = jax.random.split(key)
    z = jax.random.normal(z_key, (draws, d))
    # Chi-square over its degrees of freedom.
    g = jax.random.gamma(g_key, df / 2, (draws, 1)) / (df / 2)
    t = z / jnp.sqrt(g)
    x = mean + t @ tril.T
    constant = gammaln((df + d) / 2) - gammaln(df / 2) - 0.5 * d * jnp.log(df * jnp.pi)
    log_q = constant - jnp.log(jnp.diagonal(tril)).sum() - 0.5 * (df + d) * jnp.log1p(jnp.sum(t**2, axis=1) / df)
    return x, jax.lax.map(log_density, x, batch_size=1000) - log_q


def log_mean(log_weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The log of the mean of the weights and its standard error, sd(w) / (mean(w) sqrt(n))."""
    n = len(log_weights)
    shares = jax.nn.softmax(log_weights) * n
    return logsumexp(log_weights) - jnp.log(n), jnp.std(shares, ddof=1) / jnp.sqrt(n)


def by_laplace(log_density: LogDensity, start: jax.Array, key: jax.Array, draws: int) -> tuple[jax.Array, jax.Array]:
    """log of the integral from one proposal at the mode, with the curvature there and ten degrees of freedom."""
    mode, precision = mode_of(log_density, start)
    tril = jnp.linalg.cholesky(jnp.linalg.inv(precision @ precision.T))
    return log_mean(weights_of(log_density, mode, tril, key, draws, 10.0)[1])


def by_moments(
    log_density: LogDensity, mean: jax.Array, cov: jax.Array, key: jax.Array, draws: int = 200_000
) -> tuple[float, float]:
    """log of the integral from a proposal of given mean and covariance.

    Raises:
        ValueError: an effective sample size, (sum w)^2 / sum w^2, under 1,000: the standard error would say nothing.
    """
    df = 100.0  # heavier than a normal's tails, at little cost in tens of dimensions
    tril = jnp.linalg.cholesky(cov)
    log_w = jax.jit(lambda key: weights_of(log_density, mean, tril, key, draws, df)[1])(key)
    size = float(1 / jnp.sum(jax.nn.softmax(log_w) ** 2))
    if not size >= 1000:
        raise ValueError(f"importance sampling: expected an effective sample size of at least 1,000, got {size:.0f}")
    value, se = log_mean(log_w)
    return float(value), float(se)
