"""Imported by the process that data workers are forked from, before all else, and by no other: it ends with its parent.

It closes by itself only when its pipe from the program does, and each worker that is forked from it inherits that pipe.
"""

from sept.runtime.lifeline import die_with_parent

die_with_parent()
