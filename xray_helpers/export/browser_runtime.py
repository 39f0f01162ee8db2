"""The runtime of a page: ONNX Runtime for WebAssembly, fetched once from npm's registry, known by hash."""

import hashlib
import io
import os
import tarfile
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib import request

from xray_helpers.settings import InputError
from xray_helpers.study.cache import cache_folder, compute_lock
from xray_helpers.study.files import atomic_write

NAME, VERSION = "onnxruntime-web", "1.30.0"  # MIT
_REGISTRY = "https://registry.npmjs.org"
_SCRIPT, _WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
_HASHES = {
    _SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    _WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
_SECONDS = 60.0  # without an answer or new data, after which a download is given up


class BrowserRuntime(NamedTuple):
    """The parts of the runtime that a page holds.

    Attributes
    ----------
    script : str
        An ES module.
    wasm : bytes
        What the script starts.
    """

    script: str
    wasm: bytes


def load_browser_runtime(archive: Path | None = None) -> BrowserRuntime:
    """Return the runtime: from data/cache, or else from an archive or the npm registry, and kept there.

    Parameters
    ----------
    archive : Path, optional
        What ``npm pack onnxruntime-web@1.30.0`` writes, for machines without a network. The registry is that
        of npm, or ``$NPM_CONFIG_REGISTRY``.

    Raises
    ------
    InputError
        If it cannot be had, or is another than the one whose hashes this module holds.
    """
    kept = {name: cache_folder() / f"{NAME}-{VERSION}-{name}" for name in _HASHES}
    with compute_lock(f"{NAME}-{VERSION}"):
        if archive is not None or not all(_is_right(name, path) for name, path in kept.items()):
            for name, data in _unpack(archive).items():
                with atomic_write(kept[name]) as partial:
                    partial.write_bytes(data)
        return BrowserRuntime(kept[_SCRIPT].read_text(encoding="utf-8"), kept[_WASM].read_bytes())


def _is_right(name: str, path: Path) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == _HASHES[name]


def _unpack(archive: Path | None) -> dict[str, bytes]:
    """Return the files of `_HASHES` in an archive, or in the registry's."""
    place = str(archive) if archive else _address()
    try:
        data = archive.read_bytes() if archive else _download(place)
        with tarfile.open(fileobj=io.BytesIO(data)) as opened:
            found = {name: opened.extractfile(f"package/dist/{name}").read() for name in _HASHES}
    except (OSError, HTTPException, ValueError, KeyError, EOFError, tarfile.TarError) as error:
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise InputError(
            f"The runtime of the page cannot be had from {place} ({reason}): fetch it elsewhere by `npm pack "
            f"{NAME}@{VERSION}` and give --runtime FILE.tgz."
        ) from None
    for name, content in found.items():
        if hashlib.sha256(content).hexdigest() != _HASHES[name]:
            raise InputError(
                f"{name} from {place} is not that of {NAME} {VERSION} (its SHA-256 is another): fetch it by "
                f"`npm pack {NAME}@{VERSION}` and give --runtime FILE.tgz."
            )
    return found


def _address() -> str:
    names = ("NPM_CONFIG_REGISTRY", "npm_config_registry")
    registry = next(filter(None, map(os.environ.get, names)), _REGISTRY)
    return f"{registry.rstrip('/')}/{NAME}/-/{NAME}-{VERSION}.tgz"


def _download(address: str) -> bytes:
    print(f"downloading {NAME} {VERSION} (33 MB), once …", flush=True)
    with request.urlopen(address, timeout=_SECONDS) as response:
        return response.read()
