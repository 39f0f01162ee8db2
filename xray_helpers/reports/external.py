"""Tests on sets from elsewhere, for their notebook and for the pages of the study."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from xray_helpers.evaluation.case_mix import describe_case_mix
from xray_helpers.evaluation.external import describe_signed, judge_difference
from xray_helpers.evaluation.intervals import describe, read_entry, unflatten_entry
from xray_helpers.evaluation.thresholds import describe_rule
from xray_helpers.evaluation.verdict import RULED_OUT, SHOWN, UNKNOWN
from xray_helpers.study.external import HISTORY, NOTEBOOK, RESULTS, STATE, list_external
from xray_helpers.study.files import read_csv, read_json
from xray_helpers.study.folders import EXTERNAL
from xray_helpers.study.records import read_done, sha256_of

_VERDICTS = {SHOWN: "lower: shown", RULED_OUT: "lower: ruled out", UNKNOWN: "lower: not known"}


def lock_table(study: Path, lock: dict[str, Any]) -> list[dict[str, str]]:
    """Return the models that are tested with the hashes of their files and their thresholds, as text."""
    rows = []
    for model, files in lock["models"].items():
        chosen = read_json(study / model / "threshold.json")
        rows.append(
            {
                "model": model,
                "model.keras (SHA-256)": files["model.keras"][:16],
                "threshold": f"{chosen['threshold']:.3f}",
                "chosen by": describe_rule(chosen),
                "threshold.json (SHA-256)": files["threshold.json"][:16],
            }
        )
    return rows


def describe_lock(lock: dict[str, Any], earlier: list[dict[str, Any]]) -> str:
    """Return the study's key, and how often these images were used for a test before, in sentences."""
    text = f"The study's key is **{lock['study']}**: its images, labels, parts, models and thresholds. "
    if not earlier:
        return f"{text}These models were not tested on these images before, as far as this study knows."
    others = [entry for entry in earlier if entry["study"] != lock["study"]]
    times = "once" if len(earlier) == 1 else f"{len(earlier)} times"
    text += f"**The set was tested {times} before**, last on {earlier[-1]['date'][:16].replace('T', ' ')}"
    text += f", {len(others)} of these with other models" if others else ", with the same models"
    text += ": a model that is changed until it does well here would need another external set."
    if not all(entry["intact"] for entry in earlier):
        text += " The record of earlier tests has gaps: entries were taken out or changed."
    return text


def history_table(earlier: list[dict[str, Any]], lock: dict[str, Any]) -> list[dict[str, str]]:
    """Return the earlier tests as text, one row each, oldest first."""
    return [
        {
            "date": entry["date"][:16].replace("T", " "),
            "set": entry["set"],
            "models": "these" if entry["study"] == lock["study"] else f"others ({entry['study']})",
            "n": str(entry.get("n", "")),
            "AUROC": ", ".join(
                f"{model} {describe(scores['auroc'])}" for model, scores in entry.get("scores", {}).items()
            )
            or "no score",
        }
        for entry in earlier
    ]


def build_shared_strips(
    table: pd.DataFrame,
    read_study: Callable[[list[str]], list],
    read_external: Callable[[list[str]], list],
    pairs: pd.DataFrame,
    most: int = 4,
) -> list[tuple]:
    """Return the rows of `images.plot_groups`: images of the study, each beside the external one like it.

    Parameters
    ----------
    table : DataFrame
        Of `external.group_external`.
    read_study, read_external : callable
        Return the pictures of a list of paths of the study, and of the external set.
    pairs : DataFrame
        study, external, correlation: those for a person to look at, most alike first.
    most : int
        Of the shared ones, and of the pairs.
    """
    strips = []
    shared = table[table["shared_part"].notna() & (table["status"] == "used")]
    for row in shared.drop_duplicates("shared_with").head(most).itertuples():
        pictures = [*read_study([row.shared_with]), *read_external([row.path])]
        strips.append((f"shared with {row.shared_part}", pictures, ["study", "external"]))
    for row in pairs.head(most).itertuples():
        pictures = [*read_study([row.study]), *read_external([row.external])]
        strips.append((f"to look at: {row.correlation:.2f}", pictures, ["study", "external"]))
    return strips


def build_results(
    run_facts: dict[str, Any], scores: pd.DataFrame, gaps: pd.DataFrame, texts: list[str]
) -> dict[str, Any]:
    """Return the content of ``results.json``, which the pages of the study show.

    Parameters
    ----------
    run_facts : dict
        What is known without labels: set, study and models (of `lock_models`), data (fingerprint), n, shared,
        refused, chosen.
    scores, gaps : DataFrame
        Of `external.score_sets` and `external.compare_sets`, each with the column model; may be empty.
    texts : list of str
        What the report concludes, a sentence or more each.
    """
    rows = {}
    for row in scores.to_dict("records"):
        if row["model"] not in rows:  # the first of each model is the one that counts
            found = {name: _plain(value) for name, value in row.items()}
            differences = gaps[gaps["model"] == row["model"]].to_dict("records") if len(gaps) else []
            found["differences"] = [
                {
                    name: _plain(gap[name])
                    for name in ("score", "gap", "ci_low", "ci_high", "p_holm", "reason")
                }
                for gap in differences
            ]
            rows[row["model"]] = found
    return run_facts | {"scores": rows, "text": " ".join(filter(None, texts))}


def _plain(value: Any) -> Any:
    """Return a value of a table as JSON holds it."""
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return None
    return value.item() if hasattr(value, "item") else value


