"""New processes of multiprocessing that begin with torch and Lightning already imported."""

from multiprocessing import context, forkserver

IMPORTED = ("torch", "lightning", "timm", "pytest")


def forking(*modules: str) -> context.ForkServerContext:
    """A context whose processes have imported this much. There is one process that they are forked from, and what it
    imports is decided when it starts: one that other tests left, with other imports, is ended."""
    forkserver._forkserver._stop()
    found = context.ForkServerContext()
    found.set_forkserver_preload([*IMPORTED, *modules])
    return found
