"""A study in a browser: the series in JupyterLab, or the reading room as a page that Voilà serves."""

import itertools
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from xray_helpers.export.engine import find_export
from xray_helpers.interactive.reading_room import choose_model, describe_decision_rule
from xray_helpers.runner.graph import build_steps, notebook_parameters
from xray_helpers.settings import InputError, Settings
from xray_helpers.study.external import NOTEBOOK
from xray_helpers.study.files import hash_of, read_json, write_json, write_text
from xray_helpers.study.folders import EXTERNAL, LAB, LOCAL, find_study, notebooks_folder, root

LOCAL_ADDRESS = "127.0.0.1"
_POLICY = (  # the page asks no other host for anything
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' ws: wss:; "
    "frame-ancestors 'self'"
)
_NO_NEWS = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}  # and no updates
_CULLING = {"cull_idle_timeout": 30, "cull_interval": 10}  # seconds; only kernels whose page is closed
_HOW = "**Run ▸ Run All Cells** computes it again, with what you change in the cell of parameters."
_MAX_MESSAGE = 600_000_000  # bytes of a message: an encoded file of radiographs.MAX_BYTES


def serve_room(
    study: str, model: str = "", *, ip: str = LOCAL_ADDRESS, port: int = 0, engine: str = ""
) -> int:
    """Serve the reading room until interrupted; return the exit status of Voilà.

    The address, with the token that opens it, is printed once the page can be opened.

    Parameters
    ----------
    study, model : str
        Of a study under reports/; its best model by AUROC on validation where none is named.
    ip : str
        The address to listen on; by default this machine only.
    port : int
        0: any free one.
    engine : str
        The exported format that answers, as for `engine.find_export`; empty: ``model.keras``.

    Raises
    ------
    InputError
        When there is no such study or model, or the port is taken.
    """
    folder = find_study(study)
    reports = (root() / "reports").resolve()
    if not folder.resolve().is_relative_to(reports):
        raise InputError(f"The study must lie under {reports}: {folder} does not.")
    name = folder.resolve().relative_to(reports).as_posix()
    model = choose_model(folder, model)
    if not all((folder / model / file).exists() for file in ("model.keras", "metrics.json")):
        known = ", ".join(sorted(path.parent.name for path in folder.glob("*/model.keras"))) or "none"
        raise InputError(
            f"{folder.name} has no model {model!r} that was trained and evaluated: it has {known}."
        )
    if engine:
        find_export(folder, model, engine)
    port, token = _free_port(ip, port), secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory() as place:  # readable by this user alone, as it holds the token
        notebook = Path(place) / "05_reading_room.ipynb"
        _write_notebook(notebook, {"name": name, "model": model, "deployed": engine})
        tornado = {
            "websocket_max_message_size": _MAX_MESSAGE,
            "headers": {"Content-Security-Policy": _POLICY},
        }
        options = {"ip": ip, "port": port, "open_browser": False, "token": token, "port_retries": 0}
        config = {
            "Voila": options | {"tornado_settings": tornado},
            "VoilaConfiguration": {"strip_sources": True, "file_allowlist": []},
            "MappingKernelManager": _CULLING,
        }
        (Path(place) / "voila.json").write_text(json.dumps(config), encoding="utf-8")
        env = _environment()
        env.pop("JPY_SESSION_NAME", None)
        command = [sys.executable, "-m", "voila", str(notebook), "--Voila.log_level=ERROR"]
        with _child(command, cwd=place, env=env) as process:
            address = f"http://{LOCAL_ADDRESS if ip == '0.0.0.0' else ip}:{port}"
            if _answers(process, address):
                print(describe_decision_rule(folder, model))
                print(f"{address}/?token={token}", flush=True)
            elif process.poll() is None:
                raise InputError(
                    "The page did not answer within three minutes: close other programs, and try again."
                )
            process.wait()
    return process.returncode


def open_lab(study: str, model: str = "", *, arguments: Sequence[str] = ()) -> int:
    """Open the series on a study in JupyterLab, see `write_lab`; return the exit status of JupyterLab."""
    if os.name == "posix" and os.geteuid() == 0 and "--allow-root" not in arguments:
        raise InputError(
            "JupyterLab does not run as root unless told: add --allow-root, as is usual in a container."
        )
    first, *_ = write_lab(study, model)
    large = f"--ServerApp.tornado_settings={json.dumps({'websocket_max_message_size': _MAX_MESSAGE})}"
    place = [f"--ServerApp.root_dir={first.parent}", f"--LabApp.default_url=/lab/tree/{first.name}"]
    command = [sys.executable, "-m", "jupyterlab", *place, large, *arguments]
    with tempfile.TemporaryDirectory() as place:
        write_json(Path(place) / "labconfig" / "page_config.json", _NO_NEWS)
        path = os.pathsep.join(filter(None, (place, os.environ.get("JUPYTER_CONFIG_PATH"))))
        with _child(command, env=_environment() | {"JUPYTER_CONFIG_PATH": path}) as process:
            process.wait()
    return process.returncode


