"""Milliseconds a move of the threshold slider takes, numbers and both plots, beside scikit-learn's for the
same; a table.

python benchmarks/explorer.py [--quick]
"""

import time
from collections.abc import Callable

import click
import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve
from small import QUICK

from xray_helpers.interactive.curves import _ThresholdExplorer

MOVES = np.linspace(0.05, 0.95, 40)


def milliseconds(act: Callable[[float], object]) -> float:
    """Return the median time of a move."""
    took = []
    for threshold in MOVES:
        started = time.perf_counter()
        act(float(threshold))
        took.append(time.perf_counter() - started)
    return 1000 * float(np.median(took))


@click.command()
@click.option("--quick", is_flag=True, help=QUICK)
def main(quick: bool) -> None:
    """Print a row a number of images, two of a source each."""
    print(
        "| images | explorer, ms a move | matrix and curves by scikit-learn, ms | ratio |\n|---|---|---|---|"
    )
    for n in (200,) if quick else (1_000, 10_000, 100_000):
        rng = np.random.default_rng(0)
        test = pd.DataFrame({"y_true": rng.integers(0, 2, n), "group": (np.arange(n) // 2).astype(str)})
        test["y_prob"] = np.clip(rng.normal(0.3 + 0.4 * test["y_true"], 0.2), 0, 1)
        explorer = _ThresholdExplorer(test, 0.5, "A")
        mine = milliseconds(lambda threshold, slider=explorer.threshold: setattr(slider, "value", threshold))
        y, p = test["y_true"].to_numpy(), test["y_prob"].to_numpy()
        theirs = milliseconds(
            lambda threshold, y=y, p=p: (
                confusion_matrix(y, p >= threshold),
                roc_curve(y, p),
                precision_recall_curve(y, p),
            )
        )
        print(f"| {n:,} | {mine:.1f} | {theirs:.1f} | {mine / theirs:.2f} |", flush=True)


if __name__ == "__main__":
    main()
