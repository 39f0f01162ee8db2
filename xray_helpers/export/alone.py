"""A function in a process of its own: what it leaks or crashes ends with it, and its memory is its own.

Converters leak, and some end their process; the memory of a runtime can be told where nothing else is loaded.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xray_helpers.settings import InputError

_MARK = "\x1e"  # before the answer, as libraries print too
_PATIENCE = 3600  # seconds


class ProcessError(InputError):
    """A process that failed, in a sentence."""


def run_alone(function: Callable[..., Any], /, **values: Any) -> Any:
    """Return what a function of a module returns, computed in a process of its own.

    Parameters
    ----------
    function : callable
        At the top level of a module of this package.
    **values
        Its arguments, as JSON holds them; paths become text.

    Raises
    ------
    ProcessError
        With the last thing that the process said, where it failed.
    """
    package = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    env = os.environ | {"PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"}
    asked = json.dumps([function.__module__, function.__name__, values], default=str)
    command = [sys.executable, "-m", "xray_helpers.export.alone"]
    try:
        done = subprocess.run(
            command, input=asked, capture_output=True, text=True, env=env, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise ProcessError(f"it took more than {_PATIENCE // 60} minutes") from None
    answers = done.stdout.rpartition(_MARK)[2] if _MARK in done.stdout else ""
    if done.returncode or not answers:
        said = done.stderr.strip().splitlines() or ["without a word"]
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        raise ProcessError(f"its process ended with {how}: {said[-1][:200]}")
    answer = json.loads(answers)
    if "error" in answer:
        raise ProcessError(answer["error"])
    return answer["value"]


def peak_memory() -> float:
    """Return the largest resident memory of this process so far, in MiB.

    Not ``ru_maxrss`` where there is another: on Linux it begins with the memory of the process that started
    this one.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        import resource

        unit = 2**20 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _answer() -> None:
    module, name, values = json.load(sys.stdin)
    try:
        answer = {"value": getattr(importlib.import_module(module), name)(**values)}
    except Exception as error:  # converters raise exceptions of any type
        lines = str(error).strip().splitlines() or [""]
        words = lines[0] if isinstance(error, InputError) else f"{type(error).__name__}: {lines[0]}"
        answer = {"error": words[:300]}
    print(_MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    _answer()
