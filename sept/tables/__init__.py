"""What people look at of a finished table: rows from the store beside the paper's, differences, figures, a report.

Reads manifests and computes nothing of a run; neither torch nor matplotlib is imported before it is needed.
"""

from sept.tables.cli import main, tell
from sept.tables.rows import Line, rows
from sept.tables.text import COLUMNS, cells_of

__all__ = ["COLUMNS", "Line", "cells_of", "main", "rows", "tell"]
