"""The reading room: files dropped on a page are classified by a trained model, in memory only."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w
import pandas as pd
from IPython.display import Image, Javascript, display

from xray_helpers.data.manifest import reading_of
from xray_helpers.evaluation.intervals import describe
from xray_helpers.evaluation.thresholds import describe_reach
from xray_helpers.explain.gradcam import GradCam
from xray_helpers.explain.maps import fit_map
from xray_helpers.export.engine import open_engine
from xray_helpers.images.dicom import without_patient_id
from xray_helpers.images.radiographs import (
    MAX_BYTES,
    SUFFIXES,
    ImageFolder,
    UnreadableError,
    check_picture,
    decode_radiograph,
    escape_name,
)
from xray_helpers.interactive.components import (
    FLOW,
    Pager,
    RadiographView,
    describe_frames,
    describe_map,
    is_page,
    read_verdict,
    show,
    table,
    write_caption,
)
from xray_helpers.models.prediction import Reader, guard_formulas, join_warnings
from xray_helpers.settings import InputError, class_names, number_of
from xray_helpers.study.files import read_csv, read_json
from xray_helpers.study.folders import read_class_names
from xray_helpers.study.tables import CLASS_PREFIX

NOTICE = "For research only. This is not a medical device and must not be used for diagnosis."
COLUMNS = ("file", "answer", "probability", "decision", "threshold", "warning", "reason")
_RED = "color:#b2432f;font-weight:600"
_NOTICE_STYLE = (
    "padding:8px 12px;border-left:5px solid #b2432f;background:#fbe9e4;color:#4a1409;font-weight:600;"
    "line-height:1.5"
)
_WRAP = "line-height:1.4;overflow-wrap:anywhere"
_AT_BOTTOM = ";position:fixed;bottom:0;left:0;right:0;z-index:9"  # of a page of its own
_STICKY = """<style>  /* in JupyterLab the notebook must scroll, not a box in it */
.reading-room, .jp-Cell :has(.reading-room) { overflow: visible !important; }
.reading-room > .research-only-bar { position: sticky; top: 0; z-index: 9; overflow: visible; }
</style>"""
_ACCEPTED = ",".join(SUFFIXES)
# ipywidgets' FileUpload takes files from an <input> that is in no document, and only when that input is
# clicked: dropped files reach it by replacing `click` for the length of one call.
_DROP = """
if (!window.readingRoomDrops) {  // once per page, however often the cell runs
window.readingRoomDrops = true;
const page = PAGE;  // a page of its own takes files anywhere
const find = event => event.target.closest(".reading-room")
  || (page && document.querySelector(".reading-room"));
const count = room => Number(room.querySelector("[data-taken]").dataset.taken);
const hand = async (room, files) => {
  const carried = new DataTransfer(), before = count(room), click = HTMLInputElement.prototype.click;
  for (const file of files) {  // a folder cannot be read: it would fail all files
    const readable = await file.slice(0, 1).arrayBuffer().then(() => true, () => false);
    carried.items.add(readable ? file : new File([], file.name));
  }
  HTMLInputElement.prototype.click = function () {
    this.files = carried.files;
    this.dispatchEvent(new Event("change"));
  };
  try {
    room.querySelector(".widget-upload").dispatchEvent(new Event("click"));
  } finally { HTMLInputElement.prototype.click = click; }
  while (room.isConnected && count(room) == before) await new Promise(done => setTimeout(done, 100));
};
const add = (room, files) => {  // one batch after the other: a second would overwrite the first
  room.last = (room.last ?? Promise.resolve()).then(() => hand(room, files)).catch(console.error);
};
document.addEventListener("dragover", event => find(event) && event.preventDefault());
document.addEventListener("drop", event => {
  const room = find(event);
  if (!room || !event.dataTransfer.files.length) return;
  event.preventDefault();
  add(room, [...event.dataTransfer.files]);
});
document.addEventListener("click", event => {  // chosen files wait in the same queue
  const room = event.isTrusted && event.target.closest(".reading-room .widget-upload") && find(event);
  if (!room) return;
  event.stopPropagation();
  const input = document.createElement("input");
  Object.assign(input, {type: "file", multiple: true, accept: "ACCEPTED"});
  input.onchange = () => input.files.length && add(room, [...input.files]);
  input.click();
}, true);
}
"""


def choose_model(study: Path, model: str = "") -> str:
    """Return `model`, or the best model of the study by AUROC on validation where none is named.

    Raises
    ------
    InputError
        When the study has no model that was trained and evaluated.
    """
    if model:
        return model
    scores = {
        path.parent.name: read_json(path)["validation"]["auroc"]["value"] or 0.0
        for path in sorted(study.glob("*/metrics.json"))
        if (path.parent / "model.keras").exists()
    }
    if not scores:
        raise InputError(f"The study {study.name} has no trained and evaluated model: run it first.")
    return max(scores, key=scores.__getitem__)


def describe_decision_rule(study: Path, model: str) -> str:
    """Return the threshold, its sensitivity and specificity on all of test, and where the model abstains."""
    scores, chosen = read_json(study / model / "metrics.json"), read_json(study / model / "threshold.json")
    threshold = chosen["threshold"]
    low, high = chosen.get("uncertain", (threshold, threshold))
    sentences = [
        f"{model} of the study {study.name}: called {read_class_names(study)[1]} from a probability of "
        f"{threshold:.3f} on ({scores['threshold_rule']}).",
        f"On {scores['n']} test images of {scores['n_groups']} groups that has sensitivity "
        f"{describe(scores['recall'])} and specificity {describe(scores['specificity'])}.",
    ]
    if low < high:
        within = read_csv(study / model / "predictions_test.csv")["y_prob"].between(low, high).sum()
        sentences.append(
            f"From {low:.3f} to {high:.3f} it abstains: chosen on other images the threshold could lie "
            f"there. Of the {scores['n']} test images it would abstain on {within}, which both shares count "
            "as decided."
        )
        sentences += describe_reach(low, high, read_class_names(study))
    return " ".join(sentences)


def evaluate_files(
    reader: Reader, cam: GradCam | None, files: Sequence[tuple[str, bytes]]
) -> list[dict[str, Any]]:
    """Classify files, given as bytes; nothing is written to the disk.

    Parameters
    ----------
    reader : Reader
    cam : GradCam, optional
        Of the reader's model.
    files : sequence of (name, bytes)

    Returns
    -------
    list of dict
        `COLUMNS`, and pixels, map and frames where there is a picture. answer is Fractured, Non-Fractured,
        ``abstains``, or ``no picture`` with a reason; decision is empty in the last two.
    """
    folder, answers = ImageFolder(Path(), **reading_of(reader.settings)), []
    for name, data in files:
        row = {
            "file": escape_name(name),
            "threshold": round(reader.threshold, 6),
            "warning": "",
            "reason": "",
        }
        try:
            if len(data) > MAX_BYTES:
                raise UnreadableError(f"has {len(data) / 1e6:.0f} MB, too many for a radiograph: convert it")
            with without_patient_id():
                picture = check_picture(decode_radiograph(data, folder))
        except UnreadableError as error:
            answers.append(row | {"answer": "no picture", "reason": f"it {error}"})
            continue
        found = reader.predict([picture])[0]
        row |= {key: value for key, value in found.items() if key != "uncertain"}
        row["warning"] = join_warnings(reader.recognise(picture), found["warning"])
        row |= {"answer": "abstains" if found["uncertain"] else found["decision"]}
        row |= {"pixels": picture.pixels, "map": None, "frames": []}
        if reader.localizer is not None:
            marks = reader.localizer.find(reader.resize(picture.pixels)[None], [picture.pixels.shape])[0]
            row["frames"] = [(mark, "found") for mark in marks]
        if cam is not None:
            grid = cam(reader.resize(picture.pixels)[None])[0]
            row["map"] = fit_map(grid, picture.pixels.shape, cam.size, folder.resize)
        answers.append(row)
    return answers


def build_csv(answers: Sequence[dict[str, Any]], study: str, model: str) -> str:
    """Return the answers as CSV: `COLUMNS`, and the names of study and model.

    File names that a spreadsheet would take for formulas are quoted.
    """
    rows = pd.DataFrame(answers).reindex(columns=list(COLUMNS)).assign(study=study, model=model)
    return rows.assign(file=guard_formulas(rows["file"])).to_csv(index=False, lineterminator="\n")


def open_room(study: Path, model: str, still: Image, engine: str = "") -> Any:
    """Show the reading room; `still` is shown in batch. With an engine an exported file answers."""

    def build() -> w.Widget:
        display(Javascript(_DROP.replace("PAGE", str(is_page()).lower()).replace("ACCEPTED", _ACCEPTED)))
        return ReadingRoom(study, model, engine).box

    return show(build, still)


class ReadingRoom:
    """An upload, the answers one by one with their maps, a table of all, and a CSV to download."""

    def __init__(self, study: Path, model: str, engine: str = "") -> None:
        self.study, self.model, self.batches = study.name, model, 0
        self.reader = Reader(study, model)
        run, told = open_engine(study, model, engine)
        if run is not None:
            self.reader.answer_by(run)
        self.cam = GradCam(self.reader.model)
        self.answers: list[dict[str, Any]] = []
        layout = w.Layout(width="180px")
        self.upload = w.FileUpload(accept=_ACCEPTED, multiple=True, description="Choose files", layout=layout)
        self.upload.observe(self._take, "value")
        self.forget = w.Button(description="Forget all", layout=w.Layout(width="120px"))
        self.forget.on_click(lambda _: self._show([]))
        self.status, self.answer, self.table, self.csv = w.HTML(), w.HTML(), w.HTML(), w.HTML()
        self.table.add_class("answers")
        self.view, self.pager = RadiographView(), Pager(self._open)
        self.verdict, believed = read_verdict(study, model)
        if believed is False:
            self.view.opacity.value = 0
        style, sticky = (_NOTICE_STYLE + _AT_BOTTOM, "") if is_page() else (_NOTICE_STYLE, _STICKY)
        notice = w.HTML(f"{sticky}<div role='note' class='research-only' style='{style}'>{NOTICE}</div>")
        notice.add_class("research-only-bar")
        rule = " ".join(filter(None, (describe_decision_rule(study, model), told)))
        rule = w.HTML(f"<p style='line-height:1.5'>{escape(rule)}</p>")
        bar = w.HBox([self.upload, self.forget, self.status, self.csv], layout=w.Layout(**FLOW))
        self.box = w.VBox([notice, rule, bar, self.pager.box, self.answer, self.view.box, self.table])
        self.box.layout = w.Layout(padding="0 0 60px 0", min_height="300px")
        self.box.add_class("reading-room")
        self._show([])

    def _take(self, change: Any) -> None:
        """Classify the uploaded files, and take them out of the upload."""
        if not change["new"]:
            return
        files = [(item["name"], bytes(item["content"])) for item in change["new"]]
        self.upload.value, self.upload.disabled = (), True
        try:
            for number, file in enumerate(files, start=1):
                self._set_status(f"reading {number} of {len(files)} …")
                self.answers += evaluate_files(self.reader, self.cam, [file])
        finally:
            self.upload.disabled = False
            self.batches += 1
            self._show(self.answers)
        self.pager.turn(len(self.answers) - len(files))

    def _set_status(self, status: str) -> None:
        """Show a status, and the number of batches that were read: the page waits for it between batches."""
        self.status.value = f"<span data-taken='{self.batches}'>{status}</span>"

    def _show(self, answers: list[dict[str, Any]]) -> None:
        """Show all answers, starting with the first."""
        self.answers = answers
        here = "on this page" if is_page() else "in this room"
        empty = f"or drop PNG, JPEG or DICOM files anywhere {here}."
        self._set_status(f"{number_of(len(answers), 'file')}, in memory only" if answers else empty)
        columns = [name for name in COLUMNS if name != "threshold"]
        rows = [[_format(row.get(name, "")) for name in columns] for row in answers]
        self.table.value = table("All files", columns, rows) if answers else ""
        self.csv.value = self._link_csv() if answers else ""
        self.pager.box.layout.display = None if len(answers) > 1 else "none"
        self.pager.load(list(answers))

    def _link_csv(self) -> str:
        """Return a link that holds the CSV of all answers."""
        data = base64.b64encode(build_csv(self.answers, self.study, self.model).encode()).decode()
        name = escape(f"reading_room_{self.study}_{self.model}.csv")
        target = f"download='{name}' href='data:text/csv;base64,{data}'"
        return f"<a style='color:#3d6f9e;text-decoration:underline' {target}>Take the CSV of all</a>"

    def _open(self, row: dict[str, Any] | None) -> None:
        """Show one answer."""
        has_picture = row is not None and "pixels" in row
        self.view.box.layout.display = None if has_picture else "none"
        self.answer.value = "" if row is None else _describe_answer(row)
        if has_picture:
            said = (describe_frames(row["frames"]), describe_map(row["map"]), self.verdict)
            shown = [(row["pixels"], row["map"], row["frames"])]
            self.view.show(shown, [write_caption(escape(row["file"]), *said)])
        else:
            self.view.clear()


def _describe_answer(row: dict[str, Any]) -> str:
    """Return an answer as HTML."""
    if "pixels" not in row:
        reason = escape(row["reason"][:1].upper() + row["reason"][1:])
        return f"<p style='{_WRAP}'><b>{escape(row['file'])}: no picture.</b> {reason}.</p>"
    answer = "No decision: it abstains" if row["answer"] == "abstains" else row["answer"]
    numbers = f"P({class_names()[1]}) = {row['probability']:.3f}, threshold {row['threshold']:.3f}"
    warning = f"<p style='{_RED};{_WRAP}'>{escape(row['warning'])}</p>" if row["warning"] else ""
    shares = {key.removeprefix(CLASS_PREFIX): row[key] for key in row if key.startswith(CLASS_PREFIX)}
    classes = ", ".join(f"{escape(name)} {share:.2f}" for name, share in shares.items())
    classes = (
        f"<p style='{_WRAP}'>{classes}; most probable: {escape(row['most_probable'])}</p>" if shares else ""
    )
    return f"<p style='font-size:120%;{_WRAP}'><b>{escape(answer)}</b>, {numbers}</p>{classes}{warning}"


def _format(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
