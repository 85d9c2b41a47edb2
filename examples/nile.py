"""The annual flow of the Nile at Aswan, 1871 to 1970: a level that wanders, summed out by a closed form.

The local level model: the level of each year is that of the year before with normal noise, and the flow is the level
with normal noise. Given the two standard deviations everything is linear and normal, so `marginalize` integrates all
levels exactly, as a Kalman filter does, and draws them from their exact posterior; what is fitted are two numbers.
Run it with `python examples/nile.py`; it takes half a minute, most of it to compile.

Data: annual flow in 1e8 cubic metres, in J. Durbin and S. J. Koopman, "Time Series Analysis by State Space Methods",
Oxford University Press (2001), after G. W. Cobb, Biometrika 65 (1978), 243-251.
"""

import argparse
from pathlib import Path

import numpy as np
import numpyro
import numpyro.distributions as dist
from matplotlib.figure import Figure
from numpyro.contrib.control_flow import scan
from scipy import stats

import autovi

FIRST = 1871
# fmt: off
FLOW = np.array([
    1120, 1160,  963, 1210, 1160, 1160,  813, 1230, 1370, 1140,  # 1871
     995,  935, 1110,  994, 1020,  960, 1180,  799,  958, 1140,  # 1881
    1100, 1210, 1150, 1250, 1260, 1220, 1030, 1100,  774,  840,  # 1891
     874,  694,  940,  833,  701,  916,  692, 1020, 1050,  969,  # 1901
     831,  726,  456,  824,  702, 1120, 1100,  832,  764,  821,  # 1911
     768,  845,  864,  862,  698,  845,  744,  796, 1040,  759,  # 1921
     781,  865,  845,  944,  984,  897,  822, 1010,  771,  676,  # 1931
     649,  846,  812,  742,  801, 1040,  860,  874,  848,  890,  # 1941
     744,  749,  838, 1050,  918,  986,  797,  923,  975,  815,  # 1951
    1020,  906,  901, 1170,  912,  746,  919,  718,  714,  740,  # 1961
], float)
# fmt: on
MEAN, SD = 1000.0, 300.0  # of the level before the first year


def model(flow) -> None:
    """A level that wanders by `wander` a year, seen with an error of `noise`."""
    wander = numpyro.sample("wander", dist.LogNormal(np.log(40.0), 0.7))
    noise = numpyro.sample("noise", dist.LogNormal(np.log(100.0), 0.7))
    before = numpyro.sample("before", dist.Normal(MEAN, SD))

    def year(level, flow):
        level = numpyro.sample("level", dist.Normal(level, wander))
        numpyro.sample("flow", dist.Normal(level, noise), obs=flow)
        return level, None

    scan(year, before, flow)


def exact_grid(points: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two standard deviations at the points of a grid, and the posterior probability of each pair, from dense
    normal densities of all flows."""
    wander, noise = np.geomspace(5.0, 160.0, points), np.geomspace(60.0, 220.0, points)
    years = 1.0 + np.arange(len(FLOW))
    walk = np.minimum(years[:, None], years)
    log_p = np.empty((points, points))
    for i, w in enumerate(wander):
        values, vectors = np.linalg.eigh(SD**2 + w**2 * walk)
        turned = np.square(vectors.T @ (FLOW - MEAN))
        spectrum = values + noise[:, None] ** 2
        log_p[i] = -0.5 * np.sum(np.log(spectrum) + turned / spectrum, axis=1)
    # The grid is even in the logarithms, in which the priors are normal.
    log_p += stats.norm.logpdf(np.log(wander), np.log(40.0), 0.7)[:, None]
    log_p += stats.norm.logpdf(np.log(noise), np.log(100.0), 0.7)
    p = np.exp(log_p - log_p.max())
    return wander, noise, p / p.sum()


def exact_level() -> np.ndarray:
    """The posterior mean of each year's level, over the grid."""
    wander, noise, p = exact_grid(30)
    years = 1.0 + np.arange(len(FLOW))
    walk, mean = np.minimum(years[:, None], years), np.zeros(len(FLOW))
    for w, row in zip(wander, p, strict=True):
        values, vectors = np.linalg.eigh(SD**2 + w**2 * walk)
        turned = vectors.T @ (FLOW - MEAN)
        mean += vectors @ np.sum(row[:, None] * values / (values + noise[:, None] ** 2) * turned, axis=0)
    return MEAN + mean


def figure(fit: "autovi.Fit") -> Figure:
    """The data with the level, and the posteriors of both standard deviations beside the exact ones."""
    draws = fit.sample(4000)
    years = FIRST + np.arange(len(FLOW))
    low, middle, high = np.quantile(draws["level"], [0.03, 0.5, 0.97], axis=0)
    picture = Figure(figsize=(12, 4), layout="constrained")
    data, wander, noise = picture.subplots(1, 3, width_ratios=[1.5, 1, 1])
    data.plot(years, FLOW, "k.", label="data")
    data.plot(years, middle, color="C0", label="level, median")
    data.fill_between(years, low, high, color="C0", alpha=0.3, lw=0, label="94 % interval")
    data.set(title="Flow of the Nile", xlabel="year", ylabel="1e8 cubic metres")
    *grid, p = exact_grid()
    for ax, name, x, of in zip((wander, noise), ("wander", "noise"), grid, (p.sum(1), p.sum(0)), strict=True):
        ax.hist(draws[name], bins=50, density=True, color="C0", alpha=0.5, label="autovi")
        ax.plot(x, of / (x * np.log(x[1] / x[0])), "k-", label="exact")
        ax.set(title=f"Standard deviation: {name}", xlabel="1e8 cubic metres", ylabel="density")
    for ax in (data, wander, noise):
        ax.legend(fontsize=9)
    return picture


def main(
    output: str | Path = "demo_output", *, num_draws: int = 4000, rng_key: int = 0, progress_bar: bool = True
) -> "autovi.Fit":
    """Fit the model, print it with its k-hat and a summary, save plot and posterior; return the fit."""
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    fit = autovi.fit(
        model,
        {"flow": FLOW},
        estimators={"level": "marginalize", "before": "marginalize"},
        rng_key=rng_key,
        num_draws=num_draws,
        progress_bar=progress_bar,
    )
    print("\nThe flow of the Nile, 1871 to 1970\n")
    print(fit)
    wander, noise, p = exact_grid()
    exact = {"wander": (wander, p.sum(1)), "noise": (noise, p.sum(0))}
    print("\nPosterior means:")
    for name, (x, of) in exact.items():
        found = float(np.mean(np.asarray(fit.idata["posterior"][name])))
        print(f"  {name}  {found:.1f}  (exact {float(np.sum(x * of)):.1f})")
    plot, posterior = output / "nile.png", output / "nile.nc"
    figure(fit).savefig(plot, dpi=120)
    fit.to_arviz().to_netcdf(posterior)
    print(f"\nSaved {plot} and {posterior}")
    return fit


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for plot and posterior")
    main(parser.parse_args().output)
