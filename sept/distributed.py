"""One training on several devices of this machine: a process each, started here.

Lightning's own launcher runs the whole program again, and in a sweep the whole sweep; here the program stays one
process, which starts the others on one piece of work, hands signals on to them and raises what they raise.
"""

import multiprocessing
import os
import pickle
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch.distributed as dist
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, start_processes

from sept.engines.worker import die_with_parent
from sept.errors import Interrupted, SeptError
from sept.machine import Machine
from sept.signals import Flag, raising, remembered

POLL_S = 0.5
GRACE_S = 5.0  # for the others to end by themselves when one has failed, and again when told to


def place() -> tuple[int, int]:
    """Rank of this process, and how many share the training; (0, 1) outside one that is shared."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def run(work: Callable[[Machine], Any], machine: Machine) -> None:
    """Calls work(machine of its rank) in `machine.devices` new processes, which may form a torch.distributed group.

    `work` must be picklable. Returns when all have returned. Raises the SeptError that one of them raised.
    """
    # Plain pickle copies tensors; torch's own would have all processes write to the same ones.
    job = pickle.dumps((work, machine))
    results = multiprocessing.get_context("spawn").SimpleQueue()
    with remembered() as flag:
        processes = start_processes(
            _process, (job, _free_port(), results), machine.devices, join=False, start_method="spawn"
        )
        assert processes is not None
        handed_on = False
        try:
            while not processes.join(timeout=POLL_S, grace_period=GRACE_S):
                if flag.received and not handed_on:
                    handed_on = True
                    _hand_on(flag, processes.pids())
        except (ProcessRaisedException, ProcessExitedException) as failure:
            raise _reason(_drained(results), flag, failure) from None
    outcomes = _drained(results)
    if len(outcomes) < machine.devices:  # one that a signal met while importing ends as if all were well
        raise _reason(outcomes, flag, RuntimeError("a training process ended without a result"))


def _process(rank: int, job: bytes, port: int, results: Any) -> None:
    """The whole of a new process."""
    die_with_parent()
    try:
        with raising():
            work, machine = pickle.loads(job)
            world = machine.devices
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            work(replace(machine, rank=rank, threads=max(1, machine.threads // world)))
            results.put(None)
    except SeptError as error:
        results.put(error)
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _hand_on(flag: Flag, pids: list[int | None]) -> None:
    for pid in filter(None, pids):
        try:
            os.kill(pid, signal.Signals[flag.received or "SIGTERM"])
        except ProcessLookupError:
            continue


def _drained(results: Any) -> list[SeptError | None]:
    """What each process that came so far has left: None after its work, or why it stopped."""
    outcomes = []
    while not results.empty():
        outcomes.append(results.get())
    return outcomes


def _reason(outcomes: list[SeptError | None], flag: Flag, failure: Exception) -> Exception:
    """What to raise: what a process said, or what happened to one that could not say anything.

    That others were interrupted when one had failed is no reason.
    """
    errors = [outcome for outcome in outcomes if outcome is not None]
    failures = [error for error in errors if not isinstance(error, Interrupted)]
    if failures:
        return failures[0]
    if flag.received or not isinstance(failure, ProcessExitedException):
        return errors[0] if errors else _interrupted(str(flag.received)) if flag.received else failure
    return _interrupted(f"the end of one of its processes, {failure.signal_name or failure.exit_code}")


def _interrupted(cause: str) -> Interrupted:
    return Interrupted(f"stopped by {cause}; the same command goes on from the state that was saved last")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
