"""Guide and model as one program, and a loss whose gradient is the estimate."""
