"""Whether a single file is, or derives from, an image that a study's models were trained or chosen on.

Equal bytes are looked up. Otherwise the images of the study that are nearest by visual words, or by a
signature without a network, are compared as in the search for same-source images. The file itself stays in
memory; what is kept of the study's images was computed by 01.
"""

from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from xray_helpers.data.external import EXCLUDED_PARTS, reach_study, within_reach
from xray_helpers.images.pixels import load_pixels, resize
from xray_helpers.images.radiographs import ImageFolder, Radiograph
from xray_helpers.same_source.candidates import compute_signatures, sign_picture
from xray_helpers.same_source.local_features import SIDE, describe_picture
from xray_helpers.same_source.rules import is_sure
from xray_helpers.same_source.search import find_equal_pixels, shapes_of
from xray_helpers.same_source.verification import Aligner
from xray_helpers.same_source.words import Vocabulary
from xray_helpers.settings import InputError
from xray_helpers.study.cache import RowView
from xray_helpers.study.files import read_csv

_CANDIDATES = 40  # images of the study by each likeness with which a file is compared
_WORDS = {"train": "trained", "validation": "chosen"}


class Known(NamedTuple):
    """An image of a study that a file is, or derives from."""

    part: str  # train or validation
    path: str
    equal: bool  # whether their bytes are equal

    @property
    def warning(self) -> str:
        """What a person should know, in a few words."""
        what = "this very file" if self.equal else f"an image from which this derives ({self.path})"
        return f"the model was {_WORDS[self.part]} on {what}, so that its answer proves nothing"


class _Index(NamedTuple):
    signatures: np.ndarray
    vocabulary: Vocabulary
    aligner: Aligner
    rows: np.ndarray  # of the pictures in train or validation
    shas: np.ndarray


class KnownImages:
    """The images of train and validation of a study, to be looked up.

    Parameters
    ----------
    study : Path
    """

    def __init__(self, study: Path) -> None:
        self._study, path = study, study / "manifest.csv"
        self._manifest = read_csv(path) if path.exists() else None
        self._by_content: dict[str, tuple[str, str]] = {}
        if self._manifest is not None:
            table = self._manifest
            seen = table[(table["status"] == "used") & table["split"].isin(EXCLUDED_PARTS)]
            ordered = seen.dropna(subset=["sha256"]).sort_values(["split", "path"])  # train first
            for row in ordered.drop_duplicates("sha256").itertuples():
                self._by_content[row.sha256] = (row.split, row.path)

    def __len__(self) -> int:
        return len(self._by_content)

    @cached_property
    def _index(self) -> _Index | None:
        """What 01 computed of the study's pictures; None where they are not on this machine."""
        images = reach_study(self._study)
        if not self._by_content or images is None:
            return None
        known = self._manifest.dropna(subset=["sha256"]).sort_values(["sha256", "path"])
        files = known.drop_duplicates("sha256").reset_index(drop=True)
        try:
            return self._open(files, images) if within_reach(images, files).all() else None
        except InputError:  # a file has changed since
            return None

    def _open(self, files: pd.DataFrame, images: ImageFolder) -> _Index:
        same_for_all = images._replace(depth="percentiles", resize="stretch")
        pixels = load_pixels(files, same_for_all, (SIDE, SIDE)).array
        pictures = find_equal_pixels(files, pixels)
        view, all_shas = RowView(pixels, pictures.representative), files["sha256"].to_numpy()
        shas = all_shas[pictures.representative]
        of_picture = {}  # a content of train or validation for each picture that has one
        for number, sha in zip(pictures.picture, all_shas, strict=True):
            if sha in self._by_content:
                of_picture.setdefault(int(number), sha)
        rows = np.array(sorted(of_picture), int)
        signatures = compute_signatures(view, shas, None, "")[0][rows]
        aligner = Aligner(view, shapes_of(files)[pictures.representative], shas)
        known = np.array([of_picture[row] for row in rows])
        return _Index(signatures, Vocabulary(aligner.local), aligner, rows, known)

    def find(self, picture: Radiograph) -> Known | None:
        """Return the image of train or validation that a picture is, or derives from; None if there is none.

        Parameters
        ----------
        picture : Radiograph
            At its own size.
        """
        if found := self._by_content.get(picture.sha256):
            return Known(*found, equal=True)
        if self._index is None:
            return None
        small = resize(picture.pixels, (SIDE, SIDE))
        index, shape = self._index, picture.pixels.shape
        words = index.vocabulary(describe_picture(small, shape)[None])
        shared = (index.vocabulary.rows[index.rows] @ words.T).toarray().ravel()
        likeness = (shared, index.signatures @ sign_picture(small))
        nearest = np.unique([np.argsort(-values, kind="stable")[:_CANDIDATES] for values in likeness])
        found = index.aligner.compare_picture(small, shape, index.rows[nearest])
        sure = [evidence for evidence in found if is_sure(evidence)]
        if not sure:
            return None
        best = max(sure, key=lambda evidence: evidence["correlation"])
        sha = self._index.shas[np.searchsorted(self._index.rows, best["j"])]
        return Known(*self._by_content[sha], equal=False)
