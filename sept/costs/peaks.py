"""Peak rates and power of cards, from NVIDIA's data sheets, by the names that CUDA gives them."""

TERA = 1e12
Sheet = tuple[tuple[tuple[str, ...], float], ...]
"""A number for names; the first counts whose words are all in a name."""

PEAKS: Sheet = (  # TFLOP/s of dense bfloat16 products with float32 accumulation
    (("B200",), 2250),
    (("H200", "NVL"), 835),
    (("H200",), 989),
    (("H100", "PCIe"), 756),
    (("H100", "NVL"), 835),
    (("H100",), 989),
    (("A100",), 312),
    (("A40",), 149.7),
    (("A10",), 125),
    (("L40S",), 362),
    (("L40",), 181),
    (("L4",), 121),
    (("RTX 6000 Ada",), 364),
    (("RTX A6000",), 154.8),
    (("RTX 4090",), 165),
    (("RTX 3090",), 71),
)
WATTS: Sheet = (  # the board's power limit
    (("B200",), 1000),
    (("H200", "NVL"), 600),
    (("H200",), 700),
    (("H100", "PCIe"), 350),
    (("H100", "NVL"), 400),
    (("H100",), 700),
    (("A100", "PCIE"), 300),
    (("A100",), 400),
    (("V100",), 300),
    (("A40",), 300),
    (("A10",), 150),
    (("L40S",), 350),
    (("L40",), 300),
    (("L4",), 72),
    (("T4",), 70),
    (("RTX 6000 Ada",), 300),
    (("RTX A6000",), 300),
    (("RTX 4090",), 450),
    (("RTX 3090",), 350),
)
UNKNOWN_WATTS = 300.0


def peak(name: str) -> float | None:
    """FLOP/s; None for a card that is not known or has no bfloat16 (V100, T4)."""
    tera = _of(name, PEAKS)
    return None if tera is None else tera * TERA


def watts(name: str) -> float:
    """UNKNOWN_WATTS for a card that is not known."""
    return _of(name, WATTS) or UNKNOWN_WATTS


def _of(name: str, sheet: Sheet) -> float | None:
    words = f" {name.replace('-', ' ')} "
    if " Laptop " in words or " MIG " in words:  # slower than the card of that name, and draws less
        return None
    return next((value for wanted, value in sheet if all(f" {word} " in words for word in wanted)), None)
