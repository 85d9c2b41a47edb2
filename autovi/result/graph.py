"""A drawing of a fitted model by NumPyro and graphviz, where these can."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from shutil import which

import numpyro

from autovi.model.execution import ONE_AT_A_TIME
from autovi.result.posterior import Posterior

MAX_NODES = 40  # with more, a drawing takes long and shows nothing


def model_graph(fit: Posterior) -> str:
    """The model as an SVG element; empty where graphviz is not installed or the model cannot be drawn."""
    sites = fit.engine.full.sites
    if len(sites.samples) + len(sites.deterministics) > MAX_NODES or not (find_spec("graphviz") and which("dot")):
        return ""
    try:
        fit.check_unchanged()
        args, kwargs = fit.inputs.rebuild(fit.inputs.arrays)
        # NumPyro's handlers are global, and its drawing warns of what it leaves out.
        with ONE_AT_A_TIME, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            svg = numpyro.render_model(fit.model, args, kwargs).pipe(format="svg").decode()
        return svg[svg.index("<svg") :].replace("<svg", '<svg style="max-width: 100%; height: auto"', 1)
    except Exception:  # a drawing is an extra: NumPyro cannot draw every model, nor graphviz run everywhere
        return ""
