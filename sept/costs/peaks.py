"""Peak rates of cards: dense bfloat16 products with float32 accumulation, from NVIDIA's data sheets."""

TERA = 1e12
PEAKS = (  # TFLOP/s; the first whose words are all in the name that CUDA gives
    (("B200",), 2250),
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


def peak(name: str) -> float | None:
    """FLOP/s of a card by the name that CUDA gives; None for one that is not known or has no bfloat16 (V100, T4)."""
    words = f" {name.replace('-', ' ')} "
    if " Laptop " in words:  # slower than the card of that name
        return None
    for wanted, tera in PEAKS:
        if all(f" {word} " in words for word in wanted):
            return tera * TERA
    return None


WATTS = (  # the board's power limit, from the same data sheets
    (("B200",), 1000),
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


def watts(name: str) -> float:
    """The power of a card by the name that CUDA gives; UNKNOWN_WATTS for one that is not known."""
    words = f" {name.replace('-', ' ')} "
    return next((float(w) for wanted, w in WATTS if all(f" {word} " in words for word in wanted)), UNKNOWN_WATTS)
