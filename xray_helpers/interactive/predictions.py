"""Test images in JupyterLab: what a model gets wrong, and two models side by side. In batch each is the still
picture given.
"""

from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd
from IPython.display import Image

from xray_helpers.data.manifest import data_folder
from xray_helpers.data.parts import used_part
from xray_helpers.evaluation.failures import measure_certainty
from xray_helpers.explain.maps import fit_map, input_size, read_maps
from xray_helpers.images.pixels import load_pixels
from xray_helpers.images.radiographs import UnreadableError
from xray_helpers.interactive.components import (
    FLOW,
    SMALL,
    Pager,
    RadiographView,
    describe_map,
    draw_radiograph,
    read_verdict,
    show,
    text,
    write_caption,
)
from xray_helpers.models.features import load_features
from xray_helpers.settings import InputError, class_names
from xray_helpers.study.files import read_csv, read_json

KINDS = {  # of a call: (y_true, y_pred)
    "missed (FN)": (1, 0),
    "false alarms (FP)": (0, 1),
    "found (TP)": (1, 1),
    "intact recognised (TN)": (0, 0),
}


def _why(error: Exception) -> str:
    return text(f"it {error}" if isinstance(error, UnreadableError) else str(error))


def browse_errors(study: Path, model: str, test: pd.DataFrame, threshold: float, still: Image) -> Any:
    """Show test images by what was said of them, the most certain first, with maps and the nearest train
    images.

    Parameters
    ----------
    study : Path
    model : str
    test : DataFrame
        ``predictions_test.csv``.
    threshold : float
    still : Image
    """
    return show(lambda: _ErrorBrowser(study, model, test, threshold).box, still)


class _ErrorBrowser:
    def __init__(self, study: Path, model: str, test: pd.DataFrame, threshold: float) -> None:
        self.study, self.model = study, model
        self.test = test.assign(certainty=measure_certainty(test["y_prob"], threshold))
        self.folder, self.maps, self.neighbours = (
            data_folder(study),
            Maps(study, model),
            _Neighbours(study, model),
        )
        counts = {
            kind: int(((test["y_true"] == t) & (test["y_pred"] == p)).sum()) for kind, (t, p) in KINDS.items()
        }
        self.kind = w.Dropdown(
            options=[(f"{kind}: {n}", kind) for kind, n in counts.items()], description="show"
        )
        self.kind.observe(self._choose, "value")
        self.view, self.pager = RadiographView(), Pager(self._open)
        self.verdict, believed = read_verdict(study, model)
        if believed is False:
            self.view.opacity.value = 0
        self.make = w.Button(description="make its map", layout=w.Layout(width="140px"))
        self.make.on_click(self._make)
        self.nearest = w.HBox(layout=w.Layout(**FLOW))
        self.note = w.HTML()
        self.box = w.VBox(
            [
                w.HBox([self.kind, self.pager.box, self.make], layout=w.Layout(**FLOW)),
                self.view.box,
                self.note,
                self.nearest,
            ]
        )
        self._choose()

    def _choose(self, _: Any = None) -> None:
        y_true, y_pred = KINDS[self.kind.value]
        rows = self.test[(self.test["y_true"] == y_true) & (self.test["y_pred"] == y_pred)]
        self.pager.load(list(rows.sort_values(["certainty", "path"], ascending=[False, True]).itertuples()))

    def _open(self, row: Any) -> None:
        self.row = row
        self.view.box.layout.visibility = "hidden" if row is None else "visible"
        self.make.layout.display = "none" if row is None or row.path in self.maps.known else None
        if row is None:
            self.view.clear()
            self.note.value, self.nearest.children = "There is no such image.", []
            return
        true, called = (class_names()[value] for value in (row.y_true, row.y_pred))
        said = f"{text(row.path)}<br>true {true}, P({class_names()[1]}) = {row.y_prob:.3f}, called {called}"
        try:
            pixels = self.folder.read(row.path).pixels
            grid = self.maps.fitted(row.path, pixels.shape)
            self.view.show([(pixels, grid)], [write_caption(said, describe_map(grid), self.verdict)])
        except UnreadableError as error:
            self.view.clear(write_caption(f"{said}<br>no picture: {_why(error)}"))
            self.make.layout.display = "none"
        near = self.neighbours.find(row.path)
        self.note.value = (
            "<b>Nearest train images</b>, by the backbone's features"
            if near
            else "The features of this study are not in data/cache any more: the nearest train images are "
            "not known."
        )
        self.nearest.children = [self._small(*item) for item in near]

    def _small(self, path: str, label: str, likeness: float) -> w.Widget:
        words = f"{text(path.split('/')[-1])}<br>{text(label)}, cosine {likeness:.2f}"
        pictures, layout = [], w.Layout(width=f"{SMALL}px")
        try:
            pictures = [
                w.Image(value=draw_radiograph(self.folder.read(path).pixels, side=SMALL), format="png")
            ]
        except UnreadableError as error:
            words += f"<br>no picture: {_why(error)}"
        return w.VBox([*pictures, w.HTML(write_caption(f"<small>{words}</small>"), layout=layout)])

    def _make(self, _: Any = None) -> None:
        self.make.disabled, self.make.description = True, "making …"
        try:
            self.maps.make(self.row.path)
            self._open(self.row)
        except (InputError, OSError, UnreadableError) as error:
            self.note.value = f"No map was made: {_why(error)}"
        finally:
            self.make.disabled, self.make.description = False, "make its map"


