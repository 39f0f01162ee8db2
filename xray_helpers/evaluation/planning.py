"""What the parts can show, before any training: how wide intervals will be, what narrower ones take, uneven
parts.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import optimize, stats
from scipy.special import expit, logit

from xray_helpers.data.parts import class_balance, used_part
from xray_helpers.data.splits import TEST_SHARE, VALIDATION_SHARE
from xray_helpers.evaluation.intervals import LEVEL, MIN_GROUPS, effective_groups
from xray_helpers.settings import SPLITS, class_names

ASSUMED = {
    "sensitivity": 0.90,
    "specificity": 0.90,
    "AUROC": 0.85,
}  # the wider the interval, the nearer to 0.5
GOAL = 0.05  # half width that a reader can do something with
_MOST = 1e9


def proportion_half_width(share: float, n: float) -> float:
    """Return half the width of Wilson's 95 % interval (Wilson, J Am Stat Assoc 1927; 22: 209) of a share.

    Parameters
    ----------
    share : float
    n : float
        Effective number of independent images.
    """
    square = stats.norm.ppf((1 + LEVEL) / 2) ** 2
    return float(np.sqrt(square * (share * (1 - share) / n + square / (4 * n**2))) / (1 + square / n))


def auroc_half_width(auroc: float, positives: float, negatives: float) -> float:
    """Return half the width of the 95 % interval of an AUROC: Student's t on its logit, as
    `intervals.bounded_interval`.

    The variance is that of Hanley and McNeil (Radiology 1982; 143: 29); degrees of freedom are
    Satterthwaite's, of its parts by class.

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
    low, high = expit(logit(auroc) + stats.t.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2], freedom) * error)
    return float((high - low) / 2)


