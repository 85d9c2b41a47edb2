"""What an oracle is, and the few closed forms and quadratures that the exact ELBOs share.

Nothing here calls NumPyro's distributions: the densities are written out again, so that a test against an
oracle does not compare NumPyro with itself. Constants are NumPy float64 arrays and become JAX arrays only
when used, so one oracle serves float32 and float64.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.scipy.special import digamma, gammaln

Params = dict[str, np.ndarray]
ExactElbo = Callable[[dict], jax.Array]


# Estimators of Bernoulli sites: those that evaluate the cost at 0 and 1 only, those that need no cost of an element's
# own, all of them.
WHOLE = ("arm", "disarm", "arms", "measure_valued")
TOGETHER = ("arm", "disarm", "arms", "muprop", "double_cv", "rodeo", "rebar", "relax")
BINARY = (*TOGETHER, "measure_valued")
# Estimators of categorical sites.
LINEAR = ("double_cv", "rodeo", "rebar", "relax")  # of categorical sites that enter as one-hot vectors
CATEGORICAL = ("carms", "disarm_tree", "unordered_set")


@dataclass(frozen=True, eq=False)
class Oracle:
    """A model, a guide and their exact ELBO.

    `model(**data)` and `guide(**data)` are NumPyro functions; every parameter of the guide is a
    `numpyro.param` with real support, so `params` is the whole parameterization and the point at which to
    test: not an optimum, no entry of the gradient is small. For subsampled plates the ELBO is the expectation
    over index sets too.

    `estimators` lists for each latent site the estimators that are unbiased there. At most one site lists
    "marginalize", and only where other sites remain in the guide: `exact_marginal` is then the exact ELBO of
    the program with that site summed out of the model and gone from the guide. The guide parameters that only
    this site used have gradient zero there.

    Identity is equality (dicts of arrays do not compare), so an oracle can be a key of a cache.
    """

    name: str
    model: Callable[..., None]
    guide: Callable[..., None]
    data: dict[str, np.ndarray]
    params: Params
    exact_elbo: ExactElbo
    estimators: dict[str, tuple[str, ...]]
    exact_marginal: ExactElbo | None = None

    @property
    def marginal_site(self) -> str | None:
        """The site that `exact_marginal` sums out, if any."""
        return next((site for site, names in self.estimators.items() if "marginalize" in names), None)

    def __repr__(self) -> str:
        return f"Oracle({self.name})"


def declare(params: Params) -> dict[str, jax.Array]:
    """Inside a guide: every parameter as a `numpyro.param` that starts at its test value."""
    return {name: numpyro.param(name, jnp.asarray(value)) for name, value in params.items()}


def logit(p: float | np.ndarray) -> np.ndarray:
    """log p / (1 - p), in float64 at import time."""
    return np.log(p) - np.log1p(-np.asarray(p))


def bernoulli_log_pmf(logits) -> jax.Array:
    """log P(z = 0), log P(z = 1) along a new last axis."""
    logits = jnp.asarray(logits)
    return jnp.stack([jax.nn.log_sigmoid(-logits), jax.nn.log_sigmoid(logits)], axis=-1)


def expected_normal(x, loc, scale, var=0.0) -> jax.Array:
    """E[log Normal(x; m, scale)] where x - m has mean `x - loc` and variance `var`.

    -log(scale) - log(2 pi) / 2 - ((x - loc)^2 + var) / (2 scale^2)
    """
    return -jnp.log(scale) - 0.5 * np.log(2 * np.pi) - ((x - loc) ** 2 + var) / (2 * scale**2)


def normal_entropy(scale) -> jax.Array:
    """log(scale) + (1 + log 2 pi) / 2."""
    return jnp.log(scale) + 0.5 * (1 + np.log(2 * np.pi))


def expected_gamma(a, b, mean_log, mean) -> jax.Array:
    """E[log Gamma(r; a, b)] from E[log r] and E[r]."""
    return a * jnp.log(b) - gammaln(a) + (a - 1) * mean_log - b * mean


def gamma_moments(a, b) -> tuple[jax.Array, jax.Array]:
    """E[log r] and E[r] under Gamma(a, rate b)."""
    return digamma(a) - jnp.log(b), a / b


def expected_dirichlet(alpha, mean_log) -> jax.Array:
    """E[log Dirichlet(p; alpha)] from E[log p], over the last axis."""
    return gammaln(alpha.sum(-1)) - gammaln(alpha).sum(-1) + ((alpha - 1) * mean_log).sum(-1)


def dirichlet_mean_log(alpha) -> jax.Array:
    """E[log p_k] = digamma(alpha_k) - digamma(sum alpha)."""
    return digamma(alpha) - digamma(alpha.sum(-1, keepdims=True))


def standard_normal_nodes() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the trapezoidal rule for E[f(eps)], eps ~ Normal(0, 1).

    For f analytic in the strip |Im eps| < d and of slow growth the error falls like exp(-2 pi d / h). With
    h = 1/8 that is below 1e-15 for d > 0.7; every f here has d > 2. The tails beyond 9 hold 1e-19. Unlike
    Gauss-Hermite no weight is lost in float32.
    """
    step = 0.125
    nodes = np.arange(-9.0, 9.0 + step, step)
    return nodes, step * np.exp(-0.5 * nodes**2) / np.sqrt(2 * np.pi)


def log_gamma_nodes() -> tuple[np.ndarray, float]:
    """Nodes u and spacing h of E[f(r)] = h sum_u f(exp u) exp(u) Gamma(exp u; a, b), trapezoidal in log r.

    The density of u = log r is analytic with |Im u| < pi / 2 and falls like exp(a u) to the left and doubly
    exponentially to the right. [-10, 5] holds all but 1e-10 for a > 3 and a mean of r from 0.5 to 20.
    """
    step = 0.075
    return np.arange(-10.0, 5.0 + step, step), step
