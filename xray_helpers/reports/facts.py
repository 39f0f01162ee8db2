"""What a study knows of itself, in sentences by name: the facts of checklists and model cards."""

from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from xray_helpers.data.exams import describe_exams, exams_table
from xray_helpers.data.manifest import count_flow
from xray_helpers.data.parts import class_balance
from xray_helpers.evaluation.calibration import describe_calibration
from xray_helpers.evaluation.comparison import choose_primary, flatten_metrics
from xray_helpers.evaluation.exams import describe_exams_of
from xray_helpers.evaluation.failures import describe_failures
from xray_helpers.evaluation.intervals import describe
from xray_helpers.evaluation.metrics import METRIC_TITLES
from xray_helpers.evaluation.operating_point import describe_choice
from xray_helpers.evaluation.planning import describe_plan, plan_test
from xray_helpers.evaluation.subgroups import describe_subgroups
from xray_helpers.explain.shortcut_verdicts import describe_controls, read_shortcuts
from xray_helpers.reports.banners import study_banners
from xray_helpers.reports.external import describe_external, describe_external_mix
from xray_helpers.reports.frame import TEMPLATES
from xray_helpers.reports.results import describe_outcome, primary_model, read_table
from xray_helpers.reports.text import describe_parts
from xray_helpers.same_source.groups import find_label_conflicts
from xray_helpers.settings import Settings, number_of
from xray_helpers.study.files import read_csv, read_json
from xray_helpers.study.folders import read_class_names


def collect_facts(folder: Path) -> dict[str, str]:
    """Return the facts of a study, a sentence or two each; those of steps that have not run are missing."""
    record = read_json(folder / "study.json")
    facts = _facts_of_settings(record, *read_class_names(folder))
    manifest = read_table(folder / "manifest.csv")
    if manifest is not None:
        facts |= _facts_of_data(manifest, record["settings"])
    models = [name for name in record["settings"]["models"] if (folder / name / "metrics.json").exists()]
    if external := describe_external(folder):
        facts |= {"external": external, "external_mix": describe_external_mix(folder)}
    if models:
        facts |= _facts_of_models(folder, models, record) | _facts_of_choices(folder, models, facts)
    return facts


def _facts_of_settings(record: dict[str, Any], negative: str, positive: str) -> dict[str, str]:
    settings, machine = record["settings"], record["machine"]
    control = describe_controls(settings)
    values = {
        "s": settings,
        "tuning_epochs": Settings(**settings).tuning_epochs,
        "models": ", ".join(settings["models"]),
        "positive": positive,
        "negative": negative,
        "control": f"{control} " if control else "",
        "metrics": ", ".join(METRIC_TITLES.values()),
        "g": "{:g}".format,
    }
    templates = yaml.safe_load((TEMPLATES / "facts.yaml").read_text(encoding="utf-8"))
    facts = {name: jinja2.Template(text).render(values) for name, text in templates.items()}
    return facts | {
        "software": ", ".join(f"{name} {version}" for name, version in record["versions"].items()) + ".",
        "hardware": f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}.",
    }


def _facts_of_data(manifest: pd.DataFrame, settings: dict[str, Any]) -> dict[str, str]:
    used = manifest[manifest["status"] == "used"]
    balance = class_balance(manifest)
    test = next(row for row in balance.itertuples() if row.split == "test")
    parts = "Parts: " + "; ".join(
        f"{row.split} {row.n} images in {row.groups} groups, {row.fractured} of the positive class"
        for row in balance.itertuples()
    )
    drawn = (
        "the set's own folders" if settings["split"] == "folders" else "drawn by group, stratified by label"
    )
    columns = [name for name in ("body_part", "view", "sex", "age") if name in used]
    shares = "; ".join(f"{name}: {_describe_shares(used[name])}" for name in columns)
    conflicts = len(find_label_conflicts(manifest))
    return {
        "flow": ", ".join(f"{row.step} {row.files}" for row in count_flow(manifest).itertuples()) + ".",
        "missing": f"{manifest['status'].eq('unreadable').sum()} unreadable files were left out with their "
        "reasons in manifest.csv; nothing was imputed.",
        "files": f"Median {used['height'].astype(float).median():.0f} x "
        f"{used['width'].astype(float).median():.0f} pixels (height x width); modes "
        f"{_describe_shares(used['mode'])}.",
        "labels": "Labels as the data set gives them, by folder or table.",
        "conflicts": f"{number_of(conflicts, 'source carries', 'sources carry')} both labels."
        if conflicts
        else "No source carries both labels.",
        "partitions": f"{parts}; {drawn}.",
        "disjoint": describe_parts(manifest),
        "units": describe_exams(manifest)
        if len(exams_table(manifest))
        else "Single images; no exams are known.",
        "size": f"{test.n} test images in {test.groups} groups, as many as the set gave. "
        f"{describe_plan(plan_test(manifest), manifest)}",
        "characteristics": f"{parts}. All parts: {shares}." if shares else f"{parts}.",
    }


