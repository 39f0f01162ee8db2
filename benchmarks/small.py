"""What the one-minute forms (`--quick`) of the benchmarks share: a small set of phantoms, and a small study
of it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

QUICK = "Small sizes and random weights: does it run? For continuous integration; its figures mean nothing."
STUDY = (
    "--profile",
    "smoke",
    "--models",
    "MobileNetV2",
    "-p",
    "weights=random",
    "-p",
    "img_size=64",
    "-p",
    "repeats=0",
    "-p",
    "maps=0",
)


def write_set(place: Path, images: int = 60) -> tuple[Path, Path]:
    """Write phantoms with planted copies; return their folder, and the table of their sources (path,
    source).
    """
    from xray_helpers.synthetic.dataset import write_phantoms

    csv = write_phantoms(place / "set", images=images, planted=images // 6, seed=5)
    table = pd.read_csv(csv)
    sources = place / "sources.csv"
    table[["path"]].assign(source=table["patient"]).to_csv(sources, index=False)
    return csv.parent, sources


def run_study(place: Path, name: str = "small") -> Path:
    """Run a small study with `place` as its root; return its folder."""
    data, _ = write_set(place)
    command = [
        sys.executable,
        "-m",
        "xray_helpers",
        "run",
        "--name",
        name,
        "--data",
        str(data / "phantoms.csv"),
        *STUDY,
    ]
    subprocess.run(
        command, env=os.environ | {"XRAY_HELPERS_ROOT": str(place)}, check=True, stdout=subprocess.DEVNULL
    )
    return place / "reports" / name
