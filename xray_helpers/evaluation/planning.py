"""What the test part can show, before any training: widths of intervals, images needed, uneven parts."""

import functools
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import optimize, stats
from scipy.special import expit, logit

from xray_helpers.data.parts import class_balance, used_part
from xray_helpers.data.splits import TEST_SHARE, VALIDATION_SHARE
from xray_helpers.evaluation.intervals import MIN_GROUPS, TAILS, effective_groups
from xray_helpers.settings import SPLITS, class_names

# Assumed true values; intervals are wider for values nearer to 0.5.
ASSUMED = {"sensitivity": 0.90, "specificity": 0.90, "AUROC": 0.85}
TARGET_WIDTH = 0.05  # half the width of an interval that is narrow enough to be useful


def proportion_half_width(share: float, n: float) -> float:
    """Return half the width of Wilson's 95 % interval (1927) of a share of `n` independent images."""
    square = stats.norm.ppf(TAILS[1]) ** 2
    return float(np.sqrt(square * (share * (1 - share) / n + square / (4 * n**2))) / (1 + square / n))


def auroc_half_width(auroc: float, positives: float, negatives: float) -> float:
    """Return half the width of the 95 % interval of an AUROC, as in `intervals.bounded_interval`.

    The variance is that of Hanley and McNeil (Radiology 1982; 143: 29), with Satterthwaite's degrees of
    freedom from its parts by class.

    Parameters
    ----------
    auroc : float
        Between 0 and 1, both excluded.
    positives, negatives : float
        Effective numbers of independent images, above 1.
    """
    square = auroc**2
    by_negative = auroc / (2 - auroc) - square  # of pairs that share the negative image
    by_positive = 2 * square / (1 + auroc) - square
    total = auroc * (1 - auroc) + (positives - 1) * by_negative + (negatives - 1) * by_positive
    error = np.sqrt(total / (positives * negatives)) / (auroc * (1 - auroc))
    parts = np.array([by_negative / negatives, by_positive / positives])
    freedom = parts.sum() ** 2 / (parts**2 / (np.array([negatives, positives]) - 1)).sum()
    low, high = expit(logit(auroc) + stats.t.ppf(TAILS, freedom) * error)
    return float((high - low) / 2)


