"""Settings of how time becomes energy and CO2e."""

from dataclasses import dataclass

from sept import ranges
from sept.errors import ConfigError


@dataclass
class Carbon:
    """Assumptions by which time becomes energy and CO2e where no counter was read; in no key.

    Values and their sources: conf/carbon/.
    """

    name: str = ranges.text("")
    intensity: float = ranges.real(0.475, least=0, most=10)  # of the grid, kg CO2e per kWh
    band: list[float] = ranges.pair(0.056, 0.583, least=0, most=10)  # of a clean and a dirty grid, to show beside it
    pue: float = ranges.real(1.2, least=1, most=10)  # power of the building over that of its machines
    host_factor: float = ranges.real(1.3, least=1, most=10)  # power of a machine over that of its GPUs
    gpu_watts: float | None = ranges.real(None, above=0, most=10_000)  # null: of the card's data sheet
    core_watts: float = ranges.real(6.0, above=0, most=1000)  # a busy core with its share of memory

    def check(self) -> None:
        if not self.band[0] <= self.intensity <= self.band[1]:
            raise ConfigError(
                f"carbon.intensity={self.intensity:g} is not within carbon.band={ranges.format_value(self.band)}"
            )
