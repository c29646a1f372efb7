"""Encoders that embed pool and task."""
