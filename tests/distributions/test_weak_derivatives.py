"""Every row of the table of weak derivatives: differences of costs, jumping ones too, against the exact derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from autovi.distributions.weak_derivatives import WEAK_DERIVATIVES, weak_derivative

COUNTS = np.arange(400.0)
REAL = np.linspace(-40.0, 40.0, 20_001)
POSITIVE = np.exp(np.linspace(-30.0, 7.0, 20_001))
UNIT = 1 / (1 + np.exp(-np.linspace(-35.0, 35.0, 20_001)))
NUMBER = 100_000

# Class -> (how it is made of numbers, the numbers, a grid of its support).
CASES = {
    "BernoulliLogits": (lambda logit: dist.Bernoulli(logits=logit), (0.4,), COUNTS[:2]),
    "BernoulliProbs": (dist.Bernoulli, (0.3,), COUNTS[:2]),
    "Beta": (dist.Beta, (0.8, 2.5), UNIT),
    "BetaProportion": (dist.BetaProportion, (0.3, 4.0), UNIT),
    "BinomialLogits": (lambda logit: dist.Binomial(6, logits=logit), (-0.4,), COUNTS[:7]),
    "BinomialProbs": (lambda p: dist.Binomial(6, p), (0.3,), COUNTS[:7]),
    "Chi2": (dist.Chi2, (3.0,), POSITIVE),
    "Exponential": (dist.Exponential, (1.7,), POSITIVE),
    "Gamma": (dist.Gamma, (1.6, 0.7), POSITIVE),
    "GammaPoisson": (dist.GammaPoisson, (2.2, 0.8), COUNTS),
    "GeometricLogits": (lambda logit: dist.Geometric(logits=logit), (-0.7,), COUNTS),
    "GeometricProbs": (dist.Geometric, (0.35,), COUNTS),
    "HalfNormal": (dist.HalfNormal, (1.3,), POSITIVE),
    "InverseGamma": (dist.InverseGamma, (6.0, 4.0), POSITIVE),
    "Laplace": (dist.Laplace, (0.6, 0.9), REAL),
    "LogNormal": (dist.LogNormal, (0.2, 0.4), POSITIVE),
    "NegativeBinomial2": (dist.NegativeBinomial2, (2.5, 1.4), COUNTS),
    "NegativeBinomialLogits": (dist.NegativeBinomialLogits, (2.5, -0.3), COUNTS),
    "NegativeBinomialProbs": (dist.NegativeBinomialProbs, (2.5, 0.4), COUNTS),
    "Normal": (dist.Normal, (0.6, 1.2), REAL),
    "Poisson": (dist.Poisson, (2.3,), COUNTS),
    "Weibull": (dist.Weibull, (1.4, 1.8), POSITIVE),
}
COSTS = {
    "square": lambda z: 1.0 * z**2,
    "jump": lambda z: jnp.where(z > 0.7, 1.0, 0.0),
    "wave": lambda z: jnp.cos(2.0 * z),
}


def exact(make, numbers, grid):
    """The gradients of E cost, one row a cost, by the trapezoidal rule or a sum; at a jump to half a step."""
    counts = len(grid) <= len(COUNTS)
    weights = np.ones(len(grid)) if counts else np.gradient(grid)
    costs = np.stack([cost(grid) for cost in COSTS.values()])

    def means(*numbers):
        log_density = make(*numbers).log_prob(jnp.asarray(grid, int) if counts else jnp.asarray(grid))
        return costs * weights @ jnp.exp(log_density)

    return np.stack(jax.jit(jax.jacrev(means, tuple(range(len(numbers)))))(*map(jnp.asarray, numbers)), 1)


def test_every_row_is_tested():
    assert set(CASES) == set(WEAK_DERIVATIVES)


@pytest.mark.parametrize("name", CASES)
def test_the_differences_have_the_mean_of_the_derivative(name):
    make, numbers, grid = CASES[name]
    with jax.enable_x64(True):
        expected = exact(make, numbers, grid)
    numbers = tuple(jnp.asarray(n, jnp.float32) for n in numbers)

    def parameters(numbers):
        weak, inside = weak_derivative(make(*numbers))
        return weak.parameters(inside)

    chain = np.array(jax.jacobian(lambda *n: jnp.stack(parameters(n)), tuple(range(len(numbers))))(*numbers))
    q = make(*numbers).expand([NUMBER])
    weak, inside = weak_derivative(q)
    value = q(rng_key=jax.random.key(0))
    pairs = weak.pairs(jax.random.key(1), inside, value)
    for (c, cost), wanted in zip(COSTS.items(), expected, strict=True):
        differences = [p.constant * (cost(p.up) - cost(value if p.down is None else p.down)) for p in pairs]
        each = np.array(chain, float) @ np.stack([np.broadcast_to(d, (NUMBER,)) for d in differences]).astype(float)
        se = each.std(1) / NUMBER**0.5
        np.testing.assert_array_less(np.abs(each.mean(1) - wanted), 5 * se + 2e-3 * np.abs(wanted) + 1e-5, err_msg=c)
        assert np.all(se < 0.05 * np.abs(wanted) + 0.02), c


@pytest.mark.parametrize("name", CASES)
def test_what_is_drawn_is_in_the_support(name):
    make, numbers, _ = CASES[name]
    q = make(*numbers).expand([1000])
    weak, inside = weak_derivative(q)
    for pair in weak.pairs(jax.random.key(1), inside, q(rng_key=jax.random.key(0))):
        for value in (pair.up, pair.down):
            assert value is None or (value.dtype == q(rng_key=jax.random.key(0)).dtype and q.support(value).all())
