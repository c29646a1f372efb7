"""MoBy."""