class Maps:
    """The Grad-CAM maps of a model's test images: those that 02 kept, and on demand others; `known` is by
    path.
    """

    def __init__(self, study: Path, model: str) -> None:
        self._study, self._model, self._cam, self._way = study, model, None, data_folder(study).resize
        place = study / model / "maps.csv"
        self.known, self._size = {}, None
        if place.exists():
            table = read_csv(place)
            self.known, self._size = read_maps(table), input_size(table)

    def fitted(self, path: str, shape: tuple[int, int]) -> np.ndarray | None:
        """Return the map of an image as it lies over its picture of a shape (height, width); None where there
        is none.
        """
        return fit_map(self.known[path], shape, self._size, self._way) if path in self.known else None

    def make(self, path: str) -> None:
        """Make the map of one more image; the first takes TensorFlow's start."""
        from xray_helpers.explain.gradcam import GradCam
        from xray_helpers.models.head import load_model

        if self._cam is None:
            self._cam = GradCam(load_model(self._study / self._model / "model.keras"))
            self._size = self._cam.size
        row = read_csv(self._study / "manifest.csv").query("path == @path")
        self.known[path] = self._cam(load_pixels(row, data_folder(self._study), self._cam.size)[:])[0]


class _Neighbours:
    """The train images whose features lie nearest, by cosine."""

    def __init__(self, study: Path, model: str) -> None:
        manifest = read_csv(study / "manifest.csv")
        key = read_json(study / model / "training.json")["key"]
        self.train, self.test = used_part(manifest, "train", copies=True), used_part(manifest, "test")
        self._x = [load_features(part, key) for part in (self.train, self.test)]
        self._row = {path: row for row, path in enumerate(self.test["path"])}

    def find(self, path: str, count: int = 4) -> list[tuple[str, str, float]]:
        """Return path, class and cosine of the nearest; none where features are not kept any more."""
        if any(x is None for x in self._x) or path not in self._row:
            return []
        train, one = np.asarray(self._x[0][:]), np.asarray(self._x[1][self._row[path]])
        cosine = train @ one / (np.linalg.norm(train, axis=1) * np.linalg.norm(one) + 1e-12)
        best = np.argsort(-cosine, kind="stable")[:count]
        return [(self.train["path"].iloc[i], self.train["label"].iloc[i], float(cosine[i])) for i in best]


def compare_two(study: Path, predictions: dict[str, pd.DataFrame], still: Image) -> Any:
    """Show two models on one test image: what they say and where they look; first the images they disagree
    on.

    Parameters
    ----------
    study : Path
    predictions : dict
        A model's name to its ``predictions_test.csv``.
    still : Image
    """
    if len(predictions) < 2:
        return still
    return show(lambda: _ModelComparer(study, predictions).box, still)


