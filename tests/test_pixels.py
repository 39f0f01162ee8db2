import numpy as np
import pandas as pd

from xray_helpers.pixels import augment, load_pixels, resize


def test_shrinking_averages():
    board = np.indices((40, 40)).sum(axis=0) % 2 * 200
    assert np.unique(resize(board.astype(np.uint8), (10, 10))).tolist() == [100]
    assert resize(np.full((4, 6), 7, np.uint8), (9, 5)).shape == (9, 5)


def test_pixels_are_read_once_and_in_order(root, tmp_path, make_images):
    make_images(tmp_path / "set", 5)
    part = pd.DataFrame({"path": [f"im0_{i:03d}.png" for i in range(5)], "sha256": list("abcde")})
    first = load_pixels(part, tmp_path / "set", (12, 10))
    (tmp_path / "set" / "im0_000.png").unlink()  # the cache does not need it any more
    again = load_pixels(part, tmp_path / "set", (12, 10))
    assert first.dtype == np.uint8
    assert first.shape == (5, 12, 10)
    assert (first == again).all()
    from xray_helpers.radiographs import read_radiograph

    assert (first[3] == read_radiograph(tmp_path / "set" / "im0_003.png").pixels).all()
    assert not list((root / "data" / "cache").glob("*partial*"))


def test_augmentation_moves_within_its_limits():
    picture = np.zeros((100, 100), np.uint8)
    picture[49:52, 49:52] = 255
    views = augment(np.repeat(picture[None], 300, axis=0), 1)
    rows, columns = np.indices((100, 100))
    mass = views.sum(axis=(1, 2), dtype=float)
    centre = np.stack([(views * rows).sum(axis=(1, 2)) / mass, (views * columns).sum(axis=(1, 2)) / mass], axis=1) - 50
    assert np.abs(centre).max() <= 12  # 10 % shift; the middle does not move otherwise
    assert centre.std(axis=0).min() > 3
    bright = np.full((1, 50, 50), 90, np.uint8)
    assert (augment(bright, 3) == 90).all()  # what moves in repeats the edge


def test_views_depend_on_the_seed_alone():
    pictures = np.random.default_rng(0).integers(0, 255, (3, 32, 32), dtype=np.uint8)
    assert (augment(pictures, 5) == augment(pictures, 5)).all()
    assert (augment(pictures, 5) != augment(pictures, 6)).any()


def test_half_of_the_views_are_mirrored():
    ramp = np.tile(np.arange(0, 200, 2, dtype=np.uint8), (100, 1))
    views = augment(np.repeat(ramp[None], 200, axis=0), 2).astype(int)
    mirrored = views[:, :, :20].mean(axis=(1, 2)) > views[:, :, -20:].mean(axis=(1, 2))
    assert 0.35 < mirrored.mean() < 0.65
