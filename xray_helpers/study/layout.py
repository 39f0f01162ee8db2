"""A folder of one's own: notebooks to edit, data, reports, and a page that says how to go on."""

import shutil
from pathlib import Path

from xray_helpers.settings import InputError
from xray_helpers.study.folders import MARK, notebooks_folder

_README = """# Studies of fracture radiographs

The folder in which `xray-helpers` works, wherever in it a command is given.

- `data/`: the images, as folders `Fractured` and `Non-Fractured`, or listed as in `data/example.csv`.
- `notebooks/`: the series, yours to edit; a study runs these. Delete the folder to have the original ones.
- `reports/`: one folder per study; open its `index.html`.

`xray-helpers demo` shows all of it on synthetic images, `xray-helpers audit data/my-set` looks for copies and
leaks, `xray-helpers run --data data/my-set --name first --profile quick` makes a first study of yours.
"""
_EXAMPLE = """path,label,patient
images/0001.png,Fractured,p1
images/0002.png,Fractured,p1
images/0003.png,Non-Fractured,p2
images/0004.dcm,Non-Fractured,p3
"""


def lay_out(folder: Path) -> Path:
    """Create a folder of one's own, and return it.

    Parameters
    ----------
    folder : Path
        One that does not exist, or is empty.

    Raises
    ------
    InputError
        When there is something in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty: name a folder that does not exist yet.")
    notebooks = notebooks_folder()
    for part in ("data", "reports"):
        (folder / part).mkdir(parents=True)
    shutil.copytree(notebooks, folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    (folder / "README.md").write_text(_README, encoding="utf-8")
    (folder / "data" / "example.csv").write_text(_EXAMPLE, encoding="utf-8")
    (folder / MARK).write_text("Paths of studies are relative to this folder.\n", encoding="utf-8")
    return folder
