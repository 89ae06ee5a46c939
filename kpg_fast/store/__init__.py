"""Parameters in memory and on disk."""
