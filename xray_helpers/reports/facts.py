"""What a study knows of itself, in sentences: its settings, data, models and choices."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.data.leaks import describe_leak, measure_leak
from xray_helpers.data.manifest import count_flow
from xray_helpers.data.parts import class_balance
from xray_helpers.evaluation.calibration import describe_calibration
from xray_helpers.evaluation.comparison import choose_primary, describe_comparison, flatten_metrics
from xray_helpers.evaluation.failures import describe_failures
from xray_helpers.evaluation.intervals import describe
from xray_helpers.evaluation.metrics import METRIC_TITLES, METRICS
from xray_helpers.evaluation.operating_point import describe_choice
from xray_helpers.evaluation.planning import describe_plan, plan_test
from xray_helpers.evaluation.subgroups import describe_subgroups
from xray_helpers.explain.shortcut_verdicts import describe_controls, read_shortcuts
from xray_helpers.reports.display import study_banners
from xray_helpers.same_source.groups import find_label_conflicts
from xray_helpers.settings import VALIDATION
from xray_helpers.study.files import read_csv, read_json
from xray_helpers.study.folders import read_class_names


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
    rules = {
        "youden": "Youden's J at its largest",
        "fixed": "fixed at 0.5",
        "sensitivity": f"a sensitivity of {s['target_sensitivity']:g}",
    }
    fixed = s["threshold_rule"] == "fixed"
    weighted = "Each image counts alike in the loss"
    if s.get("class_weight", "none") == "balanced":
        weighted = (
            "Each class counts alike in the loss, so that probabilities are those of a set with as "
            "many of either"
        )
    own = (
        "each backbone's own preprocessing"
        if s["normalization"] == "imagenet"
        else "[0, 1] for all backbones"
    )
    fitted = "padded to" if s.get("resize") == "pad" else "stretched to"
    border = {
        "keep": "",
        "blank": " Border and corners were blanked.",
        "only": " Only border and corners were kept.",
    }
    control = f"{describe_controls(s)} " if describe_controls(s) else ""
    return {
        "approach": f"{control}Deep learning: transfer learning with convolutional networks ({models}).",
        "task": f"Tell {positive} (positive class) from {negative} in single radiographs; develop and "
        f"compare {models}.",
        "data": "Synthetic radiographs made by the software (phantoms), no patients."
        if s["data"] == "phantoms"
        else "",
        "preprocessing": f"Grey, 8 bits, {fitted} {size} pixels, repeated to three channels, "
        f"{own}.{border[s['border']]}",
        "subset": f"A share of {s['use_subset']:g} of the groups' images was used."
        if s["use_subset"] < 1
        else "All were used.",
        "privacy": "What is sent (html STUDY) holds no path of the machine; patients are salted hashes, "
        "other columns are sent "
        "only where they make subgroups, and --anonymous puts numbers in the place of file names.",
        "imbalance": f"{weighted}; no resampling; parts are stratified by label.",
        "architecture": f"{models}, each without its top layers, global average pooling, and a head: dropout "
        f"{s['dropout_rate']:g}, a dense layer, dropout, one sigmoid; grey pixels in, P({positive}) out.",
        "software": ", ".join(f"{name} {version}" for name, version in record["versions"].items()) + ".",
        "hardware": f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}.",
        "weights": weights.get(s["weights"], "Backbones: ImageNet weights from a local copy.")
        + " Heads: Glorot uniform.",
        "training": f"Adam, learning rate {s['learning_rate']:g}, batch {s['batch_size']}, binary "
        "cross-entropy, up to "
        f"{s['epochs']} epochs on the features of the frozen backbone, stopped after {s['patience']} "
        f"without a better loss on images aside, learning rate times {s['lr_factor']:g} on plateaus down to "
        f"{s['min_lr']:g}{tuned}.",
        "augmentation": f"{s['augment_views']} augmented views of each training image beside itself, one "
        "an epoch."
        if s["augment_views"]
        else "None: frozen features did not gain by it in measurements of this software.",
        "seed": f"Seed {s['seed']} of sampling, splits, augmentation and training.",
        "selection": "Among models, the highest AUROC on validation. Test images informed nothing.",
        "threshold": f"Output is P({positive}); an image is called {positive} from a threshold upwards, "
        f"{'' if fixed else 'chosen without test by '}{rules[s['threshold_rule']]}, before test was "
        "predicted.",
        "metrics": ", ".join(METRIC_TITLES[name] for name in METRICS) + "; reliability, decision curve.",
        "uncertainty": "95 % intervals that count images of one source or patient together (jackknife of "
        "groups, Student's t, or "
        "Wilson at the effective sample size; none below 8 effective groups of a class); paired test by "
        "swaps "
        "of whole groups, and McNemar or its form for groups, with Holm's correction.",
        "explanations": "Grad-CAM at the last convolution; checked by occlusion, by permuting the weights "
        "and, where boxes are "
        "known, by pointing game and energy beside the box's share of the picture, a centred blob and the "
        "maps of other images."
        if s.get("maps")
        else "No maps were made.",
        "blind": "The model is given the pixels alone, no clinical information and no label.",
        "predictors": "The pixels; nothing else, and nothing was selected by hand.",
        "adverse": "Not applicable: existing images were analysed.",
        "updating": "Not applicable to the decisions; temperature scaling from validation is reported "
        "beside the probabilities.",
        "outputs": "Every prediction is in predictions_*.csv; model.keras takes grey pixels 0 to 255 and "
        f"returns P({positive}).",
        "settings": "All settings are in study.json.",
        "robustness": f"Heads trained again with {s['repeats']} other seeds and over {s['folds']} "
        "group-aware folds."
        if s["repeats"]
        else "",
    }


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
        "missing": f"{unread} unreadable files were left out with their reasons in manifest.csv; nothing "
        "was imputed.",
        "files": f"Median {np.median(sizes['height']):.0f} x {np.median(sizes['width']):.0f} pixels "
        "(height x width); modes "
        f"{_shares(used['mode'])}.",
        "labels": "Labels as the data set gives them, by folder or table.",
        "conflicts": f"{len(conflicts)} sources carry both labels."
        if len(conflicts)
        else "No source carries both labels.",
        "partitions": f"{'; '.join(parts)}; {how}.",
        "disjoint": describe_leak(leak) if leak["groups"] else f"No group on two sides: disjoint at {level}.",
        "size": f"{balance.set_index('split').loc['test', 'n']} test images in "
        f"{balance.set_index('split').loc['test', 'groups']} groups, as many as the set gave. "
        f"{describe_plan(plan_test(manifest), manifest)}",
        "characteristics": "; ".join(parts) + (f". All parts: {more}" if more else "") + ".",
    }


def _shares(values: pd.Series) -> str:
    counts = values.fillna("unknown").astype(str).value_counts()
    more = f" and {len(counts) - 6} more" if len(counts) > 6 else ""
    return ", ".join(f"{name} {n}" for name, n in counts.head(6).items()) + more


def _facts_of_models(folder: Path, models: list[str], record: dict[str, Any]) -> dict[str, str]:
    scores = {name: read_json(folder / name / "metrics.json") for name in models}
    table = pd.DataFrame([{"model": name} | flatten_metrics(entry) for name, entry in scores.items()])
    primary, named = (
        record["settings"].get(key, word)
        for key, word in (("primary", "auroc"), ("primary_model", VALIDATION))
    )
    best = choose_primary(table, named)
    top, how = scores[best], "named beforehand" if best == named else "preferred by validation"
    manifest, found = read_csv(folder / "manifest.csv"), read_shortcuts(folder, models)
    baseline = max(top["prevalence"], 1 - top["prevalence"])
    facts = {
        "performance": "AUROC on test (validation): "
        + "; ".join(
            f"{name} {describe(s['auroc'])} ({describe(s['validation']['auroc'])})"
            for name, s in scores.items()
        )
        + ".",
        "accuracy": f"{best}, {how}, on {top['n']} test images: "
        + "; ".join(
            f"{METRIC_TITLES[name]} {describe(top[name])}"
            for name in ("recall", "specificity", "precision", "npv", "accuracy")
        )
        + f"; majority class {baseline:.2f}.",
        "table": f"{best} on test: {top['tp']} true and {top['fp']} false positives, {top['tn']} true and "
        f"{top['fn']} false "
        f"negatives at the threshold {top['threshold']:.2f} ({top['threshold_rule']}).",
        "internal": f"Held-out test part beside validation; {best} has AUROC {describe(top['auroc'])} on "
        "test and "
        f"{describe(top['validation']['auroc'])} on validation.",
        "limits": " ".join(
            [text for _, text in study_banners(record, manifest, found)] or ["None that the run could see."]
        ),
        "ensembles": "The mean of all models' probabilities, and a logistic stack of their log-odds, "
        "fitted on "
        "what their thresholds were chosen on (ensembles.csv)."
        if len(models) > 1
        else "Not applicable: one model.",
    }
    facts |= _facts_of_choices(folder, models, record)
    own = {
        name: folder / best / f"{name}.csv"
        for name in ("subgroups", "failures", "decision_curve", "calibration")
    }
    if all(path.exists() for path in own.values()):
        facts |= evaluated_facts(folder, best)
    if (folder / "comparison.csv").exists():
        pairs = read_csv(folder / "pairs.csv") if (folder / "pairs.csv").exists() else None
        facts["verdict"] = describe_comparison(
            read_csv(folder / "comparison.csv"), baseline, pairs, primary=primary, model=named
        )
    return facts


def _facts_of_choices(folder: Path, models: list[str], record: dict[str, Any]) -> dict[str, str]:
    """Return what decided each model's epochs and threshold; models of which the same is true stand
    together.
    """
    epochs, thresholds = {}, {}
    for model in models:
        by = read_json(folder / model / "training.json").get(
            "epochs_by", "The epoch kept is the best on validation."
        )
        epochs.setdefault(by, []).append(model)
        chosen = read_json(folder / model / "threshold.json")
        thresholds.setdefault(describe_choice(chosen), []).append(model)
    known = _facts_of_settings(record, *read_class_names(folder))

    def join(told: dict[str, list[str]]) -> str:
        return (
            " ".join(told)
            if len(told) == 1
            else " ".join(f"{', '.join(of)}: {text}" for text, of in told.items())
        )

    return {
        "selection": f"{join(epochs)} {known['selection']}",
        "threshold": f"{known['threshold']} {join(thresholds)}",
    }


def evaluated_facts(folder: Path, model: str) -> dict[str, str]:
    """Return what is known of one model's subgroups, failures and calibration, a few sentences each."""
    tables = {
        name: read_csv(folder / model / f"{name}.csv") for name in ("subgroups", "failures", "decision_curve")
    }
    flat = read_csv(folder / model / "calibration.csv").iloc[0].to_dict()
    nested = {name: value for name, value in flat.items() if "." not in name}
    for when in ("before", "after"):
        nested[when] = {
            name.split(".")[1]: value for name, value in flat.items() if name.startswith(f"{when}.")
        }
    errors = tables["failures"].query("kind == 'confident error'")
    return {
        "subgroups": f"{model}: {describe_subgroups(tables['subgroups'])}",
        "failures": f"{model}: "
        f"{describe_failures(errors, read_csv(folder / model / 'predictions_test.csv'))}",
        "calibration": f"{model}: {describe_calibration(nested, tables['decision_curve'])}",
    }
