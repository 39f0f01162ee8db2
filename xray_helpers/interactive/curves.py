"""Curves in JupyterLab: how training goes, and another threshold. In batch each is the still picture it is
given.
"""

from collections.abc import Callable
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd
from IPython.display import Image, display
from sklearn.metrics import precision_recall_curve, roc_curve

from xray_helpers.evaluation.intervals import grouped_proportion, predictive_values
from xray_helpers.interactive.components import FLOW, draw_curves, is_live, show, table
from xray_helpers.settings import class_names


def watch_training(model: str) -> Callable[[dict[str, float]], None] | None:
    """Show curves that grow while the cell trains; return what is to be told of each epoch, or None in
    batch.
    """
    if not is_live():
        return None
    curve, losses = w.HTML(), {"train": [], "validation": []}
    display(curve)

    def tell(logs: dict[str, float]) -> None:
        losses["train"].append(float(logs["loss"]))
        losses["validation"].append(float(logs["val_loss"]))
        epochs = np.arange(1, len(losses["train"]) + 1)
        top = max(max(values) for values in losses.values())
        curve.value = draw_curves(
            {name: (epochs, np.array(values)) for name, values in losses.items()},
            title=f"{model}: loss after {len(epochs)} epochs",
            labels=("epoch", "loss"),
            limits=((1, max(2, len(epochs))), (0, top * 1.05 or 1)),
        )

    return tell


class OperatingPoints:
    """Counts at any threshold, by one sort: of 10,000 images in microseconds.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
    y_prob : ndarray of float, shape (n,)
    group : array-like, shape (n,), optional
        What counts together in intervals; each image its own when left out.
    """

    def __init__(self, y_true: np.ndarray, y_prob: np.ndarray, group: Any = None) -> None:
        y_true, y_prob = np.asarray(y_true, int), np.asarray(y_prob, float)
        codes = np.arange(len(y_true)) if group is None else pd.factorize(np.asarray(group, dtype=object))[0]
        self._sorted = [np.sort(y_prob[y_true == label]) for label in (0, 1)]
        self._scores, self._groups = (
            [values[y_true == label] for label in (0, 1)] for values in (y_prob, codes)
        )

    def count(self, threshold: float) -> dict[str, int]:
        """Return tp, fp, tn, fn; at or above the threshold an image is called fractured."""
        tn, fn = (int(np.searchsorted(values, threshold, side="left")) for values in self._sorted)
        return {"tp": len(self._sorted[1]) - fn, "fp": len(self._sorted[0]) - tn, "tn": tn, "fn": fn}

    def rates(self, threshold: float, prevalence: float) -> dict[str, dict[str, Any]]:
        """Return sensitivity, specificity, and ppv and npv as they would be at a prevalence, with their 95 %
        intervals.

        Each as `intervals.grouped_proportion` and `intervals.predictive_values` give it.
        """
        calls = (self._scores[1] >= threshold, self._scores[0] < threshold)
        sensitivity, specificity = map(grouped_proportion, calls, self._groups[::-1])
        values = predictive_values(sensitivity, specificity, prevalence)
        return {"sensitivity": sensitivity, "specificity": specificity} | values


def explore_threshold(test: pd.DataFrame, threshold: float, still: Image, *, model: str) -> Any:
    """Show what another threshold would do, and what PPV and NPV would be at another prevalence.

    Parameters
    ----------
    test : DataFrame
        ``predictions_test.csv``.
    threshold : float
        The study's, where the slider begins.
    still : Image
    model : str
    """
    return show(lambda: _ThresholdExplorer(test, threshold, model).box, still)


class _ThresholdExplorer:
    def __init__(self, test: pd.DataFrame, threshold: float, model: str) -> None:
        self.points = OperatingPoints(test["y_true"], test["y_prob"], test["group"])
        self.model, self.n = model, len(test)
        false_positive, true_positive, _ = roc_curve(test["y_true"], test["y_prob"])
        precision, recall, _ = precision_recall_curve(test["y_true"], test["y_prob"])
        self.roc, self.pr = (false_positive, true_positive), (recall[::-1], precision[::-1])
        wide = {
            "layout": w.Layout(width="420px"),
            "style": {"description_width": "90px"},
            "continuous_update": True,
        }
        self.threshold = w.FloatSlider(
            threshold, min=0, max=1, step=0.001, description="threshold", readout_format=".3f", **wide
        )
        share = float(test["y_true"].mean())
        self.prevalence = w.FloatSlider(
            share, min=0.001, max=0.999, step=0.001, description="prevalence", readout_format=".3f", **wide
        )
        back = w.Button(description=f"back to the study's {threshold:.3f}", layout=w.Layout(width="220px"))
        back.on_click(lambda _: setattr(self.threshold, "value", threshold))
        self.numbers, self.roc_plot, self.pr_plot = w.HTML(), w.HTML(), w.HTML()
        for control in (self.threshold, self.prevalence):
            control.observe(self._update, "value")
        note = w.HTML(
            "<small>To look, not to choose: a threshold chosen on test images makes their scores "
            "worthless.</small>"
        )
        self.box = w.VBox(
            [
                self.threshold,
                self.prevalence,
                back,
                w.HBox([self.numbers, self.roc_plot, self.pr_plot], layout=w.Layout(**FLOW)),
                note,
            ]
        )
        self._update()

    def _update(self, _: Any = None) -> None:
        counts = self.points.count(self.threshold.value)
        rates = self.points.rates(self.threshold.value, self.prevalence.value)
        names = (
            "sensitivity",
            "specificity",
            *(f"{name} at {self.prevalence.value:.1%}" for name in ("PPV", "NPV")),
        )
        rows = [(name, *_span(entry)) for name, entry in zip(names, rates.values(), strict=True)]
        matrix = [
            (f"true {class_names()[0]}", str(counts["tn"]), str(counts["fp"])),
            (f"true {class_names()[1]}", str(counts["fn"]), str(counts["tp"])),
        ]
        self.numbers.value = table(
            f"{self.model}, test n = {self.n}",
            ("", f"called {class_names()[0]}", f"called {class_names()[1]}"),
            matrix,
        ) + table("", (), rows, list(rates))
        called = counts["tp"] + counts["fp"]
        sensitivity, specificity = rates["sensitivity"]["value"], rates["specificity"]["value"]
        on_roc = (1 - specificity, sensitivity) if None not in (sensitivity, specificity) else None
        on_pr = (sensitivity, counts["tp"] / called) if called and sensitivity is not None else None
        self.roc_plot.value = draw_curves(
            {"ROC": self.roc}, title="ROC, test", labels=("1 − specificity", "sensitivity"), point=on_roc
        )
        self.pr_plot.value = draw_curves(
            {"PR": self.pr}, title="Precision and recall, test", labels=("recall", "precision"), point=on_pr
        )


def _span(entry: dict[str, Any]) -> tuple[str, str]:
    if entry["value"] is None:
        return "not defined", ""
    if entry["ci_low"] is None:
        return f"{entry['value']:.3f}", "no interval: too few sources"
    return f"{entry['value']:.3f}", f"{entry['ci_low']:.3f} to {entry['ci_high']:.3f} (95 %)"