def history_entry(run_facts: dict[str, Any], scores: pd.DataFrame) -> dict[str, Any]:
    """Return what the history keeps of a test: study, models, data, n, and the scores of each model."""
    kept = {name: run_facts[name] for name in ("study", "models", "data", "n", "shared", "refused")}
    rows = scores.drop_duplicates("model").to_dict("records") if len(scores) else []
    names = ("auroc", "recall", "specificity")
    kept["scores"] = {row["model"]: {name: unflatten_entry(row, name) for name in names} for row in rows}
    return kept


def read_external_results(study: Path) -> list[dict[str, Any]]:
    """Return ``results.json`` of every set on which a study was tested, with date, tests (how many), stale.

    A result is stale where a model is no longer the one that was tested.
    """
    found = []
    for folder in list_external(study):
        result = read_json(folder / RESULTS)
        tests = read_json(folder / HISTORY, default={"tests": []})["tests"]
        result |= {"date": tests[-1]["date"] if tests else "", "tests": len(tests)}
        found.append(result | {"folder": folder, "stale": not _is_current(study, result["models"])})
    return found


def _is_current(study: Path, models: dict[str, dict[str, str]]) -> bool:
    for model, files in models.items():
        threshold = study / model / "threshold.json"
        if not threshold.exists() or sha256_of(threshold) != files["threshold.json"]:
            return False
        wrote = read_done(study / f"{model}/02_train_model.done.json").get("wrote", {})
        entry = wrote.get(f"{model}/model.keras")
        if entry and entry["sha256"] != files["model.keras"]:
            return False
    return True


def external_table(study: Path, model: str = "") -> list[dict[str, str]]:
    """Return one row per external set and model as text, for the index and the model card.

    Parameters
    ----------
    study : Path
    model : str
        Of this model alone, where it is given.
    """
    rows = []
    for result in read_external_results(study):
        common = {"set": result["set"], "date": f"{result['date'][:10]}, test {result['tests']}"}
        if result["refused"]:
            rows.append(common | {"model": model or "all", "n": str(result["n"]), "AUROC": "no labels"})
        for name, row in result["scores"].items():
            if model and name != model:
                continue
            gap = next((gap for gap in row["differences"] if gap["score"] == "auroc"), None)
            told = f"{describe_signed(gap | {'value': gap['gap']})}; {_VERDICTS[judge_difference(gap)]}"
            scores = {
                title: describe(unflatten_entry(row, metric))
                for metric, title in (
                    ("auroc", "AUROC"),
                    ("recall", "sensitivity"),
                    ("specificity", "specificity"),
                )
            }
            rows.append(
                common
                | {"model": name, "n": f"{row['n']} in {row['n_groups']} groups"}
                | scores
                | {"AUROC less own test": told, "left out": str(result["shared"]["excluded"])}
            )
        if result["stale"]:
            for row in rows:
                if row["set"] == result["set"]:
                    row["set"] += " (stale: the models have changed since)"
    columns = list(dict.fromkeys(name for row in rows for name in row))
    order = ["set", "model", *[name for name in columns if name not in ("set", "model")]]
    return [{name: row.get(name, "") for name in order} for row in rows]


def list_external_pages(study: Path, out: Path) -> list[tuple[str, str, str]]:
    """Return name, page (or empty) and state (empty where all is well) of every set that a test was begun on.

    Parameters
    ----------
    study : Path
    out : Path
        The folder that pages are relative to: the study, or what is shared of it.
    """
    found = []
    for folder in sorted(path for path in (study / EXTERNAL).glob("*") if path.is_dir()):
        page = f"{EXTERNAL}/{folder.name}/{NOTEBOOK}.html"
        state = read_json(folder / STATE, default={})
        told = "" if state.get("state", "done") == "done" else f"{state['state']}. {state.get('error', '')}"
        if (folder / RESULTS).exists() or (out / page).exists() or told:
            found.append((folder.name, page if (out / page).exists() else "", told.strip()))
    return found


def describe_external(study: Path) -> str:
    """Return on which sets from elsewhere a study was tested and with what result; empty where on none."""
    sentences = []
    for result in read_external_results(study):
        if result["stale"]:
            sentences.append(f"{result['set']}: tested before the models changed, so that it does not count.")
            continue
        row = result["scores"].get(result["chosen"])
        if row is None:
            sentences.append(f"{result['set']}: {result['n']} images without labels enough for scores.")
            continue
        rates = (f"sensitivity {describe(unflatten_entry(row, 'recall'))}",)
        rates += (f"specificity {describe(unflatten_entry(row, 'specificity'))}",)
        gap = next(gap for gap in row["differences"] if gap["score"] == "auroc")
        difference = describe_signed(read_entry(gap, "gap") | {"reason": gap["reason"]})
        sentences.append(
            f"{result['set']} ({result['date'][:10]}, test number {result['tests']}): {result['chosen']}, "
            f"unchanged, has AUROC {describe(unflatten_entry(row, 'auroc'))}, {' and '.join(rates)} on "
            f"{row['n']} images in {row['n_groups']} groups; AUROC less that of the study's own test part "
            f"{difference}; {result['shared']['excluded']} images shared with train or validation are left "
            "out."
        )
    return " ".join(sentences)


def describe_external_mix(study: Path) -> str:
    """Return how the sets from elsewhere differ from the study's images; empty where there are none."""
    texts = []
    for result in read_external_results(study):
        mix = read_csv(result["folder"] / "case_mix.csv")
        texts.append(f"{result['set']}: {describe_case_mix(mix)} {result['domain']}")
    return " ".join(texts)
