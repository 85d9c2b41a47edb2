"""Small random programs with discrete sites, and their exact answers by brute force."""
