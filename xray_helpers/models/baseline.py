"""A simple baseline: what logistic regression on small pictures reaches, any network should exceed."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from xray_helpers.evaluation.operating_point import choose_operating_point
from xray_helpers.images.pixels import load_pixels, resize
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.models.head import build_predictions
from xray_helpers.settings import Settings

SIDE = 32  # pixels
C_VALUES = np.logspace(-5, -2, 4)  # of which cross-validation chooses one; larger ones overfit, slowly
MAX_IMAGES = 10_000  # training images, drawn at random where there are more


def predict_baseline(
    parts: dict[str, pd.DataFrame], folder: ImageFolder, settings: Settings
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Predict validation and test by logistic regression on 32 x 32 grey pixels, trained on train only.

    C has the best mean AUROC over those folds of train that hold both classes; folds keep groups together.
    The threshold is chosen on validation as that of a model is.

    Parameters
    ----------
    parts : dict
        ``train``, ``validation`` and ``test`` to their rows (`parts.used_part`): path, sha256, group, y_true,
        and for train fold.
    folder : ImageFolder
    settings : Settings

    Returns
    -------
    predictions : dict
        ``validation`` and ``test`` to tables as of `head.build_predictions`.
    chosen : dict
        The threshold, as ``threshold.json`` of a model.
    """
    if len(parts["train"]) > MAX_IMAGES:
        parts = parts | {"train": parts["train"].sample(MAX_IMAGES, random_state=settings.seed)}
    x = {split: _read_small(part, folder, settings.img_size) for split, part in parts.items()}
    y, fold = parts["train"]["y_true"].to_numpy(), parts["train"]["fold"].to_numpy(int)
    usable = [part for part in np.unique(fold) if len(set(y[fold == part])) == len(set(y[fold != part])) == 2]
    class_weight = None if settings.class_weight == "none" else settings.class_weight
    regression = LogisticRegression(C=C_VALUES[-2], class_weight=class_weight, max_iter=1000)
    model = make_pipeline(StandardScaler(), regression)
    if usable:
        folds = PredefinedSplit(np.where(np.isin(fold, usable), fold, -1))
        model = GridSearchCV(model, {"logisticregression__C": C_VALUES}, scoring="roc_auc", cv=folds)
    with threadpool_limits(1):  # of many small products; threads would wait for each other
        model.fit(x["train"], y)
    y_prob = {split: model.predict_proba(x[split])[:, 1] for split in ("validation", "test")}
    validation = parts["validation"].assign(y_prob=y_prob["validation"])
    chosen, _ = choose_operating_point(validation, validation.iloc[:0], settings)
    threshold = chosen["threshold"]
    tables = {split: build_predictions(parts[split], scores, threshold) for split, scores in y_prob.items()}
    return tables, chosen


def _read_small(part: pd.DataFrame, folder: ImageFolder, img_size: tuple[int, int]) -> np.ndarray:
    """Return the pixels that the networks see, reduced to 32 x 32, float32 of shape (n, 1024)."""
    pictures = load_pixels(part, folder, img_size)
    small = [resize(pictures[row], (SIDE, SIDE)).ravel() for row in range(len(part))]
    return np.array(small, np.float32).reshape(-1, SIDE * SIDE)
