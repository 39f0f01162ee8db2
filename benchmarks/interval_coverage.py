"""How often 95 % intervals hold the truth when images come in groups; prints a table.

    python benchmarks/interval_coverage.py [--studies 2000] [--patients 60] [--images 4]
    python benchmarks/interval_coverage.py --speed

Each simulated study has so many patients with so many images each. Label by patient, prevalence 0.4; scores normal,
true AUROC 0.85, sensitivity 0.8 at the fixed threshold, correlation within a patient 0.8. The clustered intervals are
`metrics.compute_metrics` with the patients as groups; the naive ones count every image for itself.
--speed times all pairs of five models with 2,000 resamples of 2,000 images.
"""

import time

import click
import numpy as np
import pandas as pd
from scipy import stats

AUROC, SENSITIVITY, PREVALENCE, CORRELATION = 0.85, 0.8, 0.4, 0.8


def simulate(rng: np.random.Generator, patients: int, images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return y_true, y_prob, patient and the threshold at which sensitivity is what it is meant to be."""
    label = np.zeros(patients, int)
    while not 2 <= label.sum() <= patients - 2:
        label = (rng.random(patients) < PREVALENCE).astype(int)
    own = rng.normal(size=patients)[:, None] * np.sqrt(CORRELATION)
    noise = own + rng.normal(size=(patients, images)) * np.sqrt(1 - CORRELATION)
    shift = np.sqrt(2) * stats.norm.ppf(AUROC)
    score = noise + shift * label[:, None]
    threshold = shift - stats.norm.ppf(SENSITIVITY)
    patient = np.repeat(np.arange(patients), images)
    return np.repeat(label, images), stats.norm.cdf(score.ravel() / 3), patient, float(stats.norm.cdf(threshold / 3))


def coverage(studies: int, patients: int = 60, images: int = 4, seed: int = 0) -> pd.DataFrame:
    """Return a row a metric and kind of interval: coverage, its standard error, mean width, studies without one."""
    from xray_helpers.delong import delong_interval
    from xray_helpers.metrics import compute_metrics

    truths = {"auroc": AUROC, "recall": SENSITIVITY,
              "specificity": stats.norm.cdf(np.sqrt(2) * stats.norm.ppf(AUROC) - stats.norm.ppf(SENSITIVITY))}  # fmt: skip
    found: dict[tuple[str, str], list] = {}
    for study in range(studies):
        y, p, patient, threshold = simulate(np.random.default_rng([seed, study]), patients, images)
        intervals = {"clustered": compute_metrics(y, p, threshold, patient, seed=study),
                     "naive": compute_metrics(y, p, threshold, None, seed=study, resampled=False)}  # fmt: skip
        low, high = delong_interval(y, p)
        intervals["naive"]["auroc"] = {"ci_low": low, "ci_high": high}
        for kind, scores in intervals.items():
            for metric in truths:
                found.setdefault((metric, kind), []).append((scores[metric]["ci_low"], scores[metric]["ci_high"]))
    rows = []
    for (metric, kind), pairs in found.items():
        low, high = np.array(pairs, float).T
        inside = (low <= truths[metric]) & (truths[metric] <= high)
        share = inside.mean()
        rows.append({"metric": metric, "intervals": kind, "coverage": share,
                     "standard error": np.sqrt(share * (1 - share) / len(inside)),
                     "too low": (high < truths[metric]).mean(), "too high": (low > truths[metric]).mean(),
                     "mean width": np.nanmean(high - low), "none": int(np.isnan(low).sum())})  # fmt: skip
    return pd.DataFrame(rows)


def time_pairs(models: int = 5, patients: int = 500, images: int = 4) -> float:
    """Return the seconds that all paired comparisons of made models take."""
    from xray_helpers.paired import compare_pairs

    tables = {}
    y, _, patient, threshold = simulate(np.random.default_rng(0), patients, images)
    for number in range(models):
        p = np.random.default_rng(number).beta(2 + 2 * y, 4 - 2 * y)
        tables[str(number)] = pd.DataFrame({"group": patient, "y_true": y, "y_prob": p, "y_pred": (p >= threshold) * 1})
    started = time.perf_counter()
    compare_pairs(tables)
    return time.perf_counter() - started


@click.command()
@click.option("--speed", is_flag=True, help="Time the paired comparisons instead.")
@click.option("--studies", default=2000)
@click.option("--patients", default=60)
@click.option("--images", default=4)
def main(speed: bool, studies: int, patients: int, images: int) -> None:
    """Print the coverage of clustered and naive intervals."""
    if speed:
        print(f"{time_pairs():.1f} s for all pairs of 5 models, 2,000 resamples of 2,000 images")
        return
    print(coverage(studies, patients, images).round(4).to_string(index=False))


if __name__ == "__main__":
    main()
