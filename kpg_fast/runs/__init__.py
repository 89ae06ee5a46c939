"""A run: its directory, its progress, its results."""
