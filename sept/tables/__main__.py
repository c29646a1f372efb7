"""`python -m sept.tables`."""

import sys

from sept.tables.cli import main

sys.exit(main())
