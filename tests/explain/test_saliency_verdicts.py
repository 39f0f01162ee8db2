"""Whether maps may be believed."""

import numpy as np
import pandas as pd
import pytest

from xray_helpers.explain.images import explain_images
from xray_helpers.explain.localization import EvaluatedMaps, evaluate_agreement, evaluate_maps, pointing_game
from xray_helpers.explain.maps import build_maps, read_maps
from xray_helpers.explain.saliency_verdicts import assess_saliency, describe_maps, sanity_table
from xray_helpers.settings import MIN_GROUPS, number_of

SIZE = (8, 8)


def sanity(correlation, n=12, empty=0):
    return pd.DataFrame(
        [
            {
                "permuted": "all layers",
                "layers": 9,
                "correlation": correlation,
                "ci_low": correlation - 0.1,
                "ci_high": correlation + 0.1,
                "n": n,
                "empty": empty,
                "n_groups": n,
                "permutations": 3,
                "emptied": 0.0,
            }
        ]
    )


AGREEMENT = {"value": 0.4, "ci_low": 0.3, "ci_high": 0.5, "n": 5, "empty": 0}


@pytest.mark.parametrize(
    ("correlation", "where", "phrase"),
    [
        (0.9, "there", "must not be believed**: they stay"),
        (0.1, "there", "may be believed as hints"),
        (0.45, "there", "is not known**: on 12 images of 12 groups it is not shown that they change"),
        (0.55, "there", "is not known**: on 12 images of 12 groups it is not shown that they change"),
        (0.1, "elsewhere", "must not be believed**: less of them lies"),
        (0.55, "elsewhere", "must not be believed**: less of them lies"),
        (0.1, None, "is not known"),
    ],
)
def test_the_sentence_says_whether_maps_may_be_believed(correlation, where, phrase):
    rng = np.random.default_rng(0)
    part = pd.DataFrame({"path": range(30), "group": range(30)})
    corners = [(1, 1), (1, 6), (6, 1), (6, 6)]
    maps, boxes = {}, []
    for i in range(30):
        maps[i] = 0.01 * rng.random(SIZE).astype(np.float32)
        row, column = corners[i % 4]
        maps[i][row if where == "there" else 7 - row, column] = 1
        box = np.array([[column - 1.0, row - 1, column + 2, row + 2]])
        boxes.append(box if where else np.zeros((0, 4)))
    places = pointing_game(maps, part, boxes, SIZE)
    text = describe_maps(EvaluatedMaps(maps, {}, places, AGREEMENT, SIZE), sanity(correlation))
    verdict = assess_saliency(EvaluatedMaps(maps, {}, places, AGREEMENT, SIZE), sanity(correlation))
    assert phrase in text
    assert text.startswith(verdict.sentence)
    assert verdict.answer is {"must": False, "may": True, "is": None}[phrase.split()[0]]
    assert "empty" not in text
    assert "n = 5: they agree" in text


def test_an_interval_across_the_margin_shows_nothing_either_way():
    here, elsewhere = np.zeros(SIZE, np.float32), np.zeros(SIZE, np.float32)
    here[1, 1] = elsewhere[6, 6] = 1
    box = np.array([[0.0, 0, 4, 4]])  # of which chance has a quarter, and so have the maps in the mean
    maps = {i: elsewhere if i % 4 else here for i in range(12)}
    places = pointing_game(maps, pd.DataFrame({"path": range(12), "group": range(12)}), [box] * 12, SIZE)
    verdict = assess_saliency(EvaluatedMaps(maps, {}, places, AGREEMENT, SIZE), sanity(0.1))
    assert verdict.answer is None
    assert "on 12 images of 12 groups it is neither shown nor ruled out" in verdict.sentence


