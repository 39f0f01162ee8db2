"""Where fractures are: the dense head beside Grad-CAM, occlusion and a blob, on phantoms; prints a table.

    python benchmarks/localize.py --weights PLACE [--images 600] [--side 224] [--quick]

Half of the patients teach, a sixth validates, a third is tested. Grad-CAM and occlusion are those of a head
that was trained on the same images; their boxes get the probability of the image as a factor of their score,
and the level at which they score best on the tested images themselves, which favours them.
"""

import os
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import pandas as pd
from small import QUICK

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@click.command()
@click.option("--weights", default="imagenet")
@click.option("--images", default=600)
@click.option("--side", default=224)
@click.option("--seed", default=5)
@click.option("--quick", is_flag=True, help=QUICK)
def main(weights: str, images: int, side: int, seed: int, quick: bool) -> None:
    """Train the dense head of MobileNetV2, and judge it beside the maps of a classifier."""
    place = Path(tempfile.mkdtemp(prefix="localize-"))
    os.environ["XRAY_HELPERS_ROOT"] = str(place)
    weights = str(Path(weights).resolve()) if Path(weights).exists() else weights
    if quick:
        weights, images, side = "random", 90, 96
    parts, folder = _write_set(place, images, seed)
    trained, probability = _train_classifier(place, parts, folder, weights, side)
    size = (side, side)
    maps, seconds = _localize(trained, parts, folder, size, seed)
    test = parts["test"]
    everything = _explain(trained, test, folder, size, probability)
    everything["dense head"] = (maps, np.ones(len(test)), ())
    click.echo(f"dense head: {seconds}")
    rows = [_judge(name, test, size, *each, seed) for name, each in everything.items()]
    click.echo(pd.DataFrame(rows).to_string(index=False))


def _write_set(place: Path, images: int, seed: int) -> tuple[dict[str, pd.DataFrame], Path]:
    from xray_helpers.images.radiographs import read_radiograph
    from xray_helpers.synthetic.dataset import write_phantoms

    csv = write_phantoms(place / "set", images=images, planted=0, seed=seed)
    table = pd.read_csv(csv)
    read = [read_radiograph(csv.parent / path) for path in table["path"]]
    table = table.assign(
        group=table["patient"],
        sha256=[one.sha256 for one in read],
        height=[one.pixels.shape[0] for one in read],
        width=[one.pixels.shape[1] for one in read],
        y_true=(table["label"] == "Fractured").astype(int),
    )
    turn = table["patient"].str[1:].astype(int) % 6
    split = turn.map(lambda number: "train" if number < 3 else "validation" if number == 3 else "test")
    return {name: part.reset_index(drop=True) for name, part in table.groupby(split)}, csv.parent


def _train_classifier(place: Path, parts: dict, folder: Path, weights: str, side: int):
    from xray_helpers.images.pixels import load_pixels
    from xray_helpers.models import head, saved
    from xray_helpers.models.backbones import get_backbone
    from xray_helpers.settings import Settings

    settings = Settings(img_size=(side, side), epochs=20, patience=5, dropout_rate=0.2)
    head.prepare_tensorflow(settings)
    extractor = get_backbone("MobileNetV2").build((side, side), weights)[0]
    x = {
        name: extractor.predict(
            load_pixels(part, folder, (side, side))[:][..., None].astype("float32"), verbose=0
        )
        for name, part in parts.items()
    }
    y = {name: part["y_true"].to_numpy() for name, part in parts.items()}
    trained, _ = head.train_head(([x["train"]], y["train"]), (x["validation"], y["validation"]), settings)
    whole = saved.save_model(head.join_model(extractor, trained), place / "model.keras")
    return saved.load_model(whole), head.predict_head(trained, x["test"])


