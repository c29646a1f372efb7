"""Settings of what the work runs on."""

from dataclasses import dataclass
from typing import Any

from sept import ranges
from sept.errors import ConfigError
from sept.ranges import MOST_BATCH, require_unset


@dataclass
class Hardware:
    """Where and how the work runs; not part of keys, except `precision` and `compile`."""

    accelerator: str = ranges.choice("auto", ("auto", "cpu", "cuda"))
    devices: int = ranges.whole(
        1, least=1, most=1024
    )  # devices that share a self-supervised training: GPUs, or processes on CPUs
    workers: Any = ranges.whole(
        "auto", words=("auto",)
    )  # data workers per device; 0 reads in the training process; auto: cores per GPU, 0 on CPUs
    chunk: Any = ranges.whole(
        "auto", least=1, most=MOST_BATCH, words=("auto",)
    )  # images encoded at a time if a batch does not fit; null: the whole batch; auto: what fits
    compile: bool = False  # torch.compile encoders and augmentation of self-supervised training; part of keys
    threads: int | None = ranges.whole(None, least=1, most=1024)  # of torch; null: one per core
    search_mib: int = ranges.whole(
        1024, least=1, most=2**24
    )  # memory for the results of a search, besides two blocks of features
    precision: str = ranges.choice("auto", ("auto", "32", "bf16-mixed"))  # auto: bf16-mixed on GPUs, 32 on CPUs
    checkpoint_every_s: float = ranges.real(60.0, least=0, most=10**7)  # of a training stage

    def check(self) -> None:
        if self.workers is None:
            raise ConfigError("hardware.workers=null: must be auto or a whole number; 0 reads in the training process")


@dataclass
class Engine:
    """Where the pool is embedded: local, on this machine's hardware.devices; ray, by the workers of a Ray cluster."""

    name: str = ranges.choice("local", ("local", "ray"))
    address: str | None = ranges.text(None)  # ray: HOST:PORT; null: the cluster this machine belongs to
    workers: int | None = ranges.whole(None, least=1, most=10**5)  # ray: maximum number; null: as many as fit

    def check_unused(self) -> None:
        if self.name == "local":
            require_unset(self, "engine", ("address", "workers"), "engine=local embeds on this machine")
