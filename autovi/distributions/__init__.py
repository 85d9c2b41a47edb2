"""What is known of NumPyro's distributions, one row a class."""
