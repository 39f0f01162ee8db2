"""Test images in JupyterLab: the errors of a model, and two models side by side."""

from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd
from IPython.display import Image

from xray_helpers.data.manifest import data_folder
from xray_helpers.data.parts import used_part
from xray_helpers.evaluation.failures import measure_certainty
from xray_helpers.evaluation.localizers import marks_of
from xray_helpers.explain.maps import fit_map, input_size, read_maps
from xray_helpers.images.annotations import list_boxes
from xray_helpers.images.pixels import load_pixels
from xray_helpers.images.radiographs import UnreadableError
from xray_helpers.interactive.components import (
    FLOW,
    SMALL,
    Pager,
    RadiographView,
    describe_frames,
    describe_map,
    draw_radiograph,
    escape,
    read_verdict,
    show,
    write_caption,
)
from xray_helpers.models.features import load_features
from xray_helpers.settings import InputError, class_names
from xray_helpers.study.files import read_csv, read_json

KINDS = {  # (y_true, y_pred)
    "missed (FN)": (1, 0),
    "false alarms (FP)": (0, 1),
    "found (TP)": (1, 1),
    "intact recognised (TN)": (0, 0),
}
_ERRORS = (InputError, OSError, UnreadableError)  # of a picture or a model that cannot be read


def _explain(error: Exception) -> str:
    return escape(f"it {error}" if isinstance(error, UnreadableError) else str(error))


class Maps:
    """The Grad-CAM maps of test images: those that 02 saved, and others on demand.

    Attributes
    ----------
    known : dict
        The maps by path.
    """

    def __init__(self, study: Path, model: str) -> None:
        self._study, self._model, self._cam, self._resize = study, model, None, data_folder(study).resize
        self.known, self._size = {}, None
        if (path := study / model / "maps.csv").exists():
            table = read_csv(path)
            self.known, self._size = read_maps(table), input_size(table)

    def fitted(self, path: str, shape: tuple[int, int]) -> np.ndarray | None:
        """Return the map over a picture of a shape (height, width); None where there is none."""
        return fit_map(self.known[path], shape, self._size, self._resize) if path in self.known else None

    def make(self, path: str) -> None:
        """Compute the map of one more image; the first call starts TensorFlow."""
        from xray_helpers.explain.gradcam import GradCam
        from xray_helpers.models.saved import load_model

        if self._cam is None:
            self._cam = GradCam(load_model(self._study / self._model / "model.keras"))
            self._size = self._cam.size
        row = read_csv(self._study / "manifest.csv").query("path == @path")
        self.known[path] = self._cam(load_pixels(row, data_folder(self._study), self._cam.size)[:])[0]


class _ImageBrowser:
    """Test images one by one, whose maps can be computed on demand; what subclasses share."""

    def __init__(self, study: Path, view: RadiographView, button: str) -> None:
        self.study, self.folder, self.view = study, data_folder(study), view
        self.pager, self.note = Pager(self._open), w.HTML()
        self.make = w.Button(description=button, layout=w.Layout(width="140px"))
        self.make.on_click(self._make)

    def _without_map(self, path: str) -> list[Maps]:
        """Return the maps of the models shown, as far as they lack this image."""
        raise NotImplementedError

    def _describe(self, row: Any) -> str:
        """Return the name of an image and what is known of it, as HTML."""
        raise NotImplementedError

    def _lay_out(self, row: Any) -> tuple[list[tuple[np.ndarray, np.ndarray | None]], list[str]]:
        """Return the pictures with their maps, and their captions."""
        raise NotImplementedError

    def _open(self, row: Any) -> None:
        self.row = row
        self.view.box.layout.visibility = "hidden" if row is None else "visible"
        self.make.layout.display = "none" if row is None or not self._without_map(row.path) else None
        if row is None:
            self.view.clear()
            return
        try:
            self.view.show(*self._lay_out(row))
        except _ERRORS as error:
            self.view.clear(write_caption(f"{self._describe(row)}<br>no picture: {_explain(error)}"))
            self.make.layout.display = "none"

    def _make(self, _: Any = None) -> None:
        description = self.make.description
        self.make.disabled, self.make.description = True, "making …"
        try:
            for maps in self._without_map(self.row.path):
                maps.make(self.row.path)
            self._open(self.row)
        except _ERRORS as error:
            self.note.value = f"No map was made: {_explain(error)}"
        finally:
            self.make.disabled, self.make.description = False, description


def browse_errors(study: Path, model: str, test: pd.DataFrame, threshold: float, still: Image) -> Any:
    """Show wrong and right predictions, the most certain first, with maps and the nearest train images.

    Parameters
    ----------
    study : Path
    model : str
    test : DataFrame
        ``predictions_test.csv``.
    threshold : float
    still : Image
        Shown in batch.
    """
    return show(lambda: _ErrorBrowser(study, model, test, threshold).box, still)


