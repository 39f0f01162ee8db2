"""Where a study was made: versions of the packages and the kind of machine, with nothing that names person or host."""

import os
import platform
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