@pytest.mark.parametrize("count", [1, 2, 5, MIN_GROUPS - 1])
def test_few_groups_are_no_evidence_however_many_images(count):
    """Perfect maps, ten images a group; neither the places nor the control say anything from so few."""
    maps, boxes = draw_study(np.random.default_rng(0), "true", 10 * count)
    part = pd.DataFrame({"path": range(10 * count), "group": np.arange(10 * count) % count})
    places = pointing_game(maps, part, boxes, FRAME)
    verdict = assess_saliency(EvaluatedMaps(maps, {}, places, AGREEMENT, FRAME), sanity(0.1))
    assert verdict.answer is None
    assert f"of {number_of(count, 'group')}, where {MIN_GROUPS} groups are needed" in verdict.sentence
    many, boxes = draw_study(np.random.default_rng(0), "true", 30)
    places = pointing_game(many, pd.DataFrame({"path": range(30), "group": range(30)}), boxes, FRAME)
    for correlation in (0.1, 0.9):
        verdict = assess_saliency(
            EvaluatedMaps(many, {}, places, AGREEMENT, FRAME), sanity(correlation, count)
        )
        assert verdict.answer is None


FRAME = (28, 28)


def draw_study(rng, kind, count):
    """Return maps of 7 x 7 places by path, and boxes in `FRAME`: where fractures lie, mostly right above the
    middle.
    """
    maps, boxes = {}, []
    y, x = (np.mgrid[:7, :7] + 0.5) * 4
    for number in range(count):
        across, down = np.clip(rng.normal((18, 10), 4), 4, 24)
        boxes.append(np.array([[across - 4, down - 3, across + 4, down + 3]]))
        noise = rng.gamma(1.0, size=(7, 7))
        maps[number] = {
            "noise": noise,
            "sparse noise": np.where(rng.random((7, 7)) < 0.15, noise, 0),
            "nearly uniform": 1 + 1e-3 * noise,
            "uniform": np.full((7, 7), 0.3),
            "blob": np.exp(-((x - 14) ** 2 + (y - 14) ** 2) / 60) + 0.01 * noise,
            "where fractures mostly are": np.exp(-((x - 18) ** 2 + (y - 10) ** 2) / 60) + 0.01 * noise,
            "true": np.exp(-((x - across) ** 2 + (y - down) ** 2) / 40) + 0.1 * noise,
        }[kind].astype(np.float32)
    return maps, boxes


@pytest.mark.parametrize(
    "kind",
    ["noise", "sparse noise", "nearly uniform", "uniform", "blob", "where fractures mostly are", "true"],
)
def test_maps_without_information_are_not_believed_and_true_ones_are(kind):
    """200 studies of 24 images of 12 to 24 patients, with a control that could not be better."""
    believed, studies = 0, 200
    for study in range(studies):
        rng = np.random.default_rng([study, 1])
        maps, boxes = draw_study(rng, kind, 24)
        part = pd.DataFrame({"path": range(24), "group": np.arange(24) % (24 if study % 2 else 12)})
        places = pointing_game(maps, part, boxes, FRAME)
        believed += (
            assess_saliency(EvaluatedMaps(maps, {}, places, AGREEMENT, FRAME), sanity(0.1)).answer is True
        )
    assert believed >= 0.95 * studies if kind == "true" else believed <= 0.05 * studies


def test_empty_maps_prove_nothing_and_are_counted():
    rng = np.random.default_rng(0)
    maps = rng.random((6, 3, 3)).astype(np.float32)
    maps[:2] = 0
    table = pd.concat([build_maps("abcdef", name, maps, (9, 9)) for name in ("Grad-CAM", "occlusion")])
    found = evaluate_agreement(table, pd.Series(list("uvwxyz"), index=list("abcdef")))
    assert (found["n"], found["empty"]) == (4, 2)
    assert found["value"] == pytest.approx(1)
    nowhere = pd.DataFrame()
    text = describe_maps(EvaluatedMaps(read_maps(table), {}, nowhere, found, SIZE), sanity(0.1, 4, 2))
    assert "2 of the 6 maps are empty" in text
    assert "n = 4 and 2 with an empty map" in text
    table = build_maps("abcdef", "Grad-CAM", np.zeros_like(maps), (9, 9))
    nothing = evaluate_agreement(table, pd.Series(dtype=str))
    text = describe_maps(EvaluatedMaps(read_maps(table), {}, nowhere, nothing, SIZE), sanity(np.nan, 0, 6))
    assert text.startswith("**The maps show nothing**: all 6 are empty")
    assert (
        assess_saliency(
            EvaluatedMaps(read_maps(table), {}, nowhere, nothing, SIZE), sanity(np.nan, 0, 6)
        ).answer
        is False
    )
    assert assess_saliency(EvaluatedMaps({}, {}, nowhere, nothing, SIZE), sanity(0.1).iloc[:0]).answer is None
    assert describe_maps(EvaluatedMaps({}, {}, nowhere, nothing, SIZE), sanity(0.1).iloc[:0]).startswith(
        "No maps were made"
    )


