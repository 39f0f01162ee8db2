"""The notebooks as steps of a study, run by papermill one after another."""

import ast
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from xray_helpers.backbones import get_backbone, resolve_weights
from xray_helpers.checklist import ANSWERS, read_answers
from xray_helpers.manifest import list_data
from xray_helpers.pages import write_checklist, write_index, write_model_card, write_studies
from xray_helpers.render import clean_notebook, write_html
from xray_helpers.reporting import RANDOM_BANNER
from xray_helpers.settings import InputError, Settings
from xray_helpers.studies import (
    hash_of,
    local_path,
    notebooks_folder,
    now,
    open_study,
    place_of,
    provenance,
    read_csv,
    read_json,
    redact,
    root,
    shareable,
    study_folder,
    write_json,
)

log = logging.getLogger("xray_helpers")
_AT_ONCE = max(1, min(2, os.cpu_count() or 1))  # steps; each has TensorFlow in memory
_QUIET = "import os; os.environ.pop('JPY_SESSION_NAME', None)"  # nobody clicks, though a study may start in a notebook
_ENDED = ("done", "failed", "not run")


class Step(NamedTuple):
    """One execution of a notebook.

    Attributes
    ----------
    name : str
        Such as ``VGG16/02_train_model``; also where its notebook and HTML lie in the study.
    notebook : str
        Without its ending.
    parameters : dict
        Beyond the study's settings.
    needs : tuple of str
        Names of the steps that come before: all of them must have succeeded, or, where `any_need`, one.
    writes : tuple of str
        What it makes, relative to the study; removed before it runs, so that nothing old is believed.
    """

    name: str
    notebook: str
    parameters: dict[str, Any]
    needs: tuple[str, ...]
    writes: tuple[str, ...]
    any_need: bool = False


def build_steps(models: tuple[str, ...]) -> list[Step]:
    """Return the steps of a study in an order that respects their needs."""
    explore = Step("01_data_exploration", "01_data_exploration", {}, (), ("manifest.csv", "links.csv"))
    steps = [explore]
    for model in models:
        train, judge = f"{model}/02_train_model", f"{model}/03_evaluate_model"
        made = ("model.keras", "history.csv", "predictions_val.csv", "predictions_test.csv", "predictions_oof.csv")
        made += ("repeats.csv", "threshold.json", "training.json", "familiarity.csv", "maps.csv", "sanity.csv")
        steps.append(
            Step(
                train,
                "02_train_model",
                {"model": model},
                (explore.name,),
                tuple(f"{model}/{f}" for f in made),
            )
        )
        figures = ("sample_predictions", "confusion_matrix", "evaluation_figure")
        tables = ("calibration", "reliability", "decision_curve", "spread", "subgroups", "failures", "localization")
        judged = (f"{model}/metrics.json", *(f"{model}/{table}.csv" for table in tables))
        judged += tuple(f"figures/{model}_{figure}.png" for figure in figures)
        steps.append(Step(judge, "03_evaluate_model", {"model": model}, (train,), judged))
    grids = tuple(f"figures/models_{name}.png" for name in ("evaluation_grid", "confusion_grid", "inflation"))
    judges = tuple(step.name for step in steps if step.notebook == "03_evaluate_model")
    return [
        *steps,
        Step(
            "04_compare_models",
            "04_compare_models",
            {},
            judges,
            ("comparison.csv", "pairs.csv", "ensembles.csv", "costs.csv", "disagreements.csv", "inflation.csv", *grids),
            any_need=True,
        ),
    ]


def run_study(settings: Settings, *, overwrite: bool = False) -> Path:
    """Run the whole series for a study and return its ``index.html``.

    A step that fails leaves its notebook and HTML; the other models go on. Whether all went well is in
    ``study.json`` (``state``: ``done`` or ``failed``).

    Raises
    ------
    InputError
        Before anything runs, for what the user can mend.
    """
    settings = prepare(settings, overwrite=overwrite)
    folder = open_study(settings)
    steps = build_steps(settings.models)
    with _logging_to(folder):
        log.info("Study %s: %d steps, %d models", settings.name, len(steps), len(settings.models))
        for key, value in shareable(settings).items():
            log.info("  %-18s %s", key, value)
        if settings.weights == "random":
            log.warning(RANDOM_BANNER)
        state = {"settings": shareable(settings), **provenance(), "state": "running"}
        state["steps"] = [{"name": s.name, "report": s.name, "state": "waiting"} for s in steps]
        started = time.monotonic()
        _save(folder, state)
        write_studies()
        _run_steps(steps, state, settings, folder)
        failed = [record["name"] for record in state["steps"] if record["state"] != "done"]
        state["state"] = "failed" if failed else "done"
        write_json(folder / "study.json", state)
        write_checklist(folder)
        index = _save(folder, state)
        write_studies()
        _log_results(folder)
        took = time.monotonic() - started
        if failed:
            log.error("Not complete after %.0f s: %s. See index.html.", took, ", ".join(failed))
        else:
            log.info("Complete in %.0f s.", took)
    return index


