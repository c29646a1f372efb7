"""What composing a cell of a sweep takes, beside Hydra's own composing of the same cell: CPU seconds.

python -m benchmarks.composition [TABLE ..]
"""

import sys
import time

from hydra import compose as hydras
from hydra import initialize_config_dir

from sept import compose

TABLES = ("table2", "patterns_table2")
FEW = 5  # cells that Hydra composes


def main() -> None:
    for table in sys.argv[1:] or TABLES:
        since = time.process_time()
        cells = compose.expand(table)
        ours = (time.process_time() - since) / len(cells)
        since = time.process_time()
        with initialize_config_dir(str(compose.CONF), version_base="1.3"):
            for seed in range(FEW):
                hydras("config", [f"+table={table}", f"seed={seed}"])
        theirs = (time.process_time() - since) / FEW
        print(f"{table}: {len(cells)} cells, {ours:.3f} CPU s each, checked; by Hydra alone {theirs:.3f}, unchecked")


if __name__ == "__main__":
    main()
