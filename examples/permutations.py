"""Permutations as latent variables: a ranking of baseball teams, and two lists of wines whose labels were lost.

Both posteriors are over orders, from the Plackett-Luce family; with seven and six items all orders can be gone through,
so that the exact answers stand beside. Run it with `python examples/permutations.py`; it takes some seconds.

Data: wins of the teams of the American League East over one another in 1987, thirteen games a pair, as tabulated by
A. Agresti, "Categorical Data Analysis" (second edition, 2002), table 10.10. The wines are the first two of each kind of
scikit-learn's `load_wine`, thirteen chemical measurements each; the second laboratory is simulated.
"""

import itertools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats
from sklearn.datasets import load_wine

import autovi
from autovi.distributions import PlackettLuce

TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
WINS = np.array(
    [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ]
)
GAMES = 13
NOISE = 0.8  # of the second laboratory, in standard deviations of the wines


def ranking(wins) -> None:
    """Teams from the best to the worst; of each pair the better one wins with the same probability."""
    order = numpyro.sample("order", PlackettLuce(jnp.zeros(len(TEAMS))))
    better = numpyro.sample("better", dist.Uniform(0.5, 1.0))
    earlier, later = np.triu_indices(len(TEAMS), 1)
    numpyro.sample(
        "wins", dist.Binomial(GAMES, better).expand([len(earlier)]).to_event(1), obs=wins[order[earlier], order[later]]
    )


def exact_places() -> np.ndarray:
    """P(team is in place) `[teams, places]`, by all 5,040 orders and a grid for the probability."""
    orders = np.array(list(itertools.permutations(range(len(TEAMS)))))
    earlier, later = np.triu_indices(len(TEAMS), 1)
    won = WINS[orders[:, earlier], orders[:, later]].sum(-1)  # by the team that is said to be better
    total, p = GAMES * len(earlier), np.linspace(0.5, 1.0, 2001)[1:-1]
    log_grid = np.arange(total + 1)[:, None] * np.log(p) + (total - np.arange(total + 1)[:, None]) * np.log1p(-p)
    log_weight = np.logaddexp.reduce(log_grid, -1)[won]
    weight = np.exp(log_weight - np.logaddexp.reduce(log_weight))
    return np.stack([(weight[:, None] * (orders == team)).sum(0) for team in range(len(TEAMS))])


def wines() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The measurements of six wines, those of the second laboratory in another order, and that order."""
    data = load_wine()
    values = stats.zscore(data.data)
    first = np.concatenate([values[data.target == kind][:2] for kind in range(3)])
    rng = np.random.default_rng(1)
    order = rng.permutation(len(first))
    return first, first[order] + NOISE * rng.normal(size=first.shape), order


def matching(first, second) -> None:
    """Line i of the second list is line order[i] of the first, with noise."""
    order = numpyro.sample("order", PlackettLuce(jnp.zeros(len(first))))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    numpyro.sample("second", dist.Normal(first[order], noise).to_event(2), obs=second)


def places(order: np.ndarray) -> np.ndarray:
    """The share of draws in which an item is in a place `[items, places]`."""
    return np.stack([(order == item).mean(0) for item in range(order.shape[-1])])


def main(num_steps: int = 2000, progress_bar: bool = True) -> dict:
    """Fits both models, prints what they say, and returns the fits with their places."""
    options = {"num_particles": 16, "num_steps": num_steps, "progress_bar": progress_bar}
    ranked = autovi.fit(ranking, {"wins": WINS}, **options)
    found, exact = places(ranked.sample(4000, rng_key=1)["order"]), exact_places()
    print(ranked.plan)
    for team, name in enumerate(TEAMS):
        mean, right = found[team] @ np.arange(1, 8), exact[team] @ np.arange(1, 8)
        print(f"{name:<10} mean place {mean:.1f} (exact {right:.1f}), first with probability {found[team, 0]:.2f}")
    first, second, order = wines()
    learned = {"order": "relax_permutation"}
    matched = autovi.fit(matching, {"first": first, "second": second}, estimators=learned, **options)
    matches = places(matched.sample(4000, rng_key=1)["order"])
    print(matched.plan)
    print(f"matched {(matches.argmax(0) == order).sum()} of {len(order)} wines")
    return {"ranked": ranked, "places": found, "exact": exact, "matched": matched, "matches": matches, "order": order}


if __name__ == "__main__":
    main()
