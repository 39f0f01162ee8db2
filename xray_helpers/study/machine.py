"""The machine: package versions, hardware and cores, with nothing that identifies a person or a host."""

import os
import platform
import re
import sys
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = "xray-helpers tensorflow keras openvino scikit-learn numpy pandas papermill nbconvert"
_TENSORFLOW_LOG = re.compile(
    r"WARNING: All log messages before absl::|[IW]\d{4} \d\d:\d\d:[\d.]+ +\d+ \w+\.cc:"
)


def now() -> str:
    """Return the local time to the second, ISO 8601."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def provenance() -> dict[str, Any]:
    """Return the time, the versions of the packages, and the kind of machine."""
    import psutil

    versions = {"python": platform.python_version()}
    for package in _PACKAGES.split():
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    machine = {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }
    return {"created": now(), "versions": versions, "machine": machine}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            return next(line.split(":", 1)[1].strip() for line in handle if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def is_noise(line: str) -> bool:
    """Return whether TensorFlow writes such a line at its start, whatever its log level is."""
    return bool(_TENSORFLOW_LOG.match(line))


def command_name() -> str:
    """Return how the command line of this package was called, for messages that say what to run."""
    return "xray-helpers" if Path(sys.argv[0]).stem == "xray-helpers" else "python -m xray_helpers"


def cores() -> int:
    """Return how many threads to compute with: ``$OMP_NUM_THREADS``, set by the series, or all cores."""
    allotted = os.environ.get("OMP_NUM_THREADS", "")
    return int(allotted) if allotted.isdigit() and int(allotted) else os.cpu_count() or 1
