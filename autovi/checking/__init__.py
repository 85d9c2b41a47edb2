"""The audit of gradient estimators: each against an independent one, on the problem at hand."""
