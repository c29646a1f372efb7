"""SEPT: scalable and efficient visual pre-training by selecting the data (AAAI 2023)."""

import os

# Read when torch is first imported: idle threads that spin cost a factor of 4 where processes share few cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
