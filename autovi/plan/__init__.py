"""What is fitted how, and why."""