def plan_test(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return what the test part can be expected to show, and what it would take to know it within `GOAL`.

    Images of one patient or source tell less than as many independent ones: formulas are given the effective
    number of groups (Kish 1965). More images are meant as clustered as those at hand, and for AUROC in the
    same mix of classes.

    Parameters
    ----------
    manifest : DataFrame
        With its parts.

    Returns
    -------
    DataFrame
        score, assumed (its value), of (the class it is measured on), n (test images judged), effective
        (independent images they are worth), half_width (of the 95 % interval to be expected; missing where
        there will be none), effective_needed (for a half width of `GOAL`), more (test images more that this
        takes; 0 where there are enough).
    """
    test = used_part(manifest, "test")
    classes = {label: test.loc[test["y_true"] == label, "group"] for label in (0, 1)}
    effective = {label: effective_groups(group) for label, group in classes.items()}
    rows = []
    for score, label in (("sensitivity", 1), ("specificity", 0)):
        group, assumed, worth = classes[label], ASSUMED[score], effective[label]
        alone = group.nunique() == len(group) > 0
        known = alone or worth >= MIN_GROUPS
        rows.append(
            {
                "score": score,
                "assumed": assumed,
                "of": class_names()[label],
                "n": len(group),
                "effective": worth,
                "half_width": proportion_half_width(assumed, worth) if known else np.nan,
                "effective_needed": _solve(lambda n, assumed=assumed: proportion_half_width(assumed, n)),
            }
        )
    assumed, total = ASSUMED["AUROC"], sum(effective.values())
    share = effective[1] / total
    known = min(effective.values()) >= MIN_GROUPS
    rows.append(
        {
            "score": "AUROC",
            "assumed": assumed,
            "of": "both",
            "n": len(test),
            "effective": total,
            "half_width": auroc_half_width(assumed, effective[1], effective[0]) if known else np.nan,
            "effective_needed": _solve(
                lambda n: auroc_half_width(assumed, n * share, n * (1 - share)), 2 / min(share, 1 - share)
            ),
        }
    )
    plan = pd.DataFrame(rows)
    more = (plan["effective_needed"] - plan["effective"]).clip(lower=0) * plan["n"] / plan["effective"]
    return plan.assign(more=np.ceil(more).astype(int))


def _solve(half_width: Callable[[float], float], least: float = 1.0) -> int:
    """Return the smallest effective number whose half width is `GOAL` at most."""
    return int(np.ceil(optimize.brentq(lambda n: half_width(n) - GOAL, least, _MOST, xtol=1e-6)))


def show_plan(plan: pd.DataFrame) -> pd.DataFrame:
    """Return the table for a reader: rounded, and a word where there will be no interval."""
    half = [f"± {width:.2f}" if np.isfinite(width) else "no interval" for width in plan["half_width"]]
    shown = plan.assign(half_width=half, effective=plan["effective"].round(1))
    return shown.rename(columns={"half_width": "95 % interval", "more": f"more for ± {GOAL:g}"})


def describe_plan(plan: pd.DataFrame, manifest: pd.DataFrame) -> str:
    """Return in a few sentences what the test part can show, and how many images more a narrower interval
    would take.

    Parameters
    ----------
    plan : DataFrame
        Of `plan_test`.
    manifest : DataFrame
    """
    by = plan.set_index("score")
    parts = [f"{by.loc[name, 'n']} {by.loc[name, 'of']}" for name in ("sensitivity", "specificity")]
    worth = [f"{by.loc[name, 'effective']:.1f}".removesuffix(".0") for name in ("sensitivity", "specificity")]
    text = (
        f"The test part judges {' and '.join(parts)} images, worth {' and '.join(worth)} independent ones. "
    )
    known = [
        f"{name} ± {row.half_width:.2f} (were it {row.assumed:.2f})"
        for name, row in by.iterrows()
        if np.isfinite(row.half_width)
    ]
    unknown = [name for name, row in by.iterrows() if not np.isfinite(row.half_width)]
    if known:
        text += f"That is enough for 95 % intervals of about {', '.join(known)}. "
    if unknown:
        text += (
            f"It is not enough for an interval of {' or '.join(unknown)}: each class needs "
            f"{MIN_GROUPS} independent images. "
        )
    return text + _describe_lack(by["more"], manifest)


def _describe_lack(more: pd.Series, manifest: pd.DataFrame) -> str:
    if not more.any():
        return f"All of them will be known within ± {GOAL:g}."
    balance = class_balance(manifest).set_index("split")["n"]
    share, (negative, positive) = balance["test"] / balance.sum(), class_names()
    test = max(more["sensitivity"] + more["specificity"], more["AUROC"])
    lacking = [
        f"{more[score]} {label}"
        for score, label in (("sensitivity", positive), ("specificity", negative))
        if more[score]
    ]
    lacking += (
        [f"for AUROC {more['AUROC']} of both" if lacking else f"{more['AUROC']} of both"]
        if more["AUROC"]
        else []
    )
    return (
        f"To know all within ± {GOAL:g}, the test part would need more images of other patients: "
        f"{', '.join(lacking)}; as it "
        f"takes {share:.0%} of the images judged, that is about {int(np.ceil(test / share))} more in the set."
    )


def find_uneven_parts(manifest: pd.DataFrame) -> list[str]:
    """Return a sentence for each part that is far from the share asked for, or has another prevalence than
    train.

    A patient or source with very many images goes to one side whole, and so can leave a part too small or too
    large. The share counts what is judged (a source once); it is far off beyond a third of what was asked for
    and more than two images. Parts that the set's own folders give were not asked for, so that theirs is not
    judged. A prevalence is another one where Fisher's exact test says so at 5 %, and the odds differ by half
    or more: with very many images any difference is beyond chance.
    """
    balance = class_balance(manifest).set_index("split")
    if not set(SPLITS) <= set(balance.index):
        return []
    n = balance["n"]
    rest = n["train"] + n["validation"]
    asked = {
        "test": (TEST_SHARE, n.sum(), "the images judged"),
        "validation": (VALIDATION_SHARE, rest, "the images judged that are not in test"),
    }
    used, told = manifest[manifest["status"] == "used"], []
    for part, (share, among, words) in asked.items():
        own = "folder_split" in used and ((used["folder_split"] == part) & (used["split"] == part)).sum()
        drawn = not own or own < (used["split"] == part).sum()
        off = abs(n[part] - share * among)
        if drawn and off > 2 and off > share * among / 3:
            told.append(
                f"The {part} part holds {n[part] / among:.0%} of {words} ({n[part]}), where {share:.0%} "
                "were asked "
                "for: a patient or source with very many images stays on one side."
            )
        table = balance.loc[[part, "train"], ["fractured", "non_fractured"]].to_numpy()
        odds = (table[0] + 0.5) / (table[1] + 0.5)
        if stats.fisher_exact(table).pvalue < 0.05 and abs(np.log(odds[0] / odds[1])) > np.log(1.5):
            told.append(
                f"{balance.loc[part, 'prevalence']:.0%} of the {part} part are {class_names()[1]}, and "
                f"{balance.loc['train', 'prevalence']:.0%} of train, which is beyond chance: probabilities"
                f"{', the threshold' if part == 'validation' else ''} and predictive values do not carry "
                "over."
            )
    return told