def plan_test(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the expected widths of intervals on test, and the images needed for `TARGET_WIDTH`.

    Images of one patient or source carry less information than independent ones, so formulas use the
    effective number of groups (Kish 1965). Further images are taken to be clustered like those at hand, and
    for AUROC in the same mix of classes.

    Parameters
    ----------
    manifest : DataFrame
        With its parts.

    Returns
    -------
    DataFrame
        score, assumed (its value), of (the class it is measured on), n (test images), effective (number of
        independent images they are worth), half_width (of the expected 95 % interval; missing where there
        will be none), effective_needed (for `TARGET_WIDTH`), more (further test images that this takes; 0
        where there are enough).
    """
    test = used_part(manifest, "test")
    classes = {label: test.loc[test["y_true"] == label, "group"] for label in (0, 1)}
    effective = {label: effective_groups(group) for label, group in classes.items()}
    rows = []
    for score, label in (("sensitivity", 1), ("specificity", 0)):
        group, size = classes[label], effective[label]
        width = functools.partial(proportion_half_width, ASSUMED[score])
        known = group.nunique() == len(group) > 0 or size >= MIN_GROUPS
        expected = width(size) if known else np.nan
        rows.append((score, class_names()[label], len(group), size, expected, _solve(width)))
    total = sum(effective.values())
    share, known = effective[1] / total, min(effective.values()) >= MIN_GROUPS
    width = functools.partial(auroc_half_width, ASSUMED["AUROC"])
    expected = width(effective[1], effective[0]) if known else np.nan
    needed = _solve(lambda n: width(n * share, n * (1 - share)), 2 / min(share, 1 - share))
    rows.append(("AUROC", "both", len(test), total, expected, needed))
    plan = pd.DataFrame(rows, columns=["score", "of", "n", "effective", "half_width", "effective_needed"])
    plan.insert(1, "assumed", plan["score"].map(ASSUMED))
    more = (plan["effective_needed"] - plan["effective"]).clip(lower=0) * plan["n"] / plan["effective"]
    return plan.assign(more=np.ceil(more).astype(int))


def _solve(half_width: Callable[[float], float], least: float = 1.0) -> int:
    """Return the smallest effective number of images with a half width of at most `TARGET_WIDTH`."""
    return int(np.ceil(optimize.brentq(lambda n: half_width(n) - TARGET_WIDTH, least, 1e9, xtol=1e-6)))


def show_plan(plan: pd.DataFrame) -> pd.DataFrame:
    """Return the plan as text: rounded, and ``no interval`` where there will be none."""
    half = [f"± {width:.2f}" if np.isfinite(width) else "no interval" for width in plan["half_width"]]
    shown = plan.assign(half_width=half, effective=plan["effective"].round(1))
    return shown.rename(columns={"half_width": "95 % interval", "more": f"more for ± {TARGET_WIDTH:g}"})


def describe_plan(plan: pd.DataFrame, manifest: pd.DataFrame) -> str:
    """Return what the test part can show, and how many more images narrower intervals would need."""
    classes = plan[plan["score"].isin(["sensitivity", "specificity"])]
    counts = classes["n"].astype(str) + " " + classes["of"]
    effective = [f"{size:.1f}".removesuffix(".0") for size in classes["effective"]]
    text = f"The test part holds {' and '.join(counts)} images, "
    text += f"worth {' and '.join(effective)} independent ones. "
    known = plan[plan["half_width"].notna()]
    if len(known):
        widths = [f"{row.score} ± {row.half_width:.2f} (if {row.assumed:.2f})" for row in known.itertuples()]
        text += f"That is enough for 95 % intervals of about {', '.join(widths)}. "
    if len(known) < len(plan):
        scores = " or ".join(plan.loc[plan["half_width"].isna(), "score"])
        text += f"It is not enough for an interval of {scores}: each class needs {MIN_GROUPS} of them. "
    return text + _describe_lack(plan.set_index("score")["more"], manifest)


def _describe_lack(more: pd.Series, manifest: pd.DataFrame) -> str:
    if not more.any():
        return f"All of them will be known within ± {TARGET_WIDTH:g}."
    balance = class_balance(manifest).set_index("split")["n"]
    share, (negative, positive) = balance["test"] / balance.sum(), class_names()
    test = max(more["sensitivity"] + more["specificity"], more["AUROC"])
    lacking = [
        f"{more[score]} {label}"
        for score, label in (("sensitivity", positive), ("specificity", negative))
        if more[score]
    ]
    if more["AUROC"]:
        lacking.append(f"{'for AUROC ' if lacking else ''}{more['AUROC']} of both")
    return (
        f"To know all within ± {TARGET_WIDTH:g}, the test part would need more images of other patients: "
        f"{', '.join(lacking)}; as it takes {share:.0%} of the images, that is about "
        f"{int(np.ceil(test / share))} more in the whole set."
    )


def find_uneven_parts(manifest: pd.DataFrame) -> list[str]:
    """Return a sentence for each part with another size than intended, or another prevalence than train.

    A patient or source with very many images stays in one part, which can make a part too small or too large.
    Sizes count each source once; one is far off if it differs by more than a third and by more than two
    images. Parts given by the folders of the set have no intended size. Prevalence differs where Fisher's
    exact test is significant at 5 % and the odds differ by half or more, as with very many images any
    difference is significant.
    """
    balance = class_balance(manifest).set_index("split")
    if not set(SPLITS) <= set(balance.index):
        return []
    n = balance["n"]
    rest = n["train"] + n["validation"]
    intended = {
        "test": (TEST_SHARE, n.sum(), "the images"),
        "validation": (VALIDATION_SHARE, rest, "the images that are not in test"),
    }
    used, sentences = manifest[manifest["status"] == "used"], []
    for part, (share, among, whole) in intended.items():
        own = "folder_split" in used and ((used["folder_split"] == part) & (used["split"] == part)).sum()
        drawn = not own or own < (used["split"] == part).sum()
        off = abs(n[part] - share * among)
        if drawn and off > 2 and off > share * among / 3:
            sentences.append(
                f"The {part} part holds {n[part] / among:.0%} of {whole} ({n[part]}), where {share:.0%} were "
                "asked for: a patient or source with very many images stays in one part."
            )
        table = balance.loc[[part, "train"], ["fractured", "non_fractured"]].to_numpy()
        odds = (table[0] + 0.5) / (table[1] + 0.5)
        if stats.fisher_exact(table).pvalue < 0.05 and abs(np.log(odds[0] / odds[1])) > np.log(1.5):
            sentences.append(
                f"{balance.loc[part, 'prevalence']:.0%} of the {part} part are {class_names()[1]}, and "
                f"{balance.loc['train', 'prevalence']:.0%} of train, more than chance explains: probabilities"
                f"{', the threshold' if part == 'validation' else ''} and predictive values do not carry "
                "over."
            )
    return sentences
