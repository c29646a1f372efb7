"""Independent shards of work, processed by several workers, each shard effectively once.

A shard is committed by a rename, so processing one twice is harmless, and the engine keeps it rare. If a worker dies,
only its shard is lost, and another worker redoes it. An engine stopped at any moment leaves complete shards, and the
same call with the missing ones resumes from there.
"""

from collections.abc import Sequence
from pathlib import Path

from sept.engines.dispatch import Done, Make, Work, share
from sept.runtime.hardware import Runtime

__all__ = ["Done", "Make", "Work", "run", "share"]


def run(
    engine: str,
    make: Make,
    shards: Sequence[int],
    runtime: Runtime,
    folder: Path,
    done: Done = lambda shard: None,
    *,
    address: str | None = None,
    workers: int | None = None,
) -> None:
    """Processes the shards, in any order, and calls done(shard) in this process after each.

    engine: `local`, on the devices of this machine, or `ray`, on a Ray cluster at `address` ("HOST:PORT"; None: the one
    this machine belongs to) by at most `workers` workers. make(device), picklable, is called once in each worker, with
    "cpu", "cuda" or "cuda:N", and returns a function that processes and commits one shard in `folder`. If it uses
    torch, it calls `share(runtime, device)`.

    Raises at once the SeptError that a shard raised; DataError for a shard that killed every worker it was given to;
    ConfigError when no worker can start; Interrupted after a signal.
    """
    if not shards:
        return
    if engine == "ray":
        from sept.engines import ray

        ray.run(make, shards, runtime, folder, done, address=address, workers=workers)
    else:
        assert engine == "local", engine
        from sept.engines import dispatch

        dispatch.run(make, shards, runtime, done)
