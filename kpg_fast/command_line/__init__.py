"""The command ``kpg-fast``."""
