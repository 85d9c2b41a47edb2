"""A newsvendor who sets the price too: how many papers to order, at which price, when demand is a Poisson count.

Demand has no derivative, and its distribution depends on one of the decisions. The gradient of the expected profit is
estimated from draws of the demand, by the score function with a leave-one-out baseline, and steps of Adam follow it.
The expected profit is also a sum that can be written down, so that the gradient and the optimum are known exactly. Run
it with `python examples/newsvendor.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax.scipy.special import gammaln
from scipy.optimize import minimize_scalar
from scipy.stats import poisson

import autovi

UNIT_COST, BASE, SLOPE = 2.0, 4.2, 0.25  # of a paper; log demand is BASE - SLOPE * price
MOST = 200  # a demand that does not come about


def rate(price):
    """Mean demand at a price."""
    return jnp.exp(BASE - SLOPE * price)


def decision(params):
    """Price and order, both positive, from numbers without bounds."""
    return jnp.exp(params["log_price"]), jnp.exp(params["log_order"])


def loss(params):
    """Minus the profit: unsold papers are lost, and no more can be sold than were ordered."""
    price, order = decision(params)
    demand = numpyro.sample("demand", dist.Poisson(rate(price)))
    return UNIT_COST * order - price * jnp.minimum(order, demand)


def exact_loss(params):
    """Its expectation: E min(q, D) = q - sum over k < q of (q - k) P(D = k)."""
    price, order = decision(params)
    k = jnp.arange(MOST)
    log_p = k * jnp.log(rate(price)) - rate(price) - gammaln(k + 1.0)
    unsold = jnp.sum(jnp.exp(log_p) * jnp.maximum(order - k, 0.0))
    return UNIT_COST * order - price * (order - unsold)


def exact_optimum() -> tuple[float, int, float]:
    """Price, order and profit: at a price p the best order is the first q with P(D <= q) >= (p - c) / p."""

    def best_order(price: float) -> int:
        return int(poisson.ppf((price - UNIT_COST) / price, float(np.exp(BASE - SLOPE * price))))

    def minus_profit(price: float) -> float:
        mean, order = float(np.exp(BASE - SLOPE * price)), best_order(price)
        k = np.arange(order)
        sold = order - np.sum((order - k) * poisson.pmf(k, mean))
        return UNIT_COST * order - price * sold

    prices = np.linspace(UNIT_COST + 0.5, 12.0, 400)
    near = prices[np.argmin([minus_profit(p) for p in prices])]
    found = minimize_scalar(minus_profit, bounds=(near - 0.1, near + 0.1), method="bounded")
    return float(found.x), best_order(found.x), -float(found.fun)


START = {"log_price": np.log(4.0), "log_order": np.log(15.0)}


def gradients(params: Any, *, num_samples: int = 16, repeats: int = 4000, rng_key: int = 1) -> tuple[Any, Any]:
    """Mean and standard error of many estimates of the gradient."""
    grad = autovi.stochastic_grad(loss, num_samples=num_samples)
    keys = jax.random.split(jax.random.key(rng_key), repeats)
    drawn = jax.jit(jax.vmap(lambda key: grad(params, rng_key=key)))(keys)
    return (
        jax.tree.map(lambda g: float(g.mean()), drawn),
        jax.tree.map(lambda g: float(g.std()) / repeats**0.5, drawn),
    )


def train(num_steps: int, *, num_samples: int = 16, rng_key: int = 0) -> Any:
    """Steps of Adam on estimates of the gradient."""
    step = autovi.stochastic_value_and_grad(loss, num_samples=num_samples)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.02, num_steps))

    @jax.jit
    def run(params: Any, key: jax.Array) -> Any:
        def one(carry: Any, key: jax.Array) -> Any:
            params, state = carry
            value, grads = step(params, rng_key=key)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(one, (params, optimizer.init(params)), jax.random.split(key, num_steps))[0][0]

    return run(jax.tree.map(jnp.asarray, START), jax.random.key(rng_key))


def main(*, num_steps: int = 4000) -> dict[str, Any]:
    """Check the gradient at the start, follow it, and print what comes out beside what is exact."""
    print(autovi.stochastic_grad(loss, num_samples=16).plan(START))
    mean, error = gradients(START)
    exact = jax.grad(exact_loss)(jax.tree.map(jnp.asarray, START))
    print()
    for name in START:
        print(f"gradient in {name}: {mean[name]:.3f} +- {error[name]:.3f}, exact {float(exact[name]):.3f}")
    params = train(num_steps)
    price, order = (float(x) for x in decision(params))
    profit = -float(exact_loss(params))
    best_price, best_order, best_profit = exact_optimum()
    print(f"found:   price {price:.2f}, order {order:.1f}, expected profit {profit:.3f}")
    print(f"optimum: price {best_price:.2f}, order {best_order}, expected profit {best_profit:.3f}")
    return {
        "gradient": mean,
        "error": error,
        "exact": jax.tree.map(float, exact),
        "found": (price, order, profit),
        "optimum": (best_price, best_order, best_profit),
    }


if __name__ == "__main__":
    main()