class _ModelComparer:
    def __init__(self, study: Path, predictions: dict[str, pd.DataFrame]) -> None:
        self.study, self.predictions, self.folder = study, predictions, data_folder(study)
        names = list(predictions)
        self.one, self.other = (
            w.Dropdown(options=names, value=name, description=words)
            for name, words in zip(names, ("one", "other"), strict=False)
        )
        self.only = w.Checkbox(True, description="only where they disagree", indent=False)
        self.view, self.pager = RadiographView(2, 360), Pager(self._open)
        self._maps: dict[str, Maps] = {}
        self.make = w.Button(description="make its maps", layout=w.Layout(width="140px"))
        self.make.on_click(self._make)
        for control in (self.one, self.other):
            control.observe(self._believe, "value")
        for control in (self.one, self.other, self.only):
            control.observe(self._choose, "value")
        chosen = w.HBox([self.one, self.other, self.only, self.pager.box, self.make], layout=w.Layout(**FLOW))
        self.note = w.HTML()
        self.box = w.VBox([chosen, self.note, self.view.box])
        self._believe()
        self._choose()

    def _believe(self, _: Any = None) -> None:
        """Read what is known of either model's maps; where one is not to be believed, both begin unseen."""
        self.verdicts = [read_verdict(self.study, control.value) for control in (self.one, self.other)]
        if any(believed is False for _, believed in self.verdicts):
            self.view.opacity.value = 0

    def _choose(self, _: Any = None) -> None:
        a, b = (self.predictions[control.value] for control in (self.one, self.other))
        table = a.merge(b[["path", "y_prob", "y_pred"]], on="path", suffixes=("_a", "_b"))
        apart = (table["y_prob_a"] - table["y_prob_b"]).abs()
        table = table.assign(apart=apart).sort_values(["apart", "path"], ascending=[False, True])
        differ = table[table["y_pred_a"] != table["y_pred_b"]]
        self.note.value = (
            f"They disagree on {len(differ)} of {len(table)} test images; the farthest apart come first."
        )
        self.pager.load(list((differ if self.only.value else table).itertuples()))

    def _open(self, row: Any) -> None:
        self.row = row
        self.view.box.layout.visibility = "hidden" if row is None else "visible"
        self.make.layout.display = "none" if row is None or not self._lacking() else None
        if row is None:
            self.view.clear()
            return
        try:
            self.view.show(*self._lay(row))
        except (InputError, OSError, UnreadableError) as error:
            self.view.clear(write_caption(f"{text(row.path)}<br>no picture: {_why(error)}"))
            self.make.layout.display = "none"

    def _lacking(self) -> list[Maps]:
        """Return the models' maps among which the image's is not."""
        both = dict.fromkeys((self.one.value, self.other.value))
        return [maps for maps in map(self._maps_of, both) if self.row.path not in maps.known]

    def _make(self, _: Any = None) -> None:
        self.make.disabled, self.make.description = True, "making …"
        try:
            for maps in self._lacking():
                maps.make(self.row.path)
            self._open(self.row)
        except (InputError, OSError, UnreadableError) as error:
            self.note.value = f"No map was made: {_why(error)}"
        finally:
            self.make.disabled, self.make.description = False, "make its maps"

    def _lay(self, row: Any) -> tuple[list, list[str]]:
        """Return the picture with either model's map, and what they say."""
        pixels, shown, captions = self.folder.read(row.path).pixels, [], []
        said_by = ((self.one, row.y_prob_a, row.y_pred_a), (self.other, row.y_prob_b, row.y_pred_b))
        for (control, p, called), (verdict, _) in zip(said_by, self.verdicts, strict=True):
            grid = self._maps_of(control.value).fitted(row.path, pixels.shape)
            shown.append((pixels, grid))
            said = f"<b>{text(control.value)}</b>: P = {p:.3f}, {class_names()[int(called)]}"
            words = f"{said}<br>{text(row.path)}, true {class_names()[row.y_true]}"
            captions.append(write_caption(words, describe_map(grid) or "no map was made", verdict))
        return shown, captions

    def _maps_of(self, model: str) -> Maps:
        """Return a model's maps, read once."""
        if model not in self._maps:
            self._maps[model] = Maps(self.study, model)
        return self._maps[model]