def prepare(settings: Settings, *, overwrite: bool = False) -> Settings:
    """Check everything that can be checked without TensorFlow, and return the settings with `auto` resolved.

    Raises
    ------
    InputError
        For unknown models, missing data or weights, one class only, or a folder of another study.
    """
    for name in settings.models:
        get_backbone(name, settings.img_size)
    folder = study_folder(settings.name)
    place = {key: local_path(folder, key, getattr(settings, key)) for key in ("data", "weights")}
    list_data(place["data"], settings.patient_pattern)
    weights = resolve_weights(place["weights"], settings.models)
    settings = settings.model_copy(update={"data": place["data"], "weights": weights})
    read_answers(folder)
    _check_folder(folder, settings, overwrite)
    return settings


def _check_folder(folder: Path, settings: Settings, overwrite: bool) -> None:
    if not folder.exists() or not {path.name for path in folder.iterdir()} - {ANSWERS}:
        return
    if overwrite and (folder / "study.json").exists():
        _clear(folder)
        return
    advice = "choose another --name"
    if not (folder / "study.json").exists():
        raise InputError(f"reports/{folder.name} holds files that are no study: {advice}.")
    stored = read_json(folder / "study.json")["settings"]
    changed = [key for key, value in shareable(settings).items() if stored.get(key) != value]
    private = read_json(folder / "local.json", default={})
    changed += [key for key in private if key not in changed and private[key] != place_of(key, getattr(settings, key))]
    if changed:
        raise InputError(
            f"reports/{folder.name} is a study with other settings ({', '.join(changed)}): {advice}, or add --overwrite."
        )


def _clear(folder: Path) -> None:
    """Delete a study, but for what a person wrote."""
    import shutil

    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != ANSWERS:
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def declared_parameters(notebook: Path) -> list[str]:
    """Return the names that the notebook's cell tagged ``parameters`` assigns."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    source = next("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", []))
    return [node.targets[0].id for node in ast.parse(source).body]


def notebook_parameters(step: Step, settings: Settings) -> dict[str, Any]:
    """Return every parameter the step's notebook declares as a plain literal."""
    values = shareable(settings) | step.parameters
    return {name: values[name] for name in declared_parameters(notebooks_folder() / f"{step.notebook}.ipynb")}


