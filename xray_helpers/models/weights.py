"""Files of trained weights: chosen in a folder, downloaded where Keras publishes them, checked and loaded.

All but `load_weights` works without TensorFlow, so that missing or wrong files are reported before any work.
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
BASE_URL = "https://storage.googleapis.com/"
RADIMAGENET = "radimagenet"  # weights trained on CT, MR and ultrasound (Mei et al. 2022)
_RADIMAGENET_NAMES = {"irv2": "inceptionresnetv2"}  # how its files abbreviate
_ANSWER_SECONDS = 4.0  # for the first answer of a server
_STALL_SECONDS = 20.0  # without new data, after which a download is given up


class PublishedWeights(NamedTuple):
    """Weights of a network without its classification layer, as Keras publishes them.

    Attributes
    ----------
    model : str
    address : str
        Relative to `BASE_URL`.
    file_hash : str
        Hash of the file, as Keras's source states it: MD5 or SHA-256; empty if it states none.
    parameters : int
        Number of parameters in the file.
    local_name : str
        The name under which Keras keeps the file, where that is not the one in its address.
    """

    model: str
    address: str
    file_hash: str
    parameters: int
    local_name: str = ""

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.local_name or self.address.split("/")[-1]


def keras_file(published: PublishedWeights) -> Path:
    """Return where Keras keeps its download of published weights, whether or not it exists."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras").expanduser()
    return home / "models" / published.file


class MissingWeightsError(InputError):
    """A folder has no weights of some networks.

    Its arguments: the folder, and for each network whose they are, the name of such a file, what is there.
    """

    def __str__(self) -> str:
        place, missing = self.args
        whose, wanted, found = zip(*missing, strict=True)
        advice = "" if any("RadImageNet" in name for name in whose) else ", or give -p weights=random"
        return (
            f"There are no {', no '.join(whose)} in {place}{''.join(found)}: the name of the file should be "
            f"such as {', '.join(wanted)}. Leave the model out with --models{advice}."
        )


def choose_file(published: PublishedWeights, place: Path, weight_set: str = "") -> Path:
    """Return the weights file of a network: `place` itself, or the best file in it named after the network.

    Case and punctuation of names do not matter. Files with the right number of parameters come first, then
    those whose name does not say RadImageNet, the name that Keras gives, the resolution in Keras's name, and
    names that say "notop".

    Parameters
    ----------
    published : PublishedWeights
    place : Path
        A file or a folder.
    weight_set : {'', 'imagenet', 'radimagenet'}
        Files of one set alone: of RadImageNet, whose names hold that word, or all others.

    Raises
    ------
    InputError
        If there is none, if the names of all say another width, another version or with the classification
        layer, or if several are equally good.
    """
    wanted = f"RadImageNet-{published.model}_notop.h5" if weight_set == RADIMAGENET else published.file
    if place.is_file():
        if weight_set and is_radimagenet(place) != (weight_set == RADIMAGENET):
            raise InputError(f"{place.name} is not a file such as {wanted}: give a folder that holds both.")
        return place
    if not place.is_dir():
        raise InputError(
            f"There are no weights at {place}: it should be a file or a folder that holds {wanted}"
            f"{'' if weight_set == RADIMAGENET else f', which can be had at {BASE_URL}{published.address}'}."
        )
    files = [file for file in sorted(place.iterdir()) if _is_named_after(file, published.model)]
    files = [file for file in files if not weight_set or is_radimagenet(file) == (weight_set == RADIMAGENET)]
    fitting = [file for file in files if count_parameters(file) == published.parameters]
    usable = fitting or [file for file in files if not _contradicts(file.name, published)]
    if not usable:
        found = ", ".join(file.name for file in files[:3])
        found = f"; {found} is another network, or with its top" if files else ""
        kind = "RadImageNet weights" if weight_set == RADIMAGENET else "weights"
        raise MissingWeightsError(place, [(f"{kind} of {published.model}", wanted, found)])
    ranks = [_rank(file.name, published) for file in usable]
    best = [file for file, rank in zip(usable, ranks, strict=True) if rank == min(ranks)]
    if len(best) > 1:
        raise InputError(
            f"{place} holds {len(best)} weights files of {published.model} that are equally good: "
            f"{', '.join(file.name for file in best[:4])}. Leave one of them there."
        )
    return best[0]


def is_radimagenet(file: Path) -> bool:
    """Return whether the name of a file says that RadImageNet's weights are in it."""
    return RADIMAGENET in _normalise(file.name)


