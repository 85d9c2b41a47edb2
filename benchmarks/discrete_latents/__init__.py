"""Models with discrete latents, of the shapes of NumPyro's examples, with references: how close a fit comes to them."""

from benchmarks.discrete_latents import annotation, capture, hidden_markov, mixtures

CASES = hidden_markov.CASES | annotation.CASES | capture.CASES | mixtures.CASES
