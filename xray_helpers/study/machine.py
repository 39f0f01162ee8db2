"""The machine: versions of the packages, kind and cores, with nothing that names a person or a host."""

import os
import platform
import re
from datetime import datetime
from importlib import metadata
from typing import Any


def now() -> str:
    """Return the local time to the second, ISO 8601."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def provenance() -> dict[str, Any]:
    """Return versions of the packages and the kind of machine, with nothing that names person or host."""
    packages = (
        "xray-helpers",
        "tensorflow",
        "keras",
        "openvino",
        "scikit-learn",
        "numpy",
        "pandas",
        "papermill",
        "nbconvert",
    )
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    machine = {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": memory,
    }
    return {"created": now(), "versions": versions, "machine": machine}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            return next(line.split(":", 1)[1].strip() for line in handle if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


_NOISE = re.compile(r"WARNING: All log messages before absl::|[IW]\d{4} \d\d:\d\d:[\d.]+ +\d+ \w+\.cc:")


def is_noise(line: str) -> bool:
    """Return whether a line is what TensorFlow says of itself at its start, whatever it is told to keep
    quiet.
    """
    return bool(_NOISE.match(line))


def cores() -> int:
    """Return how many threads this process should compute with: what its series allots, or the machine's
    cores.
    """
    allotted = os.environ.get("OMP_NUM_THREADS", "")
    return int(allotted) if allotted.isdigit() and int(allotted) else os.cpu_count() or 1