def _environment() -> dict[str, str]:
    """Return the environment of a server: this one's root, and no messages of TensorFlow's start."""
    return os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "XRAY_HELPERS_ROOT": str(root())}


@contextmanager
def _child(command: list[str], **options: Any) -> Iterator[subprocess.Popen]:
    """Run a server that ends with this process, by Ctrl-C or by SIGTERM."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that `finally` runs
    process = subprocess.Popen(command, **options)
    try:
        yield process
    except KeyboardInterrupt:
        pass
    finally:
        process.terminate()
        process.wait()
        signal.signal(signal.SIGTERM, before)


def write_lab(study: str, model: str = "") -> list[Path]:
    """Write the numbered notebooks, with the parameters of a study, to its folder ``lab/``.

    A notebook that is there stays as it is; one with other parameters, such as another model, is renamed to
    ``…-before-1.ipynb``.

    Parameters
    ----------
    study, model : str
        The best model of the study by AUROC on validation where none is named.

    Raises
    ------
    InputError
        When there is no such study, or no such model in it.
    """
    folder = find_study(study)
    settings = Settings(**read_json(folder / "study.json")["settings"])
    if model and model not in settings.models:
        raise InputError(f"{folder.name} has no model {model!r}: it has {', '.join(settings.models)}.")
    model = choose_model(folder, model)
    steps = {step.notebook: step for step in build_steps((model,))}
    parameters = {name: notebook_parameters(step, settings) for name, step in steps.items()}
    parameters["05_reading_room"] = {"name": settings.name, "model": model}
    for name in sorted(read_json(folder / "local.json", default={}).get(EXTERNAL, {}))[:1]:
        parameters[NOTEBOOK] = {"name": settings.name, "external": name, "external_data": LOCAL}
    written = []
    (folder / LAB).mkdir(exist_ok=True)
    for notebook, values in parameters.items():
        written.append(folder / LAB / f"{notebook}.ipynb")
        run = folder / f"{steps[notebook].name}.ipynb" if notebook in steps else None
        _write_notebook(written[-1], values, run)
    return written


def _write_notebook(target: Path, values: dict[str, Any], executed: Path | None = None) -> None:
    """Write a numbered notebook with these parameters, and with the outputs of its execution in the study.

    A file that is there stays; one with other parameters, or of another version, is renamed first.
    """
    import nbformat

    source = notebooks_folder() / target.name
    made_of = hash_of(source.read_text(encoding="utf-8"), values)
    if target.exists():
        if read_json(target)["metadata"].get("xray_helpers", {}).get("made_of") == made_of:
            return
        earlier = (target.with_stem(f"{target.stem}-before-{number}") for number in itertools.count(1))
        target.rename(next(path for path in earlier if not path.exists()))
    nb = nbformat.read(source, as_version=4)
    cell = next(one for one in nb.cells if "parameters" in one.metadata.get("tags", []))
    cell.source = _assign(cell.source, values)
    outputs = {}
    if executed is not None and executed.exists():
        outputs = {one.source: one.get("outputs") for one in nbformat.read(executed, as_version=4).cells}
    for one in nb.cells:
        if one.cell_type == "code":
            one.outputs = outputs.get(one.source) or []
    what = "Below stands what the study's run gave. " if outputs else ""
    nb.cells.insert(1, nbformat.v4.new_markdown_cell(f"> {what}{_HOW}", id="how-to-run"))
    nb.metadata["xray_helpers"] = {"made_of": made_of}
    write_text(target, nbformat.writes(nb))


def _assign(source: str, values: dict[str, Any]) -> str:
    """Return a cell of parameters with other values, each line's comment kept."""
    from papermill.translators import PythonTranslator

    def replace(line: re.Match) -> str:
        name, comment = line.groups()
        return f"{name} = {PythonTranslator.translate(values[name])}{comment}" if name in values else line[0]

    return re.sub(r"^(\w+) = .*?(  # .*)?$", replace, source, flags=re.MULTILINE)


def _free_port(ip: str, port: int) -> int:
    """Return `port` if it is free, or any free port for 0."""
    with socket.socket() as probe:
        try:
            probe.bind((ip, port))
        except OSError as error:
            raise InputError(
                f"The page cannot be served at {ip}, port {port} ({error.strerror}): give another."
            ) from None
        return probe.getsockname()[1]


def _answers(process: subprocess.Popen, address: str, seconds: float = 180) -> bool:
    """Wait until the server answers; False when it ends before, or takes longer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            urlopen(f"{address}/api/status", timeout=2)
            return True
        except HTTPError:  # an answer: it asks for the token
            return True
        except OSError:
            time.sleep(0.2)
    return False
