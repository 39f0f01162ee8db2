"""How often the 95 % intervals of three classes hold the truth, and how often equal models are told apart.

    python benchmarks/class_coverage.py [--studies 500] [--quick]

Each simulated study has groups (patients or sources) of one class each. Each class has a normal score,
higher where it is true, with a correlation of 0.8 within a group; probabilities are their softmax. The first
table is the coverage of `classes.evaluate_classes`, the second the type-I error of `classes.compare_classes`
for two exchangeable models whose errors correlate by half. --quick runs 30 studies a row.
"""

import click
import numpy as np
import pandas as pd
from interval_coverage import BETWEEN, WITHIN, draw_sizes
from scipy.special import softmax

from xray_helpers.evaluation.class_predictions import add_probabilities
from xray_helpers.evaluation.classes import compare_classes, evaluate_classes
from xray_helpers.settings import Classes, set_classes

QUICK, FULL = 30, 500
NAMES = ("none", "simple", "comminuted")
SETTINGS = {  # name: groups, sizes, shares of the classes, distance of the true class's score
    "60 equal groups of 4": (60, "equal", (1 / 3, 1 / 3, 1 / 3), 1.15),
    "90 groups, geometric sizes": (90, "geometric", (0.5, 0.3, 0.2), 1.15),
    "120 single images": (120, "single", (0.5, 0.3, 0.2), 1.15),
    "96 groups with many copies": (96, "copies", (1 / 3, 1 / 3, 1 / 3), 1.15),
    "90 equal groups of 4, AUROC .97": (90, "equal", (1 / 3, 1 / 3, 1 / 3), 2.05),
}


def simulate(setting: tuple, rng: np.random.Generator, models: int = 1) -> list[pd.DataFrame]:
    """Return the predictions of each model, as `class_predictions.add_probabilities` makes them."""
    groups, kind, shares, distance = setting
    label = rng.choice(len(NAMES), groups, p=shares)
    group = np.repeat(np.arange(groups), draw_sizes(kind, groups, rng))
    share = BETWEEN if models > 1 else 0.0
    common = [rng.normal(size=(size, len(NAMES))) for size in (groups, len(group))]
    part = pd.DataFrame({"path": np.arange(len(group)).astype(str), "group": group})
    part["y_true"] = (label[group] > 0).astype(int)
    part["class_name"] = np.array(NAMES)[label[group]]
    tables = []
    for _ in range(models):
        own, single = (
            np.sqrt(share) * both + np.sqrt(1 - share) * rng.normal(size=both.shape) for both in common
        )
        noise = np.sqrt(WITHIN) * own[group] + np.sqrt(1 - WITHIN) * single
        scores = noise + distance * np.eye(len(NAMES))[label[group]]
        tables.append(add_probabilities(part, softmax(scores, axis=1)))
    return tables


def coverage(setting: tuple, studies: int, seed: int = 7) -> dict[str, float]:
    """Return for each score the share of intervals that hold the truth, and the share without an interval."""
    large = (200_000, "single", *setting[2:])
    entries = evaluate_classes(simulate(large, np.random.default_rng(1))[0])["overall"]
    held = {name: [] for name in entries}
    for study in range(studies):
        found = evaluate_classes(simulate(setting, np.random.default_rng([seed, study]))[0])["overall"]
        for name, entry in found.items():
            if entry["ci_low"] is not None:
                held[name].append(entry["ci_low"] <= entries[name]["value"] <= entry["ci_high"])
    shares = {name: np.mean(each) if each else np.nan for name, each in held.items()}
    return shares | {"no interval": 1 - len(held["macro_auroc"]) / studies}


def type_one_error(setting: tuple, studies: int, seed: int = 11) -> dict[str, float]:
    """Return the share of studies in which two exchangeable models differ at p < 0.05."""
    rows = []
    for study in range(studies):
        one, other = simulate(setting, np.random.default_rng([seed, study]), models=2)
        table = compare_classes({"one": one, "other": other})
        rows += [[row.p < 0.05, row.decisions_p < 0.05] for row in table.itertuples()]
    macro, decisions = np.mean(rows, axis=0) if rows else (np.nan, np.nan)
    return {"macro AUROC, p < .05": macro, "accuracy, p < .05": decisions, "tested": len(rows) / studies}


@click.command()
@click.option("--quick", is_flag=True, help=f"{QUICK} studies a row.")
@click.option("--studies", default=FULL)
def main(quick: bool, studies: int) -> None:
    """Print coverage of the intervals and type-I error of the paired tests, in percent."""
    set_classes(Classes(names=NAMES, positives=NAMES[1:], ordered=True))
    studies = QUICK if quick else studies
    for title, measure in (("coverage", coverage), ("type-I error", type_one_error)):
        rows = {name: measure(setting, studies) for name, setting in SETTINGS.items()}
        print(f"{title}, %\n{(100 * pd.DataFrame(rows).T).round(1).to_string()}\n", flush=True)


if __name__ == "__main__":
    main()
