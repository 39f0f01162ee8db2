"""How often noise is called a shortcut, and what a data set's files alone tell of the label; prints both
tables.

    python benchmarks/shortcuts.py [--study reports/NAME] [--studies 200] [--quick]

With a study, whose 01 has run, its `shortcuts.csv` is printed, and each model's beside it.
"""

from pathlib import Path

import click
import numpy as np
import pandas as pd
from small import QUICK


@click.command()
@click.option("--study", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--studies", default=200, help="Simulated, a row.")
@click.option("--quick", is_flag=True, help=QUICK)
def main(study: Path | None, studies: int, quick: bool) -> None:
    """Simulate studies whose files tell nothing, or a little, and count the verdicts."""
    rows = []
    for images, patients in ((40, 40),) if quick else ((60, 60), (200, 200), (400, 100)):
        for strength in (0.0,) if quick else (0.0, 1.0):
            found = [
                _simulate(number, images, patients, strength) for number in range(3 if quick else studies)
            ]
            rows.append({"images": images, "groups": patients, "effect": strength} | _count(found))
    click.echo(pd.DataFrame(rows).to_string(index=False))
    for path in [] if study is None else [study / "shortcuts.csv", *sorted(study.glob("*/shortcuts.csv"))]:
        click.echo(f"\n{path.relative_to(study)}\n{pd.read_csv(path).round(3).to_string(index=False)}")


def _simulate(number: int, images: int, patients: int, strength: float) -> str:
    """Return the verdict on one study: measures are noise alike within a patient, but for one that the label
    moves.
    """
    from xray_helpers.explain import shortcut_verdicts, shortcuts

    rng = np.random.default_rng([number, images, patients])
    group = np.sort(np.arange(images) % patients)
    y = rng.permutation(np.arange(patients) % 2)[group]
    table = pd.DataFrame(
        {"path": np.arange(images).astype(str), "group": group, "y_true": y, "fold": group % 5}
    )
    numbers = [
        name for names in shortcuts.FAMILIES.values() for name in names if name not in ("mode", "suffix")
    ]
    values = rng.normal(size=(patients, len(numbers)))[group] + 0.3 * rng.normal(size=(images, len(numbers)))
    surface = pd.DataFrame(values, columns=numbers)
    surface["width"] += strength * y
    words = {
        "mode": rng.choice(["L", "RGB"], patients)[group],
        "suffix": rng.choice([".png", ".jpg"], patients)[group],
    }
    scores = shortcuts.predict_by_surface(surface.assign(**words), table, number)
    deciding = [shortcuts.ALL, *shortcuts.FAMILIES]  # single measures only name what these show
    judged = shortcuts.score_surface(scores[["path", "group", "y_true", "fold", *deciding]])
    return shortcut_verdicts.assess_surface(judged).state


def _count(found: list[str]) -> dict[str, str]:
    return {state: f"{found.count(state) / len(found):.1%}" for state in ("shown", "ruled out", "not known")}


if __name__ == "__main__":
    main()
