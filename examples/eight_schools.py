"""Eight schools, non-centred: how much does coaching raise test scores, and do schools differ?

Run it with `python examples/eight_schools.py`; it takes a few seconds.

Data: estimated effects of coaching on SAT-V scores in eight schools with their standard errors. D. B. Rubin,
"Estimation in parallel randomized experiments", Journal of Educational Statistics 6 (1981), 377-401.
"""

import argparse
from pathlib import Path

import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

import autovi

SCHOOLS = list("ABCDEFGH")
EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
STANDARD_ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def model(standard_errors, effects=None) -> None:
    """School effects `theta = mu + tau * z` with standard normal `z`, observed with known errors."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(SCHOOLS)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("effect", dist.Normal(theta, standard_errors), obs=effects)


class Exact:
    """The posterior without sampling: given `tau` all else is normal, and `tau` is one-dimensional.

    With `mu` ~ Normal(0, 5) and an effect ~ Normal(mu, v), v = tau^2 + standard error^2, the posterior of `mu` given
    `tau` has precision 1/25 + sum 1/v, and that of a school's `theta` weighs its effect against `mu`.
    """

    def __init__(self) -> None:
        self.tau = np.linspace(0.01, 80.0, 4000)  # beyond it lies less than a millionth
        tau2, se2 = self.tau[:, None] ** 2, STANDARD_ERRORS**2
        precision = 1 / (tau2 + se2)
        self.mu_variance = 1 / (1 / 25 + precision.sum(axis=1))
        self.mu_mean = self.mu_variance * (precision * EFFECTS).sum(axis=1)
        # log p(effects | tau), up to a constant: mu integrated out.
        log_p = 0.5 * (np.log(precision) - precision * EFFECTS**2).sum(axis=1)
        log_p += 0.5 * np.log(self.mu_variance) + 0.5 * self.mu_mean**2 / self.mu_variance
        log_p += stats.halfcauchy.logpdf(self.tau, scale=5.0)
        self.weight = np.exp(log_p - log_p.max())
        self.weight /= self.weight.sum()
        self.pull = se2 * precision  # of mu on theta
        self.theta_mean = self.pull * self.mu_mean[:, None] + (1 - self.pull) * EFFECTS
        self.theta_sd = np.sqrt(tau2 * self.pull + self.pull**2 * self.mu_variance[:, None])

    def tau_density(self) -> np.ndarray:
        """At the points of `tau`."""
        return self.weight / (self.tau[1] - self.tau[0])

    def mu_density(self, mu: np.ndarray) -> np.ndarray:
        """A mixture of normals over `tau`."""
        return self.weight @ stats.norm.pdf(mu, self.mu_mean[:, None], np.sqrt(self.mu_variance)[:, None])

    def theta_quantiles(self, school: int, probabilities: list[float]) -> np.ndarray:
        """Of the effect of one school, read off the mixture's distribution function."""
        theta = np.linspace(-60.0, 80.0, 2000)
        below = self.weight @ stats.norm.cdf(theta, self.theta_mean[:, school, None], self.theta_sd[:, school, None])
        return np.interp(probabilities, below, theta)


def figure(fit: "autovi.Fit") -> Figure:
    """The data with the schools' effects, and the posteriors of `mu` and `tau`, beside the exact ones."""
    draws, exact = fit.sample(4000), Exact()
    picture = Figure(figsize=(12, 4.2), layout="constrained")
    schools, mean, spread = picture.subplots(1, 3, width_ratios=[1.6, 1, 1])

    rows, interval = np.arange(len(SCHOOLS)), [0.03, 0.5, 0.97]
    theta = {
        "autovi, median and 94 %": ("C0", np.quantile(draws["theta"], interval, axis=0)),
        "exact": ("k", np.transpose([exact.theta_quantiles(school, interval) for school in rows])),
    }
    schools.errorbar(EFFECTS, rows - 0.25, xerr=STANDARD_ERRORS, fmt="s", color="0.6", label="data ± standard error")
    for shift, (label, (color, (low, middle, high))) in zip((0.0, 0.25), theta.items(), strict=True):
        schools.errorbar(middle, rows + shift, xerr=(middle - low, high - middle), fmt="o", color=color, label=label)
    schools.set(title="Effect of coaching, by school", xlabel="points of SAT-V", ylabel="school")
    schools.set_yticks(rows, SCHOOLS)
    schools.set_ylim(len(SCHOOLS) - 0.4, -2.6)  # room for the legend

    mu, tau = np.linspace(-8.0, 16.0, 300), exact.tau[exact.tau < 20]
    mean.hist(draws["mu"], bins=60, range=(-8, 16), density=True, color="C0", alpha=0.5, label="autovi")
    mean.plot(mu, exact.mu_density(mu), "k-", label="exact")
    mean.set(title="Mean effect", xlabel="mu, points of SAT-V", ylabel="density")
    spread.hist(draws["tau"], bins=60, range=(0, 20), density=True, color="C0", alpha=0.5, label="autovi")
    spread.plot(tau, exact.tau_density()[: len(tau)], "k-", label="exact")
    spread.set(title="Spread between schools", xlabel="tau, points of SAT-V", ylabel="density")
    for ax in (schools, mean, spread):
        ax.legend(fontsize=9)
    return picture


def main(
    output: str | Path = "demo_output",
    *,
    num_steps: int | None = None,
    num_draws: int = 4000,
    rng_key: int = 0,
    progress_bar: bool = True,
) -> "autovi.Fit":
    """Fit the model, print it with its k-hat and a summary, save plot and posterior; return the fit."""
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    # The dimension and its coordinate are carried over to the ArviZ object.
    data = {
        name: xr.DataArray(values, dims=["school"], coords={"school": SCHOOLS})
        for name, values in {"standard_errors": STANDARD_ERRORS, "effects": EFFECTS}.items()
    }

    fit = autovi.fit(model, data, rng_key=rng_key, num_steps=num_steps, num_draws=num_draws, progress_bar=progress_bar)

    print("\nEight schools, non-centred\n")
    print(fit)
    print()
    print(fit.summary())

    plot, posterior = output / "eight_schools.png", output / "eight_schools.nc"
    figure(fit).savefig(plot, dpi=120)
    fit.to_arviz().to_netcdf(posterior)
    print(f"\nSaved {plot} and {posterior}")
    return fit


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for plot and posterior")
    main(parser.parse_args().output)
