"""What runs in a worker, whatever the engine."""

import ctypes
import pickle
import signal
import sys

from sept.engines.dispatch import Failure, Work, failure_of
from sept.machine import Machine

DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG


def die_with_parent() -> None:
    """A killed program takes this process along, as a killed process its threads. On Linux; elsewhere does nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)


class Worker:
    """Makes its work, then does shards; gives back what they raise."""

    work: Work

    def start(self, job: bytes, device: str) -> Failure:
        """job: the pickled `make`."""

        def begin() -> None:
            Machine(device).select_device()  # before anything of this process can open a context on another
            self.work = pickle.loads(job)(device)

        return failure_of(begin)

    def do(self, shard: int) -> Failure:
        return failure_of(lambda: self.work(shard))
