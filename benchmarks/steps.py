"""What a step costs above its work: kernel, imports, HTML; prints a table.

    python benchmarks/steps.py STUDY_FOLDER [...]
    python benchmarks/steps.py --quick

Reads finished studies: a step's seconds are in ``study.json``, those of each cell in its executed notebook.
Work is the sum of the cells after the one that imports; what is left is overhead.
"""

import json
import tempfile
from pathlib import Path

import click
import pandas as pd
from small import QUICK, run_study


def read_steps(folder: Path) -> pd.DataFrame:
    """Return a row a step: seconds, work, imports (the first cells up to the imports), rest (kernel and
    HTML).
    """
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    rows = []
    for step in study["steps"]:
        notebook = json.loads((folder / f"{step['name']}.ipynb").read_text(encoding="utf-8"))
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        seconds = [cell["metadata"].get("papermill", {}).get("duration") or 0.0 for cell in cells]
        first = next(i for i, cell in enumerate(cells) if "import" in "".join(cell["source"]))
        imports, work = sum(seconds[: first + 1]), sum(seconds[first + 1 :])
        rows.append(
            {
                "study": folder.name,
                "step": step["name"],
                "seconds": step["seconds"],
                "work": work,
                "imports": imports,
                "kernel and HTML": step["seconds"] - work - imports,
                "overhead": step["seconds"] - work,
            }
        )
    return pd.DataFrame(rows)


@click.command()
@click.argument("studies", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--quick", is_flag=True, help=QUICK)
def main(studies: tuple[Path, ...], quick: bool) -> None:
    """Print a row a step of each study."""
    if not studies and not quick:
        raise click.UsageError("Say the folder of a study; or --quick.")
    with tempfile.TemporaryDirectory(prefix="steps-") as place:
        tables = [read_steps(folder) for folder in ([run_study(Path(place))] if quick else studies)]
    print(pd.concat(tables).round(1).to_string(index=False))


if __name__ == "__main__":
    main()
