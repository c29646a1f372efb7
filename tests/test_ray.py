"""The engines' promises on a Ray cluster of two nodes, which is started here on one machine."""

import os
import random
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from sharded import SHARDS, dying, embedder, failing, files, logged, missing, once_started, vectors

from sept import engines
from sept.engines.capacity import Needs, Node, pool_size
from sept.engines.dispatch import TRIES
from sept.errors import ConfigError, DataError, Interrupted, NonFiniteError
from sept.runtime.hardware import Runtime

pytest.importorskip("ray", reason="ray is not installed: pip install 'sept[ray]'")

MACHINE = Runtime(threads=1)
KILLS = 8
SMALL = {"num_cpus": 2, "object_store_memory": 80_000_000, "include_dashboard": False}
FAST = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}  # a dead node is noticed in seconds


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)  # the nodes' processes inherit it
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args={**SMALL, "_system_config": FAST})
        cluster.add_node(**SMALL)
        cluster.wait_for_nodes()
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("alone")
    engines.run("local", partial(embedder, folder), range(SHARDS), MACHINE, folder)
    return files(folder)


def run(cluster, make, shards, folder, done=lambda shard: None, **options) -> None:
    engines.run("ray", make, shards, MACHINE, folder, done, address=cluster.address, **options)


def workers() -> list[int]:
    """Processes of the actors on this machine."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"ray::Worker"):
            found.append(int(process.name))
    return found


def ended_workers() -> bool:
    deadline = time.monotonic() + 10
    while workers() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not workers()


@pytest.mark.slow
def test_a_cluster_does_the_same_as_one_machine_in_silence(cluster, tmp_path, expected, capfd):
    before = signal.getsignal(signal.SIGTERM)
    run(cluster, partial(embedder, tmp_path), range(SHARDS), tmp_path, partial(once_started, tmp_path, 3))
    assert files(tmp_path) == expected
    assert logged(tmp_path)["cpu"] == 3  # of four cores one stays free
    assert logged(tmp_path).total() == SHARDS + 3
    assert list(tmp_path.glob(".probe*")) == []
    assert capfd.readouterr() == ("", "")
    assert signal.getsignal(signal.SIGTERM) is before


class Killer:
    """Kills one of the workers after some of the shards."""

    def __init__(self, kills: int) -> None:
        self.left, self.draw, self.finished = kills, random.Random(0), 0

    def __call__(self, shard: int) -> None:
        self.finished += 1
        if self.left and self.draw.random() < 0.2 and (found := workers()):
            self.left -= 1
            os.kill(self.draw.choice(found), signal.SIGKILL)


@pytest.mark.slow
def test_workers_killed_at_random_cost_their_shards_only(cluster, tmp_path, expected):
    kill = Killer(KILLS)
    run(cluster, partial(embedder, tmp_path), range(SHARDS), tmp_path, kill)
    assert kill.left == 0
    assert files(tmp_path) == expected
    assert logged(tmp_path).total() - logged(tmp_path)["cpu"] - SHARDS <= KILLS


@pytest.mark.slow
def test_a_shard_that_kills_every_worker_is_named(cluster, tmp_path):
    with pytest.raises(DataError, match=f"shard 4: {TRIES} workers died while doing it, the last by ActorDiedError"):
        run(cluster, partial(dying, tmp_path, {4: TRIES}), range(10), tmp_path, workers=2)
    assert logged(tmp_path)["cpu"] <= 2 + TRIES - 1
    assert len(files(tmp_path)) == 9
    assert ended_workers()


def test_a_killed_node_and_a_killed_worker_cost_their_shards_only(cluster, tmp_path, expected, capfd):
    node = cluster.add_node(**{**SMALL, "num_cpus": 3})  # for half of the workers
    kill = Killer(1)

    def kill_worker_and_node(shard: int) -> None:
        kill(shard)
        if kill.finished == SHARDS // 2:
            cluster.remove_node(node, allow_graceful=False)

    run(cluster, partial(embedder, tmp_path), range(SHARDS), tmp_path, kill_worker_and_node)
    assert (kill.left, kill.finished) == (0, SHARDS)
    assert files(tmp_path) == expected
    assert logged(tmp_path).total() - logged(tmp_path)["cpu"] - SHARDS <= 1 + 3
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_what_a_shard_raises_ends_all_and_is_raised(cluster, tmp_path):
    with pytest.raises(NonFiniteError, match="row 7 is not finite"):
        run(cluster, partial(failing, NonFiniteError("row 7 is not finite")), range(9), tmp_path)
    assert ended_workers()


@pytest.mark.slow
def test_where_there_are_gpus_each_worker_has_one(cluster, tmp_path, expected):
    node = cluster.add_node(**SMALL, num_gpus=1)  # Ray believes it
    run(cluster, partial(embedder, tmp_path), range(SHARDS), tmp_path)
    cluster.remove_node(node)
    assert files(tmp_path) == expected
    assert logged(tmp_path)["cuda"] == 1
    assert logged(tmp_path)["cpu"] == 0


@pytest.mark.slow
def test_a_signal_ends_all_and_the_same_call_goes_on(cluster, tmp_path, expected):
    def signal_once(shard: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        run(cluster, partial(embedder, tmp_path), range(SHARDS), tmp_path, signal_once)
    assert ended_workers()
    assert missing(tmp_path)
    run(cluster, partial(embedder, tmp_path), missing(tmp_path), tmp_path)
    assert files(tmp_path) == expected


def test_a_node_that_does_not_see_the_folder_is_named(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sept.engines.ray.SEEN_WITHIN_S", 1)
    elsewhere = Path("/proc/self/cwd/store")  # another folder in each process
    with pytest.raises(ConfigError, match=r"engine=ray: node .* \(\d+\..* does not see /proc/self/cwd/store"):
        run(cluster, partial(embedder, elsewhere), range(9), elsewhere)
    assert list((tmp_path / "store").iterdir()) == []


def test_no_cluster_is_one_clear_line_and_soon(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(ConfigError, match=f"engine=ray: no Ray cluster at {address} .*engine.address=HOST:PORT"):
            engines.run("ray", vectors, range(9), MACHINE, tmp_path, address=address)
    assert time.monotonic() - start < 10


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="needs the package ray"):
        engines.run("ray", vectors, range(9), MACHINE, tmp_path)


def node(cpus: int, gpus: int = 0) -> Node:
    return Node("", "", cpus, gpus)


@pytest.mark.parametrize(
    ("nodes", "runtime", "cpus", "size"),
    [
        ([node(2), node(2)], Runtime(threads=1), 1, 3),
        ([node(1)], Runtime(threads=1), 1, 1),
        ([node(0), node(16), node(7)], Runtime(threads=8, devices=2), 4, 5),
        ([node(64), node(32, gpus=8)], Runtime("cuda", threads=64, workers=3), 4, 8),
        ([node(6, gpus=8)], Runtime(threads=64), 1, 5),
    ],
)
def test_there_are_as_many_workers_as_fit_and_fewer_than_cores(nodes, runtime, cpus, size):
    needs = Needs.of(nodes, runtime)
    assert needs == Needs(cpus, int(any(node.gpus for node in nodes)))
    assert pool_size(nodes, needs) == size


def test_a_worker_that_fits_on_no_node_is_refused():
    with pytest.raises(ConfigError, match=r"needs 5 cores and 0 GPUs, which no node .* set hardware.threads"):
        pool_size([node(4), node(4)], Needs.of([node(4)], Runtime(threads=5)))
