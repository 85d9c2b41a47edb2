"""Posteriors to try fits on, on simulated data: `python -m benchmarks.posteriors FOLDER` draws their references."""

from benchmarks.posteriors import counts, crossed, raw_units, series, sparse

POSTERIORS = crossed.POSTERIORS | counts.POSTERIORS | series.POSTERIORS | sparse.POSTERIORS | raw_units.POSTERIORS
MODELS = {name: (p.model, p.data) for name, p in POSTERIORS.items()}
