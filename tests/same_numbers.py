"""Compare two studies number by number: the same predictions, thresholds and scores, or where they differ.

    python tests/same_numbers.py BEFORE AFTER

BEFORE and AFTER are folders of studies, such as reports/demo made by two versions of the package.
The exit status is 1 where anything differs. Times, versions and hashes of pictures are not compared.
"""

import json
import sys
from pathlib import Path

import pandas as pd

TABLES = (
    "manifest.csv",
    "links.csv",
    "comparison.csv",
    "pairs.csv",
    "inflation.csv",
    "shortcuts.csv",
    "ensembles.csv",
)
OF_MODELS = (
    *("predictions_val.csv", "predictions_test.csv", "predictions_oof.csv", "predictions_border.csv"),
    *(
        "history.csv",
        "repeats.csv",
        "calibration.csv",
        "subgroups.csv",
        "gaps.csv",
        "localization.csv",
        "maps.csv",
    ),
    *("metrics.json", "threshold.json", "decisions.json"),
)
PASSING = ("manifest",)  # keys that hash more than numbers


def read(path: Path) -> pd.DataFrame:
    """Return a table, or the entries of a JSON file as one row."""
    if path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
        return pd.json_normalize({key: value for key, value in content.items() if key not in PASSING})
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def find_difference(before: Path, after: Path) -> str:
    """Return in a few words how two files differ; an empty text where they do not."""
    if not before.exists() or not after.exists():
        return (
            "" if before.exists() == after.exists() else f"only in {'BEFORE' if before.exists() else 'AFTER'}"
        )
    one, other = read(before), read(after)
    if list(one.columns) != list(other.columns) or len(one) != len(other):
        return f"{one.shape} and {other.shape}: {sorted(set(one.columns) ^ set(other.columns))[:5]}"
    columns = [name for name in one.columns if not one[name].astype(str).equals(other[name].astype(str))]
    return f"differs in {', '.join(columns[:5])}" if columns else ""


def main(before: Path, after: Path) -> int:
    """Print what differs, and return the exit status."""
    models = sorted(path.parent.name for path in before.glob("*/metrics.json"))
    files = [*TABLES, *(f"{model}/{name}" for model in models for name in OF_MODELS)]
    found = {name: words for name in files if (words := find_difference(before / name, after / name))}
    for name, words in found.items():
        print(f"{name}: {words}")
    print(f"{len(files)} files of {len(models)} models compared, {len(found)} differ")
    return int(bool(found) or not models)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