def _localize(model, parts: dict, folder: Path, size: tuple[int, int], seed: int):
    from xray_helpers.images.radiographs import image_folder
    from xray_helpers.models import localizer, localizer_features
    from xray_helpers.models.inference import ForwardPass, InferenceBackend

    backend, read = InferenceBackend("openvino", "float32"), image_folder(folder)
    spatial = localizer_features.open_spatial(model, backend, read)
    forward, started = ForwardPass(spatial.network, backend), time.perf_counter()
    x = {
        name: localizer_features.extract_spatial(spatial, forward, part, read)[0]
        for name, part in parts.items()
    }
    extracted = time.perf_counter()
    grid = spatial.shapes[0][:2]
    y = {name: localizer.build_targets(part, size, grid, "stretch") for name, part in parts.items()}
    head, history = localizer.train_dense_head(
        spatial, ([x["train"]], [y["train"]]), (x["validation"], y["validation"]), seed
    )
    done = time.perf_counter()
    validated = localizer.predict_maps(head, spatial, x["validation"])
    chosen = localizer.choose_by_validation(parts["validation"], validated, y["validation"], size, "stretch")
    text = (
        f"levels {spatial.shapes}, features {extracted - started:.0f} s, {len(history)} epochs of "
        f"{len(x['train'])} images {done - extracted:.0f} s, level {chosen.level}"
    )
    return (localizer.predict_maps(head, spatial, x["test"]), chosen.level), text


def _explain(model, test: pd.DataFrame, folder: Path, size: tuple[int, int], p: np.ndarray) -> dict:
    from xray_helpers.explain.gradcam import GradCam, occlude
    from xray_helpers.images.pixels import load_pixels
    from xray_helpers.models.inference import ForwardPass, InferenceBackend

    pixels = load_pixels(test, folder, size)[:]
    forward = ForwardPass(model, InferenceBackend("openvino", "float32"))
    y, x = np.mgrid[:28, :28] / 27 - 0.5
    blob = np.exp(-(x**2 + y**2) / (2 * 0.2**2)).astype(np.float32)
    levels = (0.3, 0.5, 0.7)
    return {
        "Grad-CAM": ((GradCam(model)(pixels), None), p, levels),
        "Grad-CAM, stride 16": ((GradCam(model, "block_13_expand_relu")(pixels), None), p, levels),
        "occlusion": ((occlude(lambda some: forward(some)[:, 0], pixels), None), p, levels),
        "centred blob": ((np.repeat(blob[None], len(test), axis=0), None), p, levels),
    }


def _judge(
    name: str, test: pd.DataFrame, size: tuple[int, int], maps: tuple, p: np.ndarray, levels: tuple, seed: int
) -> dict[str, str]:
    from xray_helpers.evaluation import detection
    from xray_helpers.evaluation.intervals import describe
    from xray_helpers.evaluation.marks import find_peak
    from xray_helpers.images.annotations import list_boxes
    from xray_helpers.models.localizer import mark_maps

    grids, own = maps
    if own is None:  # a map of a classifier says where, its probability whether
        tops = grids.max(axis=(1, 2), keepdims=True)
        grids = grids / np.maximum(tops, 1e-12) * p[:, None, None]
    truth = detection.list_truth(test, list_boxes(test))
    tried = []
    for level in levels if own is None else (own,):
        marks = mark_maps(test, grids, size, "stretch", level)
        tried.append(detection.evaluate_marks(marks, truth, seed))
    best = max(tried, key=lambda each: each["rules"][detection.CENTRE]["at_1"]["value"])
    shapes = zip(test["width"], test["height"], strict=True)
    peaks = [find_peak(grid, (1, 1)) for grid in grids]
    points = {
        path: peak and (peak[0] * width, peak[1] * height)
        for path, peak, (width, height) in zip(test["path"], peaks, shapes, strict=True)
    }
    rules = {rule: describe(found["at_1"]) for rule, found in best["rules"].items()}
    return {
        "map": name,
        "n": f"{best['n']}, {best['fractures']} boxes, {best['n_groups']} groups",
        "pointing game": describe(detection.evaluate_pointing(points, truth)),
        **{f"at 1, {rule}": text for rule, text in rules.items()},
        "AP50": describe(best["ap50"]),
    }


if __name__ == "__main__":
    main()