def _describe_shares(values: pd.Series) -> str:
    counts = values.fillna("unknown").astype(str).value_counts()
    more = f" and {len(counts) - 6} more" if len(counts) > 6 else ""
    return ", ".join(f"{name} {n}" for name, n in counts.head(6).items()) + more


def _facts_of_models(folder: Path, models: list[str], record: dict[str, Any]) -> dict[str, str]:
    settings = record["settings"]
    scores = {name: read_json(folder / name / "metrics.json") for name in models}
    table = pd.DataFrame([{"model": name} | flatten_metrics(entry) for name, entry in scores.items()])
    best = choose_primary(table, primary_model(settings))
    top, manifest = scores[best], read_csv(folder / "manifest.csv")
    baseline = max(top["prevalence"], 1 - top["prevalence"])
    chosen = "named in advance" if best == primary_model(settings) else "best on validation"
    aurocs = (
        f"{name} {describe(s['auroc'])} ({describe(s['validation']['auroc'])})" for name, s in scores.items()
    )
    rates = (
        f"{METRIC_TITLES[name]} {describe(top[name])}"
        for name in ("recall", "specificity", "precision", "npv", "accuracy")
    )
    trained = {name: read_json(folder / name / "training.json") for name in models}
    weights = (
        f"{name}: {record['weights_of']}" for name, record in trained.items() if "weights_of" in record
    )
    by_exam = describe_exams_of(folder, best)
    limits = [text for _, text in study_banners(record, manifest, read_shortcuts(folder, models))]
    facts = {
        "performance": f"AUROC on test (validation): {'; '.join(aurocs)}. {by_exam}".strip(),
        "accuracy": f"{best}, {chosen}, on {top['n']} test images: {'; '.join(rates)}; majority class "
        f"{baseline:.2f}.",
        "table": f"{best} on test: {top['tp']} true and {top['fp']} false positives, {top['tn']} true and "
        f"{top['fn']} false negatives at the threshold {top['threshold']:.2f} ({top['threshold_rule']}).",
        "internal": f"Held-out test part beside validation; {best} has AUROC {describe(top['auroc'])} on "
        f"test and {describe(top['validation']['auroc'])} on validation.",
        "limits": " ".join(limits) or "None that the run could see.",
        "ensembles": "The mean of all models' probabilities, and a logistic stack of their log-odds, fitted "
        "on what their thresholds were chosen on (ensembles.csv)."
        if len(models) > 1
        else "Not applicable: one model.",
    }
    if told := "; ".join(weights):
        facts["weights"] = f"Backbones: {told}. Heads: Glorot uniform."
    needed = ("subgroups", "failures", "decision_curve", "calibration")
    if all((folder / best / f"{name}.csv").exists() for name in needed):
        facts |= evaluated_facts(folder, best)
    comparison = read_table(folder / "comparison.csv")
    if comparison is not None:
        facts["verdict"] = describe_outcome(folder, settings, comparison, baseline)
    return facts


def _facts_of_choices(folder: Path, models: list[str], facts: dict[str, str]) -> dict[str, str]:
    """Return how epochs and threshold of each model were chosen, after what the settings say of it."""
    epochs, thresholds = {}, {}
    for model in models:
        training = read_json(folder / model / "training.json")
        epochs[model] = training.get("epochs_by", "The epoch kept is the best on validation.")
        thresholds[model] = describe_choice(read_json(folder / model / "threshold.json"))
    return {
        "selection": f"{_group_models(epochs)} {facts['selection']}",
        "threshold": f"{facts['threshold']} {_group_models(thresholds)}",
    }


def _group_models(texts: dict[str, str]) -> str:
    """Return the texts of models, each once and after the models that share it, or alone if all do."""
    models = {text: [name for name in texts if texts[name] == text] for text in texts.values()}
    if len(models) == 1:
        return next(iter(models))
    return " ".join(f"{', '.join(names)}: {text}" for text, names in models.items())


def evaluated_facts(folder: Path, model: str) -> dict[str, str]:
    """Return what is known of one model's exams, subgroups, failures and calibration, in sentences."""

    def read(name: str) -> pd.DataFrame:
        return read_csv(folder / model / f"{name}.csv")

    flat = read("calibration").iloc[0].to_dict()
    calibration = {name: value for name, value in flat.items() if "." not in name}
    for when in ("before", "after"):
        prefix = f"{when}."
        calibration[when] = {
            name.removeprefix(prefix): value for name, value in flat.items() if name.startswith(prefix)
        }
    errors = read("failures").query("kind == 'confident error'")
    return {
        "exams": describe_exams_of(folder, model),
        "subgroups": f"{model}: {describe_subgroups(read('subgroups'))}",
        "failures": f"{model}: {describe_failures(errors, read('predictions_test'))}",
        "calibration": f"{model}: {describe_calibration(calibration, read('decision_curve'))}",
    }
