"""Objects that registries name as "module:name", imported on use, so that a plan need not import training code."""

from importlib import import_module
from typing import Any


def load(named: str) -> Any:
    """The function or class that "module:name" names."""
    module, _, name = named.partition(":")
    return getattr(import_module(module), name)
