"""What a study can say of itself for reporting guidelines and model cards, and what only a person can."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from xray_helpers.breakdown import describe_failures, describe_subgroups
from xray_helpers.calibration import describe_calibration
from xray_helpers.comparison import choose_primary, conclude, flatten_metrics
from xray_helpers.duplicates import find_label_conflicts
from xray_helpers.intervals import describe_count
from xray_helpers.manifest import count_flow
from xray_helpers.metrics import METRIC_TITLES, METRICS, describe
from xray_helpers.operating import describe_choice
from xray_helpers.planning import describe_plan, plan_test
from xray_helpers.reporting import describe_engine, escape, study_banners
from xray_helpers.settings import VALIDATION, InputError, nearest
from xray_helpers.shortcut_verdicts import describe_controls, read_shortcuts
from xray_helpers.splits import class_balance, describe_leak, measure_leak
from xray_helpers.studies import ANSWERS, read_class_names, read_csv, read_json

_GUIDELINES = Path(__file__).parent / "templates" / "guidelines.yaml"


class Item(NamedTuple):
    """One item of a guideline: its number and topic, what is known, what is asked of a person, and its state.

    The state is ``filled``, ``blank`` or ``not applicable``.
    """

    number: str
    topic: str
    known: list[str]
    answer: str
    ask: str
    state: str


def read_guidelines() -> dict[str, Any]:
    """Return ``questions`` (name to what is asked) and ``guidelines`` (name, version, source, items)."""
    return yaml.safe_load(_GUIDELINES.read_text(encoding="utf-8"))


def read_answers(folder: Path) -> dict[str, str]:
    """Return what a person wrote into the study's ``study.yaml``; empty without one.

    Raises
    ------
    InputError
        When it cannot be read, or answers what nothing asks.
    """
    path = folder / ANSWERS
    if not path.exists():
        return {}
    try:
        answers = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f" at line {line + 1}" if line is not None else ""
        raise InputError(f"{folder.name}/{ANSWERS} is no YAML{where}: write one `name: text` a line.") from None
    if not isinstance(answers, dict):
        raise InputError(f"{folder.name}/{ANSWERS} holds no entries: write one `name: text` a line.")
    known = read_guidelines()["questions"]
    for name in answers:
        if name not in known:
            raise InputError(f"{folder.name}/{ANSWERS} answers {name!r}, which nothing asks{nearest(str(name), known)}")
    return {name: str(text).strip() for name, text in answers.items() if text is not None and str(text).strip()}


def blank_answers() -> str:
    """Return the text of a ``study.yaml`` with every question and no answer."""
    lines = ["# What only a person knows; `n/a: reason` where a question does not apply. All entries are optional."]
    for name, question in read_guidelines()["questions"].items():
        lines += ["", f"# {question}", f"{name}:"]
    return "\n".join(lines) + "\n"


def fill_guidelines(folder: Path, answers: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """Return every guideline with its items filled in as far as run and person know.

    Parameters
    ----------
    folder : Path
        Of the study.
    answers : dict, optional
        Instead of those in ``study.yaml``.

    Returns
    -------
    list of dict
        name, version, source, items (list of `Item`), counts (state to number).
    """
    facts = collect_facts(folder)
    answers = read_answers(folder) if answers is None else answers
    guidelines = []
    for entry in read_guidelines()["guidelines"]:
        items = [_fill(*row, facts, answers) for row in entry["items"]]
        counts = {state: sum(item.state == state for item in items) for state in ("filled", "blank", "not applicable")}
        guidelines.append(
            {key: entry[key] for key in ("name", "version", "source")} | {"items": items, "counts": counts}
        )
    return guidelines


def _fill(number: str, topic: str, names: list[str], ask: str, facts: dict[str, str], answers: dict[str, str]) -> Item:
    known = [facts[name] for name in names if facts.get(name)]
    answer = answers.get(ask, "")
    declined = answer.lower().startswith(("n/a", "not applicable")) or (
        not ask and known and all(text.startswith("Not applicable") for text in known)
    )
    filled = bool(answer) if ask else len(known) == len(names)
    return Item(number, topic, known, answer, ask, "not applicable" if declined else "filled" if filled else "blank")


def collect_facts(folder: Path) -> dict[str, str]:
    """Return what the study knows, a sentence or two a fact; those of steps that have not run are missing."""
    record = read_json(folder / "study.json")
    facts = _facts_of_settings(record, *read_class_names(folder))
    if (folder / "manifest.csv").exists():
        facts |= _facts_of_data(read_csv(folder / "manifest.csv"), record["settings"])
    models = [name for name in record["settings"]["models"] if (folder / name / "metrics.json").exists()]
    if models:
        facts |= _facts_of_models(folder, models, record)
    return facts


def _facts_of_settings(record: dict[str, Any], negative: str, positive: str) -> dict[str, str]:
    s, machine = record["settings"], record["machine"]
    models = ", ".join(s["models"])
    size = " x ".join(map(str, s["img_size"]))
    tuned = (
        f"; then {s['fine_tune_epochs']} epochs of fine-tuning from {s['fine_tune_from']}"
        if s["fine_tune_epochs"]
        else ""
    )
    weights = {
        "random": "Random weights: none were trained.",
        "imagenet": "Backbones: ImageNet weights that Keras publishes.",
    }
    rules = {"youden": "Youden's J at its largest", "fixed": "fixed at 0.5",
             "sensitivity": f"a sensitivity of {s['target_sensitivity']:g}"}  # fmt: skip
    fixed = s["threshold_rule"] == "fixed"
    weighted = "Each image counts alike in the loss"
    if s.get("class_weight", "none") == "balanced":
        weighted = (
            "Each class counts alike in the loss, so that probabilities are those of a set with as many of either"
        )
    own = "each backbone's own preprocessing" if s["normalization"] == "imagenet" else "[0, 1] for all backbones"
    fitted = "padded to" if s.get("resize") == "pad" else "stretched to"
    border = {"keep": "", "blank": " Border and corners were blanked.", "only": " Only border and corners were kept."}
    control = f"{describe_controls(s)} " if describe_controls(s) else ""
    return {
        "approach": f"{control}Deep learning: transfer learning with convolutional networks ({models}).",
        "task": f"Tell {positive} (positive class) from {negative} in single radiographs; develop and compare {models}.",
        "data": "Synthetic radiographs made by the software (phantoms), no patients." if s["data"] == "phantoms" else "",
        "preprocessing": f"Grey, 8 bits, {fitted} {size} pixels, repeated to three channels, {own}.{border[s['border']]}",
        "subset": f"A share of {s['use_subset']:g} of the groups' images was used." if s["use_subset"] < 1 else "All were used.",
        "privacy": "What is sent (html STUDY) holds no path of the machine; patients are salted hashes, other columns are sent "
                   "only where they make subgroups, and --anonymous puts numbers in the place of file names.",
        "imbalance": f"{weighted}; no resampling; parts are stratified by label.",
        "architecture": f"{models}, each without its top layers, global average pooling, and a head: dropout "
                        f"{s['dropout_rate']:g}, a dense layer, dropout, one sigmoid; grey pixels in, P({positive}) out.",
        "software": ", ".join(f"{name} {version}" for name, version in record["versions"].items()) + ".",
        "hardware": f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}.",
        "weights": weights.get(s["weights"], "Backbones: ImageNet weights from a local copy.") + " Heads: Glorot uniform.",
        "training": f"Adam, learning rate {s['learning_rate']:g}, batch {s['batch_size']}, binary cross-entropy, up to "
                    f"{s['epochs']} epochs on the features of the frozen backbone, stopped after {s['patience']} "
                    f"without a better loss on images aside, learning rate times {s['lr_factor']:g} on plateaus down to "
                    f"{s['min_lr']:g}{tuned}.",
        "augmentation": f"{s['augment_views']} augmented views of each training image beside itself, one an epoch."
                        if s["augment_views"] else "None: frozen features did not gain by it in measurements of this software.",
        "seed": f"Seed {s['seed']} of sampling, splits, augmentation and training.",
        "selection": "Among models, the highest AUROC on validation. Test images informed nothing.",
        "threshold": f"Output is P({positive}); an image is called {positive} from a threshold upwards, "
                     f"{'' if fixed else 'chosen without test by '}{rules[s['threshold_rule']]}, before test was predicted.",
        "metrics": ", ".join(METRIC_TITLES[name] for name in METRICS) + "; reliability, decision curve.",
        "uncertainty": "95 % intervals that count images of one source or patient together (jackknife of groups, Student's t, or "
                       "Wilson at the effective sample size; none below 8 effective groups of a class); paired test by swaps "
                       "of whole groups, and McNemar or its form for groups, with Holm's correction.",
        "explanations": "Grad-CAM at the last convolution; checked by occlusion, by permuting the weights and, where boxes are "
                        "known, by pointing game and energy beside the box's share of the picture, a centred blob and the "
                        "maps of other images." if s.get("maps") else "No maps were made.",
        "blind": "The model is given the pixels alone, no clinical information and no label.",
        "predictors": "The pixels; nothing else, and nothing was selected by hand.",
        "adverse": "Not applicable: existing images were analysed.",
        "updating": "Not applicable to the decisions; temperature scaling from validation is reported beside the probabilities.",
        "outputs": f"Every prediction is in predictions_*.csv; model.keras takes grey pixels 0 to 255 and returns P({positive}).",
        "settings": "All settings are in study.json.",
        "robustness": f"Heads trained again with {s['repeats']} other seeds and over {s['folds']} group-aware folds."
                      if s["repeats"] else "",
    }  # fmt: skip


def _facts_of_data(manifest: pd.DataFrame, settings: dict[str, Any]) -> dict[str, str]:
    flow = [(row.step, row.files) for row in count_flow(manifest).itertuples()]
    used = manifest[manifest["status"] == "used"]
    balance = class_balance(manifest)
    known = used["patient"].notna()
    leak = measure_leak(manifest, manifest["split"])
    level = "patient level" if known.all() else "image-source level, patients unknown"
    if known.any() and not known.all():
        level = f"patient level for {known.sum()} of {len(used)} images, image-source level for the others"
    unread = int(manifest["status"].eq("unreadable").sum())
    conflicts = find_label_conflicts(manifest)
    parts = [
        f"{row.split} {row.n} images in {row.groups} groups, {row.fractured} of the positive class"
        for row in balance.itertuples()
    ]
    sizes = used[["height", "width"]].astype(float)
    how = "the set's own folders" if settings["split"] == "folders" else "drawn by group, stratified by label"
    columns = [name for name in ("body_part", "view", "sex", "age") if name in used]
    more = "; ".join(f"{name}: {_shares(used[name])}" for name in columns)
    return {
        "flow": ", ".join(f"{step} {files}" for step, files in flow) + ".",
        "missing": f"{unread} unreadable files were left out with their reasons in manifest.csv; nothing was imputed.",
        "files": f"Median {np.median(sizes['height']):.0f} x {np.median(sizes['width']):.0f} pixels (height x width); modes "
                 f"{_shares(used['mode'])}.",
        "labels": "Labels as the data set gives them, by folder or table.",
        "conflicts": f"{len(conflicts)} sources carry both labels." if len(conflicts) else "No source carries both labels.",
        "partitions": f"{'; '.join(parts)}; {how}.",
        "disjoint": describe_leak(leak) if leak["groups"] else f"No group on two sides: disjoint at {level}.",
        "size": f"{balance.set_index('split').loc['test', 'n']} test images in "
                f"{balance.set_index('split').loc['test', 'groups']} groups, as many as the set gave. "
                f"{describe_plan(plan_test(manifest), manifest)}",
        "characteristics": "; ".join(parts) + (f". All parts: {more}" if more else "") + ".",
    }  # fmt: skip


def _shares(values: pd.Series) -> str:
    counts = values.fillna("unknown").astype(str).value_counts()
    more = f" and {len(counts) - 6} more" if len(counts) > 6 else ""
    return ", ".join(f"{name} {n}" for name, n in counts.head(6).items()) + more


def _facts_of_models(folder: Path, models: list[str], record: dict[str, Any]) -> dict[str, str]:
    scores = {name: read_json(folder / name / "metrics.json") for name in models}
    table = pd.DataFrame([{"model": name} | flatten_metrics(entry) for name, entry in scores.items()])
    primary, named = (
        record["settings"].get(key, word) for key, word in (("primary", "auroc"), ("primary_model", VALIDATION))
    )
    best = choose_primary(table, named)
    top, how = scores[best], "named beforehand" if best == named else "preferred by validation"
    manifest, found = read_csv(folder / "manifest.csv"), read_shortcuts(folder, models)
    baseline = max(top["prevalence"], 1 - top["prevalence"])
    facts = {
        "performance": "AUROC on test (validation): " + "; ".join(
            f"{name} {describe(s['auroc'])} ({describe(s['validation']['auroc'])})" for name, s in scores.items()) + ".",
        "accuracy": f"{best}, {how}, on {top['n']} test images: " + "; ".join(
            f"{METRIC_TITLES[name]} {describe(top[name])}" for name in ("recall", "specificity", "precision", "npv", "accuracy")
        ) + f"; majority class {baseline:.2f}.",
        "table": f"{best} on test: {top['tp']} true and {top['fp']} false positives, {top['tn']} true and {top['fn']} false "
                 f"negatives at the threshold {top['threshold']:.2f} ({top['threshold_rule']}).",
        "internal": f"Held-out test part beside validation; {best} has AUROC {describe(top['auroc'])} on test and "
                    f"{describe(top['validation']['auroc'])} on validation.",
        "limits": " ".join([text for _, text in study_banners(record, manifest, found)] or ["None that the run could see."]),
        "ensembles": "The mean of all models' probabilities, and a logistic stack of their log-odds, fitted on "
                     "what their thresholds were chosen on (ensembles.csv)." if len(models) > 1 else "Not applicable: one model.",
    }  # fmt: skip
    facts |= _facts_of_choices(folder, models, record)
    own = {name: folder / best / f"{name}.csv" for name in ("subgroups", "failures", "decision_curve", "calibration")}
    if all(path.exists() for path in own.values()):
        facts |= judged_facts(folder, best)
    if (folder / "comparison.csv").exists():
        pairs = read_csv(folder / "pairs.csv") if (folder / "pairs.csv").exists() else None
        facts["verdict"] = conclude(read_csv(folder / "comparison.csv"), baseline, pairs, primary=primary, model=named)
    return facts


def _facts_of_choices(folder: Path, models: list[str], record: dict[str, Any]) -> dict[str, str]:
    """Return what decided each model's epochs and threshold; models of which the same is true stand together."""
    epochs, thresholds = {}, {}
    for model in models:
        by = read_json(folder / model / "training.json").get("epochs_by", "The epoch kept is the best on validation.")
        epochs.setdefault(by, []).append(model)
        chosen = read_json(folder / model / "threshold.json")
        thresholds.setdefault(describe_choice(chosen), []).append(model)
    known = _facts_of_settings(record, *read_class_names(folder))

    def join(told: dict[str, list[str]]) -> str:
        return " ".join(told) if len(told) == 1 else " ".join(f"{', '.join(of)}: {text}" for text, of in told.items())

    return {
        "selection": f"{join(epochs)} {known['selection']}",
        "threshold": f"{known['threshold']} {join(thresholds)}",
    }


