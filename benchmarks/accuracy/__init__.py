"""How close a fit without settings comes to the posterior: `python -m benchmarks.accuracy`."""
