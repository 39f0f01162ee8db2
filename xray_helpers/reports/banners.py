"""The warnings that a reader must see first, as pairs of kind (``bad`` or ``warn``) and sentence."""

import re
import shlex
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.data.leaks import describe_leak, measure_leak
from xray_helpers.data.parts import class_balance, used_part
from xray_helpers.evaluation.intervals import effective_groups
from xray_helpers.evaluation.planning import find_uneven_parts
from xray_helpers.explain.shortcut_verdicts import describe_controls
from xray_helpers.settings import CLASS_NAMES, MIN_GROUPS, PROFILES, Settings, class_names, number_of
from xray_helpers.study.folders import LOCAL
from xray_helpers.study.records import STALE

Banner = tuple[str, str]
_RANDOM = (
    "Random weights: no ImageNet weights were used, so the backbones see little, and the scores say nothing "
    "about what trained networks reach."
)
_FEW = 100  # test images below which their number is a warning


def notebook_banners(
    weights: tuple[str, ...], manifest: pd.DataFrame | None, control: str, settings: dict[str, Any]
) -> list[Banner]:
    """Return the warnings of a notebook; see `display.show_banner`."""
    banners = [("warn", control)] if control else []
    if manifest is not None:
        if (leak := measure_leak(manifest, manifest["split"]))["groups"]:
            banners.append(("bad", describe_leak(leak)))
        if settings and (sampling := describe_sampling(settings, manifest)):
            banners.append(("warn", sampling))
        banners += [("warn", text) for text in find_uneven_parts(manifest)]
    return banners + ([("warn", _RANDOM)] if "random" in weights else [])


def study_banners(
    study: dict[str, Any], manifest: pd.DataFrame | None, shortcuts: dict[str, dict[str, str]] | None = None
) -> list[Banner]:
    """Return the warnings of a study, the most important first.

    Parameters
    ----------
    study : dict
        ``study.json``.
    manifest : DataFrame, optional
    shortcuts : dict, optional
        Of `shortcut_verdicts.read_shortcuts`.
    """
    banners = []
    if manifest is not None and (leak := measure_leak(manifest, manifest["split"]))["groups"]:
        banners.append(("bad", describe_leak(leak) + " Scores below are inflated."))
    banners += [("bad", each["banner"]) for each in (shortcuts or {}).values() if each["banner"]]
    if control := describe_controls(study["settings"]):
        banners.append(("warn", control))
    banners += [("bad", text) for text in describe_incomplete_steps(study)]
    if study["settings"]["weights"] == "random":
        banners.append(("warn", _RANDOM))
    if manifest is not None:
        texts = [describe_sampling(study["settings"], manifest), *_describe_limits(manifest)]
        banners += [("warn", text) for text in texts if text]
    return banners


def describe_sampling(settings: dict[str, Any], manifest: pd.DataFrame) -> str:
    """Return that a study used a part of the images, or few epochs, and what to run next; else nothing."""
    counts, limits = manifest["status"].value_counts(), []
    if rest := counts.get("not sampled", 0):
        limits.append(f"{counts['used']:,} of {counts['used'] + rest:,} images")
    if settings.get("epochs", np.inf) <= Settings().epochs:
        limits.append(f"at most {settings['epochs']} epochs")
    if not limits:
        return ""
    return f"A first look: {' and '.join(limits)} were used. For a result: {full_command(settings)}"


def full_command(settings: dict[str, Any], more: str = "-full") -> str:
    """Return the command that runs a study with the profile ``full`` under another name."""
    usual = Settings().model_dump(mode="json")
    named = {"name": settings["name"].replace("/", "-") + more, "data": settings["data"]}
    named |= {"models": settings["models"]} if list(settings["models"]) != usual["models"] else {}
    left = {*named, *PROFILES["full"], "models", "sources"}
    own = {key: value for key, value in settings.items() if key not in left and value != usual.get(key)}
    words = [word for key, value in named.items() for word in (f"--{key}", _write_value(value))]
    words += [word for key, value in own.items() for word in ("-p", f"{key}={_write_value(value)}")]
    return " ".join(["python -m xray_helpers run", *map(shlex.quote, words)])


def _write_value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "FOLDER" if value == LOCAL else str(value)


def describe_incomplete_steps(study: dict[str, Any]) -> list[str]:
    """Return a sentence on the steps that failed, and one on those that are stale."""
    steps = study.get("steps", [])
    failed, stale = (
        [step["name"] for step in steps if step["state"] == state] for state in ("failed", STALE)
    )
    texts = [f"{len(failed)} of {len(steps)} steps failed: {', '.join(failed)}."] if failed else []
    if stale:
        texts.append(
            f"{len(stale)} of {len(steps)} steps are stale, because files that they read were changed later "
            f"by a notebook run by hand: {', '.join(stale)}. Their results are not shown; run the study's "
            "command again."
        )
    return texts


def _describe_limits(manifest: pd.DataFrame) -> list[str]:
    """Return a sentence per limit of the data: few test images or groups, uneven parts, files left out."""
    texts = []
    balance = class_balance(manifest).set_index("split")
    if "test" in balance.index and balance.loc["test", "n"] < _FEW:
        texts.append(f"The test part is small: {balance.loc['test', 'n']} images; look at the intervals.")
    texts += [*find_uneven_parts(manifest), *_describe_few_groups(manifest)]
    used = manifest["status"] == "used"
    notes = manifest.loc[used, "note"].dropna() if "note" in manifest else []
    if len(notes):
        kinds = ", ".join(sorted({re.sub(r"\d+ ", "", text) for text in notes}))
        texts.append(
            f"{number_of(len(notes), 'file used has', 'files used have')} "
            f"a note ({kinds}); manifest.csv names them."
        )
    left_out = manifest["status"].isin(["unreadable", "excluded"]).sum()
    if left_out:
        texts.append(f"{left_out} of {len(manifest)} files were left out; manifest.csv names the reasons.")
    return texts


def _describe_few_groups(manifest: pd.DataFrame) -> list[str]:
    """Return a sentence for each part with too few effective sources or patients of a class."""
    texts, names = [], dict(zip(CLASS_NAMES, class_names(), strict=True))
    for split, what in (("validation", "choices based on it alone"), ("test", "the scores")):
        groups = used_part(manifest, split).groupby("label")["group"]
        effective = groups.apply(effective_groups)
        if effective.empty or effective.min() >= MIN_GROUPS:
            continue
        counts = []
        for label, count in groups.nunique().items():
            worth = f", worth {effective[label]:.1f}" if effective[label] < count - 0.05 else ""
            counts.append(f"{count} of {names[label]}{worth}")
        texts.append(
            f"The {split} part has few sources or patients ({', '.join(counts)}): {what} are a matter of "
            "luck; out-of-fold scores, in 03, use all images."
        )
    return texts
