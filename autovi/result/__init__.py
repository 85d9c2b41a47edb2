"""What a fit gives back, on disk too."""
