"""All models of a study on a set from elsewhere: scored, and compared with their own test part."""

from typing import Any, NamedTuple

import pandas as pd

from xray_helpers.evaluation.external import HERE, TITLES, compare_sets, describe_signed, score_sets
from xray_helpers.evaluation.intervals import describe, describe_count, describe_p, unflatten_entry


class Elsewhere(NamedTuple):
    """All models of a study on a set from elsewhere.

    Attributes
    ----------
    scores : DataFrame
        Of `score_sets`, with the column model; empty without labels.
    differences : DataFrame
        Of `compare_sets`, with the column model.
    judged : dict
        Of each model the predictions that count.
    internal : dict
        Of each model its predictions of the study's test part, and their scores as a flat row.
    """

    scores: pd.DataFrame
    differences: pd.DataFrame
    judged: dict[str, pd.DataFrame]
    internal: dict[str, dict[str, Any]]

    def of(self, model: str) -> pd.DataFrame:
        """Return the scores of a model; the first row is the one that counts."""
        return self.scores[self.scores["model"] == model].reset_index(drop=True)

    def gaps(self, model: str) -> pd.DataFrame:
        """Return the differences of a model."""
        return self.differences[self.differences["model"] == model].reset_index(drop=True)

    def rows(self, model: str) -> dict[str, dict[str, Any]]:
        """Return the flat scores of a model by set, its own test part first, for a plot."""
        there = {f"there, {row['images']}": row for row in self.of(model).to_dict("records")}
        there = {"there": next(iter(there.values()))} if len(there) == 1 else there
        return {HERE: self.internal[model]} | there

    def table(self) -> list[dict[str, str]]:
        """Return the scores of all models as text."""
        rows = []
        for model, own in self.internal.items():
            for name, row in [
                (HERE, own),
                *((row["images"], row) for row in self.of(model).to_dict("records")),
            ]:
                scores = {
                    title: describe(unflatten_entry(row, metric))
                    for metric, title in (*TITLES.items(), ("balanced_accuracy", "balanced accuracy"))
                }
                where = name if name == HERE else f"there, {name}" if len(self.of(model)) > 1 else "there"
                rows.append({"model": model, "images": where} | scores | {"n": describe_count(row)})
        return rows

    def difference_table(self) -> list[dict[str, str]]:
        """Return the scores there less those of the own test part as text, one row per model."""
        rows = []
        for model in self.judged:
            row = {"model": model}
            for gap in self.gaps(model).to_dict("records"):
                told = describe_signed(gap | {"value": gap["gap"]})
                p = f"; p {describe_p(gap['p_holm'])}" if pd.notna(gap["p_holm"]) else ""
                row[f"{TITLES[gap['score']]}, there less here"] = told + p
            rows.append(row)
        return rows


def test_elsewhere(
    tested: dict[str, Any],
    internal: dict[str, pd.DataFrame],
    *,
    rules: dict[str, dict[str, Any]],
    keep_shared: bool = False,
    labelled: bool = True,
) -> Elsewhere:
    """Score every model on a set from elsewhere, and compare it with its own test part.

    Parameters
    ----------
    tested : dict
        By model: what has `predictions` (y_true, y_prob, group, path, excluded).
    internal : dict
        Of each model its ``predictions_test.csv``.
    rules : dict
        Of each model its ``threshold.json``.
    keep_shared : bool
        Whether images shared with train or validation count.
    labelled : bool
        Without labels nothing is scored.
    """
    scores, gaps, judged, own = [], [], {}, {}
    for model, found in tested.items() if labelled else ():
        predictions, threshold = found.predictions, float(rules[model]["threshold"])
        judged[model] = predictions[~predictions["excluded"] | keep_shared].reset_index(drop=True)
        scored = score_sets(predictions, threshold, keep_shared=keep_shared)
        scores.append(scored.assign(model=model))
        gaps.append(compare_sets(internal[model], judged[model], threshold).assign(model=model))
        here = internal[model].assign(excluded=False)
        own[model] = score_sets(here, threshold).iloc[0].to_dict()
    tables = (
        pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["model"])
        for parts in (scores, gaps)
    )
    return Elsewhere(*tables, judged, own)


test_elsewhere.__test__ = False  # it is no test of pytest's
