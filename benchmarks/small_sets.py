"""Do small sets of different pictures make a study? Draws of 24 sources, a study each; prints a table.

    python benchmarks/small_sets.py FOLDER SOURCES.csv [--draws 20] [--weights FOLDER]
    python benchmarks/small_sets.py --quick

SOURCES.csv names the true source of each file of FOLDER (columns path, source). Of each draw's sources one
file is taken, 12 fractured and 12 not, so that no two pictures are alike. Each study runs in a process of its
own.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import pandas as pd
from small import QUICK, write_set

from xray_helpers.data.labels import label_paths

PER_CLASS = 12


def draw(files: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return 24 files of different sources, 12 of each class, drawn at random."""
    some = files.sample(frac=1, random_state=seed).drop_duplicates("source")
    return some.groupby("label").head(PER_CLASS)


def run_draw(files: pd.DataFrame, folder: Path, place: Path, seed: int, weights: str) -> dict:
    """Copy a draw into a set of its own, run a study of it, and return how that ended."""
    for number, row in enumerate(files.itertuples()):
        target = place / f"set{seed}" / row.label / f"{number:02d}{Path(row.path).suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / row.path, target)
    command = [
        sys.executable,
        "-m",
        "xray_helpers",
        "run",
        "--profile",
        "smoke",
        "--models",
        "MobileNetV2",
        "--name",
    ]
    command += [
        f"s{seed}",
        "--data",
        f"set{seed}",
        "-p",
        "img_size=96",
        "-p",
        f"weights={weights}",
        "-p",
        "maps=4",
    ]
    started = time.monotonic()
    done = subprocess.run(
        command, cwd=place, env=os.environ | {"XRAY_HELPERS_ROOT": str(place)}, capture_output=True, text=True
    )
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return {
        "draw": seed,
        "files": len(files),
        "exit status": done.returncode,
        "seconds": round(time.monotonic() - started),
        "last word": "" if done.returncode == 0 else last[:100],
    }


@click.command()
@click.argument("folder", required=False, type=click.Path(exists=True, path_type=Path))
@click.argument("sources", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--draws", default=20, show_default=True)
@click.option("--weights", default="random", show_default=True)
@click.option("--quick", is_flag=True, help=QUICK)
def main(folder: Path | None, sources: Path | None, draws: int, weights: str, quick: bool) -> None:
    """Print a row a draw; exit status 1 where a study did not end well."""
    with tempfile.TemporaryDirectory(prefix="small-sets-") as here:
        place = Path(here)
        if quick:
            folder, draws = write_set(place, 80)[0], 1
            files = pd.read_csv(folder / "phantoms.csv").rename(columns={"patient": "source"})
        elif folder is None or sources is None:
            raise click.UsageError("Say the folder of a set and the table of its sources; or --quick.")
        else:
            files = pd.read_csv(sources)
            files["label"] = label_paths(list(files["path"]))
        folder = folder.resolve()
        weights = str(Path(weights).resolve()) if Path(weights).exists() else weights
        rows = [run_draw(draw(files, seed), folder, place, seed, weights) for seed in range(draws)]
    print(pd.DataFrame(rows).to_string(index=False))
    sys.exit(int(any(row["exit status"] for row in rows)))


if __name__ == "__main__":
    main()
