"""The compiled loop, and what starts and ends it."""
