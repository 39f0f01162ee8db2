"""How often 95 % intervals hold the truth, and how often equal models are told apart, when images come in
groups.

    python benchmarks/interval_coverage.py [--studies 1000] [--quick]
    python benchmarks/interval_coverage.py --speed

Each simulated study has groups (patients or sources) of one label each; scores are normal, with a correlation
of 0.8 within a group. The first table is the coverage of `metrics.compute_metrics` among the studies that get
an interval, and the share that gets none because a class has too few effective groups. The second is the
type-I error of `paired.compare_pairs` for two exchangeable models whose errors correlate by half: the share
with p < 0.05, and with an interval that excludes 0. --quick runs 60 studies a row. --speed times one model's
scores and all pairs of five on 100,000 images.
"""

import resource
import time

import click
import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit

WITHIN, BETWEEN = 0.8, 0.5  # correlations of scores: within a group, and of two models
QUICK, FULL = 60, 1000
# Sizes of groups as in a set of copies: half are single, a quarter hold about fifty to two hundred files.
MANY_COPIES = (1,) * 18 + (2,) * 10 + (3, 3, 4, 8) + (52,) * 3 + (56, 60, 80, 86, 136, 151, 160)
SETTINGS = {  # name: groups, sizes, prevalence, AUROC, sensitivity
    "60 equal groups of 4": (60, "equal", 0.5, 0.85, 0.8),
    "24 equal groups of 4": (24, "equal", 0.5, 0.85, 0.8),
    "24 equal groups of 4, AUROC .97": (24, "equal", 0.5, 0.97, 0.9),
    "60 equal groups of 4, AUROC .97": (60, "equal", 0.5, 0.97, 0.9),
    "24 single images": (24, "single", 0.5, 0.85, 0.8),
    "40 groups, geometric sizes": (40, "geometric", 0.5, 0.85, 0.8),
    "40: one of 40, ten of 2-12, rest 1": (40, "heavy", 0.5, 0.85, 0.8),
    "48 groups with many copies": (48, "copies", 0.5, 0.85, 0.8),
    "96 groups with many copies": (96, "copies", 0.5, 0.85, 0.8),
    "200 groups with many copies": (200, "copies", 0.5, 0.85, 0.8),
    "200 groups, one of 190 images": (200, "giant", 0.5, 0.85, 0.8),
    "120 equal groups of 4, prevalence .1": (120, "equal", 0.1, 0.85, 0.8),
}
COMPARED = [
    name for name in SETTINGS if name not in ("24 single images", "40: one of 40, ten of 2-12, rest 1")
]


