"""The start ladder: from a log density to a normal distribution that a fit starts from, or is done with."""
