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

import autovi
from autovi.result.export import plot_posterior_summary

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
    plot_posterior_summary(fit.idata, plot)
    fit.to_arviz().to_netcdf(posterior)
    print(f"\nSaved {plot} and {posterior}")
    return fit


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for plot and posterior")
    main(parser.parse_args().output)
