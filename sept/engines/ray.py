"""Processes shards on an existing Ray cluster: an actor per GPU, or per group of cores without GPUs.

Ray restarts nothing here: an actor that dies with its process or its node is replaced by `dispatch`, which counts.
Only the actors reserve cores, and they leave one of the cluster free: a pool that reserved all would hang silently as
soon as anything else needs one.
"""

import io
import logging
import os
import pickle
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO, cast

from sept.engines.capacity import Needs, Node, pool_size
from sept.engines.dispatch import Done, Make, Report, Worker, dispatch
from sept.engines.shared_fs import answer_file, answer_probe, read_in_time
from sept.errors import ConfigError
from sept.runtime.hardware import Runtime
from sept.runtime.signals import remembered

START_WITHIN_S = 300.0  # for the first of all actors: room on the cluster, imports, weights
SEEN_WITHIN_S = 10.0  # a network file system may show a new file late
ANSWER_WITHIN_S = 60.0  # a node may have to start a process first
CONNECT_WITHIN_S = 5.0


def run(
    make: Make,
    shards: Sequence[int],
    runtime: Runtime,
    folder: Path,
    done: Done,
    *,
    address: str | None,
    workers: int | None,
) -> None:
    """Raises as `sept.engines.run` does, and ConfigError if the cluster cannot be used."""
    with remembered() as flag, _connected(address):
        flag.listen()  # Ray has set its own handler
        nodes = _nodes()
        needs = Needs.of(nodes, runtime)
        size = pool_size(_seeing(folder, [node for node in nodes if needs.room(node)]), needs)
        with closing(Actors(make, needs, min(size, workers or size))) as crew:
            dispatch(crew, shards, done, flag)


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Context manager: this process is a driver of the cluster, and Ray prints nothing on its terminal."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # otherwise Ray warns about its own default
    try:
        import ray
    except ImportError as error:
        raise ConfigError("engine=ray needs the package ray: pip install 'sept[ray]'") from error
    if ray.is_initialized():
        yield
        return
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    _check_answers(address)
    try:
        ray.init(address=address or "auto", log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(address, _first_line(error)) from error
    try:
        with redirect_stdout(cast(TextIO, _OfThisThread(sys.stdout))):
            yield
    finally:
        with redirect_stdout(io.StringIO()):  # messages it suppressed as repeated
            ray.shutdown()
        if main:
            signal.signal(signal.SIGTERM, before)


def _check_answers(address: str | None) -> None:
    """Checks first, since Ray retries a dead address for minutes, and by itself tries the last address used here."""
    last = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    known = address or os.environ.get("RAY_ADDRESS") or (last.read_text().strip() if last.is_file() else "")
    host, _, port = known.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_WITHIN_S).close()
    except OSError as error:
        raise _no_cluster(known, str(error)) from error


def _no_cluster(address: str | None, why: str) -> ConfigError:
    return ConfigError(
        f"engine=ray: no Ray cluster at {address or 'this machine'} ({why}); make this machine a node of one with "
        "`ray start`, or set engine.address=HOST:PORT"
    )


class _OfThisThread:
    """A stream without the output of other threads: Ray prints a dead node's log from its own thread."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        return self.stream.write(text) if threading.get_ident() == self.thread else len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _nodes() -> list[Node]:
    import ray

    return [
        Node(
            node["NodeID"],
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
            int(node["Resources"].get("CPU", 0)),
            int(node["Resources"].get("GPU", 0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def _seeing(folder: Path, nodes: Sequence[Node]) -> list[Node]:
    """The nodes that are still alive. Raises ConfigError naming one without access to the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder.absolute() / f".probe-{uuid.uuid4().hex}"
    probe.write_text(probe.name)
    try:
        asked = [(node, _ask(node, probe)) for node in nodes]
        return [node for node, answer in asked if _sees(node, probe, answer)]
    finally:
        for file in folder.glob(f"{probe.name}*"):
            file.unlink(missing_ok=True)


def _ask(node: Node, probe: Path) -> Any:
    """The pending result of `answer_probe` on a node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node.id, soft=False)
    task: Any = ray.remote(answer_probe)
    task = task.options(num_cpus=0, max_retries=1, scheduling_strategy=there)
    return task.remote(str(probe), node.id, SEEN_WITHIN_S)


def _sees(node: Node, probe: Path, answer: Any) -> bool:
    """False for a node that has left the cluster in the meantime."""
    import ray

    try:
        complaint = ray.get(answer, timeout=ANSWER_WITHIN_S)
    except ray.exceptions.RayError as error:
        if isinstance(error, ray.exceptions.TaskUnschedulableError) or node not in _nodes():
            return False
        complaint = f"does not answer ({_first_line(error)}); is sept installed there?"
    if not complaint and not read_in_time(answer_file(probe, node.id), node.id, SEEN_WITHIN_S):
        complaint = f"wrote into another folder of the name {probe.parent}"
    if complaint:
        raise ConfigError(f"engine=ray: node {node.name} {complaint}; all nodes need the same store.root")
    return True


class Actors:
    """A worker pool of Ray actors, never restarted or retried by Ray itself."""

    def __init__(self, make: Make, needs: Needs, size: int) -> None:
        import ray

        self.ray, self.needs, self.size = ray, needs, size
        self.job = ray.put(pickle.dumps(make))
        self.hired = ray.remote(Worker).options(
            num_cpus=needs.cpus, num_gpus=needs.gpus, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        self.actors: dict[int, Any] = {}
        self.asked: dict[Any, int] = {}  # slot by pending answer
        self.starting: set[int] = set()
        self.heard = time.monotonic()

    def spawn(self, place: int) -> None:
        self.actors[place] = self.hired.remote()
        self.starting.add(place)
        self.asked[self.actors[place].start.remote(self.job, self.needs.device)] = place

    def give(self, place: int, shard: int) -> None:
        self.asked[self.actors[place].do.remote(shard)] = place

    def report(self, timeout_s: float) -> Report | None:
        answers, _ = self.ray.wait(list(self.asked), num_returns=1, timeout=timeout_s)
        if not answers:
            self._check_started()
            return None
        self.heard = time.monotonic()
        place = self.asked.pop(answers[0])
        self.starting.discard(place)
        try:
            return Report(place, failure=self.ray.get(answers[0]))
        except self.ray.exceptions.RayError as error:
            self._end(place)  # it may only be unreachable
            return Report(place, death=f"{type(error).__name__}: {_first_line(error)}")

    def _check_started(self) -> None:
        if len(self.starting) < len(self.actors) or time.monotonic() - self.heard < START_WITHIN_S:
            return
        free = {name: self.ray.available_resources().get(name, 0) for name in ("CPU", "GPU")}
        raise ConfigError(
            f"engine=ray: no worker could start within {START_WITHIN_S:g} s: each needs {self.needs.cpus} cores and "
            f"{self.needs.gpus} GPUs on one node, the cluster has free {free}"
        )

    def close(self) -> None:
        for place in list(self.actors):
            self._end(place)

    def _end(self, place: int) -> None:
        self.ray.kill(self.actors.pop(place), no_restart=True)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
