"""New processes of multiprocessing that begin with what trainings import already imported."""

from multiprocessing import context, forkserver

IMPORTED = ["torch", "lightning", "timm", "pytest", "sept.gpu.micro", "sept.methods.training", "sept.training.loop"]

_started: list[int] = []  # the one process that they are forked from, as its identifier


def forking() -> context.ForkServerContext:
    """A context whose processes have imported this much. What the process imports that they are forked from is decided
    when it starts: one that other tests left, with other imports, is ended."""
    found = context.ForkServerContext()
    if [forkserver._forkserver._forkserver_pid] != _started:
        forkserver._forkserver._stop()
        found.set_forkserver_preload(IMPORTED)
        forkserver.ensure_running()
        _started[:] = [forkserver._forkserver._forkserver_pid]
    return found
