"""Steps without imports: a process that has imported what they need is copied (forked) for each, on Linux.

Python and its libraries take a step and its kernel four seconds of a core, and TensorFlow as many again. The
copies share that memory, and none of them has computed anything before.
"""

import ctypes
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

_MODULES = (
    "papermill",
    "ipykernel.kernelapp",
    "ipywidgets",
    "matplotlib.pyplot",
    "seaborn",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "statsmodels.api",
    "cv2",
    "xray_helpers.reports.html",
    "xray_helpers.runner.notebook",
    "xray_helpers.runner.steps",
)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
_INLINE = "module://matplotlib_inline.backend_inline"  # as a kernel sets it, before Matplotlib is imported
_FEWEST = 3  # steps for which importing all of that once takes less than what it saves
_server: "_Server | None" = None


@contextmanager
def copying(steps: int) -> Iterator[None]:
    """Let the steps that this process starts be copies, from the time all is imported on.

    Parameters
    ----------
    steps : int
        How many will run; for one or two it is not worth it.
    """
    global _server
    if sys.platform != "linux" or steps < _FEWEST or _server:
        yield
        return
    _server = _Server()
    try:
        yield
    finally:
        _server.close()
        _server = None


def start_copy(env: Mapping[str, str]) -> tuple[BinaryIO, BinaryIO] | None:
    """Start the process of a step; return its standard input and output, or None if a new one is needed.

    Parameters
    ----------
    env : mapping
        Its environment, of which `_Server` passes on what differs between steps.
    """
    return _server.start(env) if _server else None


class _Server:
    """The process that is copied, and its end of the socket."""

    def __init__(self) -> None:
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        quiet = dict.fromkeys(_THREADS, "1")  # no threads, which a fork would lose
        quiet |= {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}

        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno()), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"MPLBACKEND": _INLINE} | os.environ | quiet,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        self._link.setblocking(False)
        self._ready = False

    def start(self, env: Mapping[str, str]) -> tuple[BinaryIO, BinaryIO] | None:
        """See `start_copy`."""
        try:
            self._ready = self._ready or bool(self._link.recv(1))
            if not self._ready:
                return None
            own = {name: env.get(name) for name in (*_THREADS, "XRAY_HELPERS_ROOT")}
            (asks, asked), (answers, answered) = os.pipe(), os.pipe()
            try:
                socket.send_fds(self._link, [json.dumps(own).encode()], [asks, answered])
            except OSError:
                os.close(asked), os.close(answers)
                raise
            finally:
                os.close(asks), os.close(answered)
        except OSError:  # it still imports, or was killed
            return None
        return open(asked, "wb"), open(answers, "rb")

    def close(self) -> None:
        """End the process; copies of it that still run are not touched."""
        self._link.close()
        self._process.kill()
        self._process.wait()


def main() -> None:
    """Be the process that is copied."""
    link, parent = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    _end_with(parent)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for copies but through their pipes
    sys.modules.setdefault("rfc3987_syntax", None)  # see `worker.main`
    gpu = os.path.exists("/dev/nvidiactl")  # its driver's state may not outlive a fork
    for name in (*_MODULES, *(() if gpu else ("tensorflow", "keras"))):
        with suppress(Exception):  # the step that needs it says what is wrong
            importlib.import_module(name)
    link.send(b"r")
    while True:
        message, files, *_ = socket.recv_fds(link, 65536, 2)
        if not message:
            return
        if os.fork() == 0:
            link.close()
            _be_step(json.loads(message), *files)
        for file in files:
            os.close(file)


def _be_step(env: dict[str, str | None], asks: int, answered: int) -> None:
    """Become the process of a step."""
    from xray_helpers.runner import worker

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    _name("xray-step")
    for file, place in ((asks, 0), (answered, 1), (os.open(os.devnull, os.O_WRONLY), 2)):
        os.dup2(file, place)
        os.close(file)
    for name, value in env.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    os.chdir(os.environ["XRAY_HELPERS_ROOT"])
    try:
        worker.main(copied=True)
    finally:
        os._exit(0)


class HeldKernel:
    """A copy of this process that becomes the kernel; copied while this process has no threads yet.

    It offers what jupyter_client wants of `subprocess.Popen`.
    """

    stdin = stdout = stderr = None

    def __init__(self, *files: int) -> None:
        told, self._tell = os.pipe()
        self.returncode: int | None = None
        parent, self.pid = os.getpid(), os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                _end_with(parent)
                _name("xray-kernel")
                for file in (self._tell, *files):  # who reads them waits until all copies are closed
                    os.close(file)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                _be_kernel(told)
            finally:
                os._exit(0)
        os.close(told)

    def launch(self, command: list[str], *, env: Mapping[str, str], cwd: str = ".", **_: Any) -> "HeldKernel":
        """Do what `jupyter_client.launcher.launch_kernel` does."""
        while os.getpgid(self.pid) != self.pid:  # it is just born; its group will be killed, not this one
            time.sleep(0.01)
        with open(self._tell, "w") as pipe:
            json.dump([command, dict(env), str(cwd)], pipe)
        return self

    def poll(self, how: int = os.WNOHANG) -> int | None:
        """Return the exit status, or None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end."""
        return self.poll(0)

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


def _be_kernel(told: int) -> None:
    """Become a kernel once it is asked for; return if it never is."""
    with open(told) as pipe:
        asked = pipe.read()
    if not asked:
        return
    import numpy as np
    from ipykernel import kernelapp
    from threadpoolctl import threadpool_limits

    command, env, cwd = json.loads(asked)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    threadpool_limits(int(env.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    np.random.seed()  # noqa: NPY002  # as in a new process
    command += [f"--IPKernelApp.parent_handle={os.getppid()}"]  # it then says nothing of how to reach it
    sys.argv = ["ipykernel_launcher", *command[command.index("-f") :]]  # also where a service names another
    kernelapp.launch_new_instance()


def _end_with(parent: int) -> None:
    """Let this process be killed at the end of the thread that started it."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _name(word: str) -> None:
    """Give this process the name by which `ps` and `top` show it."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(word)


if __name__ == "__main__":
    from xray_helpers.runner import forks

    forks.main()
