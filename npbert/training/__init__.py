"""Training: optimisers, learning-rate schedules, gradient clipping."""
