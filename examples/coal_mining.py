"""British coal-mining disasters, 1851 to 1962: in which year did the rate change?

The textbook change-point model. Its switch point is a whole year, so the posterior has a discrete latent site
beside two continuous ones. Run it with `python examples/coal_mining.py`; it takes a few seconds.

Data: disasters with ten or more deaths in British coal mines, by year. R. G. Jarrett, "A note on the
intervals between coal-mining disasters", Biometrika 66 (1979), 191-193; yearly counts as tabulated by
B. P. Carlin, A. E. Gelfand and A. F. M. Smith, Applied Statistics 41 (1992), 389-405.
"""

import argparse
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

import autovi

FIRST, LAST = 1851, 1962
# fmt: off
COUNTS = np.array([
    4, 5, 4, 1, 0, 4, 3, 4, 0, 6,  # 1851
    3, 3, 4, 0, 2, 6, 3, 3, 5, 4,  # 1861
    5, 3, 1, 4, 4, 1, 5, 5, 3, 4,  # 1871
    2, 5, 2, 2, 3, 4, 2, 1, 3, 2,  # 1881
    2, 1, 1, 1, 1, 3, 0, 0, 1, 0,  # 1891
    1, 1, 0, 0, 3, 1, 0, 3, 2, 2,  # 1901
    0, 1, 1, 1, 0, 1, 0, 1, 0, 0,  # 1911
    0, 2, 1, 0, 0, 0, 1, 1, 0, 2,  # 1921
    3, 3, 1, 1, 2, 1, 1, 1, 1, 2,  # 1931
    4, 2, 0, 0, 0, 1, 4, 0, 0, 0,  # 1941
    1, 0, 0, 0, 0, 0, 1, 0, 0, 1,  # 1951
    0, 1,                          # 1961
])
# fmt: on


def model(counts) -> None:
    """Poisson counts whose rate is `early` up to and including the year `switch`, and `late` after it."""
    switch = numpyro.sample("switch", dist.DiscreteUniform(FIRST, LAST - 1))
    early = numpyro.sample("early", dist.Exponential(1.0))
    late = numpyro.sample("late", dist.Exponential(1.0))
    years = jnp.arange(FIRST, LAST + 1)
    with numpyro.plate("year", len(COUNTS)):
        numpyro.sample("disasters", dist.Poisson(jnp.where(years <= switch, early, late)), obs=counts)


def exact_switch_posterior() -> dict[int, float]:
    """P(switch = year | counts) for every year, both rates integrated out in closed form.

    With an Exponential(1) = Gamma(1, 1) prior, n years with s disasters in total have marginal probability
    proportional to Gamma(1 + s) / (1 + n)^(1 + s).
    """

    def log_marginal(counts: np.ndarray) -> float:
        shape = 1.0 + float(counts.sum())
        return math.lgamma(shape) - shape * math.log(1.0 + len(counts))

    years = range(FIRST, LAST)
    splits = [year - FIRST + 1 for year in years]
    log_p = np.array([log_marginal(COUNTS[:n]) + log_marginal(COUNTS[n:]) for n in splits])
    p = np.exp(log_p - log_p.max())
    return dict(zip(years, (p / p.sum()).tolist(), strict=True))


def exact_rate_densities(rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior densities of `early` and `late` at these rates.

    Given the year each rate is Gamma(1 + disasters, 1 + years) of its own side; over the years they are a mixture.
    """
    early, late = np.zeros_like(rates), np.zeros_like(rates)
    for year, p in exact_switch_posterior().items():
        before, after = np.split(COUNTS, [year - FIRST + 1])
        early += p * stats.gamma.pdf(rates, 1 + before.sum(), scale=1 / (1 + len(before)))
        late += p * stats.gamma.pdf(rates, 1 + after.sum(), scale=1 / (1 + len(after)))
    return early, late


def figure(fit: "autovi.Fit") -> Figure:
    """The data with the fitted rate, and the posteriors of the year and of the rates beside the exact ones."""
    draws = fit.sample(4000)
    years, rates = np.arange(FIRST, LAST + 1), np.linspace(0.3, 5.0, 500)
    rate = np.where(years <= draws["switch"][:, None], draws["early"][:, None], draws["late"][:, None])
    low, middle, high = np.quantile(rate, [0.03, 0.5, 0.97], axis=0)

    picture = Figure(figsize=(12, 4), layout="constrained")
    data, switch, before_after = picture.subplots(1, 3, width_ratios=[1.5, 1, 1])
    data.bar(years, COUNTS, width=1.0, color="0.75", label="data")
    data.step(years, middle, where="mid", color="C0", label="fitted rate, median")
    data.fill_between(years, low, high, step="mid", color="C0", alpha=0.3, lw=0, label="94 % interval")
    data.set(title="British coal-mining disasters", xlabel="year", ylabel="disasters a year")

    exact = exact_switch_posterior()
    found, occurrences = np.unique(draws["switch"], return_counts=True)
    switch.bar(found, occurrences / occurrences.sum(), color="C0", alpha=0.5, label="autovi")
    switch.plot(list(exact), list(exact.values()), "k.", label="exact")
    switch.set(title="Last year of the higher rate", xlabel="year", ylabel="probability", xlim=(1879.5, 1900.5))
    switch.set_xticks(range(1880, 1901, 5))

    for name, density, color in zip(("early", "late"), exact_rate_densities(rates), ("C0", "C1"), strict=True):
        before_after.hist(draws[name], bins=40, density=True, color=color, alpha=0.5, label=f"autovi, {name}")
        before_after.plot(rates, density, "k-", label="exact" if name == "late" else None)
    before_after.set(title="Rates before and after it", xlabel="disasters a year", ylabel="density")
    for ax in (data, switch, before_after):
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
    # The index of the data becomes the coordinate of the plate in the ArviZ object.
    counts = pd.Series(COUNTS, index=pd.RangeIndex(FIRST, LAST + 1, name="year"))

    fit = autovi.fit(
        model,
        {"counts": counts},
        rng_key=rng_key,
        num_steps=num_steps,
        num_draws=num_draws,
        progress_bar=progress_bar,
    )

    print("\nBritish coal-mining disasters, 1851 to 1962\n")
    print(fit)
    print()
    print(fit.summary())
    years, occurrences = np.unique(np.asarray(fit.idata["posterior"]["switch"]), return_counts=True)
    exact = exact_switch_posterior()
    print("\nThe last year of the higher rate, most likely first:")
    for i in np.argsort(-occurrences)[:5]:
        year, p = int(years[i]), occurrences[i] / occurrences.sum()
        print(f"  {year}  probability {p:.3f}  (exact {exact[year]:.3f})")

    plot, posterior = output / "coal_mining.png", output / "coal_mining.nc"
    figure(fit).savefig(plot, dpi=120)
    fit.to_arviz().to_netcdf(posterior)
    print(f"\nSaved {plot} and {posterior}")
    return fit


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for plot and posterior")
    main(parser.parse_args().output)
