"""DINO."""
