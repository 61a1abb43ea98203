"""npbert.bench."""
