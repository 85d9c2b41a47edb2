"""Is a posterior right? Simulation-based calibration of a regression, fitted as it should be and with a narrow family.

Run it with `python examples/calibration.py`; it takes about a minute.

The level and the slope of a line that is measured far from zero are correlated. Normals without a correlation are a
third as wide as the posterior then: no look at the means of a fit shows that, and ranks of true values show it at once.
"""

import argparse
from pathlib import Path

import numpy as np
import numpyro
import numpyro.distributions as dist

import autovi

X = np.array([4.0, 5.0, 6.0, 7.0])


def model(x, y=None) -> None:
    """A line with normal errors."""
    level = numpyro.sample("level", dist.Normal(0.0, 2.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Normal(level + slope * x, 1.0), obs=y)


def main(
    output: str | Path = "demo_output", *, num_simulations: int = 200, rng_key: int = 0, progress_bar: bool = True
) -> dict[str, "autovi.Calibration"]:
    """Calibrate both, print what was found, save their figures; return both."""
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    asked = {"num_simulations": num_simulations, "rng_key": rng_key, "progress_bar": progress_bar}
    found = {
        "chosen": autovi.calibrate(model, {"x": X}, **asked),
        "mean_field": autovi.calibrate(model, {"x": X}, guide="mean_field", num_steps=1000, **asked).plain,
    }
    for name, calibration in found.items():
        print(f"\n{name}\n{calibration}")
        plot = output / f"calibration_{name}.png"
        calibration.plot().savefig(plot, dpi=120)
        print(f"Saved {plot}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the figures")
    main(parser.parse_args().output)
