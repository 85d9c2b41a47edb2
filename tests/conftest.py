"""What every test relies on: JAX on the CPU, no plot windows, ArviZ's daily notice said once."""

import os
import warnings

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["MPLBACKEND"] = "Agg"


# The shapes that annotations promise are checked at every call of these modules.
install_import_hook(["autovi.estimators.baselines", "autovi.estimators"], "beartype.beartype")


def pytest_configure(config: pytest.Config) -> None:
    """Import ArviZ once before the workers start.

    ArviZ 0.23 stamps a file in the user's cache on its first import of the day, by a rename that fails when
    two processes do it at once.
    """
    if not hasattr(config, "workerinput"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            import arviz  # noqa: F401
