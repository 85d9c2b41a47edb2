"""A guide of one's own: autovi optimizes it, chooses the estimators of its sites, and checks the answer.

The model is a regression with known noise, whose posterior is normal with a strong correlation
between intercept and slope; the guide models that correlation and nothing else. Run it with
`python examples/custom_guide.py`.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

import autovi

INTERCEPT, SLOPE, NOISE = 1.0, 2.0, 0.5


def simulate(num_points: int = 60, seed: int = 1) -> dict[str, np.ndarray]:
    """Covariate `x` far from its origin, so that intercept and slope are correlated, and response `y`."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(1.0, 3.0, size=num_points)
    y = INTERCEPT + SLOPE * x + NOISE * rng.normal(size=num_points)
    return {"x": x.astype(np.float32), "y": y.astype(np.float32)}


def model(x, y=None) -> None:
    """Linear regression with known noise: its posterior is a correlated normal, known in closed form."""
    coefficients = numpyro.sample("coefficients", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
    with numpyro.plate("point", len(x)):
        numpyro.sample("y", dist.Normal(coefficients[0] + coefficients[1] * x, NOISE), obs=y)


def guide(x, y=None) -> None:
    """A full-rank normal for the two coefficients, written with ordinary `numpyro.param` sites."""
    loc = numpyro.param("loc", jnp.zeros(2))
    scale_tril = numpyro.param("scale_tril", 0.1 * jnp.eye(2), constraint=constraints.lower_cholesky)
    numpyro.sample("coefficients", dist.MultivariateNormal(loc, scale_tril=scale_tril))


def exact_posterior(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean `m` and covariance `S` of (intercept, slope).

    `S = (X'X / noise^2 + I / 100)^-1` and `m = S X'y / noise^2`.
    """
    design = np.stack([np.ones(len(x)), x], axis=1).astype(np.float64)
    covariance = np.linalg.inv(design.T @ design / NOISE**2 + np.eye(2) / 100.0)
    return covariance @ design.T @ y / NOISE**2, covariance


def main(*, num_steps: int | None = None, rng_key: int = 0, progress_bar: bool = True) -> "autovi.Fit":
    """Fit with the guide above, print it with its k-hat and a summary, and the exact posterior beside it."""
    data = simulate()
    fit = autovi.fit(model, data, guide=guide, rng_key=rng_key, num_steps=num_steps, progress_bar=progress_bar)
    print(fit)
    print()
    print(fit.summary())
    mean, covariance = exact_posterior(**data)
    print(f"\nexact means {mean.round(3)}, exact sds {np.sqrt(np.diag(covariance)).round(3)}")
    return fit


if __name__ == "__main__":
    main()
