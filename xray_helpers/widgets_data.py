"""The images of a study, browsed in JupyterLab: by class, part, status and source; and corrections made there."""

from itertools import pairwise
from typing import Any

import ipywidgets as w
import pandas as pd
from IPython.display import Image

from xray_helpers.duplicates import write_corrections
from xray_helpers.radiographs import ImageFolder, UnreadableError
from xray_helpers.settings import InputError, Settings
from xray_helpers.viewing import FLOW, SMALL, Pager, draw_radiograph, show, table, text

_PAGE, _STRIP = 12, 12  # images a page; of a group
_ALL = "all"


def browse_dataset(
    manifest: pd.DataFrame, links: pd.DataFrame, folder: ImageFolder, settings: Settings, still: Image
) -> Any:
    """Show images by class, part, status and source, and groups of one source with why they are one.

    A group that holds two sources, and a doubtful pair that is one, can be marked; that goes to the study's corrections,
    which the next run of 01 honours.

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


class _DatasetBrowser:
    """Filters, a page of pictures, and for groups the reasons and what can be done about them."""

    def __init__(self, manifest: pd.DataFrame, links: pd.DataFrame, folder: ImageFolder, corrections: str) -> None:
        self.manifest, self.links, self.folder, self.corrections = manifest, links, folder, corrections
        self.sha = manifest.set_index("path")["sha256"]
        self.view = w.Dropdown(options=["groups of one source", "doubtful pairs", "images"], description="show")
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
        self.source = w.Text(description="source", placeholder="part of a name", layout=w.Layout(width="260px"))
        self.pictures = w.HBox(layout=w.Layout(**FLOW))
        self.reasons, self.message = w.HTML(), w.HTML()
        self.hint = w.HTML(
            "Mark what does not belong, the others stay together; with none marked, each is kept apart from each."
        )
        self.wrong = w.SelectMultiple(description="apart", rows=5, layout=w.Layout(width="460px"))
        self.separate = w.Button(description="This group is wrong: keep these apart", layout=w.Layout(width="320px"))
        self.join = w.Button(description="This is one source: keep together", layout=w.Layout(width="320px"))
        self.separate.on_click(lambda _: self._save("separate"))
        self.join.on_click(lambda _: self._save("join"))
        self.pager = Pager(self._open)
        for control in (self.view, *self.filters.values(), self.source):
            control.observe(self._filter, "value")
        actions = w.VBox([self.hint, self.wrong, w.HBox([self.separate, self.join], layout=w.Layout(**FLOW))])
        self.actions = actions
        chosen = w.HBox([self.view, *self.filters.values(), self.source], layout=w.Layout(**FLOW))
        self.box = w.VBox([chosen, self.pager.box, self.pictures, self.reasons, actions, self.message])
        self._filter()

    def _filter(self, _: Any = None) -> None:
        table = self.manifest
        for column, control in self.filters.items():
            if control.value != _ALL:
                table = table[table[column] == control.value]
        if self.source.value:
            table = table[table["source_group"].str.contains(self.source.value, case=False, regex=False, na=False)]
        if self.view.value == "images":
            pages = [table.iloc[i : i + _PAGE] for i in range(0, len(table), _PAGE)]
        elif self.view.value == "doubtful pairs":
            doubtful = self.links[self.links["decision"] == "for review"].sort_values("correlation", ascending=False)
            either = doubtful["path_a"].isin(table["path"]) | doubtful["path_b"].isin(table["path"])
            rows = self.manifest.set_index("path", drop=False)
            pages = [rows.loc[[row.path_a, row.path_b]] for row in doubtful[either].itertuples()]
        else:
            whole = self.manifest[self.manifest["source_group"].isin(table["source_group"].dropna())]
            sizes = whole.groupby("source_group")["path"].transform("size")
            order = (
                whole[sizes > 1]
                .assign(size=sizes)
                .sort_values(["size", "source_group", "path"], ascending=[False, True, True])
            )
            pages = [group for _, group in order.groupby("source_group", sort=False)]
        self.pager.load(pages)

    def _open(self, page: pd.DataFrame | None) -> None:
        self.page, self.message.value = page, ""
        self.actions.layout.display = "none" if page is None or self.view.value == "images" else None
        self.join.layout.display = None if self.view.value == "doubtful pairs" else "none"
        self.separate.layout.display = "none" if self.view.value == "doubtful pairs" else None
        self.wrong.layout.display = self.hint.layout.display = self.separate.layout.display
        if page is None:
            kept = [f"{one.description} = {one.value}" for one in self.filters.values() if one.value != _ALL]
            self.pictures.children = []
            self.reasons.value = text(", ".join(["Nothing is like that", *kept]) + ".")
            return
        self.pictures.children = [self._card(row) for row in page.head(_STRIP).itertuples()]
        more = f"<p>… and {len(page) - _STRIP} more.</p>" if len(page) > _STRIP else ""
        self.wrong.options = list(page["path"])
        self.reasons.value = more + ("" if self.view.value == "images" else self._why(page))

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
        inside = self.links[self.links["path_a"].isin(page["path"]) & self.links["path_b"].isin(page["path"])]
        rows = [
            (row.path_a, row.path_b, row.kind, row.decision, "" if pd.isna(row.correlation) else f"{row.correlation:.2f}",
             "" if pd.isna(row.inliers) else f"{row.inliers:.0f}")
            for row in inside.itertuples()
        ]  # fmt: skip
        return table("Why they are together", ("one", "other", "why", "decision", "correlation", "points"), rows)

    def _save(self, action: str) -> None:
        marked = {self.sha[path] for path in (self.wrong.value or self.wrong.options)}
        others = sorted({self.sha[path] for path in self.wrong.options} - marked)
        pairs = {(*sorted((a, b)),) for a in marked for b in (others if self.wrong.value else marked) if a != b}
        if not pairs:
            self.message.value = "These files are equal in every byte: they cannot be kept apart."
            return
        rows = [(action, *pair) for pair in sorted(pairs)]
        rows += [("join", *pair) for pair in pairwise(others)]  # they may have hung together by a marked file alone
        try:
            path = write_corrections(self.corrections, rows)
        except InputError as error:
            self.message.value = f"<b>Not saved</b>. {text(str(error))}"
        except OSError as error:
            self.message.value = f"<b>Not saved</b>: {text(self.corrections)} cannot be written ({text(str(error))})."
        else:
            self.message.value = f"<b>Saved</b>: {len(rows)} pairs in {text(path.name)}. The next run of 01 honours it."