def draw_sizes(kind: str, groups: int, rng: np.random.Generator) -> np.ndarray:
    """Return how many images each group has."""
    if kind == "geometric":
        return np.minimum(rng.geometric(0.35, groups), 40)
    if kind == "copies":
        return rng.choice(MANY_COPIES, groups)
    sizes = np.full(groups, 4 if kind == "equal" else 1)
    if kind == "giant":
        sizes[0] = 190
    if kind == "heavy":
        sizes[: groups // 4] = rng.integers(2, 13, groups // 4)
        sizes[0] = 40
    return sizes


def simulate(
    setting: tuple, rng: np.random.Generator, models: int = 1
) -> tuple[np.ndarray, list, np.ndarray, float]:
    """Return y_true, the probabilities of each model, groups, and the threshold at which sensitivity is as
    meant.
    """
    groups, kind, prevalence, auroc, sensitivity = setting
    label = np.zeros(groups, int)
    while not 5 <= label.sum() <= groups - 5:
        label = (rng.random(groups) < prevalence).astype(int)
    group = np.repeat(np.arange(groups), draw_sizes(kind, groups, rng))
    shift = np.sqrt(2) * stats.norm.ppf(auroc)
    share = BETWEEN if models > 1 else 0.0
    common = rng.normal(size=groups), rng.normal(size=len(group))
    scores = []
    for _ in range(models):
        own, single = (
            np.sqrt(share) * both + np.sqrt(1 - share) * rng.normal(size=len(both)) for both in common
        )
        noise = np.sqrt(WITHIN) * own[group] + np.sqrt(1 - WITHIN) * single
        scores.append(expit(noise + shift * (label[group] - 0.5)))
    return label[group], scores, group, float(expit(shift / 2 - stats.norm.ppf(sensitivity)))


def true_scores(setting: tuple) -> dict[str, float]:
    """Return what each score is on all images there could be; those without a formula from 200,000 of
    them.
    """
    from xray_helpers.evaluation.metrics import METRICS, compute_metrics

    _, _, prevalence, auroc, sensitivity = setting
    rng, shift = np.random.default_rng(1), np.sqrt(2) * stats.norm.ppf(auroc)
    y = (rng.random(200_000) < prevalence).astype(int)
    found = compute_metrics(
        y,
        expit(rng.normal(size=len(y)) + shift * (y - 0.5)),
        float(expit(shift / 2 - stats.norm.ppf(sensitivity))),
    )
    exact = {
        "auroc": auroc,
        "recall": sensitivity,
        "specificity": stats.norm.cdf(shift - stats.norm.ppf(sensitivity)),
    }
    return {name: found[name]["value"] for name in METRICS} | exact


def coverage(studies: int, names: list[str] | None = None, seed: int = 7) -> pd.DataFrame:
    """Return a row a setting and metric: coverage, studies with an interval, truth below and above it, mean
    width.
    """
    from xray_helpers.evaluation.metrics import compute_metrics

    rows = []
    for name in names or SETTINGS:
        truth = true_scores(SETTINGS[name])
        spans = {metric: [] for metric in truth}
        for study in range(studies):
            y, (p,), group, threshold = simulate(SETTINGS[name], np.random.default_rng([seed, study]))
            scores = compute_metrics(y, p, threshold, group)
            for metric, found in spans.items():
                found.append((scores[metric]["ci_low"], scores[metric]["ci_high"]))
        for metric, pairs in spans.items():
            low, high = np.array(pairs, float).T
            known = np.isfinite(low)
            low, high = low[known], high[known]
            below, above = (truth[metric] < low).sum(), (truth[metric] > high).sum()
            count = int(known.sum()) or np.nan
            rows.append(
                {
                    "setting": name,
                    "metric": metric,
                    "coverage": 1 - (below + above) / count,
                    "with": int(known.sum()),
                    "below": below / count,
                    "above": above / count,
                    "width": (high - low).mean() if known.any() else np.nan,
                }
            )
    return pd.DataFrame(rows)


def type_one_error(studies: int, names: list[str] | None = None, seed: int = 11) -> pd.DataFrame:
    """Return a row a setting: tested studies, share with p < 0.05 and with 0 outside, the same of decisions
    and DeLong.
    """
    from xray_helpers.evaluation.paired import compare_accuracies, compare_pairs

    rows = []
    for name in names or COMPARED:
        found = []
        for study in range(studies):
            y, scores, group, _ = simulate(SETTINGS[name], np.random.default_rng([seed, study]), models=2)
            tables = {
                str(number): pd.DataFrame(
                    {"group": group, "y_true": y, "y_prob": p, "y_pred": (p >= 0.5).astype(int)}
                )
                for number, p in enumerate(scores)
            }
            row = compare_pairs(tables).iloc[0]
            if np.isfinite(row["p"]):
                together = compare_accuracies(tables)
                found.append(
                    [
                        row["p"] < 0.05,
                        row["ci_low"] > 0 or row["ci_high"] < 0,
                        row["decisions_p"] < 0.05,
                        together is not None and together < 0.05,
                        row["delong_p"] < 0.05,
                    ]
                )
        shares = np.mean(found, axis=0) if found else [np.nan] * 5
        columns = ("p < .05", "interval excludes 0", "decisions", "all models alike", "DeLong")
        rows.append({"setting": name, "tested": len(found)} | dict(zip(columns, shares, strict=True)))
    return pd.DataFrame(rows)


def measure_speed(images: int = 100_000, models: int = 5) -> str:
    """Return seconds and peak memory of one model's scores and of all pairs, each image its own group."""
    from xray_helpers.evaluation.metrics import compute_metrics
    from xray_helpers.evaluation.paired import compare_pairs

    y, scores, group, threshold = simulate(
        (images, "single", 0.5, 0.85, 0.8), np.random.default_rng(0), models
    )
    started = time.perf_counter()
    compute_metrics(y, scores[0], threshold, group)
    alone = time.perf_counter() - started
    tables = {
        str(number): pd.DataFrame(
            {"group": group, "y_true": y, "y_prob": p, "y_pred": (p >= threshold).astype(int)}
        )
        for number, p in enumerate(scores)
    }
    compare_pairs(tables)
    both = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"{images} images: scores {alone:.1f} s, with all pairs of {models} models {both:.1f} s, peak "
        f"{peak:.2f} GiB"
    )


@click.command()
@click.option("--speed", is_flag=True, help="Time 100,000 images instead.")
@click.option("--quick", is_flag=True, help=f"{QUICK} studies a row.")
@click.option("--studies", default=FULL)
def main(speed: bool, quick: bool, studies: int) -> None:
    """Print coverage of the intervals and type-I error of the paired tests, in percent."""
    if speed:
        print(measure_speed())
        return
    studies = QUICK if quick else studies
    covered = coverage(studies)
    wide = (
        100
        * covered.pivot_table(index="setting", columns="metric", values="coverage", sort=False, dropna=False)
    ).round(1)
    none = 1 - covered[covered["metric"] == "auroc"].set_index("setting")["with"] / studies
    print(wide.assign(**{"no AUROC interval": (100 * none).round(0)}).to_string(na_rep="-"), flush=True)
    errors = type_one_error(studies).set_index("setting")
    print(
        (100 * errors.drop(columns="tested")).round(1).assign(tested=errors["tested"]).to_string(na_rep="-")
    )


if __name__ == "__main__":
    main()
