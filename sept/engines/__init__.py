"""Independent shards of work done by several workers, each shard once in effect.

A shard commits itself by a rename, so what is done twice does no harm; that it is rare is the engine's part. A worker
that dies costs its shard only, which another worker does. An engine stopped at any moment leaves whole shards, and the
same call with those that are missing goes on from there.
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
    """Does the shards, in any order, and calls done(shard) here after each.

    engine: `local`, on the devices of this machine, or `ray`, on a Ray cluster at `address` ("HOST:PORT"; None: the one
    this machine belongs to) by at most `workers` workers. make(device), picklable, is called once in each worker, with
    "cpu", "cuda" or "cuda:N", and gives what does and commits one shard in `folder`. Where it computes with torch, it
    uses `share(runtime, device)`.

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
        from sept.engines import local

        local.run(make, shards, runtime, done)
