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

import autovi
from autovi.result.export import plot_posterior_summary

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
    plot_posterior_summary(fit.idata, plot)
    fit.to_arviz().to_netcdf(posterior)
    print(f"\nSaved {plot} and {posterior}")
    return fit


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for plot and posterior")
    main(parser.parse_args().output)
