"""The reading room: files dropped on a page, judged by a trained model, kept in memory only."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipywidgets as w
import pandas as pd
from IPython.display import Image, Javascript, display

from xray_helpers.data.manifest import reading_of
from xray_helpers.evaluation.intervals import describe
from xray_helpers.explain.gradcam import GradCam
from xray_helpers.explain.maps import fit_map
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
    describe_map,
    is_page,
    read_verdict,
    show,
    table,
    text,
    write_caption,
)
from xray_helpers.models.prediction import Reader, guard_formulas
from xray_helpers.settings import InputError, class_names
from xray_helpers.study.files import read_csv, read_json
from xray_helpers.study.folders import read_class_names

NOTICE = "For research only. This is not a medical device and must not be used for diagnosis."
COLUMNS = ("file", "answer", "probability", "decision", "threshold", "warning", "reason")
_STYLE = (
    "padding:8px 12px;border-left:5px solid "
    "#b2432f;background:#fbe9e4;color:#4a1409;font-weight:600;line-height:1.5"
)
_WRAP = "line-height:1.4;overflow-wrap:anywhere"
_IN_SIGHT = ";position:fixed;bottom:0;left:0;right:0;z-index:9"  # on a page of its own
_STICKY = """<style>  /* in JupyterLab: what scrolls must be the notebook, not a box in it */
.reading-room, .jp-Cell :has(.reading-room) { overflow: visible !important; }
.reading-room > .research-only-bar { position: sticky; top: 0; z-index: 9; overflow: visible; }
</style>"""
_ACCEPTED = ",".join(SUFFIXES)
_DROP = """
if (!window.readingRoomDrops) {  // a cell may run again; its listeners would add up
window.readingRoomDrops = true;
const page = PAGE;  // of its own: files may be dropped anywhere on it
const find = event => event.target.closest(".reading-room")
  || (page && document.querySelector(".reading-room"));
const count = room => Number(room.querySelector("[data-taken]").dataset.taken);
const hand = async (room, files) => {  // to the upload's own input, which is in no document
  const carried = new DataTransfer(), before = count(room), click = HTMLInputElement.prototype.click;
  for (const file of files) {  // a folder cannot be read, and would take the others with it
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
const add = (room, files) => {  // after what came before was read: it would overwrite it
  room.last = (room.last ?? Promise.resolve()).then(() => hand(room, files)).catch(console.error);
};
document.addEventListener("dragover", event => find(event) && event.preventDefault());
document.addEventListener("drop", event => {
  const room = find(event);
  if (!room || !event.dataTransfer.files.length) return;
  event.preventDefault();
  add(room, [...event.dataTransfer.files]);
});
document.addEventListener("click", event => {  // files that are chosen wait in the same queue
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
    """Return `model`, or the study's best by AUROC on validation where none is named.

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
    return max(scores, key=lambda name: scores[name])


def describe_decision_rule(study: Path, model: str) -> str:
    """Return what the threshold is worth: sensitivity and specificity on all of test with their intervals,
    and the band.
    """
    scores, chosen = read_json(study / model / "metrics.json"), read_json(study / model / "threshold.json")
    low, high = chosen.get("uncertain", (chosen["threshold"],) * 2)
    within = read_csv(study / model / "predictions_test.csv")["y_prob"].between(low, high).sum()
    band = (
        f"From {low:.3f} to {high:.3f} it abstains: chosen on other images the threshold could lie there. "
        f"Of the {scores['n']} test images it would abstain on {within}, which both shares count as decided."
    )
    return (
        f"{model} of the study {study.name}: called {read_class_names(study)[1]} from a probability of "
        f"{chosen['threshold']:.3f} on "
        f"({scores['threshold_rule']}). On {scores['n']} test images of {scores['n_groups']} groups that "
        "has sensitivity "
        f"{describe(scores['recall'])} and specificity {describe(scores['specificity'])}. "
        f"{band if low < high else ''}"
    ).strip()


def evaluate_files(
    reader: Reader, cam: GradCam | None, files: Sequence[tuple[str, bytes]]
) -> list[dict[str, Any]]:
    """Judge files from their bytes; nothing is written.

    Parameters
    ----------
    reader : Reader
    cam : GradCam, optional
        Of the reader's model.
    files : sequence of (name, bytes)

    Returns
    -------
    list of dict
        `COLUMNS`, and pixels and map where there is a picture. answer is Fractured, Non-Fractured,
        ``abstains``, or ``no picture``, of which reason says why; decision is empty in the last two.
    """
    reading, answers = ImageFolder(Path(), **reading_of(reader.settings)), []
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
                picture = check_picture(decode_radiograph(data, reading))
        except UnreadableError as error:
            answers.append(row | {"answer": "no picture", "reason": f"it {error}"})
            continue
        judged = reader.predict([picture])[0]
        row |= {key: judged[key] for key in ("probability", "decision", "warning")}
        row |= {"answer": "abstains" if judged["uncertain"] else judged["decision"], "pixels": picture.pixels}
        grid = cam(reader.resize(picture.pixels)[None])[0] if cam else None
        shape = picture.pixels.shape
        answers.append(row | {"map": fit_map(grid, shape, cam.size, reading.resize) if cam else None})
    return answers


def build_csv(answers: Sequence[dict[str, Any]], study: str, model: str) -> str:
    """Return the answers as CSV: `COLUMNS`, and the names of study and model.

    A file's name that a spreadsheet would take for a formula is quoted off.
    """
    table = pd.DataFrame(answers).reindex(columns=list(COLUMNS)).assign(study=study, model=model)
    table["file"] = guard_formulas(table["file"])
    buffer = io.StringIO()
    table.to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()


def open_room(study: Path, model: str, still: Image) -> Any:
    """Show the reading room; `still` is what batch shows."""

    def build() -> w.Widget:
        display(Javascript(_DROP.replace("PAGE", str(is_page()).lower()).replace("ACCEPTED", _ACCEPTED)))
        return ReadingRoom(study, model).box

    return show(build, still)


class ReadingRoom:
    """Upload, answers one by one with the map over them, a table, a CSV to take away."""

    def __init__(self, study: Path, model: str) -> None:
        self.study, self.model, self.taken = study.name, model, 0
        self.reader = Reader(study, model)
        self.cam = GradCam(self.reader.model)
        self.answers: list[dict[str, Any]] = []
        self.upload = w.FileUpload(
            accept=_ACCEPTED, multiple=True, description="Choose files", layout=w.Layout(width="180px")
        )
        self.upload.observe(self._take, "value")
        self.forget = w.Button(description="Forget all", layout=w.Layout(width="120px"))
        self.forget.on_click(lambda _: self._show([]))
        self.status, self.answer, self.table, self.csv = w.HTML(), w.HTML(), w.HTML(), w.HTML()
        self.table.add_class("answers")
        self.view, self.pager = RadiographView(), Pager(self._open)
        self.verdict, believed = read_verdict(study, model)
        if believed is False:
            self.view.opacity.value = 0
        style, sticky = (_STYLE + _IN_SIGHT, "") if is_page() else (_STYLE, _STICKY)
        notice = w.HTML(f"{sticky}<div role='note' class='research-only' style='{style}'>{NOTICE}</div>")
        notice.add_class("research-only-bar")
        rule = w.HTML(f"<p style='line-height:1.5'>{text(describe_decision_rule(study, model))}</p>")
        bar = w.HBox([self.upload, self.forget, self.status, self.csv], layout=w.Layout(**FLOW))
        self.box = w.VBox([notice, rule, bar, self.pager.box, self.answer, self.view.box, self.table])
        self.box.layout = w.Layout(padding="0 0 60px 0", min_height="300px")
        self.box.add_class("reading-room")
        self._show([])

    def _take(self, change: Any) -> None:
        if not change["new"]:
            return
        files = [(item["name"], bytes(item["content"])) for item in change["new"]]
        self.upload.value, self.upload.disabled = (), True
        try:
            for number, file in enumerate(files, start=1):
                self._tell(f"reading {number} of {len(files)} …")
                self.answers += evaluate_files(self.reader, self.cam, [file])
        finally:
            self.upload.disabled = False
            self.taken += 1
            self._show(self.answers)
        self.pager.turn(len(self.answers) - len(files))

    def _tell(self, words: str) -> None:
        """Show words, and how many batches were read, for which the page waits before it hands over the
        next.
        """
        self.status.value = f"<span data-taken='{self.taken}'>{words}</span>"

    def _show(self, answers: list[dict[str, Any]]) -> None:
        self.answers = answers
        here = "on this page" if is_page() else "in this room"
        self._tell(
            f"{len(answers)} files, in memory only"
            if answers
            else f"or drop PNG, JPEG or DICOM files anywhere {here}."
        )
        shown = [name for name in COLUMNS if name != "threshold"]
        rows = [[self._cell(row, name) for name in shown] for row in answers]
        self.table.value = table("All files", shown, rows) if answers else ""
        packed = (
            base64.b64encode(build_csv(answers, self.study, self.model).encode()).decode() if answers else ""
        )
        given = (
            f"download='{text(f'reading_room_{self.study}_{self.model}.csv')}' "
            f"href='data:text/csv;base64,{packed}'"
        )
        link = f"<a style='color:#3d6f9e;text-decoration:underline' {given}>Take the CSV of all</a>"
        self.csv.value = link if answers else ""
        self.pager.box.layout.display = None if len(answers) > 1 else "none"
        self.pager.load(list(answers))

    @staticmethod
    def _cell(row: dict[str, Any], name: str) -> str:
        value = row.get(name, "")
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    def _open(self, row: dict[str, Any] | None) -> None:
        pictured = row is not None and "pixels" in row
        self.view.box.layout.display = None if pictured else "none"
        if row is None:
            self.answer.value = ""
        elif not pictured:
            why = row["reason"][:1].upper() + row["reason"][1:]
            self.answer.value = f"<p style='{_WRAP}'><b>{text(row['file'])}: no picture.</b> {text(why)}.</p>"
        if not pictured:
            self.view.clear()
            return
        said = {"abstains": "No decision: it abstains"}.get(row["answer"], row["answer"])
        warning = (
            f"<p style='color:#b2432f;font-weight:600;{_WRAP}'>{text(row['warning'])}</p>"
            if row["warning"]
            else ""
        )
        self.answer.value = (
            f"<p style='font-size:120%;{_WRAP}'><b>{text(said)}</b>, P({class_names()[1]}) = "
            f"{row['probability']:.3f}, threshold "
            f"{row['threshold']:.3f}</p>{warning}"
        )
        caption = write_caption(text(row["file"]), describe_map(row["map"]), self.verdict)
        self.view.show([(row["pixels"], row["map"])], [caption])
