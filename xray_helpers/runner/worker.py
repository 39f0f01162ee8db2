"""One step in a process of its own, with a kernel of its own: ``python -m xray_helpers.runner.worker``.

The process reads its task from one line on its standard input, answers in one line on its standard output,
and ends as soon as the input is closed: no step outlives what started it, and no kernel its step.
"""

import ctypes
import errno
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

from xray_helpers.runner.forks import HeldKernel, start_copy
from xray_helpers.settings import InputError
from xray_helpers.study.files import read_json, temporary_path, write_text
from xray_helpers.study.folders import RUN, redact, root
from xray_helpers.study.machine import now

DEAD, LATE, LEFT = (
    "dead",
    "late",
    "left",
)  # how a kernel can be lost: by itself, by the limit, with the command
DISK = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
)  # what a disk answers that is no bug
_LOOKS = 4  # half-seconds for which the command's mark is gone before a step ends itself
_LONGEST = 80  # characters of a folder in which sockets can be named: a path to one has 103 or 107 at most
_SILENCE = 180.0  # seconds without a sign of life from the command after which a step ends itself
# nobody clicks, though a study may start in a notebook
_KERNEL = "import os; os.environ.pop('JPY_SESSION_NAME', None)"
_KERNEL += "; from xray_helpers.runner.worker import exit_with_parent; exit_with_parent({})"


