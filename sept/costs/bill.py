"""The bill of artefacts: model FLOPs, seconds, energy and CO2e, added up by stage.

FLOPs are those of the model, each step once; seconds and energy are what all attempts really took.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from sept.costs.peaks import peak, watts
from sept.costs.settings import Carbon

JOULES = 3.6e6  # in a kWh
HOUR = 3600.0


@dataclass(frozen=True)
class Cost:
    """What some work cost. kwh: of the building; measured_kwh: the part of it that comes from counters. peak: FLOPs
    that its GPUs could have done in the time they were held, of those whose peak is known; peak_flops: the FLOPs that
    they did."""

    artefacts: int = 0
    flops: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    kwh: float = 0.0
    measured_kwh: float = 0.0
    peak: float = 0.0
    peak_flops: float = 0.0

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))

    def __mul__(self, share: float) -> Self:
        """A share of it."""
        rest = (getattr(self, item.name) * share for item in fields(self) if item.name != "artefacts")
        return type(self)(self.artefacts, *rest)

    @property
    def utilisation(self) -> float | None:
        """Share of the GPUs' dense peak; None without a GPU whose peak is known."""
        return self.peak_flops / self.peak if self.peak else None

    def co2e(self, carbon: Carbon) -> float:
        """In kg, on the grid that is assumed."""
        return self.kwh * carbon.intensity

    def band(self, carbon: Carbon) -> tuple[float, float]:
        """In kg, on a clean and on a dirty grid."""
        return self.kwh * carbon.band[0], self.kwh * carbon.band[1]


def total(costs: Iterable[Cost]) -> Cost:
    return sum(costs, Cost())


def by_stage(records: Iterable[Mapping[str, Any]], carbon: Carbon) -> dict[str, Cost]:
    """Of records that name their stage and key, each key once; stages in the order in which they first occur."""
    costs: dict[str, Cost] = {}
    for record in {record["key"]: record for record in records}.values():
        costs[record["stage"]] = costs.get(record["stage"], Cost()) + cost(record, carbon)
    return costs


def of_runs(records: Iterable[Mapping[str, Any]], carbon: Carbon) -> list[tuple[str, Cost]]:
    """The bill of all artefacts behind the runs of a table, by stage, those that all tasks share apart; then all."""
    records = [*records]
    own = by_stage((each for each in records if not each["shared"]), carbon)
    shared = by_stage((each for each in records if each["shared"]), carbon)
    bill = [*own.items(), *((f"{stage} (shared)", each) for stage, each in shared.items())]
    return [*bill, ("all", total(each for _, each in bill))]


SMALL_KWH = 0.1  # below it a bill is in Wh and g


def grid(bill: Sequence[tuple[str, Cost]], carbon: Carbon) -> list[list[str]]:
    """A bill as a table of texts: titles, then a row for each name and its cost. Columns without a value are left
    out."""
    small = max((each.kwh for _, each in bill), default=0.0) < SMALL_KWH
    energy, weight, times = ("Wh", "g CO2e", 1000) if small else ("kWh", "kg CO2e", 1)
    titles = ["", "artefacts", "FLOPs", "wall h", "CPU h", "GPU h", "of peak", energy, "measured", weight, "by grid"]
    rows = [titles, *([name, *_texts(each, carbon, times)] for name, each in bill)]
    kept = [column for column in zip(*rows, strict=True) if column[0] == "" or any(column[1:])]
    return [list(row) for row in zip(*kept, strict=True)]


def _texts(what: Cost, carbon: Carbon, times: int) -> list[str]:
    hours = [f"{seconds / HOUR:,.3f}" if seconds else "" for seconds in (what.wall_s, what.cpu_s, what.gpu_s)]
    used = "" if what.utilisation is None else f"{100 * what.utilisation:.1f} %"
    flops = f"{what.flops:.3g}" if what.flops else ""
    if not what.kwh:
        return [f"{what.artefacts:,}", flops, *hours, used, "", "", "", ""]
    known = f"{100 * what.measured_kwh / what.kwh:.0f} %"
    low, high = (f"{times * each:.3g}" for each in what.band(carbon))
    spent = [f"{times * what.kwh:.3g}", known, f"{times * what.co2e(carbon):.3g}", f"{low} to {high}"]
    return [f"{what.artefacts:,}", flops, *hours, used, *spent]


def assumed(carbon: Carbon) -> str:
    """What the figures rest on, in a sentence."""
    card = "the data sheet's watts" if carbon.gpu_watts is None else f"{carbon.gpu_watts:g} W"
    return (
        f"carbon={carbon.name}: {carbon.intensity:g} kg CO2e per kWh ({carbon.band[0]:g} to {carbon.band[1]:g}), PUE "
        f"{carbon.pue:g}. Energy is measured where counters could be read; else a GPU draws {card} and the machine "
        f"{carbon.host_factor:g} times that, and without a GPU a busy core {carbon.core_watts:g} W. FLOPs are the "
        "model's, each step once; seconds and energy are those of all attempts"
    )


def cost(record: Mapping[str, Any], carbon: Carbon, artefacts: int = 1) -> Cost:
    """Of a record with flops, wall_s, used, device and gpus: an artefact of a row (`sept.results`), a manifest's
    earlier builds, an unfinished build."""
    used, name = record["used"], str(record.get("device") or "")
    gpus = record.get("gpus") or 0
    card = name.split(" x ", 1)[-1]
    kwh, known = _kwh(used, card, carbon)
    rate = peak(card) if gpus else None
    flops = float(record.get("flops", 0.0))
    return Cost(
        artefacts,
        flops,
        float(record["wall_s"]),
        used["cpu_s"] or 0.0,
        used["gpu_s"] or 0.0,
        kwh,
        known,
        (used["gpu_s"] or 0.0) * rate if rate else 0.0,
        flops if rate else 0.0,
    )


def _kwh(used: Mapping[str, float | None], card: str, carbon: Carbon) -> tuple[float, float]:
    """In all, and measured. With a GPU the rest of the machine is measured too, or a factor; else it is the cores."""
    gpu_s, cpu_s = used["gpu_s"] or 0.0, used["cpu_s"] or 0.0
    gpu_j, cpu_j = used["gpu_j"], used["cpu_j"]
    gpus = gpu_s * (carbon.gpu_watts or watts(card)) if gpu_j is None else gpu_j
    modelled = gpus * (carbon.host_factor - 1) if gpu_s else cpu_s * carbon.core_watts
    rest = modelled if cpu_j is None else cpu_j
    known = (gpu_j or 0.0) + (cpu_j or 0.0)
    return (gpus + rest) * carbon.pue / JOULES, known * carbon.pue / JOULES
