"""A Gaussian mixture with one discrete latent site per point, beside continuous means and weights.

The assignments stay in the model as an ordinary `Categorical` site in a plate: nothing has to be summed out
by hand, and their posterior comes back as draws like any other. Run it with
`python examples/mixed_latents.py`.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions.transforms import OrderedTransform

import autovi

MEANS = np.array([-3.0, 0.0, 4.0])
WEIGHTS = np.array([0.5, 0.2, 0.3])


def simulate(num_points: int = 150, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points and the components they came from, both of shape (num_points,)."""
    rng = np.random.default_rng(seed)
    component = rng.choice(len(WEIGHTS), size=num_points, p=WEIGHTS)
    return rng.normal(MEANS[component], 0.6).astype(np.float32), component


def model(x) -> None:
    """Three components with weights, ordered means and a common scale; `component` assigns each point."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(len(WEIGHTS))))
    # Ordered means tell the components apart: the lowest is near -2 +- 3, the gaps between them log-normal.
    lowest_and_log_gaps = dist.Normal(jnp.array([-2.0, 1.0, 1.0]), jnp.array([3.0, 0.5, 0.5])).to_event(1)
    means = numpyro.sample("means", dist.TransformedDistribution(lowest_and_log_gaps, OrderedTransform()))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("point", len(x)):
        component = numpyro.sample("component", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(means[component], scale), obs=x)


def main(
    *, num_points: int = 150, num_steps: int | None = None, rng_key: int = 0, progress_bar: bool = True
) -> "autovi.Fit":
    """Fit the mixture, print it with its k-hat, a summary and the share of points put where they came from."""
    x, truth = simulate(num_points)
    fit = autovi.fit(model, {"x": x}, rng_key=rng_key, num_steps=num_steps, progress_bar=progress_bar)
    print(fit)
    print()
    print(fit.summary())
    print(f"\n{share_recovered(fit, truth):.0%} of the points are put into the component they came from")
    return fit


def share_recovered(fit: "autovi.Fit", truth: np.ndarray) -> float:
    """Share of points whose most frequent drawn component is the true one."""
    draws = np.asarray(fit.idata["posterior"]["component"]).reshape(-1, len(truth))
    frequency = np.stack([(draws == k).mean(axis=0) for k in range(len(WEIGHTS))])
    return float((frequency.argmax(axis=0) == truth).mean())


if __name__ == "__main__":
    main()
