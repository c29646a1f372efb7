"""`python -m sept.tables`."""

from sept.app import command
from sept.tables.cli import main

command.run(main)
