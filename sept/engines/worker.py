"""What runs in a worker, whatever the engine."""

import pickle

from sept.engines.dispatch import Failure, Work, failure_of
from sept.runtime.hardware import Runtime


class Worker:
    """Makes its work, then does shards; gives back what they raise."""

    work: Work

    def start(self, job: bytes, device: str) -> Failure:
        """job: the pickled `make`."""

        def begin() -> None:
            Runtime(device).select_device()  # before anything of this process can open a context on another
            self.work = pickle.loads(job)(device)

        return failure_of(begin)

    def do(self, shard: int) -> Failure:
        return failure_of(lambda: self.work(shard))
