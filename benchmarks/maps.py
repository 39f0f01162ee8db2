"""Maps a second, pointing game and energy in the box of MobileNetV2 on phantoms; prints a table.

    python benchmarks/maps.py --weights PLACE [--images 300] [--quick]

Half of the patients teach the head, of the others' fractured images the maps are measured.
"""

import os
import tempfile
import time
from pathlib import Path

import click
import cv2
import numpy as np
import pandas as pd
from small import QUICK

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@click.command()
@click.option("--weights", default="imagenet")
@click.option("--images", default=300)
@click.option("--quick", is_flag=True, help=QUICK)
def main(weights: str, images: int, quick: bool) -> None:
    """Measure maps at two sizes and two layers."""
    from xray_helpers.explain import localization, saliency_verdicts
    from xray_helpers.explain.gradcam import GradCam
    from xray_helpers.images.radiographs import read_radiograph
    from xray_helpers.models import head, saved
    from xray_helpers.models.backbones import get_backbone
    from xray_helpers.settings import Settings
    from xray_helpers.synthetic.dataset import write_phantoms

    head.prepare_tensorflow(Settings())
    place = Path(tempfile.mkdtemp(prefix="maps-"))
    os.environ["XRAY_HELPERS_ROOT"] = str(place)
    weights = str(Path(weights).resolve()) if Path(weights).exists() else weights
    if quick:
        weights, images = "random", 60
    csv = write_phantoms(place / "set", images=images, planted=0, seed=5)
    table = pd.read_csv(csv)
    pictures = [read_radiograph(csv.parent / path).pixels for path in table["path"]]
    table = table.assign(
        group=table["patient"], width=[p.shape[1] for p in pictures], height=[p.shape[0] for p in pictures]
    )
    y = (table["label"] == "Fractured").to_numpy().astype(int)
    train = (table["patient"].str[1:].astype(int) % 2 == 0).to_numpy()
    part = table[~train]
    rows = []
    for side in (96,) if quick else (128, 224):
        small = np.stack([cv2.resize(p, (side, side), interpolation=cv2.INTER_AREA) for p in pictures])
        extractor = get_backbone("MobileNetV2").build((side, side), weights)[0]
        x = extractor.predict(small[..., None].astype("float32"), verbose=0)
        settings = Settings(img_size=(side, side), epochs=12, patience=12, dropout_rate=0.2)
        trained, history = head.train_head(([x[train]], y[train]), (x[~train], y[~train]), settings)
        model = saved.load_model(saved.save_model(head.join_model(extractor, trained), place / "model.keras"))
        for layer in ("", "block_13_expand_relu"):
            cam = GradCam(model, layer)
            cam(small[:32])  # traced
            started = time.perf_counter()
            maps = cam(small[~train])
            rate = len(maps) / (time.perf_counter() - started)
            frame = localization.display_size((side, side))
            boxes = localization.find_boxes(part, frame)
            found = dict(zip(part["path"], maps, strict=True))
            told = saliency_verdicts.places_table(localization.pointing_game(found, part, boxes, frame))
            row = {
                "pixels": side,
                "layer": cam.layer,
                "places": "x".join(map(str, maps.shape[1:])),
                "maps/s": f"{rate:.0f}",
            }
            rows += [
                row | entry | {"accuracy": f"{history['val_accuracy'].max():.2f}"}
                for entry in told.to_dict("records")
            ]
    click.echo(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
