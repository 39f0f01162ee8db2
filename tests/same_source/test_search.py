import os

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from xray_helpers.data.listing import list_data
from xray_helpers.data.manifest import assign_groups, inspect_files
from xray_helpers.images.radiographs import image_folder
from xray_helpers.same_source.corrections import write_corrections
from xray_helpers.same_source.groups import find_label_conflicts
from xray_helpers.same_source.search import find_same_source
from xray_helpers.settings import InputError
from xray_helpers.study.files import read_csv, write_csv


def sources(listing, search):
    return dict(zip(listing.table["path"], search.source, strict=True))


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    """Twelve phantoms, and of three of them a copy, a re-encoding, a rotation, a mirror and a brighter
    crop.
    """
    from xray_helpers.synthetic.limb import build_patient, render_view

    folder = tmp_path_factory.mktemp("variants")
    for name in ("Fractured", "normal"):
        (folder / name).mkdir()
    for number in range(12):
        rng = np.random.default_rng([number, 4])
        pixels, _ = render_view(rng, build_patient(rng, "displaced" if number % 2 else None))
        place = folder / ("Fractured" if number % 2 else "normal")
        image = Image.fromarray(pixels)
        image.save(place / f"{number:02d}.png")
        if number in (1, 3, 5):  # broken ones: plain limbs have too few points to be sure of
            (place / f"{number:02d}_copy.png").write_bytes((place / f"{number:02d}.png").read_bytes())
            image.save(place / f"{number:02d}_pixels.tif")
            image.save(place / f"{number:02d}_jpeg.jpg", quality=60)
            image.rotate(25, Image.Resampling.BILINEAR).save(place / f"{number:02d}_turned.png")
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(place / f"{number:02d}_mirrored.png")
            crop = pixels[15:240, 10:200]
            bright = np.clip(cv2.resize(crop, (208, 256)) * 1.1 + 10, 0, 255).astype(np.uint8)
            Image.fromarray(bright).save(place / f"{number:02d}_crop.png")
    return folder


def search(folder, corrections=""):
    listing = list_data(str(folder), labelled=False)
    return listing, find_same_source(inspect_files(listing), listing.folder, corrections=corrections)


def test_every_variant_is_found_and_no_two_sources_are_joined(root, variants):
    listing, found = search(variants)
    by_number = listing.table["path"].str.extract(r"/(\d\d)")[0]
    groups = found.source.groupby(by_number).nunique()
    assert (groups == 1).all()
    assert found.source.nunique() == 12
    assert found.unique == 12 + 3 * 4  # neither the copy nor the equal pixels are new pictures


def test_links_carry_their_evidence(root, variants):
    _, found = search(variants)
    links = found.links
    assert set(links["kind"]) >= {"equal bytes", "equal pixels", "same source"}
    assert (links["kind"] == "equal bytes").sum() == 3
    near = links[(links["kind"] == "same source") & (links["decision"] == "joined")]
    assert (near["inliers"] >= 10).all()
    assert (near["correlation"] > 0.85).all()
    assert near["transform"].str.split().map(len).eq(6).all()
    mirrored = near[near["path_a"].str.contains("mirrored") ^ near["path_b"].str.contains("mirrored")]
    assert mirrored["mirrored"].any()


def test_groups_do_not_depend_on_names_order_or_working_folder(root, variants, tmp_path, monkeypatch):
    listing, found = search(variants)
    other = tmp_path / "renamed"
    rng = np.random.default_rng(0)
    names = {path: f"{rng.integers(10**9):09d}{os.path.splitext(path)[1]}" for path in listing.table["path"]}
    other.mkdir()
    for path, name in names.items():
        (other / name).write_bytes((variants / path).read_bytes())
    monkeypatch.chdir(tmp_path)
    second, again = search(other)
    one = pd.Series(sources(listing, found))
    two = (
        pd.Series(sources(second, again))
        .rename({name: path for path, name in names.items()})
        .reindex(one.index)
    )
    assert (pd.crosstab(one, two) > 0).sum().eq(1).all()
    assert one.nunique() == two.nunique()


