"""What tables name as "module:name", imported when it is used: so a plan need not import what trains or reads."""

from importlib import import_module
from typing import Any


def load(named: str) -> Any:
    """The function or class that "module:name" names."""
    module, _, name = named.partition(":")
    return getattr(import_module(module), name)
