"""Log-concave densities along a line: masses, tails and quantiles that are exact in every tail."""
