import numpy as np
import pytest

from xray_helpers.data.listing import list_data
from xray_helpers.data.manifest import inspect_files
from xray_helpers.images.pixels import augment, load_pixels, resize, stream_pixels
from xray_helpers.images.radiographs import ImageFolder, UnreadableError, read_radiograph
from xray_helpers.settings import InputError

NAMES = [str(i) for i in range(300)]


def test_shrinking_averages():
    board = np.indices((40, 40)).sum(axis=0) % 2 * 200
    assert np.unique(resize(board.astype(np.uint8), (10, 10))).tolist() == [100]
    assert resize(np.full((4, 6), 7, np.uint8), (9, 5)).shape == (9, 5)


def test_pixels_are_read_once_and_in_order(root, tmp_path, make_images):
    part = make_images(tmp_path / "set", 5)
    first = load_pixels(part, tmp_path / "set", (12, 10))
    (tmp_path / "set" / "im0_000.png").unlink()  # the cache does not need it any more
    again = load_pixels(part, tmp_path / "set", (12, 10))
    assert first.dtype == np.uint8
    assert first.shape == (5, 12, 10)
    assert (first[:] == again[:]).all()
    assert (first[3] == read_radiograph(tmp_path / "set" / "im0_003.png").pixels).all()
    assert not list((root / "data" / "cache").glob("*partial*"))


def test_augmentation_stays_within_its_limits():
    picture = np.zeros((100, 100), np.uint8)
    picture[49:52, 49:52] = 255
    views = augment(np.repeat(picture[None], 300, axis=0), NAMES, 1)
    rows, columns = np.indices((100, 100))
    mass = views.sum(axis=(1, 2), dtype=float)
    centre = (
        np.stack([(views * rows).sum(axis=(1, 2)) / mass, (views * columns).sum(axis=(1, 2)) / mass], axis=1)
        - 50
    )
    assert np.abs(centre).max() <= 12  # 10 % shift; the middle does not move otherwise
    assert centre.std(axis=0).min() > 3
    bright = np.full((1, 50, 50), 90, np.uint8)
    assert (augment(bright, NAMES[:1], 3) == 90).all()  # areas outside the picture repeat its edge


def test_views_depend_only_on_content_and_number():
    pictures = np.random.default_rng(0).integers(0, 255, (3, 32, 32), dtype=np.uint8)
    views = augment(pictures, NAMES[:3], 5)
    assert (views[::-1] == augment(pictures[::-1], NAMES[2::-1], 5)).all()
    assert (views[1:2] == augment(pictures[1:2], NAMES[1:2], 5)).all()
    assert (views != augment(pictures, NAMES[:3], 6)).any()


def test_pictures_stream_in_order_while_they_are_decoded_and_from_the_cache(root, tmp_path, make_images):
    part = make_images(tmp_path / "set", 150).sort_values("sha256", ignore_index=True)
    decoded = list(stream_pixels(part, tmp_path / "set", (12, 10)))
    assert [len(chunk) for chunk in decoded] == [64, 64, 22]
    for path in (tmp_path / "set").iterdir():
        path.unlink()
    cached = list(stream_pixels(part, tmp_path / "set", (12, 10)))
    assert (np.concatenate(cached) == np.concatenate(decoded)).all()
    some = part.iloc[[3, 90, 149]]  # a subset is copied, not decoded again
    assert (
        next(iter(stream_pixels(some, tmp_path / "set", (12, 10)))) == np.concatenate(cached)[[3, 90, 149]]
    ).all()


def test_an_unreadable_picture_leaves_no_incomplete_cache(root, tmp_path, make_images):
    part = make_images(tmp_path / "set", 4)
    (tmp_path / "set" / "im0_002.png").write_bytes(b"")
    with pytest.raises(UnreadableError):
        load_pixels(part, tmp_path / "set", (12, 10))
    assert not list((root / "data" / "cache").iterdir())


def test_a_picture_that_was_replaced_after_listing_is_not_cached(root, tmp_path, make_images):
    part = make_images(tmp_path / "set", 4)
    (tmp_path / "set" / "im0_002.png").write_bytes((tmp_path / "set" / "im0_001.png").read_bytes())
    with pytest.raises(InputError, match=r"im0_002\.png is not the file that 01 read"):
        load_pixels(part, tmp_path / "set", (12, 10))
    assert not list((root / "data" / "cache").iterdir())


def test_half_of_the_views_are_flipped():
    ramp = np.tile(np.arange(0, 200, 2, dtype=np.uint8), (100, 1))
    views = augment(np.repeat(ramp[None], 200, axis=0), NAMES[:200], 2).astype(int)
    mirrored = views[:, :, :20].mean(axis=(1, 2)) > views[:, :, -20:].mean(axis=(1, 2))
    assert 0.35 < mirrored.mean() < 0.65


def test_padding_keeps_proportions_on_black():
    padded = resize(np.full((100, 50), 200, np.uint8), (64, 64), "pad")
    assert padded.shape == (64, 64)
    assert (padded[:, 16:48] == 200).all()
    assert (padded[:, :16] == 0).all()
    assert (padded[:, 48:] == 0).all()
    assert (resize(np.full((100, 50), 200, np.uint8), (64, 64)) == 200).all()


def test_pixels_of_other_reading_options_are_cached_apart(root, tmp_path, make_images):
    make_images(tmp_path / "set" / "Fractured", 2)
    table = inspect_files(list_data(str(tmp_path / "set"), labelled=False))
    stretched = np.asarray(load_pixels(table, tmp_path / "set", (40, 40))[:])
    padded = np.asarray(load_pixels(table, ImageFolder(tmp_path / "set", resize="pad"), (40, 40))[:])
    assert (stretched[:, 20, :2] > 0).any()
    assert (padded[:, :, 0] == 0).all()
