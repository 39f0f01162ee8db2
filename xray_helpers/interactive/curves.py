"""Curves in JupyterLab: the loss while a model trains, and the effect of another threshold."""

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
    """Display curves that grow while the cell trains.

    Returns
    -------
    callable or None
        To be called with the logs of each epoch (loss, val_loss); None in batch.
    """
    if not is_live():
        return None
    curve, losses = w.HTML(), {"train": [], "validation": []}
    display(curve)

    def on_epoch(logs: dict[str, float]) -> None:
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

    return on_epoch


class OperatingPoints:
    """Counts and rates at any threshold; scores are sorted once, so that a count takes microseconds.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
    y_prob : ndarray of float, shape (n,)
    group : array-like, shape (n,), optional
        Groups that intervals resample; each image is its own when left out.
    """

    def __init__(self, y_true: np.ndarray, y_prob: np.ndarray, group: Any = None) -> None:
        y_true, y_prob = np.asarray(y_true, int), np.asarray(y_prob, float)
        codes = np.arange(len(y_true)) if group is None else pd.factorize(np.asarray(group, dtype=object))[0]
        self._scores = [y_prob[y_true == label] for label in (0, 1)]
        self._groups = [codes[y_true == label] for label in (0, 1)]
        self._sorted = [np.sort(scores) for scores in self._scores]

    def count(self, threshold: float) -> dict[str, int]:
        """Return tp, fp, tn, fn; an image is called fractured at the threshold or above."""
        tn, fn = (int(np.searchsorted(scores, threshold, side="left")) for scores in self._sorted)
        return {"tp": len(self._sorted[1]) - fn, "fp": len(self._sorted[0]) - tn, "tn": tn, "fn": fn}

    def rates(self, threshold: float, prevalence: float) -> dict[str, dict[str, Any]]:
        """Return sensitivity, specificity, and the ppv and npv at a prevalence, with 95 % intervals.

        Each is an entry of `intervals.grouped_proportion` or `intervals.predictive_values`.
        """
        sensitivity = grouped_proportion(self._scores[1] >= threshold, self._groups[1])
        specificity = grouped_proportion(self._scores[0] < threshold, self._groups[0])
        values = predictive_values(sensitivity, specificity, prevalence)
        return {"sensitivity": sensitivity, "specificity": specificity} | values


def explore_threshold(test: pd.DataFrame, threshold: float, still: Image, *, model: str) -> Any:
    """Show the effect of another threshold, and PPV and NPV at another prevalence.

    Parameters
    ----------
    test : DataFrame
        ``predictions_test.csv``.
    threshold : float
        Of the study, where the slider starts.
    still : Image
        Shown in batch.
    model : str
    """
    return show(lambda: _ThresholdExplorer(test, threshold, model).box, still)


class _ThresholdExplorer:
    def __init__(self, test: pd.DataFrame, threshold: float, model: str) -> None:
        self.points = OperatingPoints(test["y_true"], test["y_prob"], test["group"])
        self.title = f"{model}, test n = {len(test)}"
        false_positive, true_positive, _ = roc_curve(test["y_true"], test["y_prob"])
        precision, recall, _ = precision_recall_curve(test["y_true"], test["y_prob"])
        self.roc, self.pr = (false_positive, true_positive), (recall[::-1], precision[::-1])
        look = {"step": 0.001, "readout_format": ".3f", "layout": w.Layout(width="420px")}
        look |= {"style": {"description_width": "90px"}}
        self.threshold = w.FloatSlider(threshold, min=0, max=1, description="threshold", **look)
        share = float(test["y_true"].mean())
        self.prevalence = w.FloatSlider(share, min=0.001, max=0.999, description="prevalence", **look)
        for slider in (self.threshold, self.prevalence):
            slider.observe(self._update, "value")
        back = w.Button(description=f"back to the study's {threshold:.3f}", layout=w.Layout(width="220px"))
        back.on_click(lambda _: setattr(self.threshold, "value", threshold))
        self.numbers, self.roc_plot, self.pr_plot = w.HTML(), w.HTML(), w.HTML()
        plots = w.HBox([self.numbers, self.roc_plot, self.pr_plot], layout=w.Layout(**FLOW))
        note = "To look, not to choose: a threshold chosen on test images makes their scores worthless."
        self.box = w.VBox([self.threshold, self.prevalence, back, plots, w.HTML(f"<small>{note}</small>")])
        self._update()

    def _update(self, _: Any = None) -> None:
        threshold, prevalence = self.threshold.value, self.prevalence.value
        counts = self.points.count(threshold)
        rates = self.points.rates(threshold, prevalence)
        negative, positive = class_names()
        heads = ("", f"called {negative}", f"called {positive}")
        matrix = [
            (f"true {negative}", str(counts["tn"]), str(counts["fp"])),
            (f"true {positive}", str(counts["fn"]), str(counts["tp"])),
        ]
        names = ("sensitivity", "specificity", f"PPV at {prevalence:.1%}", f"NPV at {prevalence:.1%}")
        rows = [(name, *_format(entry)) for name, entry in zip(names, rates.values(), strict=True)]
        self.numbers.value = table(self.title, heads, matrix) + table("", (), rows, list(rates))
        sensitivity, specificity = rates["sensitivity"]["value"], rates["specificity"]["value"]
        called = counts["tp"] + counts["fp"]
        on_roc = (1 - specificity, sensitivity) if None not in (sensitivity, specificity) else None
        on_pr = (sensitivity, counts["tp"] / called) if called and sensitivity is not None else None
        labels = ("1 − specificity", "sensitivity")
        self.roc_plot.value = draw_curves({"ROC": self.roc}, title="ROC, test", labels=labels, point=on_roc)
        title, labels = "Precision and recall, test", ("recall", "precision")
        self.pr_plot.value = draw_curves({"PR": self.pr}, title=title, labels=labels, point=on_pr)


def _format(entry: dict[str, Any]) -> tuple[str, str]:
    """Return an entry as the texts of its value and of its interval."""
    if entry["value"] is None:
        return "not defined", ""
    if entry["ci_low"] is None:
        return f"{entry['value']:.3f}", "no interval: too few sources"
    return f"{entry['value']:.3f}", f"{entry['ci_low']:.3f} to {entry['ci_high']:.3f} (95 %)"
