"""Every gradient estimator of the table on every problem where it is right: bias, variance, time."""
