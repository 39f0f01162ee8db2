"""A small set in the layout of MURA, of phantoms."""

import shutil
from pathlib import Path

import pandas as pd

from xray_helpers.settings import POSITIVE
from xray_helpers.synthetic.dataset import write_phantoms


def write_mura(folder: Path, *, images: int = 160, seed: int = 5) -> pd.DataFrame:
    """Write phantoms as XR_WRIST/patient00001/study1_positive/image1.png.

    Returns path, patient, exam, label, one row per image.
    """
    names = {"upper arm": "HUMERUS", "lower leg": "WRIST", "thigh": "SHOULDER"}
    source = folder.with_name(f"{folder.name}-phantoms")
    table = pd.read_csv(write_phantoms(source, images=images, planted=0, seed=seed), dtype="string")
    rows = []
    for row in table.itertuples():
        study = row.exam.split("-")[1]
        exam = (
            f"XR_{names.get(row.body_part, row.body_part.upper())}/patient{row.patient[1:]:>05}/study{study}"
        )
        path = f"{exam}_{'positive' if row.label == POSITIVE else 'negative'}/image{row.view}.png"
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source / row.path, target)
        rows.append({"path": path, "patient": row.patient, "exam": exam, "label": row.label})
    shutil.rmtree(source)
    return pd.DataFrame(rows)