def test_corrections_join_and_separate(root, variants, tmp_path):
    listing, found = search(variants)
    sha = inspect_files(listing).set_index("path")["sha256"]
    rows = [
        ("separate", sha["Fractured/01.png"], sha["Fractured/01_turned.png"]),
        ("join", sha["Fractured/07.png"], sha["normal/08.png"]),
    ]
    file = tmp_path / "corrections.csv"
    pd.DataFrame(rows, columns=["action", "sha256_a", "sha256_b"]).to_csv(file, index=False)
    _, corrected = search(variants, str(file))
    groups = sources(listing, corrected)
    assert groups["Fractured/01.png"] != groups["Fractured/01_turned.png"]
    assert groups["Fractured/07.png"] == groups["normal/08.png"]
    assert set(corrected.links.loc[corrected.links["kind"] == "correction", "decision"]) == {
        "joined",
        "separated",
    }
    assert sources(listing, found)["Fractured/01.png"] == sources(listing, found)["Fractured/01_turned.png"]
    file.write_text("action,sha256_a,sha256_b\nglue,a,b\n")
    with pytest.raises(InputError, match="write join or separate"):
        search(variants, str(file))
    file.write_text("sha256_a\nx\n")
    with pytest.raises(InputError, match="need the columns"):
        search(variants, str(file))


@pytest.mark.parametrize("action", ["join", "separate"])
@pytest.mark.parametrize("twin", [False, True])
def test_a_doubtful_pair_that_a_correction_decides_is_not_offered_again(
    root, variants, tmp_path, monkeypatch, action, twin
):
    """Also by the correction of another file of equal pixels, which is not the one that the pair names."""
    monkeypatch.setattr("xray_helpers.same_source.rules._NEEDED", ((0, 2.0),))  # nothing is sure
    monkeypatch.setattr("xray_helpers.same_source.rules._IN_DETAIL", ())
    monkeypatch.setattr("xray_helpers.same_source.rules._RIGID", ())
    monkeypatch.setattr("xray_helpers.same_source.rules._RICH", 10**6)
    monkeypatch.setattr("xray_helpers.same_source.rules._MANY", 10**6)
    file = tmp_path / "corrections.csv"
    listing, found = search(variants, str(file))
    before = found.links[found.links["decision"] == "for review"]
    pair = before[before["path_a"].str.contains("01") & before["path_b"].str.contains("01")]
    same = {"Fractured/01.png", "Fractured/01_pixels.tif"}
    pair = pair[pair["path_a"].isin(same) ^ pair["path_b"].isin(same)].iloc[0]
    one, other = sorted((pair["path_a"], pair["path_b"]), key=lambda path: path not in same)
    if twin:
        one = (same - {one}).pop()
    sha = inspect_files(listing).set_index("path")["sha256"]
    write_corrections(str(file), [(action, sha[one], sha[other])])
    _, corrected = search(variants, str(file))
    after = corrected.links[corrected.links["decision"] == "for review"]
    both = {pair["path_a"], pair["path_b"]}
    assert both not in [{a, b} for a, b in zip(after["path_a"], after["path_b"], strict=True)]
    assert len(before) - len(after) == 1
    groups = sources(listing, corrected)
    assert (groups[pair["path_a"]] == groups[pair["path_b"]]) == (action == "join")


@pytest.mark.parametrize(
    "marked", [("a.png",), ("b.bmp",), ("c.jpg",), ("b.bmp", "d.tif"), ("a.png", "b.bmp")]
)
def test_the_rest_of_a_group_stays_together_whichever_file_is_marked_as_wrong(
    root, variants, tmp_path, marked
):
    """Equal pixels, and a re-encoding of them: whatever held them together may be what was marked."""
    from xray_helpers.interactive.dataset import _DatasetBrowser

    folder = tmp_path / "set"
    folder.mkdir()
    with Image.open(variants / "Fractured" / "01.png") as image:
        for name in ("a.png", "b.bmp", "d.tif"):
            image.save(folder / name)
        image.save(folder / "c.jpg", quality=60)
    for number in ("07.png", "09.png"):
        (folder / number).write_bytes((variants / "Fractured" / number).read_bytes())
    listing, found = search(folder)
    group = ["a.png", "b.bmp", "c.jpg", "d.tif"]
    assert len({sources(listing, found)[name] for name in group}) == 1
    table = assign_groups(inspect_files(listing), found.source).assign(label="Fractured")
    browser = _DatasetBrowser(table, found.links, image_folder(folder), str(tmp_path / "c.csv"))
    assert sorted(browser.page["path"]) == group
    browser.marked = set(marked)
    browser.separate.click()
    _, corrected = search(folder, str(tmp_path / "c.csv"))
    pd.testing.assert_series_equal(corrected.uncorrected, found.source)
    groups = sources(listing, corrected)
    rest = {groups[name] for name in group if name not in marked}
    assert len(rest) == 1
    assert not rest & {groups[name] for name in marked}
    if marked == ("b.bmp", "d.tif"):
        assert groups["b.bmp"] == groups["d.tif"]  # equal pixels that nobody separated from each other


