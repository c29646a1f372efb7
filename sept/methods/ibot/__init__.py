"""iBOT."""