def run_step(spec: dict[str, Any]) -> dict[str, Any]:
    """Run a step in a new process, wait for it, and return its outcome; what an executor is given.

    Parameters
    ----------
    spec : dict
        Plain values: name, notebook, folder, parameters, writes, made_of, run, console, limit (seconds),
        threads (0: as many as there are) and root.

    Returns
    -------
    dict
        ``error`` (a sentence, or empty), ``lost`` (`DEAD` or `LATE`, or empty) and, where it got so far,
        ``seconds`` and ``peak_gib`` of memory.
    """
    env = os.environ | {
        "XRAY_HELPERS_ROOT": spec["root"],
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONUNBUFFERED": "1",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }  # so that two steps share one
    if spec["threads"]:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
        env |= dict.fromkeys(names, str(spec["threads"]))
    copy = start_copy(env)
    if copy is not None:
        with copy[0] as asked, copy[1] as answered:
            answer = _ask(spec, asked, answered)
    else:
        with subprocess.Popen(
            [sys.executable, "-m", "xray_helpers.runner.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
            cwd=spec["root"],
            start_new_session=True,
        ) as process:
            answer = _ask(spec, process.stdin, process.stdout)
    try:
        return json.loads(answer)
    except ValueError:
        time.sleep(3)  # where a whole job was killed, its worker is gone by now, and takes no step any more
        return {"error": "", "lost": DEAD}


def _ask(spec: dict[str, Any], asked: BinaryIO, answered: BinaryIO) -> bytes:
    try:
        asked.write(json.dumps(spec).encode() + b"\n")
        asked.flush()  # it stays open: when this process ends, the step sees it close
        return answered.read()
    except BrokenPipeError:
        return b""


def main(*, copied: bool = False) -> None:
    """Be the process of a step, which may be a copy of one that has imported all it needs."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            sys.exit(1)
        line += piece
    spec = json.loads(line)
    answer = os.dup(1)
    try:
        console = os.open(spec["console"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:
        console = os.open(os.devnull, os.O_WRONLY)
    os.dup2(console, 1)
    os.dup2(console, 2)
    sys.modules.setdefault(
        "rfc3987_syntax", None
    )  # a grammar of addresses that takes a second to build, for nothing here
    if copied:  # before there are threads, which a copy would lose
        local_provisioner = importlib.import_module("jupyter_client.provisioning.local_provisioner")
        local_provisioner.launch_kernel = HeldKernel(answer).launch
    outcome = _execute(spec, _Watch(spec))
    os.write(answer, json.dumps(outcome).encode())


def exit_with_parent(parent: int) -> None:
    """End this process, a kernel, at the moment its parent does, however that ended; at once where it has
    ended already.

    Parameters
    ----------
    parent : int
        Its number: by the time it is asked for, an orphan has another one.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: even while it computes

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


class _Watch:
    """Ends the step when its command is gone, and its kernel when its time is over."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec, self.started, self.lost = spec, time.monotonic(), ""
        self._mark, self._seen, self._touched = Path(spec["folder"]) / RUN, self.started, 0
        self.sockets = tempfile.mkdtemp(prefix="xray-")
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._look, daemon=True).start()

    def _listen(self) -> None:
        while os.read(0, 1):
            pass
        self.leave()

    def _look(self) -> None:
        absent = 0
        while not self.lost:
            time.sleep(0.5)
            absent = 0 if self.is_wanted() else absent + 1
            if absent == _LOOKS:
                self.leave()
            if time.monotonic() - self.started > self.spec["limit"]:
                self.lost = LATE
                _kill_children()

    def is_wanted(self) -> bool:
        """Return whether the command that asked for this step still runs the study."""
        mine = True
        try:
            touched = self._mark.stat().st_mtime_ns
            mine = read_json(self._mark)["run"] == self.spec["run"]
            if touched != self._touched:
                self._touched, self._seen = touched, time.monotonic()
        except FileNotFoundError:
            return False
        except (OSError, InputError):  # a disk far away that does not answer is no news
            pass
        return mine and time.monotonic() - self._seen < _SILENCE

    def leave(self) -> None:
        """End the step and its kernel at once, and leave nothing of it."""
        self.lost = LEFT
        _kill_children()
        shutil.rmtree(self.sockets, ignore_errors=True)
        os._exit(1)


def _kill_children() -> None:
    import psutil

    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.Error:
            continue


def _execute(spec: dict[str, Any], watch: _Watch) -> dict[str, Any]:
    """Run the notebook into a temporary name, render it, put both in place and, if it succeeded, write its
    record.
    """
    from xray_helpers.runner.steps import find_change, write_record

    folder, started = Path(spec["folder"]), now()
    target = folder / f"{spec['name']}.ipynb"
    partial = temporary_path(target)
    try:
        changed = find_change(spec["made_of"], Path(spec["notebook"]))
        error, lost = (changed, "") if changed else _run_notebook(spec, partial, watch)
        error = error or find_change(spec["made_of"], Path(spec["notebook"]))
        missing = [file for file in spec["writes"] if not (folder / file).exists()]
        if not error and not lost and missing:
            error = f"It ended without an error, but did not write {missing[0]}: see its report."
        watch.lost = watch.lost or lost or "done"  # from here on nothing is computed
        for path in (target, target.with_suffix(".html")):
            path.unlink(missing_ok=True)
        if partial.exists():
            _put_in_place(partial, target, folder, error or describe_loss(lost, spec))
        facts = {
            "started": started,
            "seconds": round(time.monotonic() - watch.started, 1),
            "peak_gib": _peak(),
        }
        if not error and not lost:
            if not watch.is_wanted():
                watch.leave()
            write_record(spec["name"], folder, spec["writes"], spec["made_of"], facts)
        loss = describe_loss(lost, spec)
        return {
            "error": redact(error, folder) or (loss if lost == LATE else ""),
            "lost": lost,
            "loss": loss,
            **facts,
        }
    except OSError as problem:
        return {"error": describe_os_error(problem), "lost": ""}
    except Exception as problem:
        return {"error": redact(_first_line(problem), folder), "lost": ""}
    finally:
        partial.unlink(missing_ok=True)
        shutil.rmtree(watch.sockets, ignore_errors=True)


def _escape_braces(path: str | Path) -> str:
    """Return a path as papermill wants it, which formats paths with the parameters' values."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _run_notebook(spec: dict[str, Any], partial: Path, watch: _Watch) -> tuple[str, str]:
    """Execute the notebook; return what went wrong in one sentence, and how the kernel was lost, both empty
    if all went well.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    sockets = {}
    if os.name == "posix" and len(watch.sockets) < _LONGEST:  # free ports can be taken before they are used
        sockets = {"config": Config(KernelManager={"transport": "ipc", "ip": f"{watch.sockets}/kernel"})}
    try:
        papermill.execute_notebook(
            _escape_braces(spec["notebook"]),
            _escape_braces(partial),
            parameters=spec["parameters"],
            **sockets,
            kernel_name="python3",
            language="python",
            cwd=root(),
            progress_bar=False,
            start_timeout=180,
            # asked politely, every other kernel takes more than two seconds to go
            shutdown_kernel="immediate",
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            extra_arguments=[
                "--IPKernelApp.log_level=40",
                f"--IPKernelApp.exec_lines={_KERNEL.format(os.getpid())}",
                "--HistoryManager.enabled=False",
            ],
        )
    except papermill.exceptions.PapermillExecutionError as problem:
        error = str(problem.evalue).strip().splitlines()[0] if problem.evalue else problem.ename
        if f"[Errno {errno.ENOSPC}]" in error or f"[Errno {errno.EROFS}]" in error:
            code = errno.ENOSPC if f"[Errno {errno.ENOSPC}]" in error else errno.EROFS
            return describe_os_error(OSError(code, os.strerror(code))), ""
        return error if problem.ename == "InputError" else f"{problem.ename}: {error}", ""
    except RuntimeError as problem:
        if (
            watch.lost or isinstance(problem, DeadKernelError) or "kernel" in str(problem).lower()
        ):  # died, or never answered
            return "", watch.lost or DEAD
        return _first_line(problem), ""
    except OSError as problem:
        return ("", watch.lost) if watch.lost else (describe_os_error(problem), "")
    except Exception as problem:
        if watch.lost:
            return "", watch.lost
        return _first_line(problem), ""
    return "", watch.lost


def _first_line(problem: Exception) -> str:
    return f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else 'no more is known'}"


def _put_in_place(partial: Path, target: Path, folder: Path, error: str) -> None:
    """Clean an executed notebook, render it, and give both their names."""
    import nbformat

    from xray_helpers.reports.html import clean_notebook, write_html

    write_html(partial, target.with_suffix(".html"), error=error)
    nb = nbformat.read(partial, as_version=4)
    clean_notebook(nb, folder)
    write_text(target, nbformat.writes(nb))


def _peak() -> float:
    """Return the most memory the kernel held, in GiB."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 2**30, 2)


def describe_loss(lost: str, spec: dict[str, Any]) -> str:
    """Return in a sentence how a kernel was lost, and what the machine had; an empty one where it was not."""
    if lost == LATE:
        hours = spec["limit"] / 3600
        limit = f"{hours:g} hours" if hours >= 1 else f"{spec['limit']:g} seconds"
        return (
            f"It did not end within {limit} and was ended: give it longer with -p step_limit=HOURS, and "
            "run again."
        )
    if lost != DEAD:
        return ""
    import psutil

    memory, disk = psutil.virtual_memory(), shutil.disk_usage(spec["root"])
    if disk.free < 50 * 2**20:
        return describe_os_error(OSError(errno.ENOSPC, "full"))
    return (
        f"Its kernel was killed, most often for want of memory: it had reached {_peak():.1f} GiB, and the "
        "machine has "
        f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} of them free now. Close other "
        "programs, or give "
        "--jobs 1, and run the same command again."
    )


def describe_os_error(problem: OSError) -> str:
    """Return in one sentence what a disk that is full, or cannot be written, means for a study."""
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full: free some space, and run the same command again; what is done is kept."
    if problem.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return (
            "The study's folder cannot be written: make it writable, and run the same command again; "
            "what is done is kept."
        )
    return (
        f"The disk answered with an error ({problem.strerror or problem}): run the same command again "
        "once it works."
    )


if __name__ == "__main__":
    main()
