"""Images a second of a network of each family, with TensorFlow and OpenVINO in float32 and OpenVINO in
int8, and what int8 costs; prints a table.

    python benchmarks/backbones.py [DATA SOURCES.csv] [--weights PLACE] [--side 224] [--images 96]
    python benchmarks/backbones.py --quick

DATA is a folder of radiographs, SOURCES.csv says which come from one source (columns path, source), and the
class of a file is in its path; without them, phantoms. PLACE holds weights of MobileNetV2; all other networks
have random weights, on which speed does not depend, but the features of int8 do. Transformers need KerasHub
(`make hub`), int8 needs NNCF (`make int8`).
"""

import importlib.util
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import pandas as pd
from small import QUICK

if TYPE_CHECKING:
    import keras

    from xray_helpers.models.inference import ForwardPass, InferenceBackend
    from xray_helpers.models.quantization import Calibration
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
FAMILIES = (
    *("VGG16", "ResNet50", "ResNet50V2", "InceptionV3", "Xception", "InceptionResNetV2", "DenseNet121"),
    *("MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large", "NASNetMobile", "EfficientNetB0"),
    *("EfficientNetV2B0", "EfficientNetV2S", "ConvNeXtTiny", "ViT small", "DINOv2 small"),
)


@click.command()
@click.argument("data", required=False)
@click.argument("sources", required=False)
@click.option("--weights", default="random")
@click.option("--side", default=224)
@click.option("--images", default=96)
@click.option("--only", multiple=True, help="A family; all by default.")
@click.option("--quick", is_flag=True, help=QUICK)
def main(
    data: str | None,
    sources: str | None,
    weights: str,
    side: int,
    images: int,
    only: tuple[str, ...],
    quick: bool,
) -> None:
    """Measure every family."""
    weights = str(Path(weights).resolve()) if Path(weights).exists() else weights
    data, sources = (str(Path(place).resolve()) if place else None for place in (data, sources))
    os.environ["XRAY_HELPERS_ROOT"] = tempfile.mkdtemp(prefix="backbones-")
    families = only or (("MobileNetV2", "ViT small") if quick else FAMILIES)
    side, images = (64, 16) if quick else (side, images)
    calibration = read_calibration(data, sources, side, 40 if quick else 300)
    print(
        "| network | parameters, millions | TensorFlow, images a second | OpenVINO | int8 | int8 as fast as |"
    )
    print("|---|---|---|---|---|---|")
    for family in families:
        network = build(family, side, weights if family == "MobileNetV2" else "random")
        print(measure(family, network, calibration, images) if network else f"| {family}: no KerasHub |")


def read_calibration(data: str | None, sources: str | None, side: int, most: int) -> "Calibration":
    """Return one picture a source, two thirds for train and one for validation."""
    import cv2

    from xray_helpers.images.pixels import resize
    from xray_helpers.models.quantization import Calibration
    from xray_helpers.synthetic.dataset import calibration_phantoms

    if data is None:
        pixels = calibration_phantoms((side, side)).astype(np.uint8)
        y = np.arange(len(pixels)) % 2
    else:
        table = pd.read_csv(sources).drop_duplicates("source").sample(frac=1, random_state=0).head(most)
        read = [cv2.imread(f"{data}/{path}", cv2.IMREAD_GRAYSCALE) for path in table["path"]]
        kept = [number for number, picture in enumerate(read) if picture is not None]
        pixels = np.stack([resize(read[number], (side, side)) for number in kept])
        y = np.array(["not" not in path.lower() for path in table["path"].iloc[kept]], int)
    pixels, y, half = pixels[:most], y[:most], len(pixels[:most]) * 2 // 3
    return Calibration(pixels[:half], pixels[half:], y[:half], y[half:])


def build(family: str, side: int, weights: str) -> "keras.Model | None":
    """Return the network of a family; None for one of KerasHub where that is not installed."""
    from xray_helpers.models.backbones import get_backbone
    from xray_helpers.models.hub import HubBackbone

    if " " not in family:
        return get_backbone(family).build((max(side, 75), max(side, 75)), weights)[0]
    if importlib.util.find_spec("keras_hub") is None:
        return None
    import keras_hub

    patch = 14 if family.startswith("DINO") else 16
    side = side // patch * patch
    shape = {"num_layers": 12, "num_heads": 6, "hidden_dim": 384, "image_shape": (side, side, 3)}
    if family.startswith("DINO"):
        network = keras_hub.models.DINOV2Backbone(
            patch_size=14, intermediate_dim=1536, position_embedding_shape=(side, side), **shape
        )
    else:
        network = keras_hub.models.ViTBackbone(patch_size=16, mlp_dim=1536, **shape)
    place = tempfile.mkdtemp(prefix="preset-")
    network.save_to_preset(place)
    return HubBackbone(family.replace(" ", "_"), place).build((side, side))[0]


def measure(family: str, network: "keras.Model", calibration: "Calibration", images: int) -> str:
    """Return a row of the table."""
    from xray_helpers.images.pixels import resize
    from xray_helpers.models.inference import EXACT, InferenceBackend

    side = network.input_shape[1]
    fit = [np.stack([resize(p, (side, side)) for p in part]) for part in calibration[:2]]
    fitted = calibration._replace(train=fit[0], validation=fit[1])
    backends = [EXACT, InferenceBackend("openvino", "float32")]
    rates = [rate(network, backend, fitted, images)[0] for backend in backends]
    cells, times = ["–"], "–"
    if importlib.util.find_spec("nncf"):
        fast, forward = rate(network, InferenceBackend("openvino", "int8"), fitted, images)
        judged, times = forward.int8, f"{fast / rates[1]:.2f}"
        verdict = "accepted" if judged["accepted"] else "refused"
        auroc = "" if judged["auroc"] is None else f", AUROC {judged['auroc'] - judged['auroc_exact']:+.3f}"
        cells = [f"{fast:.0f} (cosine {judged['cosine']:.4f}{auroc}: {verdict})"]
    numbers = [f"{network.count_params() / 1e6:.1f}", *(f"{value:.0f}" for value in rates), *cells, times]
    return f"| {family} | {' | '.join(numbers)} |"


def rate(
    network: "keras.Model", backend: "InferenceBackend", calibration: "Calibration", images: int
) -> tuple[float, "ForwardPass"]:
    """Return images a second, the best of three, and the forward pass; int8 is timed even if refused."""
    from unittest import mock

    from xray_helpers.models import quantization
    from xray_helpers.models.inference import ForwardPass

    pictures = calibration.train[np.resize(np.arange(len(calibration.train)), images)]
    forward, judge = ForwardPass(network, backend, calibration), quantization.judge
    with (
        mock.patch("xray_helpers.models.inference.judge", lambda *given: judge(*given) | {"accepted": True})
        if backend.precision == "int8"
        else mock.MagicMock()
    ):
        forward(pictures[:8])
    if forward.int8:
        said = forward.int8
        fall = (said["auroc_exact"] or 0) - (said["auroc"] or 0)
        said["accepted"] = said["cosine"] >= quantization.LEAST_COSINE and fall <= quantization.MARGIN
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        forward(pictures)
        seconds.append(time.perf_counter() - started)
    return images / min(seconds), forward


if __name__ == "__main__":
    main()
