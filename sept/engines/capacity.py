"""How many workers fit on a cluster."""

from collections.abc import Sequence
from dataclasses import dataclass

from sept.engines.dispatch import share
from sept.errors import ConfigError
from sept.runtime.hardware import Runtime


@dataclass(frozen=True)
class Node:
    """name: for messages. cpus, gpus: totals of the node."""

    id: str
    name: str
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Needs:
    """The resources of one actor during its lifetime."""

    cpus: int
    gpus: int

    @classmethod
    def of(cls, nodes: Sequence[Node], runtime: Runtime) -> "Needs":
        """A GPU each if the cluster has any, with a core for it and for each data worker, limited to what its nodes
        have: `hardware.workers=auto` is based on the cores of this machine."""
        shares = [node.cpus // node.gpus for node in nodes if node.gpus]
        if shares:
            return cls(max(1, min(1 + runtime.workers, max(shares))), 1)
        return cls(share(runtime, "cpu").threads, 0)

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    def room(self, node: Node) -> int:
        """How many actors fit on a node."""
        by_cpus = node.cpus // self.cpus
        return min(by_cpus, node.gpus // self.gpus) if self.gpus else by_cpus


def pool_size(nodes: Sequence[Node], needs: Needs) -> int:
    """The number of actors: as many as fit, leaving a core free. Raises ConfigError if none fits."""
    fit = sum(needs.room(node) for node in nodes)
    if not fit:
        raise ConfigError(
            f"engine=ray: a worker needs {needs.cpus} cores and {needs.gpus} GPUs, which no node of the cluster has; "
            "set hardware.threads, or hardware.workers on GPUs"
        )
    return max(1, min(fit, sum(node.cpus for node in nodes) - 1))