def _normalise(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _network_in(name: str) -> str:
    """Return a file's name from the network on, normalised."""
    text = _normalise(name).removeprefix("weights").replace(RADIMAGENET, "", 1)
    for short, network in _RADIMAGENET_NAMES.items():
        text = network + text.removeprefix(short) if text.startswith(short) else text
    return text


def _is_named_after(file: Path, model: str) -> bool:
    is_weights = file.suffix.lower() in (".h5", ".keras") and not file.name.startswith(".") and file.is_file()
    return is_weights and _network_in(file.name).startswith(_normalise(model))


def _width_and_side(name: str) -> tuple[str | None, str | None]:
    """Return the alpha and the resolution in a name, as in Keras's names of MobileNets (``_1.0_224_``)."""
    alpha = re.search(r"(?<!\d)[01]\.\d+(?!\d)", name)
    side = re.search(r"(?<!\d)(96|128|160|192|224)(?!\d)", name)
    return (alpha and alpha[0], side and side[0])


def _contradicts(name: str, published: PublishedWeights) -> bool:
    """Return whether a name says another version or width, or is Keras's with the classification layer."""
    alpha, wanted = _width_and_side(name)[0], _width_and_side(published.file)[0]
    other_width = bool(alpha and wanted) and float(alpha) != float(wanted)
    other_version = re.match(r"v\d", _network_in(name).removeprefix(_normalise(published.model)))
    return other_width or bool(other_version) or name == re.sub("_no_?top", "", published.file)


def _rank(name: str, published: PublishedWeights) -> tuple[bool, ...]:
    side, wanted = _width_and_side(name)[1], _width_and_side(published.file)[1]
    other_side = bool(side and wanted) and side != wanted
    other_set = RADIMAGENET in _normalise(name)
    unsaid = "notop" not in _normalise(name)
    return (other_set, name != published.file, other_side, unsaid, bool(wanted) and not side)


def count_parameters(path: Path) -> int | None:
    """Return the number of parameters in a file of any Keras layout, or None if it cannot be read.

    The state of an optimizer does not count.
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
    with zipfile.ZipFile(path) as archive:
        return h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r")


def find_problem(published: PublishedWeights, path: Path, *, by_hash: bool = False) -> str:
    """Return why a file cannot be the weights of a network, or an empty string.

    Parameters
    ----------
    published : PublishedWeights
    path : Path
    by_hash : bool
        Whether to compare the published hash too, if there is one.
    """
    count = count_parameters(path)
    if count is None:
        return "it is damaged, or no weights file at all"
    if count != published.parameters:
        return (
            f"it holds {count:,} parameters, not {published.parameters:,}; it is with the top, of another "
            "width or of another network"
        )
    if by_hash and published.file_hash:
        kind = "md5" if len(published.file_hash) == 32 else "sha256"
        with open(path, "rb") as handle:
            if hashlib.file_digest(handle, kind).hexdigest() != published.file_hash:
                return f"it is damaged, or not the file that Keras publishes (its {kind.upper()} is another)"
    return ""


def check_file(published: PublishedWeights, path: Path) -> Path:
    """Return `path`; raise `InputError` if it does not have the network's number of parameters."""
    problem = find_problem(published, path)
    if problem:
        raise InputError(
            f"The weights {path.name} do not fit {published.model} without its top: {problem}. Put "
            f"{published.file}, as Keras publishes it, into a folder, with the files of the other models, "
            "and give -p weights=FOLDER."
        )
    return path


def fetch_file(published: PublishedWeights) -> Path:
    """Return Keras's file of published weights, downloaded if it is missing or damaged.

    It is checked by Keras's hash. Keras states none for MobileNet and MobileNetV2, whose files must have the
    right number of parameters.

    Raises
    ------
    InputError
        If it cannot be had: no network, an error of the server, another file, a read-only folder.
    """
    path = keras_file(published)
    exists = path.is_file()
    problem = find_problem(published, path, by_hash=True) if exists else "it is missing"
    if not problem:
        return path
    with compute_lock(f"weights-{published.file}"):
        if path.is_file() and not find_problem(published, path, by_hash=True):  # by another process
            return path
        try:
            _download(published, path)
        except (OSError, HTTPException, ValueError) as error:
            state = f"in Keras's folder cannot be used ({problem})" if exists else "is missing"
            raise InputError(
                f"The ImageNet weights of {published.model} cannot be had: {published.file} {state}, and its "
                f"download failed ({_reason(error)}). It can be had at {BASE_URL}{published.address}."
            ) from None
    return path


def _reason(error: Exception) -> str:
    """Return the first line of an error's message, without paths of this machine."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0][:200].rstrip(".")


def _download(published: PublishedWeights, path: Path) -> None:
    response = _request(BASE_URL + published.address)
    size = int(response.headers.get("Content-Length") or 0) / 1e6
    print(f"downloading {published.file} ({size:.0f} MB) …", flush=True)
    with response, atomic_write(path) as partial:
        with open(partial, "wb") as out:
            shutil.copyfileobj(response, out)
        problem = find_problem(published, partial, by_hash=True)
        if problem:
            raise ValueError(f"the file received cannot be used: {problem}")


def _request(url: str) -> HTTPResponse:
    """Return a server's response within `_ANSWER_SECONDS`.

    It runs in a thread, because the time-out of `urlopen` does not cover the look-up of the name.
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
    """Load a file of any Keras layout into a network, whatever the file is called; return the weights.

    Raises
    ------
    InputError
        If it does not fit, or holds numbers that are not finite.
    """
    unreadable = (ValueError, OSError, KeyError, TypeError, AttributeError, RuntimeError, zipfile.BadZipFile)
    with tempfile.TemporaryDirectory() as folder:
        try:
            network.load_weights(_with_ending_of_layout(path, Path(folder)))
        except unreadable as error:
            raise InputError(
                f"The weights {path.name} do not fit {model} without its top: {_reason(error)}."
            ) from None
    weights = network.get_weights()
    if not all(np.isfinite(part).all() for part in weights):
        raise InputError(
            f"The weights {path.name} hold numbers that are not finite: the file is damaged; fetch it again."
        )
    return weights


def _with_ending_of_layout(path: Path, folder: Path) -> Path:
    """Return the file, or a copy of it in `folder`, with the ending by which Keras recognises its layout."""
    if zipfile.is_zipfile(path):
        ending = ".keras"
    else:
        with _open(path) as file:
            legacy = "model_weights" in file or any(name.startswith("layer_names") for name in file.attrs)
        ending = ".h5" if legacy else ".weights.h5"
    fits = path.name.endswith(ending) and (ending != ".h5" or not path.name.endswith(".weights.h5"))
    return path if fits else Path(shutil.copyfile(path, folder / f"weights{ending}"))
