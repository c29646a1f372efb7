"""`python -m sept.tables`."""

from sept import command
from sept.tables.cli import main

command.run(main)
