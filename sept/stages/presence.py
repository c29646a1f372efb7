"""Whether the data and weights of an experiment are on this machine."""

from collections.abc import Callable
from typing import TypeVar

from sept.errors import ConfigError, DataError

T = TypeVar("T")


class Presence:
    """absent: for a plan, which uses published sizes for data or weights that are not on this machine, and records them
    here with the reason; without it they are refused."""

    def __init__(self, absent: dict[str, str] | None = None) -> None:
        self.absent = absent

    def find(self, what: str, find: Callable[[], T], otherwise: T) -> T:
        """The result of `find`; in a plan `otherwise`, if it is not on this machine."""
        try:
            return find()
        except (DataError, ConfigError) as error:
            if self.absent is None:
                raise
            self.absent[what] = str(error)
            return otherwise
