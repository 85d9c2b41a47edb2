"""What other tools take of a fit: a start for NUTS, and q as a guide function of NumPyro."""