def test_label_conflicts_are_named(root, variants):
    listing, found = search(variants)
    table = assign_groups(inspect_files(listing), found.source)
    assert find_label_conflicts(table).empty
    table.loc[table["path"] == "Fractured/01_jpeg.jpg", "label"] = "Non-Fractured"
    conflicts = find_label_conflicts(table)
    assert len(conflicts) == 1
    assert "1 Non-Fractured" in conflicts["labels"].iloc[0]
    assert "Fractured/01_jpeg.jpg" in conflicts["paths"].iloc[0]


def test_signatures_are_cached_by_content(root, variants):
    calls = []

    def embed(pictures):
        calls.append(len(pictures))
        return pictures.reshape(len(pictures), -1)[:, ::64].astype(np.float32)

    listing = list_data(str(variants), labelled=False)
    table = inspect_files(listing)
    found = find_same_source(table, listing.folder, embed, "toy")
    first = sum(calls)
    again = find_same_source(table.sample(frac=1, random_state=1), listing.folder, embed, "toy")
    assert sum(calls) == first > 0
    pd.testing.assert_frame_equal(found.links, again.links)
    find_same_source(table[~table["path"].str.contains("turned")], listing.folder, embed, "toy")
    assert sum(calls) == first  # a part of them is known too
    find_same_source(table, listing.folder, embed, "another")
    assert sum(calls) == 2 * first


def test_one_picture_and_none(root, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)).save(
        tmp_path / "a.png"
    )
    _, found = search(tmp_path)
    assert found.source.tolist() == ["a.png"]
    assert found.links.empty
    assert found.links.nlargest(10, "correlation").empty
    assert (
        read_csv(write_csv(tmp_path / "links" / "links.csv", found.links)).nlargest(10, "correlation").empty
    )
    (tmp_path / "a.png").write_bytes(b"")
    _, found = search(tmp_path)
    assert found.source.isna().all()


@pytest.mark.slow
def test_planted_copies_of_the_demo_are_found_without_weights(root):
    """At least 90 % without weights, and no two patients in one group."""
    listing = list_data("phantoms")
    found = find_same_source(inspect_files(listing), listing.folder)
    groups = sources(listing, found)
    planted = listing.table[listing.table["planted"].notna()]
    hits = [groups[row.path] == groups[row.copy_of] for row in planted.itertuples()]
    assert len(hits) == 40
    assert np.mean(hits) >= 0.9
    assert listing.table["patient"].groupby(found.source.to_numpy()).nunique().max() == 1


@pytest.mark.slow
def test_the_real_sample_is_grouped_as_in_its_sources_file(root, shared):
    from xray_helpers.data.leaks import measure_leak
    from xray_helpers.models.features import build_embedder
    from xray_helpers.models.inference import choose_backend

    folder = shared / "data" / "fracture-multi-region-sample"
    truth = pd.read_csv(shared / "data" / "fracture-multi-region-sample-sources.csv").set_index("path")[
        "source"
    ]
    # One radiograph, seen by laying one on the other: 191 is the whole of it, 222 a crop with a watermark.
    truth = truth.replace(191, 222)
    listing = list_data(str(folder))
    table = inspect_files(listing)
    found = find_same_source(table, folder, *build_embedder(str(shared / "weights"), choose_backend()))
    known = found.source.notna()
    group, source = found.source[known].to_numpy(), listing.table.loc[known, "path"].map(truth).to_numpy()

    def pairs(*codes):
        sizes = pd.DataFrame(dict(enumerate(codes))).value_counts().to_numpy()
        return (sizes * (sizes - 1) / 2).sum()

    assert pairs(group, source) / pairs(source) >= 0.995
    assert pairs(group, source) / pairs(group) >= 0.999
    assert pd.Series(source).groupby(group).nunique().max() == 1
    leak = measure_leak(table.assign(group=found.source), listing.table["folder_split"])
    assert leak["share"] >= 0.95
