"""Nothing in a fit depends on the units of the data: draws in other units are the old ones, put into those units."""

from functools import cache

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi

DRAWS = 4000
# Two sets of 4,000 draws of one posterior: means differ by sqrt(2 / 4000) sd times a standard normal, and log sds of a
# posterior of kurtosis k by sqrt((k - 1) / 2 / 4000) of it, at most sqrt(4 / 4000) for a kurtosis of 9. Resampling by
# importance at an efficiency of a half doubles both variances. At most 30 of each: 6 sds have a chance of 1e-7.
MEAN, LOG_SD = 6 * (4 / DRAWS) ** 0.5, 6 * (8 / DRAWS) ** 0.5
RNG = np.random.default_rng(7)
ROWS, GROUPS = 120, 8
X = RNG.normal(size=(ROWS, 2))
GROUP = np.arange(ROWS) % GROUPS
NOISE = RNG.normal(size=ROWS)
EFFECTS = RNG.normal(size=GROUPS)
LINEAR = 1.0 + X @ np.array([0.8, -0.5])
WIDE = 1e3  # of a prior in the unit of the standardized problem: it goes with the units

UNITS = {
    "a regressor in millionths": (1e6, 0.0, 1.0),
    "a regressor in millions": (1e-6, 0.0, 1.0),
    "a regressor shifted by a hundred of its sds": (1.0, 100.0, 1.0),
    "a regressor shifted by 1e4 of its sds": (1.0, 1e4, 1.0),
    "an outcome in thousandths": (1.0, 0.0, 1e3),
    "all of them": (1e3, 1e5, 1e-3),
}


def columns(x, scale, shift):
    """The second column in another unit, from another zero."""
    return x * np.array([1.0, scale]) + np.array([0.0, shift])


def linear(X, y, prior, unit):
    intercept = numpyro.sample("intercept", dist.Normal(0.0, prior[0]))
    beta = numpyro.sample("beta", dist.Normal(0.0, jnp.asarray(prior[1])).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(3.0 * unit))
    numpyro.sample("y", dist.Normal(intercept + X @ beta, sigma).to_event(1), obs=y)


def logistic(X, y, prior, unit):
    intercept = numpyro.sample("intercept", dist.Normal(0.0, prior[0]))
    beta = numpyro.sample("beta", dist.Normal(0.0, jnp.asarray(prior[1])).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=intercept + X @ beta).to_event(1), obs=y)


def hierarchical(X, y, prior, unit):
    intercept = numpyro.sample("intercept", dist.Normal(0.0, prior[0]))
    beta = numpyro.sample("beta", dist.Normal(0.0, jnp.asarray(prior[1])).to_event(1))
    tau = numpyro.sample("tau", dist.HalfNormal(2.0 * unit))
    sigma = numpyro.sample("sigma", dist.HalfNormal(3.0 * unit))
    with numpyro.plate("groups", GROUPS):
        effect = numpyro.sample("effect", dist.Normal(0.0, tau))
    numpyro.sample("y", dist.Normal(intercept + X @ beta + effect[GROUP], sigma).to_event(1), obs=y)


OUTCOMES = {
    linear: LINEAR + NOISE,
    logistic: (LINEAR + np.log(1 / RNG.uniform(size=ROWS) - 1) > 0).astype(int),
    hierarchical: LINEAR + NOISE + EFFECTS[GROUP],
}


def in_units(model, scale, shift, outcome):
    """Draws of the model on data in other units, mapped back to the first ones.

    With x' = scale x + shift and y' = outcome y the coefficient is outcome / scale times the old one, and the
    intercept outcome times the old one less shift times the new coefficient.
    """
    y = OUTCOMES[model]
    # The prior of the intercept is so wide that what it is in the other units does not matter.
    reach = WIDE * outcome * (1 + abs(shift / scale))
    prior = (reach, WIDE * outcome * np.array([1.0, 1 / scale]))
    data = {"X": columns(X, scale, shift), "y": y if model is logistic else outcome * y, "prior": prior}
    fit = autovi.fit(model, data | {"unit": outcome}, progress_bar=False)
    draws = {name: np.asarray(values, float) for name, values in fit.sample(DRAWS).items()}
    back = {name: draws[name] / outcome for name in ("sigma", "tau", "effect") if name in draws}
    back["beta"] = draws["beta"] * np.array([1.0, scale]) / outcome
    # At the mean of the data, where float32 has not cancelled the intercept away.
    middle = data["X"].mean(axis=0)
    back["middle"] = (draws["intercept"] + draws["beta"] @ middle) / outcome
    return fit, back


@cache
def first(model):
    """The fit of a model in the first units, and its draws."""
    return in_units(model, 1.0, 0.0, 1.0)


# A binary outcome has no unit.
CASES = [(m, u) for m in OUTCOMES for u, (_, _, outcome) in UNITS.items() if m is not logistic or outcome == 1.0]


@pytest.mark.slow
@pytest.mark.parametrize("model, units", CASES, ids=lambda x: getattr(x, "__name__", x))
def test_draws_do_not_depend_on_the_units(model, units):
    fit, draws = first(model)
    other_fit, others = in_units(model, *UNITS[units])
    assert set(others) == set(draws)
    for name, values in draws.items():
        sd = values.std(axis=0, ddof=1)
        assert np.abs((others[name].mean(axis=0) - values.mean(axis=0)) / sd).max() < MEAN, name
        assert np.abs(np.log(others[name].std(axis=0, ddof=1) / sd)).max() < LOG_SD, name
    assert other_fit.status == fit.status


@pytest.mark.slow
def test_the_first_units_are_right():
    """Otherwise all units could be wrong alike: the linear model's coefficients against least squares."""
    fit, draws = first(linear)
    design = np.column_stack([np.ones(ROWS), X])
    solved, residual = np.linalg.lstsq(design, OUTCOMES[linear], rcond=None)[:2]
    # Given flat priors the coefficients are Student-t with ROWS - 3 degrees of freedom around least squares (the prior
    # of sigma, half-normal of scale 3, moves their sds by under a hundredth).
    sd = np.sqrt(residual[0] / (ROWS - 5) * np.diag(np.linalg.inv(design.T @ design)))[1:]
    assert np.abs((draws["beta"].mean(axis=0) - solved[1:]) / sd).max() < MEAN
    assert np.abs(np.log(draws["beta"].std(axis=0, ddof=1) / sd)).max() < LOG_SD
    assert fit.status == "converged"