def judged_facts(folder: Path, model: str) -> dict[str, str]:
    """Return what is known of one model's subgroups, failures and calibration, a few sentences each."""
    tables = {name: read_csv(folder / model / f"{name}.csv") for name in ("subgroups", "failures", "decision_curve")}
    flat = read_csv(folder / model / "calibration.csv").iloc[0].to_dict()
    nested = {name: value for name, value in flat.items() if "." not in name}
    for when in ("before", "after"):
        nested[when] = {name.split(".")[1]: value for name, value in flat.items() if name.startswith(f"{when}.")}
    errors = tables["failures"].query("kind == 'confident error'")
    return {
        "subgroups": f"{model}: {describe_subgroups(tables['subgroups'])}",
        "failures": f"{model}: {describe_failures(errors, read_csv(folder / model / 'predictions_test.csv'))}",
        "calibration": f"{model}: {describe_calibration(nested, tables['decision_curve'])}",
    }


def card_values(folder: Path, model: str, *, answers: dict[str, str] | None = None) -> dict[str, Any]:
    """Return what the model card's template shows: scores, facts, answers (by default a study's), how it is loaded."""
    record = read_json(folder / "study.json")
    scores = read_json(folder / model / "metrics.json")
    trained = read_json(folder / model / "training.json")
    given = read_answers(folder) if answers is None else answers
    rows = [(METRIC_TITLES[name], describe(scores[name]), describe(scores["validation"][name])) for name in METRICS]
    return {
        "model": model, "study": folder.name, "created": record["created"][:10], "scores": scores, "rows": rows,
        "answers": {name: escape(text) for name, text in given.items()},
        "trained": trained, "engine": describe_engine(trained["engine"]),
        "facts": collect_facts(folder) | judged_facts(folder, model), "settings": record["settings"],
        "class_names": read_class_names(folder), "count": describe_count(scores, "test images"),
    }  # fmt: skip
