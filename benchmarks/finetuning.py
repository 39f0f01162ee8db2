"""What fine-tuning brings over the frozen head, and whether validation keeps it only where it is better;
prints a table.

    python benchmarks/finetuning.py [DATA SOURCES.csv] --weights PLACE [--size 64] [--seeds 5] [--folds 1]
    [-p name=value] python benchmarks/finetuning.py --quick

DATA is a folder of radiographs, SOURCES.csv says which come from one source (columns path, source); without
them, 480 phantoms. Folds keep sources apart, and validation and test count each source of DATA once. A row a
fold: AUROC on test of the head, of the fine-tuned model whatever validation says, and of what a study keeps.
"""

import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import click
import numpy as np
import pandas as pd
from small import QUICK
from views import folds_of, read_images

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@click.command()
@click.argument("data", required=False)
@click.argument("sources", required=False)
@click.option("--weights", default="imagenet")
@click.option("--size", default=64)
@click.option("--seeds", default=5)
@click.option("--folds", default=1, help="Of five, how many are tested a seed.")
@click.option("-p", "parameters", multiple=True, help="A parameter of fine-tuning: name=value.")
@click.option("--quick", is_flag=True, help=QUICK)
def main(
    data: str | None,
    sources: str | None,
    weights: str,
    size: int,
    seeds: int,
    folds: int,
    parameters: tuple[str, ...],
    quick: bool,
) -> None:
    """Measure AUROC on test with and without fine-tuning."""
    from xray_helpers.settings import build_settings

    home = tempfile.mkdtemp(prefix="finetuning-")
    os.environ["XRAY_HELPERS_ROOT"] = home
    place = str(Path(weights).resolve()) if Path(weights).exists() else weights
    values = dict(each.split("=", 1) for each in parameters)
    if quick:
        place, seeds, values = "random", 1, {"fine_tune_epochs": 1, "fine_tune_from": 0.1}
    once = sources is not None
    if not once:
        data, sources = make_phantoms(Path(home), 60 if quick else 480)
    settings = build_settings(img_size=size, epochs=20, patience=5, **({"recipe": "finetune"} | values))
    table, folder = read_images(Path(data).resolve(), sources)
    rows = [
        {"seed": seed, "fold": fold} | measure(table, folder, place, settings, seed, fold, once)
        for seed in range(seeds)
        for fold in range(folds)
    ]
    print_rows(pd.DataFrame(rows))
    shutil.rmtree(home)


def make_phantoms(place: Path, images: int) -> tuple[str, str]:
    """Write phantoms without copies; return their folder, and the table of their patients."""
    from xray_helpers.synthetic.dataset import write_phantoms

    csv = write_phantoms(place / "set", images=images, planted=0)
    patients = pd.read_csv(csv)[["path", "patient"]].rename(columns={"patient": "source"})
    patients.to_csv(place / "sources.csv", index=False)
    return str(csv.parent), str(place / "sources.csv")


def measure(table, folder, weights, settings, seed: int, fold: int, once: bool) -> dict:
    """Train a head, then fine-tune; return the AUROC on test of both, and of the one that is kept."""
    from sklearn.metrics import roc_auc_score

    from xray_helpers.models import finetuning, head
    from xray_helpers.models.backbones import get_backbone
    from xray_helpers.models.features import extract_features
    from xray_helpers.models.inference import EXACT, ForwardPass

    settings = settings.model_copy(update={"seed": seed})
    head.prepare_tensorflow(settings)
    train, *judged = folds_of(table, seed, 5)[fold]
    first = ~table.duplicated("source").to_numpy() | (not once)
    parts = [
        table.iloc[rows].assign(group=table["source"]) for rows in (train, *(r[first[r]] for r in judged))
    ]
    extractor, _ = get_backbone("MobileNetV2").build(settings.img_size, weights)
    forward = ForwardPass(extractor, EXACT)
    x = [
        extract_features(part, folder, forward, f"finetuning-{weights}-{settings.img_size}")[0]
        for part in parts
    ]
    images = [finetuning.load_images(part, folder, settings.img_size) for part in parts]
    y = [part["y_true"].to_numpy() for part in parts]
    trained, history = head.train_head(([x[0]], y[0]), (x[1], y[1]), settings)

    def auroc(model) -> float:
        return roc_auc_score(y[2], head.predict_pixels(model, images[2].pixels[:]))

    model = head.join_model(extractor, trained)
    scores = {"sources of validation": parts[1]["source"].nunique(), "n": len(y[2]), "head": auroc(model)}
    tune = [*images[:2], settings]
    kept = finetuning.fine_tune(model, history, *tune, key=f"{weights}-{seed}-{fold}")
    scores |= {"study": auroc(model), "kept": kept["phase"][kept["best"]].iloc[0]}
    always = {"value": 1.0, "ci_low": 1.0, "ci_high": 1.0}
    with mock.patch.object(finetuning, "measure_gain", lambda *args: always):  # the epochs are there
        finetuning.fine_tune(model, history.assign(val_loss=np.inf), *tune, key=f"{weights}-{seed}-{fold}")
    return scores | {"fine-tuned": auroc(model)}


def print_rows(rows: pd.DataFrame) -> None:
    """Print a row a fold, then the paired differences to the head with their 95 % intervals."""
    from scipy import stats

    print(rows.round(3).to_string(index=False))
    for name in ("fine-tuned", "study"):
        difference = rows[name] - rows["head"]
        half = stats.t.ppf(0.975, len(rows) - 1) * difference.sem() if len(rows) > 1 else np.nan
        low, high = difference.mean() - half, difference.mean() + half
        print(f"{name} - head, {len(rows)} folds: {difference.mean():+.3f} ({low:+.3f} to {high:+.3f})")


if __name__ == "__main__":
    main()
