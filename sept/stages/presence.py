"""Whether the data and weights of an experiment are on this machine."""

from collections.abc import Callable
from typing import TypeVar

from sept.errors import ConfigError, DataError

T = TypeVar("T")


class Presence:
    """absent: of a plan, which goes on with published sizes where data or weights are not on this machine, and notes
    here what and why; without it they are refused."""

    def __init__(self, absent: dict[str, str] | None = None) -> None:
        self.absent = absent

    def find(self, what: str, find: Callable[[], T], otherwise: T) -> T:
        """What `find` finds on this machine; `otherwise` in a plan, where it is not there."""
        try:
            return find()
        except (DataError, ConfigError) as error:
            if self.absent is None:
                raise
            self.absent[what] = str(error)
            return otherwise
