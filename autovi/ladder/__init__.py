"""The start ladder, from a plan to a q: mode, curvature, matching, and only then stochastic steps."""
