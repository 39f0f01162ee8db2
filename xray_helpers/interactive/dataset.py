"""The images of a study in JupyterLab, by class, part, status and source, and the corrections of sources."""

from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd
from IPython.display import Image

from xray_helpers.images.radiographs import ImageFolder, UnreadableError
from xray_helpers.interactive.components import FLOW, SMALL, Pager, draw_radiograph, show, table
from xray_helpers.same_source.corrections import (
    list_corrections,
    read_corrections,
    remove_corrections,
    write_corrections,
)
from xray_helpers.settings import InputError, Settings, number_of

_PER_PAGE = 12  # images
_ALL = "all"
_EFFECTS = {"join": "kept together", "separate": "kept apart"}  # of the action of a correction
_ACTIONS = {"joined": "join", "separated": "separate"}  # by the decision in links.csv


def browse_dataset(
    manifest: pd.DataFrame, links: pd.DataFrame, folder: ImageFolder, settings: Settings, still: Image
) -> Any:
    """Show images by class, part, status and source, and groups of one source with the evidence for them.

    A group of two sources can be separated, and doubtful pairs joined or separated. That is saved to the
    corrections of the study, which the next run of 01 applies; saved corrections can be taken back.

    Parameters
    ----------
    manifest, links : DataFrame
        ``manifest.csv`` and ``links.csv``.
    folder : ImageFolder
    settings : Settings
        Names the file of the corrections.
    still : Image
        Shown in batch.
    """
    return show(lambda: _DatasetBrowser(manifest, links, folder, settings.corrections).box, still)


class _Pages(Sequence):
    """Ranges of rows of a table, cut out when they are shown: 50,000 tables would need most of a gigabyte."""

    def __init__(self, table: pd.DataFrame, ranges: list[slice]) -> None:
        self._table, self._ranges = table, ranges

    def __len__(self) -> int:
        return len(self._ranges)

    def __getitem__(self, at: int) -> pd.DataFrame:
        return self._table.iloc[self._ranges[at]]


