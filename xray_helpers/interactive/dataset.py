"""The images of a study, browsed in JupyterLab: by class, part, status and source; and corrections made
there.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd
from IPython.display import Image

from xray_helpers.images.radiographs import ImageFolder, UnreadableError
from xray_helpers.interactive.components import FLOW, SMALL, Pager, draw_radiograph, show, table, text
from xray_helpers.same_source.corrections import read_corrections, remove_correction, write_corrections
from xray_helpers.settings import InputError, Settings

_PAGE, _STRIP = 12, 12  # images a page; of a group
_ALL = "all"
_KEPT = {"join": "kept together", "separate": "kept apart"}
_RUN = {"joined": "join", "separated": "separate"}


def browse_dataset(
    manifest: pd.DataFrame, links: pd.DataFrame, folder: ImageFolder, settings: Settings, still: Image
) -> Any:
    """Show images by class, part, status and source, and groups of one source with why they are one.

    A group that holds two sources can be marked, and of a doubtful pair whether it is one; that goes to the
    study's corrections, which the next run of 01 honours. What was saved there can be looked at, and taken
    back.

    Parameters
    ----------
    manifest, links : DataFrame
        ``manifest.csv`` and ``links.csv``.
    folder : ImageFolder
    settings : Settings
        Of it, `corrections`.
    still : Image
        What batch shows.
    """
    return show(lambda: _DatasetBrowser(manifest, links, folder, settings.corrections).box, still)


class _Pages(Sequence):
    """Stretches of a table, each cut out when it is looked at: 50,000 tables at once would take most of a
    GB.
    """

    def __init__(self, table: pd.DataFrame, places: list[slice]) -> None:
        self._table, self._places = table, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, at: int) -> pd.DataFrame:
        return self._table.iloc[self._places[at]]


class _DatasetBrowser:
    """Filters, a page of pictures, and for groups the reasons and what can be done about them."""

    def __init__(
        self, manifest: pd.DataFrame, links: pd.DataFrame, folder: ImageFolder, corrections: str
    ) -> None:
        self.manifest, self.links, self.folder, self.corrections = manifest, links, folder, corrections
        self.sha = manifest.set_index("path")["sha256"]
        finders = {
            "groups of one source": self._groups,
            "doubtful pairs": self._doubtful,
            "images": self._images,
            "corrections": self._corrections,
        }
        self.finders = finders
        self.view = w.Dropdown(options=list(finders), description="show")
        self.filters = {
            column: w.Dropdown(
                options=[_ALL, *sorted(manifest[column].dropna().unique())],
                description=name,
                layout=w.Layout(width="220px"),
            )
            for column, name in (("label", "class"), ("split", "part"), ("status", "status"))
        }
        if "train" in self.filters["split"].options:  # the other parts are for who asks for them
            self.filters["split"].value = "train"
        self.source = w.Text(
            description="source", placeholder="part of a name", layout=w.Layout(width="260px")
        )
        self.pictures = w.HBox(layout=w.Layout(**FLOW))
        self.reasons, self.waiting, self.message = w.HTML(), w.HTML(), w.HTML()
        self.pager = Pager(self._open)
        for control in (self.view, *self.filters.values(), self.source):
            control.observe(self._filter, "value")
        chosen = w.HBox([self.view, *self.filters.values(), self.source], layout=w.Layout(**FLOW))
        actions = self._build_actions()
        self.box = w.VBox(
            [chosen, self.pager.box, self.pictures, self.reasons, self.waiting, actions, self.message]
        )
        self._filter()

    def _build_actions(self) -> w.Widget:
        """Build what can be done about what is shown, and keep which of it each view has."""
        self.hint = w.HTML(
            "Mark what does not belong, the others stay together; with none marked, or all, each is kept "
            "apart from each."
        )
        self.wrong = w.SelectMultiple(description="apart", rows=5, layout=w.Layout(width="460px"))
        self.separate, self.join, self.two, self.back = (
            w.Button(description=words, layout=w.Layout(width="320px"))
            for words in (
                "This group is wrong: keep these apart",
                "This is one source: keep together",
                "These are two sources: keep apart",
                "Take this correction back",
            )
        )
        self.separate.on_click(lambda _: self._save("separate"))
        self.join.on_click(lambda _: self._save("join"))
        self.two.on_click(lambda _: self._save("separate"))
        self.back.on_click(lambda _: self._take_back())
        self.offered = {
            "groups of one source": (self.hint, self.wrong, self.separate),
            "doubtful pairs": (self.join, self.two),
            "corrections": (self.back,),
        }
        buttons = w.HBox([self.separate, self.join, self.two, self.back], layout=w.Layout(**FLOW))
        return w.VBox([self.hint, self.wrong, buttons])

    def _filter(self, _: Any = None) -> None:
        table = self.manifest
        for column, control in self.filters.items():
            if control.value != _ALL:
                table = table[table[column] == control.value]
        if self.source.value:
            table = table[
                table["source_group"].str.contains(self.source.value, case=False, regex=False, na=False)
            ]
        self.pager.load(self.finders[self.view.value](table))

    def _images(self, table: pd.DataFrame) -> "_Pages":
        return _Pages(table, [slice(start, start + _PAGE) for start in range(0, len(table), _PAGE)])

    def _groups(self, table: pd.DataFrame) -> "_Pages":
        whole = self.manifest[self.manifest["source_group"].isin(table["source_group"].dropna())]
        sizes = whole.groupby("source_group")["path"].transform("size")
        order = (
            whole[sizes > 1]
            .assign(size=sizes)
            .sort_values(["size", "source_group", "path"], ascending=[False, True, True])
        )
        ends = np.flatnonzero(np.diff(pd.factorize(order["source_group"])[0], append=-1)) + 1
        return _Pages(order, [slice(*at) for at in pairwise([0, *ends.tolist()])])

    def _doubtful(self, table: pd.DataFrame) -> list[pd.DataFrame]:
        doubtful = self.links[self.links["decision"] == "for review"].sort_values(
            "correlation", ascending=False
        )
        either = doubtful["path_a"].isin(table["path"]) | doubtful["path_b"].isin(table["path"])
        rows = self.manifest.set_index("path", drop=False)
        return [rows.loc[[row.path_a, row.path_b]] for row in doubtful[either].itertuples()]

    def _corrections(self, table: pd.DataFrame) -> list[pd.DataFrame]:
        rows, shown = (
            self.manifest.drop_duplicates("sha256").set_index("sha256", drop=False),
            set(table["sha256"]),
        )
        return [
            rows.loc[[row.sha256_a, row.sha256_b]].assign(action=row.action)
            for row in self._saved().itertuples()
            if {row.sha256_a, row.sha256_b} & shown
        ]

    def _saved(self) -> pd.DataFrame:
        """Return the saved corrections of files at hand; none where their file cannot be read, which is
        said.
        """
        try:
            return read_corrections(self.corrections, set(self.sha.dropna()))
        except (InputError, OSError) as error:
            self.message.value = text(str(error))
            return pd.DataFrame(columns=["action", "sha256_a", "sha256_b"])

    def _open(self, page: pd.DataFrame | None) -> None:
        self.page, self.message.value, self.waiting.value = page, "", ""
        offered = () if page is None else self.offered.get(self.view.value, ())
        for control in (self.hint, self.wrong, self.separate, self.join, self.two, self.back):
            control.layout.display = None if control in offered else "none"
        if page is None:
            kept = [f"{one.description} = {one.value}" for one in self.filters.values() if one.value != _ALL]
            kept += [f"source contains {self.source.value}"] if self.source.value else []
            self.pictures.children = []
            self.reasons.value = text(", ".join(["Nothing is like that", *kept]) + ".")
            self._saved()  # says where corrections cannot be read
            return
        self.pictures.children = [self._card(row) for row in page.head(_STRIP).itertuples()]
        more = f"<p>… and {len(page) - _STRIP} more.</p>" if len(page) > _STRIP else ""
        self.wrong.options = list(page["path"])
        self.reasons.value = more + ("" if self.view.value == "images" else self._why(page))
        self._tell_waiting()

    def _tell_waiting(self) -> None:
        """Say which corrections of what is shown are saved, and were not there when 01 ran."""
        if self.view.value == "images":
            return
        run = self.links[self.links["kind"] == "correction"]
        done = {(_RUN[row.decision], frozenset((row.sha256_a, row.sha256_b))) for row in run.itertuples()}
        pairs = [(row.action, frozenset((row.sha256_a, row.sha256_b))) for row in self._saved().itertuples()]
        shown = set(self.page["sha256"])
        actions = [action for action, pair in pairs if pair <= shown and (action, pair) not in done]
        told = [f"{_pairs(count)} {_KEPT[action]}" for action, count in sorted(Counter(actions).items())]
        words = f"Saved already, and honoured by the next run of 01: {', '.join(told)}."
        self.waiting.value = f"<p>{words}</p>" if told else ""

    def _card(self, row: Any) -> w.Widget:
        words = [str(value) for value in (row.label, row.split, row.status) if pd.notna(value)]
        under = f"<small>{text(row.path.split('/')[-1])}<br>{text(', '.join(words))}"
        layout = w.Layout(width=f"{SMALL}px")
        try:
            data = draw_radiograph(self.folder.read(row.path).pixels, side=SMALL)
        except UnreadableError as error:
            return w.HTML(f"{under}<br>no picture: it {text(str(error))}</small>", layout=layout)
        return w.VBox([w.Image(value=data, format="png"), w.HTML(f"{under}</small>", layout=layout)])

    def _why(self, page: pd.DataFrame) -> str:
        if self.view.value == "corrections":
            return f"<p>The correction: these two are <b>{_KEPT[page['action'].iloc[0]]}</b>.</p>"
        inside = self.links[self.links["path_a"].isin(page["path"]) & self.links["path_b"].isin(page["path"])]
        rows = [
            (
                row.path_a,
                row.path_b,
                row.kind,
                row.decision,
                "" if pd.isna(row.correlation) else f"{row.correlation:.2f}",
                "" if pd.isna(row.inliers) else f"{row.inliers:.0f}",
            )
            for row in inside.itertuples()
        ]
        title = (
            "Why they may be one source" if self.view.value == "doubtful pairs" else "Why they are together"
        )
        return table(title, ("one", "other", "why", "decision", "correlation", "points"), rows)

    def _save(self, action: str) -> None:
        marked, whole = (
            {self.sha[path] for path in paths} for paths in (self.wrong.value, self.wrong.options)
        )
        others = sorted(whole - marked) if marked else []
        pairs = {
            (*sorted((a, b)),) for a in (marked if others else whole) for b in (others or whole) if a != b
        }
        if not pairs:
            self.message.value = "These files are equal in every byte: they cannot be kept apart."
            return
        rows = [(action, *pair) for pair in sorted(pairs)]
        rows += [
            ("join", *pair) for pair in pairwise(others)
        ]  # they may have hung together by a marked file alone
        if path := self._try(lambda: write_corrections(self.corrections, rows)):
            self._tell_waiting()
            self.message.value = (
                f"<b>Saved</b>: {_pairs(len(rows))} in {text(path.name)}. The next run of 01 honours it."
            )

    def _take_back(self) -> None:
        pair, at = self.page["sha256"].tolist(), self.pager.at
        if path := self._try(lambda: remove_correction(self.corrections, *pair)):
            self._filter()
            self.pager.turn(at)
            self.message.value = (
                f"<b>Taken back</b>: {text(path.name)} is without it. The next run of 01 honours it."
            )

    def _try(self, write: Callable[[], Path]) -> Path | None:
        """Return what was written; None where it could not be, which is said."""
        try:
            return write()
        except InputError as error:
            self.message.value = f"<b>Not saved</b>. {text(str(error))}"
        except OSError as error:
            self.message.value = (
                f"<b>Not saved</b>: {text(self.corrections)} cannot be written ({text(str(error))})."
            )
        return None


def _pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count} pairs"
