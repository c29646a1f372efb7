"""One training, stoppable and resumable at any step."""