class _DatasetBrowser:
    """Filters, a page of pictures, and for groups the evidence and the possible corrections."""

    def __init__(
        self, manifest: pd.DataFrame, links: pd.DataFrame, folder: ImageFolder, corrections: str
    ) -> None:
        self.manifest, self.links, self.folder, self.corrections = manifest, links, folder, corrections
        self.sha = manifest.set_index("path")["sha256"]
        self._finders = {
            "groups of one source": self._groups,
            "doubtful pairs": self._doubtful,
            "images": self._images,
            "corrections": self._corrections,
        }
        self.view = w.Dropdown(options=list(self._finders), description="show")
        self.filters = {
            column: w.Dropdown(
                options=[_ALL, *sorted(manifest[column].dropna().unique())],
                description=name,
                layout=w.Layout(width="220px"),
            )
            for column, name in (("label", "class"), ("split", "part"), ("status", "status"))
        }
        if "train" in self.filters["split"].options:  # the other parts are shown on demand only
            self.filters["split"].value = "train"
        layout = w.Layout(width="260px")
        self.source = w.Text(description="source", placeholder="part of a name", layout=layout)
        self.pictures = w.HBox(layout=w.Layout(**FLOW))
        self.reasons, self.waiting, self.message = w.HTML(), w.HTML(), w.HTML()
        self.pager = Pager(self._show_page)
        controls = [self.view, *self.filters.values(), self.source]
        for control in controls:
            control.observe(self._filter, "value")
        texts = [self.reasons, self.waiting, self._build_actions(), self.message]
        self.box = w.VBox([w.HBox(controls, layout=w.Layout(**FLOW)), self.pager.box, self.pictures, *texts])
        self._filter()

    def _build_actions(self) -> w.Widget:
        """Build the controls that correct what is shown."""
        self.hint = w.HTML(
            "Click on the pictures that do not belong, the others stay together; with none marked, or all, "
            "each is kept apart from each."
        )

        def button(description: str, act: Callable[[], None]) -> w.Button:
            built = w.Button(description=description, layout=w.Layout(width="320px"))
            built.on_click(lambda _: act())
            return built

        self.separate = button("This group is wrong: keep these apart", lambda: self._save("separate"))
        self.join = button("One source, or one patient: keep together", lambda: self._save("join"))
        self.two = button("Neither: keep apart", lambda: self._save("separate"))
        self.back = button("Take this correction back", self._take_back)
        self.rest = button("Show all pictures", lambda: self._show_pictures(len(self.page)))
        self._offered = {
            "groups of one source": (self.hint, self.separate),
            "doubtful pairs": (self.join, self.two),
            "corrections": (self.back,),
        }
        self._controls = [self.hint, self.rest, self.separate, self.join, self.two, self.back]
        return w.VBox([self.hint, w.HBox(self._controls[1:], layout=w.Layout(**FLOW))])

    def _filter(self, _: Any = None) -> None:
        rows = self.manifest
        for column, control in self.filters.items():
            if control.value != _ALL:
                rows = rows[rows[column] == control.value]
        if name := self.source.value:
            rows = rows[rows["source_group"].str.contains(name, case=False, regex=False, na=False)]
        self.pager.load(self._finders[self.view.value](rows))

    def _images(self, rows: pd.DataFrame) -> _Pages:
        return _Pages(rows, [slice(start, start + _PER_PAGE) for start in range(0, len(rows), _PER_PAGE)])

    def _groups(self, rows: pd.DataFrame) -> _Pages:
        complete = self.manifest[self.manifest["source_group"].isin(rows["source_group"].dropna())]
        sizes = complete.groupby("source_group")["path"].transform("size")
        largest_first = complete[sizes > 1].assign(size=sizes)
        keys = ["size", "source_group", "path"]
        largest_first = largest_first.sort_values(keys, ascending=[False, True, True])
        ends = np.flatnonzero(np.diff(pd.factorize(largest_first["source_group"])[0], append=-1)) + 1
        return _Pages(largest_first, [slice(*each) for each in pairwise([0, *ends.tolist()])])

    def _doubtful(self, rows: pd.DataFrame) -> list[pd.DataFrame]:
        doubtful = self.links[self.links["decision"] == "for review"]
        doubtful = doubtful.sort_values("correlation", ascending=False)
        either = doubtful["path_a"].isin(rows["path"]) | doubtful["path_b"].isin(rows["path"])
        by_path = self.manifest.set_index("path", drop=False)
        return [by_path.loc[[row.path_a, row.path_b]] for row in doubtful[either].itertuples()]

    def _corrections(self, rows: pd.DataFrame) -> list[pd.DataFrame]:
        by_sha, self._saved = self.manifest.drop_duplicates("sha256").set_index("sha256", drop=False), []
        pages = []
        for saved in self._read_saved(list_corrections):
            files = pd.unique(saved[["sha256_a", "sha256_b"]].to_numpy().ravel())
            if rows["sha256"].isin(files).any():
                self._saved.append(saved)
                pages.append(by_sha.loc[files])
        return pages

    def _read_saved(self, read: Callable[[str, set[str]], Any] = read_corrections) -> Any:
        """Return the saved corrections of files of this study; none, and a message, where that fails."""
        try:
            return read(self.corrections, set(self.sha.dropna()))
        except (InputError, OSError) as error:
            self.message.value = escape(str(error))
            return (
                pd.DataFrame(columns=["action", "sha256_a", "sha256_b"]) if read is read_corrections else []
            )

    def _show_page(self, page: pd.DataFrame | None) -> None:
        self.page, self.message.value, self.waiting.value = page, "", ""
        offered = () if page is None else self._offered.get(self.view.value, ())
        for control in self._controls:
            control.layout.display = None if control in offered else "none"
        if page is None:
            filters = [
                f"{one.description} = {one.value}" for one in self.filters.values() if one.value != _ALL
            ]
            filters += [f"source contains {self.source.value}"] if self.source.value else []
            self.pictures.children = []
            self.reasons.value = escape(", ".join(["Nothing is like that", *filters]) + ".")
            self._read_saved()  # shows a message where the corrections cannot be read
            return
        self.marked: set[str] = set()
        self._show_pictures(_PER_PAGE)
        self.reasons.value = "" if self.view.value == "images" else self._explain(page)
        self._show_waiting()

    def _show_pictures(self, count: int) -> None:
        self.pictures.children = [self._card(row) for row in self.page.head(count).itertuples()]
        self.rest.description = f"Show the other {len(self.page) - count} pictures"
        self.rest.layout.display = None if len(self.page) > count else "none"

    def _show_waiting(self) -> None:
        """Name the corrections of what is shown that were saved after 01 ran."""
        if self.view.value == "images":
            return
        applied = {
            (_ACTIONS[row.decision], frozenset((row.sha256_a, row.sha256_b)))
            for row in self.links[self.links["kind"] == "correction"].itertuples()
        }
        saved = [
            (row.action, frozenset((row.sha256_a, row.sha256_b))) for row in self._read_saved().itertuples()
        ]
        shown = set(self.page["sha256"])
        waiting = Counter(row[0] for row in saved if row[1] <= shown and row not in applied)
        listed = ", ".join(
            f"{number_of(count, 'pair')} {_EFFECTS[action]}" for action, count in sorted(waiting.items())
        )
        sentence = f"<p>Saved already, and honoured by the next run of 01: {listed}.</p>"
        self.waiting.value = sentence if waiting else ""

    def _card(self, row: Any) -> w.Widget:
        """Return the picture of a file with its name, class, part and status."""
        about = ", ".join(str(value) for value in (row.label, row.split, row.status) if pd.notna(value))
        caption = f"{escape(row.path.split('/')[-1])}<br>{escape(about)}"
        layout = w.Layout(width=f"{SMALL}px")
        try:
            data = draw_radiograph(self.folder.read(row.path).pixels, side=SMALL)
        except UnreadableError as error:
            return w.HTML(f"<small>{caption}<br>no picture: it {escape(str(error))}</small>", layout=layout)
        picture = w.Image(value=data, format="png", layout=w.Layout(grid_area="a"))
        if self.separate.layout.display is None:
            picture = w.GridBox([picture, self._marker(row.path)], layout=w.Layout(grid_template_areas='"a"'))
        return w.VBox([picture, w.HTML(f"<small>{caption}</small>", layout=layout)])

    def _marker(self, path: str) -> w.Button:
        """Return a button that covers the picture of a file: a click marks it, another unmarks it."""
        cover = w.Button(
            tooltip=f"does not belong: {path}", layout=w.Layout(grid_area="a", width="100%", height="100%")
        )

        def draw() -> None:
            marked = path in self.marked
            cover.style.button_color = "#b2432f66" if marked else "transparent"
            cover.layout.border = "4px solid #b2432f" if marked else "0"
            cover.icon = "times" if marked else ""

        def mark(_: w.Button) -> None:
            self.marked ^= {path}
            draw()

        draw()
        cover.on_click(mark)
        return cover

    def _explain(self, page: pd.DataFrame) -> str:
        """Return why these files are shown together, as HTML."""
        if self.view.value == "corrections":
            counts = self._saved[self.pager.at]["action"].value_counts()
            listed = ", ".join(
                f"{number_of(count, 'pair')} {_EFFECTS[name]}" for name, count in counts.items()
            )
            return f"<p>The correction: <b>{listed}</b>.</p>"
        inside = self.links[self.links["path_a"].isin(page["path"]) & self.links["path_b"].isin(page["path"])]
        rows = [
            (
                row.path_a,
                row.path_b,
                row.kind,
                row.decision,
                _number(row.correlation, 2),
                _number(row.inliers, 0),
            )
            for row in inside.itertuples()
        ]
        is_pair = self.view.value == "doubtful pairs"
        title = "Why they may belong together" if is_pair else "Why they are together"
        return table(title, ("one", "other", "why", "decision", "correlation", "points"), rows)

    def _save(self, action: str) -> None:
        marked, files = (set(self.sha[list(paths)]) for paths in (self.marked, self.page["path"]))
        others = sorted(files - marked) if marked else []
        one_side, other_side = (marked, others) if others else (files, files)
        pairs = {tuple(sorted((a, b))) for a in one_side for b in other_side if a != b}
        if not pairs:
            self.message.value = "These files are equal in every byte: they cannot be kept apart."
            return
        rows = [(action, *pair) for pair in sorted(pairs)]
        rows += [("join", *pair) for pair in pairwise(others)]  # a marked file may have been their only link
        saved = self._try(lambda: write_corrections(self.corrections, rows))
        if saved is not None:
            self._just_saved, self.back.layout.display = saved, None
            self._show_waiting()
            text = f"{number_of(len(rows), 'pair')} in {escape(Path(self.corrections).name)}"
            self.message.value = f"<b>Saved</b>: {text}. The next run of 01 honours it."

    def _take_back(self) -> None:
        at, is_listed = self.pager.at, self.view.value == "corrections"
        rows = self._saved[at] if is_listed else self._just_saved
        if path := self._try(lambda: remove_corrections(self.corrections, rows)):
            if is_listed:
                self._filter()
            self.pager.turn(at if is_listed else 0)
            left = f"{escape(path.name)} is without it"
            self.message.value = f"<b>Taken back</b>: {left}. The next run of 01 honours it."

    def _try(self, write: Callable[[], Any]) -> Any:
        """Return what was written; None, and a message, where that fails."""
        try:
            return write()
        except InputError as error:
            self.message.value = f"<b>Not saved</b>. {escape(str(error))}"
        except OSError as error:
            reason = f"{escape(self.corrections)} cannot be written ({escape(str(error))})"
            self.message.value = f"<b>Not saved</b>: {reason}."
        return None


def _number(value: float, digits: int) -> str:
    return "" if pd.isna(value) else f"{value:.{digits}f}"