def test_the_randomization_test_is_shown_by_stage_with_interval_and_counts():
    table = sanity_table(pd.concat([sanity(0.9).assign(permuted="the head", layers=2), sanity(np.nan, 0, 5)]))
    assert table["permuted"].tolist() == ["the head", "all layers"]
    assert table["layers"].tolist() == [2, 9]
    correlations = table["rank correlation"].tolist()
    assert "0.90 (0.80 to 1.00)" in correlations[0]
    assert "no map with anything in it" in correlations[1]
    assert table[["n", "empty"]].to_numpy().tolist() == [[12, 0], [0, 5]]
    assert sanity_table(sanity(0.1).iloc[:0]).empty


@pytest.mark.slow
def test_on_phantoms_imagenet_maps_follow_the_weights_and_the_pointing_game_has_its_interval(
    shared, tmp_path
):
    """The series' own way from phantoms to the sentence, with real weights."""
    import cv2

    from xray_helpers.images.radiographs import read_radiograph
    from xray_helpers.models.backbones import get_backbone
    from xray_helpers.models.head import join_model, predict_pixels, train_head
    from xray_helpers.models.saved import load_model, save_model
    from xray_helpers.settings import Settings
    from xray_helpers.synthetic import dataset

    csv = dataset.write_phantoms(tmp_path / "set", images=160, planted=0, seed=5)
    table = pd.read_csv(csv)
    pictures = np.stack([read_radiograph(csv.parent / path).pixels for path in table["path"]])
    small = np.stack([cv2.resize(p, (128, 128), interpolation=cv2.INTER_AREA) for p in pictures])
    table = table.assign(
        y_true=(table["label"] == "Fractured").astype(int),
        group=table["patient"],
        width=pictures.shape[2],
        height=pictures.shape[1],
    )
    train = (table["patient"].str[1:].astype(int) % 2 == 0).to_numpy()
    extractor = get_backbone("MobileNetV2").build((128, 128), str(shared / "weights"))[0]
    x = extractor.predict(small[..., None].astype("float32"), verbose=0)
    y = table["y_true"].to_numpy()
    settings = Settings(img_size=(128, 128), epochs=12, patience=12, dropout_rate=0.2)
    head, _ = train_head(([x[train]], y[train]), (x[~train], y[~train]), settings)
    model = load_model(save_model(join_model(extractor, head), tmp_path / "model.keras"))
    part = table[~train].reset_index(drop=True)
    maps, sanity = explain_images(
        model, lambda p: predict_pixels(model, p), part, lambda rows: small[~train][rows.index]
    )
    evaluated = evaluate_maps(maps, part, "stretch")
    text = describe_maps(evaluated, sanity)
    assert sanity["correlation"].iloc[-1] < 0.5  # with all weights permuted it is another map
    cam, _, less = evaluated.places.itertuples()
    assert cam.n == int((part["y_true"] == 1).sum())
    assert cam.hit_low <= cam.hit <= cam.hit_high
    assert (
        cam.energy > cam.area
    )  # more than by chance; a 4 x 4 map need not beat a blob in the middle, and this is reported
    high = sanity["ci_high"].iloc[-1]  # None where there are too few groups
    follows = high is not None and high < 0.5
    margin = cam.area / 10
    beats = min(cam.over_area_low, less.energy_low, cam.over_others_low) > margin
    assert ("may be believed as hints" in text) == (
        beats and follows and sanity["n_groups"].iloc[-1] >= MIN_GROUPS
    )
    assert "Pointing game: hits" in text
    assert f"{cam.hit:.2f} ({cam.hit_low:.2f} to {cam.hit_high:.2f})" in text
