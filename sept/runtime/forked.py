"""Imported first by the process that data workers are forked from, and by no other, so that it ends with its parent.

By itself it ends only when its pipe from the program is closed, and each worker forked from it inherits that pipe.
"""

from sept.runtime.lifeline import die_with_parent

die_with_parent()