class _ErrorBrowser(_ImageBrowser):
    def __init__(self, study: Path, model: str, test: pd.DataFrame, threshold: float) -> None:
        super().__init__(study, RadiographView(), "make its map")
        self.maps, self.neighbours = Maps(study, model), _Neighbours(study, model)
        self.frames = _Frames(study, model)
        test = test.assign(certainty=measure_certainty(test["y_prob"], threshold))
        test = test.sort_values(["certainty", "path"], ascending=[False, True])
        self.rows = {
            kind: list(test[(test["y_true"] == y_true) & (test["y_pred"] == y_pred)].itertuples())
            for kind, (y_true, y_pred) in KINDS.items()
        }
        options = [(f"{kind}: {len(rows)}", kind) for kind, rows in self.rows.items()]
        first = next((kind for kind, rows in self.rows.items() if rows), next(iter(KINDS)))
        self.kind = w.Dropdown(options=options, value=first, description="show")
        self.kind.observe(self._choose, "value")
        self.verdict, believed = read_verdict(study, model)
        if believed is False:
            self.view.opacity.value = 0
        self.nearest = w.HBox(layout=w.Layout(**FLOW))
        chosen = w.HBox([self.kind, self.pager.box, self.make], layout=w.Layout(**FLOW))
        self.box = w.VBox([chosen, self.view.box, self.note, self.nearest])
        self._choose()

    def _choose(self, _: Any = None) -> None:
        self.pager.load(self.rows[self.kind.value])

    def _without_map(self, path: str) -> list[Maps]:
        return [] if path in self.maps.known else [self.maps]

    def _describe(self, row: Any) -> str:
        true, called = (class_names()[value] for value in (row.y_true, row.y_pred))
        probability = f"P({class_names()[1]}) = {row.y_prob:.3f}"
        if hasattr(row, "class_true"):
            true, called = (
                f"{true} ({escape(row.class_true)})",
                f"{called} (most probable: {escape(row.class_pred)})",
            )
        return f"{escape(row.path)}<br>true {true}, {probability}, called {called}"

    def _lay_out(self, row: Any) -> tuple[list[tuple[np.ndarray, np.ndarray | None]], list[str]]:
        pixels = self.folder.read(row.path).pixels
        grid = self.maps.fitted(row.path, pixels.shape)
        frames = self.frames.find(row.path)
        lines = (self._describe(row), describe_frames(frames), describe_map(grid), self.verdict)
        return [(pixels, grid, frames)], [write_caption(*lines)]

    def _open(self, row: Any) -> None:
        super()._open(row)
        if row is None:
            self.note.value, self.nearest.children = "There is no such image.", []
            return
        nearest = self.neighbours.find(row.path)
        self.note.value = (
            "<b>Nearest train images</b>, by the backbone's features"
            if nearest
            else "The features of this study are not in data/cache any more: the nearest train images are "
            "not known."
        )
        self.nearest.children = [self._small(*each) for each in nearest]

    def _small(self, path: str, label: str, cosine: float) -> w.Widget:
        """Return a train image as a thumbnail with its caption."""
        caption = f"{escape(path.split('/')[-1])}<br>{escape(label)}, cosine {cosine:.2f}"
        pictures, layout = [], w.Layout(width=f"{SMALL}px")
        try:
            data = draw_radiograph(self.folder.read(path).pixels, side=SMALL)
            pictures = [w.Image(value=data, format="png")]
        except UnreadableError as error:
            caption += f"<br>no picture: {_explain(error)}"
        return w.VBox([*pictures, w.HTML(write_caption(f"<small>{caption}</small>"), layout=layout)])


class _Frames:
    """The boxes of fractures in test images: those known, and those that 07 found, from its threshold on."""

    def __init__(self, study: Path, model: str) -> None:
        part = used_part(read_csv(study / "manifest.csv"), "test")
        self._known = dict(zip(part["path"], list_boxes(part), strict=True))
        file, record = (
            study / model / "boxes_test.csv",
            read_json(study / model / "localizer.json", default={}),
        )
        self._found = read_csv(file) if file.exists() else None
        self._threshold = record.get("threshold", 1.0)

    def find(self, path: str) -> list[tuple[np.ndarray, str]]:
        """Return the frames of one image, as for `components.draw_radiograph`."""
        frames = [(box, "known") for box in self._known.get(path, ())]
        if self._found is not None:
            frames += [(box, "found") for box in marks_of(self._found, path, self._threshold)]
        return frames


