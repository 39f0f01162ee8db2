"""Hashes of what a step reads from outside its study: images, weights, its notebook, the package."""

import functools
import json
import os
import time
from pathlib import Path

from xray_helpers.data.user_tables import read_user_table
from xray_helpers.models.backbones import get_backbone
from xray_helpers.settings import InputError
from xray_helpers.study.files import hash_of, sample_checksum
from xray_helpers.study.folders import (
    LOCAL,
    from_root,
    is_phantoms,
    is_private,
    is_private_source,
    local_path,
    local_sources,
)
from xray_helpers.study.records import sha256_of

_looked: dict[
    Path, tuple[float, str]
] = {}  # by place: until when a look at the images holds, and what it found
_PACKAGE = Path(__file__).parents[1]


def fingerprint_source(key: str, value: str, folder: Path) -> str:
    """Return a hash of what lies outside the study: names, sizes and times of images, the bytes of other
    files.
    """
    if key == "sources":
        return hash_of({name: _fingerprint_model(at) for name, at in local_sources(folder, value).items()})
    place = local_path(folder, key, value) if key in ("data", "weights") else value
    if key == "data" and is_phantoms(place):
        return place
    if key in ("data", "weights") and place != LOCAL and not is_private(key, place):
        return place
    path = from_root(place)
    if key == "data":
        return _look_at_images(path)
    files = sorted(f for f in path.iterdir() if f.suffix in (".h5", ".keras")) if path.is_dir() else [path]
    files = [file for file in files if file.exists()]
    return hash_of(
        [(file.name, sample_checksum(file).hex() if key == "weights" else sha256_of(file)) for file in files]
    )


def _fingerprint_model(source: str) -> str:
    if not is_private_source(source):
        return source
    path, _, options = source.partition(":")[2].partition("?")
    place = from_root(path)
    files = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]
    return hash_of([options, [(file.name, sample_checksum(file).hex()) for file in files if file.exists()]])


def fingerprint_weight_set(model: str, weights: str, folder: Path) -> str:
    """Return a hash of the file of a model with ``@``; empty for other models, and where there is no file."""
    if "@" not in model:
        return ""
    try:
        file = get_backbone(model).choose_file(local_path(folder, "weights", weights))
        return sample_checksum(file).hex()
    except (InputError, OSError):
        return ""


def _look_at_images(data: Path) -> str:
    """Return a hash of names, sizes and times; a slow one is used again for a while, as many steps ask."""
    now, (until, known) = time.monotonic(), _looked.get(data, (0.0, ""))
    if now < until:
        return known
    found = hash_of([data.is_file() and sha256_of(data), sorted(_stat(file) for file in list_images(data))])
    took = time.monotonic() - now
    _looked[data] = (now + 60 * took if took > 0.5 else 0.0, found)
    return found


def list_images(data: Path) -> list[tuple[str, str]]:
    """Return the files of a folder or table as (place, path relative to it), without hidden folders and the
    cache.
    """
    if data.is_dir():
        found, cache = [], str(from_root("data/cache"))
        for at, folders, names in os.walk(data):
            folders[:] = [
                name for name in folders if not name.startswith(".") and os.path.join(at, name) != cache
            ]
            found += [
                (os.path.join(at, name), os.path.relpath(os.path.join(at, name), data)) for name in names
            ]
        return found
    paths = [path.replace("\\", "/") for path in read_user_table(data).column("path") if path]
    return [(str(data.parent / path), path) for path in paths]


def _stat(file: tuple[str, str]) -> tuple[str, int, int]:
    path, below = file
    try:
        stat = os.stat(path)
    except OSError:
        return path, -1, 0
    return below, stat.st_size, stat.st_mtime_ns


def hash_notebook(path: Path) -> str:
    """Return a hash of a notebook's cells (kinds, sources, tags) and of its metadata for the series."""
    content = json.loads(path.read_text(encoding="utf-8"))
    cells = [(c["cell_type"], "".join(c["source"]), c["metadata"].get("tags", [])) for c in content["cells"]]
    return hash_of([cells, content["metadata"].get("xray_helpers")])


@functools.cache
def hash_package() -> str:
    """Return a hash of the package's source and templates, as they were when this process first asked."""
    return hash_source()


def hash_source() -> str:
    """Return a hash of the package's source and templates, as they are now."""
    kinds = (".py", ".j2", ".css", ".js", ".yaml", ".csv")
    files = sorted(
        file for file in _PACKAGE.rglob("[!.]*") if file.suffix in kinds
    )  # not what editors leave there
    return hash_of([(file.relative_to(_PACKAGE).as_posix(), sha256_of(file)) for file in files])
