"""The table of a sweep: its studies and their scores, ranked by validation."""

from pathlib import Path

import pandas as pd

from xray_helpers.evaluation.intervals import describe
from xray_helpers.explain.shortcut_verdicts import list_controls
from xray_helpers.runner.graph import EVALUATE
from xray_helpers.study.files import read_json
from xray_helpers.study.folders import SWEEP, study_folder


def tabulate(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return a row a study and evaluated model: study, model, the swept values, and what validation says.

    Returns
    -------
    table : DataFrame
        study, model, a column a swept parameter (but models), control (why a study is one, where any is),
        validation_auroc, validation_auroc_low, validation_auroc_high,
        validation_n, epochs_run. No column holds a test score: choosing by one would spoil it.
    swept : list of str
        The parameters.
    """
    rows, sweep = [], read_json(folder / SWEEP)
    for point, name in zip(sweep["points"], sweep["studies"], strict=True):
        place = study_folder(name)
        record = read_json(place / "study.json", default={})
        steps, control = record.get("steps", []), ", ".join(list_controls(record.get("settings", {})))
        for model in (
            Path(step["name"]).parent.name
            for step in steps
            if Path(step["name"]).name == EVALUATE and step["state"] == "done"
        ):
            found = read_json(place / model / "metrics.json")["validation"]
            swept = {
                key: str(value) if isinstance(value, list) else value
                for key, value in point.items()
                if key != "models"
            }
            auroc = found["auroc"]
            seen = {
                "validation_auroc": auroc["value"],
                "validation_auroc_low": auroc["ci_low"],
                "validation_auroc_high": auroc["ci_high"],
                "validation_n": found["n"],
                "epochs_run": read_json(place / model / "training.json")["epochs"],
            }
            rows.append({"study": name, "model": model} | swept | {"control": control} | seen)
    table = pd.DataFrame(rows)
    if len(table) and not table["control"].any():
        table = table.drop(columns="control")
    return table, list(sweep["points"][0])


def rank(table: pd.DataFrame, swept: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rank what was swept by its mean AUROC on validation over seeds, and return the studies of the best.

    A seed is luck, not a choice: studies that differ by it alone count as one candidate. A control is no
    candidate: it is ranked only where all studies are controls.

    Returns
    -------
    ranking : DataFrame
        model, the swept parameters but seed, validation_auroc (mean), sd (over seeds; missing for one),
        seeds.
    best : DataFrame
        The rows of `table` that the first row of it is the mean of.
    """
    if not len(table):
        return pd.DataFrame(), table
    if "control" in table and not (table["control"] != "").all():
        table = table[table["control"] == ""]
    keys = ["model", *(key for key in swept if key not in ("seed", "models"))]
    table = table.drop_duplicates(
        [*keys, *({"seed"} & set(swept))]
    )  # a model that stands in several swept lists
    grouped = (
        table.groupby(keys, sort=False, dropna=False)["validation_auroc"]
        .agg(["mean", "std", "size"])
        .reset_index()
    )
    ranking = grouped.rename(columns={"mean": "validation_auroc", "std": "sd", "size": "seeds"})
    ranking = ranking.sort_values("validation_auroc", ascending=False, kind="stable", ignore_index=True)
    best = table.merge(ranking.loc[[0], keys], on=keys)
    return ranking, best


def describe_best(ranking: pd.DataFrame, best: pd.DataFrame, folder: Path, *, ended: bool = True) -> str:
    """Return in words which candidate validation prefers, and what it reaches on test: the only test scores
    that are read.

    Before all studies have `ended` none is: the candidate that is first now may not stay it.
    """
    if not len(ranking):
        return "No study of the sweep has been evaluated yet."
    first = ranking.iloc[0]
    keys = [key for key in ranking.columns if key not in ("model", "validation_auroc", "sd", "seeds")]
    what = ", ".join([first["model"], *(f"{key} = {first[key]}" for key in keys)])
    spread = (
        "" if pd.isna(first["sd"]) else f" (standard deviation {first['sd']:.2f} over {first['seeds']} seeds)"
    )
    tied = int((ranking["validation_auroc"] > first["validation_auroc"] - 1e-9).sum())
    among = (
        f"as {tied - 1} more of {len(ranking)} do: it cannot tell them apart"
        if tied > 1
        else (f"the best of {len(ranking)} candidates, and as such rather a lucky score")
    )
    controls = "control" in best and (best["control"] != "").any()
    chosen = "All of these studies are controls, and none of them is a candidate. " if controls else ""
    chosen += f"Validation prefers {what}: AUROC {first['validation_auroc']:.2f}{spread}, {among}."
    if not ended:
        return f"{chosen} Its score on test is shown when all studies have ended."
    scores = [read_json(folder.parent / row.study / row.model / "metrics.json") for row in best.itertuples()]
    reached = "; ".join(f"{describe(each['auroc'])}, n = {each['n']}" for each in scores)
    return f"{chosen} On test it reaches {reached}."