class _Neighbours:
    """The train images whose features are nearest, by cosine."""

    def __init__(self, study: Path, model: str) -> None:
        manifest = read_csv(study / "manifest.csv")
        key = read_json(study / model / "training.json")["key"]
        self.train, test = used_part(manifest, "train", copies=True), used_part(manifest, "test")
        self._x = [load_features(part, key) for part in (self.train, test)]
        self._row = {path: row for row, path in enumerate(test["path"])}

    def find(self, path: str, count: int = 4) -> list[tuple[str, str, float]]:
        """Return path, class and cosine of the nearest; none where features are no longer in the cache."""
        if any(x is None for x in self._x) or path not in self._row:
            return []
        train, one = np.asarray(self._x[0][:]), np.asarray(self._x[1][self._row[path]])
        cosine = train @ one / (np.linalg.norm(train, axis=1) * np.linalg.norm(one) + 1e-12)
        best = np.argsort(-cosine, kind="stable")[:count]
        return [(self.train["path"].iloc[i], self.train["label"].iloc[i], float(cosine[i])) for i in best]


def compare_two(study: Path, predictions: dict[str, pd.DataFrame], still: Image) -> Any:
    """Show two models on one test image, their predictions and maps; images they disagree on come first.

    Parameters
    ----------
    study : Path
    predictions : dict
        Names of models to their ``predictions_test.csv``.
    still : Image
        Shown in batch, and where there is one model only.
    """
    if len(predictions) < 2:
        return still
    return show(lambda: _ModelComparer(study, predictions).box, still)


class _ModelComparer(_ImageBrowser):
    def __init__(self, study: Path, predictions: dict[str, pd.DataFrame]) -> None:
        super().__init__(study, RadiographView(2, 360), "make its maps")
        self.predictions = predictions
        self._maps: dict[str, Maps] = {}
        names = list(predictions)
        self.one = w.Dropdown(options=names, value=names[0], description="one")
        self.other = w.Dropdown(options=names, value=names[1], description="other")
        self.only = w.Checkbox(True, description="only where they disagree", indent=False)
        for control in (self.one, self.other):
            control.observe(self._read_verdicts, "value")
        for control in (self.one, self.other, self.only):
            control.observe(self._choose, "value")
        controls = [self.one, self.other, self.only, self.pager.box, self.make]
        self.box = w.VBox([w.HBox(controls, layout=w.Layout(**FLOW)), self.note, self.view.box])
        self._read_verdicts()
        self._choose()

    def _read_verdicts(self, _: Any = None) -> None:
        """Read the verdicts on the maps of both models; where one is not believed, the maps start hidden."""
        self.verdicts = [read_verdict(self.study, control.value) for control in (self.one, self.other)]
        if any(believed is False for _, believed in self.verdicts):
            self.view.opacity.value = 0

    def _choose(self, _: Any = None) -> None:
        one, other = (self.predictions[control.value] for control in (self.one, self.other))
        table = one.merge(other[["path", "y_prob", "y_pred"]], on="path", suffixes=("_a", "_b"))
        table = table.assign(apart=(table["y_prob_a"] - table["y_prob_b"]).abs())
        table = table.sort_values(["apart", "path"], ascending=[False, True])
        differ = table[table["y_pred_a"] != table["y_pred_b"]]
        count = f"{len(differ)} of {len(table)} test images"
        self.note.value = f"They disagree on {count}; the farthest apart come first."
        self.pager.load(list((differ if self.only.value else table).itertuples()))

    def _without_map(self, path: str) -> list[Maps]:
        models = dict.fromkeys((self.one.value, self.other.value))
        return [maps for maps in map(self._maps_of, models) if path not in maps.known]

    def _describe(self, row: Any) -> str:
        return escape(row.path)

    def _lay_out(self, row: Any) -> tuple[list[tuple[np.ndarray, np.ndarray | None]], list[str]]:
        pixels, shown, captions = self.folder.read(row.path).pixels, [], []
        calls = ((self.one, row.y_prob_a, row.y_pred_a), (self.other, row.y_prob_b, row.y_pred_b))
        for (control, p, called), (verdict, _) in zip(calls, self.verdicts, strict=True):
            grid = self._maps_of(control.value).fitted(row.path, pixels.shape)
            shown.append((pixels, grid))
            call = f"<b>{escape(control.value)}</b>: P = {p:.3f}, {class_names()[int(called)]}"
            first = f"{call}<br>{self._describe(row)}, true {class_names()[row.y_true]}"
            captions.append(write_caption(first, describe_map(grid) or "no map was made", verdict))
        return shown, captions

    def _maps_of(self, model: str) -> Maps:
        """Return the maps of a model, which are read once."""
        if model not in self._maps:
            self._maps[model] = Maps(self.study, model)
        return self._maps[model]
