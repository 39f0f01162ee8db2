import numpy as np
import pandas as pd

from xray_helpers.plots import intervals


def test_rows_are_drawn_from_top_to_bottom_with_what_is_known():
    rows = [
        {"label": "both", "value": 0.8, "ci_low": 0.6, "ci_high": 0.9},
        {"label": "no interval", "value": 0.7, "ci_low": None, "ci_high": None},
        {"label": "a$b", "value": None, "ci_low": None, "ci_high": None, "note": "one class"},
    ]
    ax = intervals.plot_intervals(rows, title="AUROC", reference=0.5)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["both", "no interval", r"a\$b"]
    assert [list(line.get_xdata()) for line in ax.lines] == [[0.6, 0.9], [0.8], [0.7], [0.5, 0.5]]
    assert ax.texts[0].get_text() == "one class"
    assert ax.yaxis_inverted()
    assert ax.get_label() == (
        "AUROC. both: 0.80 (0.60 to 0.90); no interval: 0.70 (no interval: not enough independent sources); "
        "a$b: one class."
    )


def test_alternative_text_of_many_rows_says_how_many_it_leaves_out():
    rows = [{"label": str(i), "value": 0.5, "ci_low": 0.4, "ci_high": 0.6} for i in range(14)]
    assert intervals.plot_intervals(rows, title="t").get_label().endswith("; and 2 more.")


def test_forest_shows_what_is_known_of_a_subgroup_of_one_class():
    whole = {"column": "all", "value": "all images", "n": 9, "n_groups": 8}
    whole |= {"auroc": 0.8, "auroc_low": 0.6, "auroc_high": 0.9}
    part = {"column": "part", "value": "a$b", "n": 4, "n_groups": 4, "auroc_reason": "one class only"}
    part |= {"auroc": None, "recall": 0.5, "recall_low": 0.1, "recall_high": 0.9}
    ax = intervals.plot_forest(pd.DataFrame([whole, part, part | {"recall": None}]))
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[:2] == ["all images  (n = 9 in 8)", "part = a\\$b  (n = 4 in 4)"]
    notes = [text.get_text() for text in ax.texts]
    assert notes == ["one class; recall (sensitivity) 0.50 (0.10 to 0.90)", "not defined: one class only"]


def test_bars_join_neighbours_that_do_not_differ():
    table = pd.DataFrame({"model": ["A", "B", "C", "D"], "auroc": [0.9, 0.85, 0.8, 0.6], "n": 50})
    table = table.assign(auroc_low=table["auroc"] - 0.1, auroc_high=table["auroc"] + 0.05, n_groups=20)
    p = {"AB": 0.4, "AC": 0.03, "BC": 0.6, "AD": 0.01, "BD": 0.01, "CD": 0.02}
    pairs = pd.DataFrame([{"first": a, "second": b, "p_holm": value} for (a, b), value in p.items()])
    ax = intervals.plot_ranking(table, pairs)
    bars = [line.get_ydata() for line in ax.lines if line.get_linewidth() == 4]
    assert [tuple(np.round(bar, 2)) for bar in bars] == [(-0.15, 1.15), (0.85, 2.15)]
    assert "n = 50 images in 20 groups" in ax.get_title(loc="left")


def test_spread_says_how_many_runs_there_are():
    spread = pd.DataFrame({"source": ["this split", "other seeds"], "auroc": [0.8, 0.81], "runs": [1, 3]})
    spread = spread.assign(low=[0.7, 0.8], high=[0.9, 0.82])
    ax = intervals.plot_spread(spread, model="A")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["this split", "other seeds (3)"]


def test_a_score_that_is_not_defined_for_a_model_has_no_bar():
    table = pd.DataFrame({"model": ["A", "B"], "precision": [0.5, None], "n": 8})
    table = table.assign(precision_low=[0.4, None], precision_high=[0.6, None])
    ax = intervals.plot_model_metric(table, "precision")
    assert [bar.get_height() for bar in ax.patches] == [0.5]
    assert "not defined for 1" in ax.get_title(loc="left")
