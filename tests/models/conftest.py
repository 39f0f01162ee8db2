"""Pictures with bright squares, whose places are known."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from xray_helpers.images.radiographs import read_radiograph


def draw(rng, fractured):
    """A noisy picture of 90 x 60 pixels, with a bright square where it is fractured; and the square's box."""
    picture = rng.integers(60, 110, (60, 90)).astype(np.uint8)
    left, top = int(rng.integers(2, 66)), int(rng.integers(2, 36))
    if not fractured:
        return picture, ""
    picture[top : top + 20, left : left + 22] += 90
    return picture, f"{left} {top} {left + 22} {top + 20}"


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    place, rng, rows = tmp_path_factory.mktemp("squares"), np.random.default_rng(3), []
    for number in range(120):
        picture, boxes = draw(rng, number % 2)
        Image.fromarray(picture).save(place / f"{number}.png")
        split = "train" if number < 70 else "validation" if number < 90 else "test"
        rows.append({"path": f"{number}.png", "boxes": boxes or None, "y_true": number % 2, "split": split})
    table = pd.DataFrame(rows).assign(width=90, height=60, status="used", reason=None, note=None)
    table["group"] = table["path"]
    table["label"] = np.where(table["y_true"] == 1, "Fractured", "Non-Fractured")
    table["sha256"] = [read_radiograph(place / path).sha256 for path in table["path"]]
    return place, table
