"""The user's function and data: run, described, checked."""
