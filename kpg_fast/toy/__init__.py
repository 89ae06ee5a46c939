"""K-level policy gradients on games with exact gradients."""
