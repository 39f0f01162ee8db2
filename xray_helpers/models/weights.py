"""Files of trained weights: chosen in a folder, fetched where Keras publishes them, checked and loaded.

All but `load_weights` does without TensorFlow, so that what is missing or wrong is said before any work.
"""

import hashlib
import io
import os
import re
import shutil
import tempfile
import threading
import zipfile
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib import request

import numpy as np

from xray_helpers.settings import InputError
from xray_helpers.study.cache import compute_lock
from xray_helpers.study.files import atomic_write

if TYPE_CHECKING:
    import h5py
    import keras
BASE_URL = "https://storage.googleapis.com/tensorflow/keras-applications/"
_ANSWER_SECONDS = 4.0  # within which a server has to answer
_STALL_SECONDS = 20.0  # after which a download that brings nothing more is given up


class PublishedWeights(NamedTuple):
    """Weights of a network without its classification top, as Keras publishes them.

    Attributes
    ----------
    model : str
        Of the registry.
    address : str
        Below `BASE_URL`.
    md5 : str
        Of the file, as Keras's source states it; empty where it states none.
    parameters : int
        That the file holds.
    """

    model: str
    address: str
    md5: str
    parameters: int

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.address.split("/")[-1]


def keras_file(published: PublishedWeights) -> Path:
    """Return where Keras keeps what it has downloaded, there or not."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras").expanduser()
    return home / "models" / published.file


def choose_file(published: PublishedWeights, place: Path) -> Path:
    """Return the weights file of a network: `place` itself, or the best file in it that is named for the
    network.

    Case and punctuation of names do not matter. Files whose content fits go before all others, then the name
    that Keras gives, the resolution that Keras's name states, and a name that says it is without the top.

    Raises
    ------
    InputError
        When there is none, when all are of another width, version or with the top by their names, or when
        several are equally good.
    """
    if place.is_file():
        return place
    if not place.is_dir():
        raise InputError(
            f"There are no weights at {place}: it should be a file or a folder that holds {published.file}."
        )
    files = [file for file in sorted(place.iterdir()) if _is_named_for(file, published.model)]
    fitting = [file for file in files if count_parameters(file) == published.parameters]
    usable = fitting or [file for file in files if not _is_named_otherwise(file.name, published)]
    if not usable:
        there = (
            f"; {', '.join(file.name for file in files[:3])} is another network, or with its top"
            if files
            else ""
        )
        raise InputError(
            f"There are no weights of {published.model} in {place}{there}: it wants a file whose name "
            "starts with the "
            f"model's, such as {published.file}. Leave the model out with --models, or give -p "
            "weights=random."
        )
    ranks = [_rank(file.name, published) for file in usable]
    best = [file for file, rank in zip(usable, ranks, strict=True) if rank == min(ranks)]
    if len(best) > 1:
        raise InputError(
            f"{place} holds {len(best)} weights files of {published.model} that are equally good: "
            f"{', '.join(file.name for file in best[:4])}. Leave one of them there."
        )
    return best[0]


def _key(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _is_named_for(file: Path, model: str) -> bool:
    wanted = file.suffix.lower() in (".h5", ".keras") and not file.name.startswith(".") and file.is_file()
    return wanted and _key(file.name).startswith(_key(model))


def _width_and_side(name: str) -> tuple[str | None, str | None]:
    """Return the alpha and the resolution that a name states, as Keras's names of MobileNets do
    (``_1.0_224_``).
    """
    alpha = re.search(r"(?<!\d)[01]\.\d+(?!\d)", name)
    side = re.search(r"(?<!\d)(96|128|160|192|224)(?!\d)", name)
    return (alpha and alpha[0], side and side[0])


def _is_named_otherwise(name: str, published: PublishedWeights) -> bool:
    """Return whether the name says another version (ResNet50V2), another width, or Keras's file with the
    top.
    """
    alpha, wanted = _width_and_side(name)[0], _width_and_side(published.file)[0]
    other_width = bool(alpha and wanted) and float(alpha) != float(wanted)
    other_version = re.match(r"v\d", _key(name).removeprefix(_key(published.model)))
    return other_width or bool(other_version) or name == re.sub("_no_?top", "", published.file)


def _rank(name: str, published: PublishedWeights) -> tuple[bool, bool, bool, bool]:
    side, wanted = _width_and_side(name)[1], _width_and_side(published.file)[1]
    other_side = bool(side and wanted) and side != wanted
    return (name != published.file, other_side, "notop" not in _key(name), bool(wanted) and not side)


def count_parameters(path: Path) -> int | None:
    """Return how many weights a file holds, in any layout of Keras, without an optimizer's; None if it is not
    readable.
    """
    import h5py

    sizes = []

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer"):
            sizes.append(item.size)

    try:
        with _open(path) as file:
            file.visititems(add)
    except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile):
        return None
    return int(sum(sizes))


def _open(path: Path) -> "h5py.File":
    import h5py

    if not zipfile.is_zipfile(path):
        return h5py.File(path, "r")
    with zipfile.ZipFile(path) as whole:
        return h5py.File(io.BytesIO(whole.read("model.weights.h5")), "r")


def find_problem(published: PublishedWeights, path: Path, *, by_hash: bool = False) -> str:
    """Return in a few words why a file is not the weights of a network; an empty string where it may be.

    Parameters
    ----------
    published : Published
    path : Path
    by_hash : bool
        Compare with the published hash too, where there is one: for files that are said to be the published
        ones.
    """
    count = count_parameters(path)
    if count is None:
        return "it is damaged, or no weights file at all"
    if count != published.parameters:
        return (
            f"it holds {count:,} parameters, not {published.parameters:,}; it is with the top, of another "
            "width or of "
            "another network"
        )
    if by_hash and published.md5:
        with open(path, "rb") as handle:
            if hashlib.file_digest(handle, "md5").hexdigest() != published.md5:
                return "it is damaged, or not the file that Keras publishes (its MD5 hash is another)"
    return ""


def check_file(published: PublishedWeights, path: Path) -> Path:
    """Return `path` if the file can be the network's weights by their number.

    Raises
    ------
    InputError
        Otherwise.
    """
    problem = find_problem(published, path)
    if problem:
        raise InputError(
            f"The weights {path.name} do not fit {published.model} without its top: {problem}. Put "
            f"{published.file}, as "
            "Keras publishes it, into a folder, with the files of the other models, and give -p "
            "weights=FOLDER."
        )
    return path


def fetch_file(published: PublishedWeights) -> Path:
    """Return Keras's file of published weights, downloaded into Keras's folder where it is not there, or
    damaged.

    It is checked by Keras's hash. Keras states none for MobileNetV2: there the file has to open, to its end,
    and to hold the right number of weights.

    Raises
    ------
    InputError
        When it cannot be had: no network, an error of the server, another file, a folder that cannot be
        written.
    """
    path = keras_file(published)
    there = path.is_file()
    problem = find_problem(published, path, by_hash=True) if there else "it is not there"
    if not problem:
        return path
    with compute_lock(f"weights-{published.file}"):
        if path.is_file() and not find_problem(published, path, by_hash=True):  # another process had it
            return path
        try:
            _download(published, path)
        except (OSError, HTTPException, ValueError) as error:
            state = (
                f"{published.file} in Keras's folder cannot be used ({problem})"
                if there
                else f"{published.file} is missing"
            )
            raise InputError(
                f"The ImageNet weights of {published.model} cannot be had: {state}, and its download failed "
                f"({_reason(error)})."
            ) from None
    return path


def _reason(error: Exception) -> str:
    """Return the first line of what an exception says, without the place on this machine that it happened
    at.
    """
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0][:200].rstrip(".")


def _download(published: PublishedWeights, path: Path) -> None:
    """Put a file in its place, whole and checked, or not at all."""
    answer = _ask(BASE_URL + published.address)
    print(
        f"downloading {published.file} ({int(answer.headers.get('Content-Length') or 0) / 1e6:.0f} MB) …",
        flush=True,
    )
    with answer, atomic_write(path) as partial:
        with open(partial, "wb") as out:
            shutil.copyfileobj(answer, out)
        problem = find_problem(published, partial, by_hash=True)
        if problem:
            raise ValueError(f"what came is not it: {problem}")


def _ask(url: str) -> HTTPResponse:
    """Return a server's answer within `_ANSWER_SECONDS`; asked in a thread, because name look-up knows no
    time-out.
    """
    answers: list[HTTPResponse | Exception] = []

    def ask() -> None:
        try:
            answers.append(request.urlopen(url, timeout=_STALL_SECONDS))
        except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    if not answers:
        raise TimeoutError(f"no answer within {_ANSWER_SECONDS:.0f} s")
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]


def load_weights(network: "keras.Model", path: Path, model: str) -> list[np.ndarray]:
    """Load a file into a network and return its weights, whichever of Keras's layouts it has and whatever it
    is called.

    Raises
    ------
    InputError
        When it does not fit, or holds numbers that are not finite.
    """
    with tempfile.TemporaryDirectory() as place:
        try:
            network.load_weights(_named_by_layout(path, Path(place)))
        except (
            ValueError,
            OSError,
            KeyError,
            TypeError,
            AttributeError,
            RuntimeError,
            zipfile.BadZipFile,
        ) as problem:
            raise InputError(
                f"The weights {path.name} do not fit {model} without its top: {_reason(problem)}."
            ) from None
    weights = network.get_weights()
    if not all(np.isfinite(part).all() for part in weights):
        raise InputError(
            f"The weights {path.name} hold numbers that are not finite: the file is damaged; fetch it again."
        )
    return weights


def _named_by_layout(path: Path, place: Path) -> Path:
    """Return the file, or a copy of it in `place` whose ending tells Keras the layout that it has."""
    if zipfile.is_zipfile(path):
        ending = ".keras"
    else:
        with _open(path) as file:
            legacy = "model_weights" in file or any(name.startswith("layer_names") for name in file.attrs)
        ending = ".h5" if legacy else ".weights.h5"
    fits = path.name.endswith(ending) and (ending != ".h5" or not path.name.endswith(".weights.h5"))
    return path if fits else Path(shutil.copyfile(path, place / f"weights{ending}"))
