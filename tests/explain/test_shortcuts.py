"""Predicting the label from the surface of images, and from border and corners."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from xray_helpers.explain import shortcut_verdicts, shortcuts
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.settings import InputError, Settings, build_settings


def write_set(folder, count=80, *, label_from="nothing", seed=0):
    """Write small pictures of noise whose size, format or marker gives the label away, or nothing does.

    Returns rows of a manifest.
    """
    import hashlib

    rng, rows = np.random.default_rng(seed), []
    for number in range(count):
        y = number % 2
        side = (72 if y else 64) if label_from == "size" else 64
        picture = rng.integers(30, 200, (side, 64), np.uint8)
        if label_from == "marker" and y:
            picture[2:10, 2:10] = 255
        suffix = ".jpg" if label_from == "format" and y else ".png"
        path = f"{number:03d}{suffix}"
        Image.fromarray(picture).convert("RGB" if label_from == "mode" and y else "L").save(folder / path)
        mode = "RGB" if label_from == "mode" and y else "L"
        rows.append(
            {
                "path": path,
                "sha256": hashlib.sha256((folder / path).read_bytes()).hexdigest(),
                "mode": mode,
                "width": 64,
                "height": side,
                "group": f"g{number // 2 if number < 10 else number}",
                "y_true": y,
                "fold": number // 2 % 5,
            }
        )
    return pd.DataFrame(rows)


def test_measures_of_the_surface_by_hand(root, tmp_path):
    picture = np.full((100, 50), 100, np.uint8)
    picture[:50] = 0
    picture[90:, 40:] = 255  # a marker in the lower right corner
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(np.full((50, 50), 9, np.uint8)).save(tmp_path / "B.JPG")
    part = pd.DataFrame(
        {
            "path": ["a.png", "B.JPG", "a.png"],
            "sha256": "0" * 64,
            "mode": ["L", "RGB", "L"],
            "width": [50, 50, 50],
            "height": [100, 50, 100],
        }
    )
    from xray_helpers.images.radiographs import read_radiograph

    part["sha256"] = [read_radiograph(tmp_path / path).sha256 for path in part["path"]]
    surface = shortcuts.measure_surface(part, ImageFolder(tmp_path))
    assert surface["aspect"].tolist() == [0.5, 1, 0.5]
    assert surface["other_size"].tolist() == [0, 1, 0]
    assert shortcuts.commonest_size(part) == "50 x 100"
    assert surface["suffix"].tolist() == [".png", ".jpg", ".png"]
    assert surface["bytes"].tolist()[:2] == [(tmp_path / name).stat().st_size for name in ("a.png", "B.JPG")]
    assert surface["bytes_a_pixel"][0] == pytest.approx((tmp_path / "a.png").stat().st_size / 5000)
    assert surface["black_share"][0] == pytest.approx(0.5, abs=0.01)
    assert surface["mean_grey"][0] == pytest.approx(picture.mean(), abs=1)
    assert surface["lower_right_brightest"][0] == 255
    assert surface["lower_left_brightest"][0] == 100
    assert surface["lower_right_edges"][0] > surface["lower_left_edges"][0] == 0
    assert surface["upper_left_mean"][0] == 0
    assert not surface.isna().any(axis=None)


def test_each_image_is_predicted_without_its_own_group(root, tmp_path):
    """Sizes that name the group and nothing else: whoever saw the group would know the label."""
    part = write_set(tmp_path, 120)
    rng = np.random.default_rng(0)
    group = rng.integers(0, 30, 120)
    part = part.assign(group=group, fold=group % 5, y_true=rng.integers(0, 2, 30)[group])
    surface = pd.DataFrame(
        {
            "width": 100.0 + group,
            "height": rng.permutation(30)[group],
            "aspect": group / 7,
            "other_size": 0.0,
            "mode": "L",
            "suffix": [f".{g}" for g in group],
        }
    )
    scores = shortcuts.predict_by_surface(surface, part)
    table = shortcuts.score_surface(scores)
    assert table["auroc"].max() < 0.8
    again = shortcuts.predict_by_surface(surface, part)
    assert scores.equals(again)
    for at in range(5):  # labels of a fold change nothing of its own predictions
        turned = part.assign(y_true=np.where(part["fold"] == at, 1 - part["y_true"], part["y_true"]))
        other = shortcuts.predict_by_surface(surface, turned)
        assert np.array_equal(
            other.loc[other["fold"] == at, "size"], scores.loc[scores["fold"] == at, "size"]
        )


def test_border_features_are_extracted_only_where_needed():
    views = shortcuts.list_views(Settings())
    assert [view.border for view in views] == ["keep", "only"]
    for off in ({"shortcuts": "off"}, {"border": "only"}, {"border": "blank"}, {"repeats": 0}):
        assert len(shortcuts.list_views(build_settings(**off))) == 1
    with pytest.raises(InputError, match="shortcuts = 'maybe'"):
        build_settings(shortcuts="maybe")


def test_the_border_is_predicted_from_features_of_the_border_alone(root, tmp_path, monkeypatch):
    part = write_set(tmp_path, 40, label_from="marker").assign(counted=True)
    opened = []

    def open_extractor(model, settings, weights, engine, folder):
        opened.append(settings.border)
        return None, "forward", settings.border

    def extract(table, folder, forward, key):
        y = table["y_true"].to_numpy()
        return [
            np.column_stack([y + 0.1 * np.random.default_rng(0).normal(size=len(y)), y]).astype(np.float32)
        ]

    monkeypatch.setattr(shortcuts, "open_extractor", open_extractor)
    monkeypatch.setattr(shortcuts, "extract_features", extract)
    given = []

    def cross_validate(views, table, settings, schedule, head):
        given.append((schedule, head))
        return table.assign(y_prob=views[0][:, 0])

    monkeypatch.setattr(shortcuts, "cross_validate", cross_validate)
    source = ("random", None, ImageFolder(tmp_path))
    predicted = shortcuts.predict_border("MobileNetV2", Settings(), *source, part, [0.1], "own head")
    assert given == [([0.1], "own head")]  # what the head of whole pictures had
    assert opened == ["only"]
    assert len(predicted) == 40
    off = shortcuts.predict_border(
        "MobileNetV2", Settings(shortcuts="off"), "random", None, ImageFolder(tmp_path), part
    )
    assert list(off.columns) == ["path", "group", "y_true", "y_prob", "fold"]
    assert off.empty
    assert opened == ["only"]


def test_of_a_large_set_a_sample_is_measured():
    count = 12_000
    manifest = pd.DataFrame(
        {
            "path": [f"{i:05d}" for i in range(count)],
            "status": "used",
            "label": "Fractured",
            "split": "train",
            "counted": True,
        }
    )
    chosen = shortcuts.choose_measured(manifest, 1)
    assert len(chosen) == 10_000
    assert chosen["path"].is_monotonic_increasing
    assert shortcuts.choose_measured(manifest, 1).equals(chosen)
    copies = manifest.head(10).assign(counted=[True, False] * 5)
    assert len(shortcuts.choose_measured(copies)) == 5


@pytest.mark.parametrize(
    ("label_from", "family", "single"),
    [
        ("size", "size and aspect ratio", "file is not 64 x"),
        ("format", "pixel mode, suffix and bytes", "suffix"),
        ("mode", "pixel mode, suffix and bytes", "pixel mode"),
        ("marker", "the four corners", ""),
    ],
)
def test_a_shortcut_in_the_files_is_shown_with_its_name_and_what_to_do(
    root, tmp_path, label_from, family, single
):
    part = write_set(tmp_path, label_from=label_from)
    scores = shortcuts.predict_by_surface(shortcuts.measure_surface(part, ImageFolder(tmp_path)), part)
    table = shortcuts.score_surface(scores, shortcuts.commonest_size(part))
    assert table["measure"].iloc[0] == shortcuts.ALL
    assert table["auroc"].iloc[0] > 0.95
    assert (table.set_index("words").loc[family, ["auroc", "low"]] > 0.9).all()
    if single:
        best = table[table["words"].str.startswith(single)].iloc[0]
        assert best["auroc"] > 0.95
    found = shortcut_verdicts.assess_surface(table)
    assert found.state == shortcut_verdicts.SHOWN
    assert family in found.sentence
    assert "one size and one encoding" in found.sentence
    assert "crop" in found.sentence
    assert "match" in found.sentence


def test_too_few_images_folds_or_classes_are_not_known(root, tmp_path):
    part = write_set(tmp_path, 8)
    surface = shortcuts.measure_surface(part, ImageFolder(tmp_path))
    for table in (part.assign(fold=0), part.assign(y_true=1), part.head(0)):
        scores = shortcuts.predict_by_surface(surface.head(len(table)), table)
        scored = shortcuts.score_surface(scores)
        assert scored.empty
        found = shortcut_verdicts.assess_surface(scored)
        assert found.state == shortcut_verdicts.UNKNOWN
        assert "not measured" in found.sentence
    few = shortcut_verdicts.assess_surface(
        shortcuts.score_surface(shortcuts.predict_by_surface(surface, part))
    )
    assert few.state == shortcut_verdicts.UNKNOWN
    assert "not known" in few.sentence