def _run_steps(steps: list[Step], state: dict, settings: Settings, folder: Path) -> None:
    """Run each step once those it needs have ended, a few at a time: one step alone leaves cores idle."""
    records = {record["name"]: record for record in state["steps"]}
    waiting, running = list(steps), {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while waiting or running:
            for step in list(waiting):
                ended = [records[name]["state"] for name in step.needs if records[name]["state"] in _ENDED]
                if len(running) == _AT_ONCE or len(ended) < len(step.needs):
                    continue
                waiting.remove(step)
                enough = any if step.any_need else all
                if not enough(word == "done" for word in ended):
                    _skip(step, records)
                    continue
                for path in step.writes:
                    (folder / path).unlink(missing_ok=True)
                records[step.name] |= {"state": "running", "started": now()}
                log.info("[%d/%d] %s", steps.index(step) + 1, len(steps), step.name)
                running[pool.submit(_execute, step, settings, folder)] = (step, time.monotonic())
            _save(folder, state)
            for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                step, started = running.pop(future)
                _finish(step, records[step.name], future.result(), time.monotonic() - started)
                if records[step.name]["state"] == "done":
                    _follow(step, state, folder)


def _follow(step: Step, state: dict, folder: Path) -> None:
    """Write what comes with a step that succeeded: the data's fingerprint, or a model's card."""
    if step.notebook == "01_data_exploration":
        state["data"] = _fingerprint(folder)
    model = step.parameters.get("model", "")
    if step.notebook == "03_evaluate_model" and (folder / model / "metrics.json").exists():
        write_model_card(folder, model)


def _skip(step: Step, records: dict[str, dict]) -> None:
    missing = [name for name in step.needs if records[name]["state"] != "done"]
    records[step.name] |= {"state": "not run", "error": f"It needs {', '.join(missing)}."}
    log.warning("%s not run: it needs %s", step.name, ", ".join(missing))


def _finish(step: Step, record: dict, error: str, seconds: float) -> None:
    record |= {"seconds": round(seconds, 1), "state": "failed" if error else "done"}
    if error:
        record["error"] = error
        log.error("%s failed after %.0f s: %s", step.name, seconds, error)
    else:
        log.info("%s done in %.0f s", step.name, seconds)


def _fingerprint(folder: Path) -> dict[str, Any]:
    manifest = read_csv(folder / "manifest.csv")
    return {"files": len(manifest), "fingerprint": hash_of(sorted(manifest["sha256"].dropna()))}


def _execute(step: Step, settings: Settings, folder: Path) -> str:
    """Run one notebook; return an empty string, or what went wrong in one sentence."""
    import papermill

    target = folder / f"{step.name}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.stem}.partial.ipynb")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    printed, progress = _ConsoleLines(step.name), _ConsoleLines(step.name)
    error = ""
    try:
        papermill.execute_notebook(
            notebooks_folder() / f"{step.notebook}.ipynb",
            partial,
            parameters=notebook_parameters(step, settings),
            kernel_name="python3",
            cwd=root(),
            progress_bar=False,
            stdout_file=printed,
            stderr_file=progress,
            extra_arguments=["--IPKernelApp.log_level=40", f"--IPKernelApp.exec_lines={_QUIET}"],
        )
    except papermill.exceptions.PapermillExecutionError as problem:
        error = str(problem.evalue).strip().splitlines()[0] if problem.evalue else problem.ename
        if problem.ename != "InputError":
            error = f"{problem.ename}: {error}"
    except Exception as problem:
        error = f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else 'the kernel died'}"
    printed.close()
    progress.close()
    for path in (target, target.with_suffix(".html")):
        path.unlink(missing_ok=True)
    if partial.exists():
        import nbformat

        write_html(partial, target.with_suffix(".html"), error=error)
        nb = nbformat.read(partial, as_version=4)
        clean_notebook(nb, folder)
        nbformat.write(nb, partial)
        partial.replace(target)
    return redact(error, folder)


class _ConsoleLines:
    """Where a notebook's printed lines go: whole lines to the log, progress lines to the console alone.

    A line that overwrites itself (carriage return) is shown live on a terminal; the log keeps it once in a
    while, so that an unattended run can be followed too.
    """

    def __init__(self, step: str, every: float = 10.0) -> None:
        self.step, self.every, self.pending, self.logged, self.live = step, every, "", time.monotonic(), False

    def write(self, text: str) -> None:
        self.pending += text
        *whole, self.pending = self.pending.split("\n")
        for line in whole:
            last = line.rstrip("\r").split("\r")[-1].strip()
            if last:
                self._end_live()
                log.info("  %s: %s", self.step, last)
        progress = [part.strip() for part in self.pending.split("\r") if part.strip()]
        self.pending = self.pending[self.pending.rfind("\r") + 1 :] if progress else self.pending
        if progress:
            self._show(progress[-1])

    def _show(self, line: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[2K  {self.step}: {line}"[:160])
            sys.stderr.flush()
            self.live = True
        if time.monotonic() - self.logged > self.every:
            self.logged = time.monotonic()
            self._end_live()
            log.info("  %s: %s", self.step, line)

    def _end_live(self) -> None:
        if self.live:
            sys.stderr.write("\r\x1b[2K")
            self.live = False

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._end_live()


def _save(folder: Path, state: dict) -> Path:
    write_json(folder / "study.json", state)
    return write_index(folder)


def _log_results(folder: Path) -> None:
    if (folder / "comparison.csv").exists():
        from xray_helpers.reporting import headline_table

        for row in headline_table(read_csv(folder / "comparison.csv")):
            log.info("  %s", ", ".join(f"{key} {value}" for key, value in row.items()))


@contextmanager
def _logging_to(folder: Path) -> Iterator[None]:
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    form = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S")
    handlers = [logging.FileHandler(folder / f"log-{stamp}.log", encoding="utf-8"), logging.StreamHandler()]
    log.setLevel(logging.INFO)
    for handler in handlers:
        handler.setFormatter(form)
        handler.addFilter(lambda record: _redact(record, folder))
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


def _redact(record: logging.LogRecord, folder: Path) -> bool:
    record.msg, record.args = redact(record.getMessage(), folder), None
    return True
