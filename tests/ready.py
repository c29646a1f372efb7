"""Commands forked from a process that has imported what they need, which spares each the seconds of imports and exit.

Each is a process of its own still, with its own arguments, folder, environment, output, signals and exit code. What a
library reads from the environment when it is imported was read before, so a process that has imported serves those
alone whose environment equals its own but for FREE. As multiprocessing's processes do, a command joins its threads,
calls what is registered with atexit, flushes, and leaves the rest to the system. Tests of how a program begins or ends
take a new interpreter instead: `anew` of `conftest.run`.
"""

import atexit
import gc
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
import types
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path

IMPORTED = ("sept", "torch", "torchvision", "lightning", "timm", "torchmetrics", "hydra", "scipy")
FREE = (  # beginnings of names that none reads when it is imported, or that the libraries and we set ourselves
    *("SEPT_", "PYTEST_CURRENT_TEST", "WANDB_", "HOME", "HYDRA_FULL_ERROR", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS"),
    *("PYTORCH_NVML_BASED_CUDA_CHECK", "TORCHINDUCTOR_CACHE_DIR", "CUBLAS_WORKSPACE_CONFIG", "RAY_CLIENT_MODE"),
)
LONGEST = 1 << 20  # request, in bytes


class Started:
    """A forked command, with as much of subprocess.Popen as the tests use."""

    def __init__(self, arguments: list[str], told: socket.socket, out: int, err: int) -> None:
        self.args, self.returncode, self._told = arguments, None, told
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(err)
        self.pid = int(told.recv(LONGEST))

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._told.settimeout(timeout)
            try:
                self.returncode = int(self._told.recv(LONGEST))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._told.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Its output until every process that writes it has ended, as subprocess reads it."""
        with ThreadPoolExecutor(2) as pool, self.stdout, self.stderr:
            texts = [pool.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                out, err = (text.result(timeout) for text in texts)
            except TimeoutError:
                self.send_signal(signal.SIGKILL)
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
        self.wait(timeout)
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class Ready:
    """The process that has imported."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = bound(environment)
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(other.fileno())],
                env=self.environment,
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def start(self, arguments: list[str], environment: Mapping[str, str], folder: Path, session: bool) -> Started:
        (out, to_out), (err, to_err) = os.pipe(), os.pipe()
        told, to_told = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = json.dumps([arguments, dict(environment), str(folder), session]).encode()
        socket.send_fds(self._socket, [request], [to_out, to_err, to_told.fileno()])
        to_told.close()
        os.close(to_out)
        os.close(to_err)
        return Started(arguments, told, out, err)

    def end(self) -> None:
        self._socket.close()
        self._process.wait()


_ready: list[Ready] = []  # at most one


def start(
    arguments: list[str], environment: Mapping[str, str], folder: Path, start_new_session: bool = False
) -> Started | subprocess.Popen[str]:
    """Start a script with its arguments. One that needs another environment ends the process that was ready before."""
    if sys.platform != "linux":  # where a process with these libraries cannot be relied on to fork
        return subprocess.Popen(
            [sys.executable, *arguments],
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=start_new_session,
        )
    if _ready and _ready[0].environment != bound(environment):
        end()
    if not _ready:
        _ready.append(Ready(environment))
    return _ready[0].start(arguments, environment, folder, start_new_session)


@atexit.register
def end() -> None:
    while _ready:
        _ready.pop().end()


def bound(environment: Mapping[str, str]) -> dict[str, str]:
    """What libraries may read."""
    return {name: value for name, value in environment.items() if not name.startswith(FREE)}


def serve(requests: socket.socket) -> None:
    """Returns in each forked command, prepared to be the program; ends here when nobody asks any more."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # as programs do before they import: Lightning looks
    for name in IMPORTED:
        import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "wandb"]:
        del sys.modules[name]  # it makes a folder for pictures, and removes it at the exit: each command has its own
    logging.getLogger().handlers.clear()
    logging.getLogger().setLevel(logging.WARNING)
    assert len(os.listdir("/proc/self/task")) == 1, "a process of several threads cannot be forked"
    gc.freeze()  # a collection would copy what is shared
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, LONGEST, 3)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not request:
            atexit._run_exitfuncs()
            os._exit(0)
        if os.fork() == 0:
            requests.close()
            return become(json.loads(request), *descriptors)
        for each in descriptors:
            os.close(each)


def become(request: list, out: int, err: int, told: int) -> None:
    """In a process that waits for the program and tells how it ended; returns in the program."""
    if pid := os.fork():
        os.close(out)
        os.close(err)
        with socket.socket(fileno=told) as telling:
            telling.send(str(pid).encode())
            telling.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
        os._exit(0)
    arguments, environment, folder, session = request
    for source, target in ((out, 1), (err, 2)):
        os.dup2(source, target)
        os.close(source)
    os.close(told)
    for number, name, errors in ((1, "stdout", "strict"), (2, "stderr", "backslashreplace")):  # as Python begins
        stream = os.fdopen(number, "w", buffering=1 if number == 2 else -1, errors=errors, closefd=False)
        vars(sys).update({name: stream, f"__{name}__": stream})
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if session:
        os.setsid()
    sys.argv = arguments
    sys.path[0] = str(Path(arguments[0]).parent)


def play(path: str) -> int:
    """Run the script as the main module; the exit code."""
    program = types.ModuleType("__main__")
    program.__file__ = path
    sys.modules["__main__"] = program
    try:
        exec(compile(Path(path).read_bytes(), path, "exec"), vars(program))
    except SystemExit as leaving:
        return leaving.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
    code = play(sys.argv[0])
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
