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
