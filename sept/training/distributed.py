"""A training on several devices of this machine, with one process per device, started here.

Lightning's own launcher runs the whole program again, and in a sweep the whole sweep; here the program stays one
process, which starts the others for one piece of work, forwards signals to them and raises what they raise.

A process that fails reports before it leaves the group: processes that wait for it in a collective then fail too
(gloo), or keep waiting (NCCL), and their errors are not the cause.
"""

import multiprocessing
import os
import pickle
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NoReturn

import torch.distributed as dist

from sept.errors import Interrupted, ProcessError, SeptError
from sept.runtime.environment import forget
from sept.runtime.failures import out_of_memory, refusal
from sept.runtime.hardware import Runtime
from sept.runtime.lifeline import die_with_parent, spawn
from sept.runtime.signals import Flag, raising, remembered

POLL_S = 0.5
GRACE_S = 5.0  # for the others to end by themselves after a failure, and again after being signalled


def run(work: Callable[[Runtime], Any], runtime: Runtime) -> None:
    """Calls work(machine of its rank) in `runtime.devices` new processes, which may form a torch.distributed group.

    `work` must be picklable. Returns when all have returned; when one fails, the others are ended. Raises what the
    first one raised: a SeptError as it is, OutOfMemory for a GPU's memory that ran out, ProcessError for anything else,
    whose traceback is on stderr; Interrupted after a signal, and when a process was killed.
    """
    job = pickle.dumps((work, runtime))  # torch's own pickling would share tensors between all processes
    port = _free_port()
    members: list[_Member] = []
    with remembered() as flag:
        try:
            members += (_started(rank, job, port) for rank in range(runtime.devices))
            _watch(members, flag)
        finally:
            _end(members)
    reason = _reason(members, flag)
    if reason is not None:
        raise reason


@dataclass(frozen=True)
class _Failure:
    """at: time, on the clock that all processes of a machine share."""

    error: SeptError | Interrupted
    at: float


@dataclass
class _Member:
    """A process, and our end of the pipe that it reports through. ended: terminated by us, so not a cause."""

    process: SpawnProcess
    line: Connection
    reported: bool = False
    failure: _Failure | None = None
    ended: bool = False

    def on_report(self) -> None:
        with suppress(EOFError, ConnectionError):
            if not self.reported and self.line.poll():
                self.failure = self.line.recv()
                self.reported = True

    @property
    def failed(self) -> bool:
        alive = self.process.is_alive()
        self.on_report()  # only now: a last report may have arrived in the meantime
        return self.failure is not None or not (alive or self.reported)

    @property
    def death(self) -> str | None:
        """How a process ended that sent no report."""
        code = self.process.exitcode
        if self.reported or self.ended or code is None:
            return None
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _started(rank: int, job: bytes, port: int) -> _Member:
    new = spawn(job)
    line, theirs = new.Pipe(duplex=False)
    process = new.Process(target=_process, args=(rank, job, port, theirs))
    process.start()
    theirs.close()
    return _Member(process, line)


def _watch(members: Sequence[_Member], flag: Flag) -> None:
    """Waits until all have ended, or one has failed and the others had time to notice."""
    handed_on, last = False, float("inf")
    while any(member.process.is_alive() for member in members) and time.monotonic() < last:
        lines = [member.line for member in members if not member.reported and member.process.is_alive()]
        wait([*lines, *(member.process.sentinel for member in members if member.process.is_alive())], POLL_S)
        if flag.received and not handed_on:
            handed_on = True
            _hand_on(flag, members)
        failed = [member.failed for member in members]  # reads the reports of all
        if any(failed) and last == float("inf"):
            last = time.monotonic() + GRACE_S


def _end(members: Sequence[_Member]) -> None:
    """Ends the remaining ones: first gracefully, which fails for one inside a collective, then by killing."""
    last = time.monotonic() + GRACE_S
    for member in members:
        member.ended = member.process.is_alive()
        member.process.terminate()
    for member in members:
        member.process.join(max(0.0, last - time.monotonic()))
        member.process.kill()
        member.process.join()
        member.on_report()
        member.line.close()


def _process(rank: int, job: bytes, port: int, line: Connection) -> None:
    """The main function of a new process."""
    die_with_parent()
    try:
        with raising():
            work, runtime = pickle.loads(job)
            world = runtime.devices
            forget()
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            mine = replace(runtime, rank=rank, threads=max(1, runtime.threads // world))
            mine.select_device()
            work(mine)
            line.send(None)
    except (Exception, Interrupted) as error:
        _leave(error, rank, line)
    if dist.is_initialized():
        dist.destroy_process_group()


def _leave(error: Exception | Interrupted, rank: int, line: Connection) -> NoReturn:
    """Reports and ends this process at once: leaving the group properly would deadlock with those waiting for it."""
    at = time.monotonic()
    told = error if isinstance(error, (SeptError, Interrupted)) else out_of_memory(error) or refusal(error)
    if told is None:
        traceback.print_exception(error)
        last = " ".join(traceback.format_exception_only(error)[-1].split())
        told = ProcessError(f"process {rank} of the training failed and the others were ended: {last}")
    with suppress(ConnectionError):  # the program is gone
        line.send(_Failure(told, at))
    for child in multiprocessing.active_children():
        child.terminate()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _hand_on(flag: Flag, members: Sequence[_Member]) -> None:
    for member in members:
        if member.process.is_alive() and member.process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(member.process.pid, signal.Signals[flag.received or "SIGTERM"])


def _reason(members: Sequence[_Member], flag: Flag) -> Exception | Interrupted | None:
    """The exception to raise: the first report of a failure, or the death of a process without a report.

    Interruptions of others after a failure are not the cause. A killed process is the cause of the connection errors of
    the others; one that aborted itself (NCCL's watchdog) is not.
    """
    said = [each.error for each in sorted((m.failure for m in members if m.failure), key=lambda failure: failure.at)]
    failures = [error for error in said if not isinstance(error, Interrupted)]
    if failures and not isinstance(failures[0], ProcessError):
        return failures[0]
    if flag.received:
        return next((error for error in said if isinstance(error, Interrupted)), _interrupted(flag.received))
    deaths = [member.death for member in members if member.death]
    killed = [death for death in deaths if death != signal.SIGABRT.name]
    if killed or (deaths and not failures):
        return _interrupted(f"the end of one of its processes, {(killed or deaths)[0]}")
    return next(iter(failures or said), None)


def _interrupted(cause: str) -> Interrupted:
    return Interrupted(f"stopped by {cause}; the same command resumes from the last saved state")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
