"""Self-supervised methods, one folder each."""
