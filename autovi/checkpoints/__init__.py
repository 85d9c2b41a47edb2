"""Fits that go on where a process ended: what is kept on disk, for whom, and when."""
