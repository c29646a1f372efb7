"""SEPT: scalable and efficient visual pre-training by selecting the data (AAAI 2023)."""
