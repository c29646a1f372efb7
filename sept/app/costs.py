"""What a plan says of its cost: the steps of each stage, their FLOPs, disk, and time on a GPU or on this machine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sept.costs.peaks import watts
from sept.costs.settings import Carbon
from sept.runtime.hardware import Runtime
from sept.store import Step

FLOPS_PER_S = 1.1e14  # of one GPU: about a third of an A100's peak in bfloat16
CARD = "A100"  # whose power a GPU-hour is taken to draw
SMALL = 1e9  # FLOPs an image below which a network keeps a core busy with other things than products
CORE_FLOPS_PER_S = 6e10  # of one core of a server: Swin-T and ViT-S at 224 px reach 5.8e10 to 8.1e10 of its own time
SMALL_FLOPS_PER_S = 1.5e10  # with a small network: the quickstart's 1.23e13 FLOPs take 6.6 minutes on two
LEAST_HOURS = 0.05  # on a GPU that are not printed as 0.0
UNITS = ("B", "kB", "MB", "GB", "TB")
TIMES = ((86_400 * 2, 86_400, "days"), (5_400, 3_600, "h"), (90, 60, "min"))  # from how many seconds on, seconds, unit


@dataclass
class Total:
    """Counts over the steps of a stage: all, those in the store, and the cost of the others. core_s: seconds of one
    core."""

    steps: int = 0
    cached: int = 0
    images: float = 0.0
    flops: float = 0.0
    disk: float = 0.0
    core_s: float = 0.0

    def add(self, step: Step, cached: bool) -> None:
        self.steps += 1
        self.cached += cached
        if not cached:
            images, flops = step.estimate.get("images", 0.0), step.estimate.get("flops", 0.0)
            self.images += images
            self.flops += flops
            self.disk += step.estimate.get("bytes", 0.0)
            self.core_s += flops / (SMALL_FLOPS_PER_S if flops < SMALL * images else CORE_FLOPS_PER_S)

    @property
    def gpu_hours(self) -> float:
        return self.flops / FLOPS_PER_S / 3600


def table(totals: Mapping[str, Total], runtime: Runtime, carbon: Carbon) -> list[str]:
    """The costs by stage and in all, a line each, below a header; then what they assume.

    A machine without a GPU is told its own time, and a GPU's where that is more than nothing.
    """
    whole = Total()
    for each in totals.values():
        whole.steps, whole.cached = whole.steps + each.steps, whole.cached + each.cached
        whole.flops, whole.disk = whole.flops + each.flops, whole.disk + each.disk
        whole.core_s += each.core_s
    kilowatts = (carbon.gpu_watts or watts(CARD)) * carbon.host_factor * carbon.pue / 1000
    columns = _columns(whole, runtime, kilowatts)
    rows = [("stage", *columns)]
    rows += [(stage, *(of(each) for of in columns.values())) for stage, each in (*totals.items(), ("total", whole))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return [*lines, *_assumed(columns, runtime, kilowatts)]


def _columns(whole: Total, runtime: Runtime, kilowatts: float) -> dict[str, Callable[[Total], str]]:
    """How each column is told, by its title."""
    here, threads = runtime.accelerator == "cpu", runtime.threads
    columns: dict[str, Callable[[Total], str]] = {
        "steps": lambda total: f"{total.steps:,}",
        "cached": lambda total: f"{total.cached:,}",
        "to do": lambda total: f"{total.steps - total.cached:,}",
        "images": lambda total: f"{total.images:,.0f}" if total.images else "",
        "FLOPs": lambda total: f"{total.flops:.2e}" if total.flops else "",
    }
    if here:
        columns["time here"] = lambda total: _time(total.core_s / threads) if total.flops else ""
    if not here or whole.gpu_hours >= LEAST_HOURS:
        columns["GPU-hours"] = lambda total: f"{total.gpu_hours:,.1f}" if total.flops else ""
        columns["kWh"] = lambda total: f"{total.gpu_hours * kilowatts:,.1f}" if total.flops else ""
    return columns | {"disk": lambda total: _bytes(total.disk) if total.disk else ""}


def _assumed(columns: Mapping[str, object], runtime: Runtime, kilowatts: float) -> list[str]:
    lines = []
    if "time here" in columns:
        cores = "1 core" if runtime.threads == 1 else f"{runtime.threads} cores"
        lines.append(
            f"time here: {cores} with nothing else to do, assumed at {SMALL_FLOPS_PER_S:.2g} FLOP/s each, and at "
            f"{CORE_FLOPS_PER_S:.2g} from {SMALL:.2g} FLOPs an image on; without reading and drawing images. A third "
            "or three times as long is possible"
        )
    each = f"{FLOPS_PER_S:.2g} FLOP/s and {kilowatts:.2g} kW per GPU with its part of machine and building; "
    gpu = each if "GPU-hours" in columns else ""
    rest = "detectors: trunk only; features in float16, stored images 4:3; published sizes for missing data"
    return [*lines, f"assumed: {gpu}{rest}"]


def _time(seconds: float) -> str:
    """In the largest unit that leaves more than one of it."""
    for least, unit, name in TIMES:
        if seconds >= least:
            return f"{seconds / unit:,.1f} {name}"
    return f"{seconds:.0f} s" if seconds >= 1 else "< 1 s"


def _bytes(size: float) -> str:
    unit = 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {UNITS[unit]}"
