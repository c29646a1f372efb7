"""A training run, stoppable and resumable at any step."""
