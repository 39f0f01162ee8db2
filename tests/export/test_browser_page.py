"""A page that runs a model, in a real browser, with the network blocked, against the same file in Python."""

import base64
import gzip
import io
import re
import tarfile
import time

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from xray_helpers.export import browser_runtime
from xray_helpers.images.pixels import resize
from xray_helpers.images.radiographs import ImageFolder, UnreadableError, check_picture, read_radiograph
from xray_helpers.settings import Classes, InputError, set_classes
from xray_helpers.study.files import write_json

SIDE = 96
PROOF = {
    "n": 120,
    "n_groups": 40,
    "largest": 0.00123,
    "flips": 1,
    "verdict": "may be used",
    "why": "It does.",
}
ANSWERED = "#result:not([hidden]), #error:not([hidden])"


@pytest.fixture(scope="module")
def runtime():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("XRAY_HELPERS_ROOT", raising=False)  # kept in data/cache, as a user's is
        try:
            return browser_runtime.load_browser_runtime()
        except InputError as error:
            pytest.skip(str(error))


def build_network(weights):
    """Return MobileNetV2, or a small network of no weights, as features of pictures."""
    import keras

    if weights:
        from xray_helpers.models.backbones import get_backbone

        return get_backbone("MobileNetV2").build((SIDE, SIDE), weights)[0]
    inputs, layers = keras.Input((SIDE, SIDE, 1), name="grey_pixels"), keras.layers
    x = layers.Conv2D(24, 7, 3, activation="relu")(layers.Rescaling(1 / 60, -1)(inputs))
    x = layers.Conv2D(48, 5, 3, activation="relu")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D(name="pooled")(x))


def build_study(place, classes, way, weights):
    """Write what a page needs of a study with a network whose head is not trained."""
    import keras

    from xray_helpers.models.head import build_output, join_model
    from xray_helpers.models.out_of_distribution import build_feature_model, fit_ood_detector
    from xray_helpers.models.saved import save_model
    from xray_helpers.study.folders import write_classes
    from xray_helpers.synthetic.dataset import calibration_phantoms

    write_classes(place, classes)
    keras.utils.set_random_seed(4)
    extractor = build_network(weights)
    hidden = keras.layers.Dense(128, activation="relu", name="dense", kernel_initializer="he_normal")
    head = keras.Sequential([keras.Input(extractor.output_shape[1:]), hidden, build_output()])
    model = join_model(extractor, head)
    phantoms = calibration_phantoms((SIDE, SIDE), 24)[..., None].astype(np.float32)
    features = np.asarray(build_feature_model(model)(phantoms))
    fit_ood_detector(features, features).save(place / "MobileNetV2" / "familiarity.npz")
    save_model(model, place / "MobileNetV2" / "model.keras")
    write_json(place / "MobileNetV2" / "threshold.json", {"threshold": 0.5, "uncertain": [0.49, 0.51]})
    auroc = {"value": 0.8, "ci_low": 0.7, "ci_high": 0.9}
    write_json(place / "MobileNetV2" / "metrics.json", {"auroc": auroc, "n": 120, "n_groups": 40})
    write_json(place / "study.json", {"settings": {"resize": way, "img_size": [SIDE, SIDE]}})
    return place


@pytest.fixture(scope="module")
def write(tmp_path_factory, runtime):
    """Write the page of a study; return its path."""
    pytest.importorskip("tf2onnx")
    from xray_helpers.export.page import build_page

    def write_(classes, way, weights=""):
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("XRAY_HELPERS_ROOT", raising=False)
            try:
                study = build_study(tmp_path_factory.mktemp("study") / "carried", classes, way, weights)
                return build_page(study, "MobileNetV2", PROOF, runtime)
            finally:
                set_classes(Classes())

    return write_


@pytest.fixture(scope="module")
def page_file(write, request):
    weights = request.config.rootpath.parent / "shared" / "weights"
    return write(Classes(), "stretch", str(weights) if weights.is_dir() else "random")


@pytest.fixture(scope="module")
def types_file(write):
    classes = Classes("Intact", "Broken", ("Intact", "Oblique", "Spiral"), ("Oblique", "Spiral"))
    return write(classes, "pad")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, request):
    """Some twenty files of several formats, sizes, modes and orientations, radiographs if there are any."""
    from xray_helpers.synthetic.limb import build_patient, render_view

    place, rng, files = tmp_path_factory.mktemp("pictures"), np.random.default_rng(8), []
    views = [render_view(rng, build_patient(rng, "oblique" if i % 2 else None))[0] for i in range(6)]
    views = [Image.fromarray(np.clip(view, 0, 255).astype(np.uint8)) for view in views]

    def save(name, image, **options):
        files.append(place / name)
        image.save(files[-1], **options)

    for number, suffix in enumerate(["png", "jpg", "webp"]):
        save(f"grey.{suffix}", views[number])
        for orientation in (6, 7) if suffix == "webp" else (2, 5, 8):
            exif = Image.Exif()
            exif[0x0112] = orientation
            options = {"lossless": True} if suffix == "webp" else {}
            save(f"turned-{orientation}.{suffix}", views[number], exif=exif, **options)
    colour = Image.merge("RGB", [views[3], views[3].rotate(3), views[3].rotate(-3)])
    save("colour.jpg", colour)
    save("clear.png", Image.merge("RGBA", [*colour.split(), views[4]]))
    save("palette.png", views[4].convert("P"))
    save("bits.png", views[4].convert("1"))
    save("large.jpg", views[5].resize((2400, 3100)))
    save("integer.png", views[5].resize((SIDE * 4, SIDE * 4)))
    save("small.png", views[5].resize((70, 90)))
    save("wide.png", views[5].resize((400, 64)))
    save("tiny.png", views[5].resize((40, 20)))
    shared = (
        request.getfixturevalue("shared")
        if request.config.rootpath.parent.joinpath("shared").is_dir()
        else None
    )
    if shared:
        real = [f for f in sorted((shared / "data").rglob("*.*")) if f.suffix.lower() in (".jpg", ".png")]
        files += real[:: len(real) // 8][:8]
    return files


def ask(page, file):
    """Give a file to a page, and wait for what it says."""
    page.evaluate("for (const id of ['result', 'error']) document.getElementById(id).hidden = true")
    page.set_input_files("#choose", file)
    page.locator(ANSWERED).first.wait_for()
    return "" if page.is_visible("#result") else page.inner_text("#error")


def value(page, selector):
    return float(page.get_attribute(selector, "value"))


def run(page_file, file, way):
    """Return what the page's model says in Python, and the notes on the file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(page_file.with_name("page.onnx"))
    picture = check_picture(read_radiograph(file, ImageFolder(file.parent)))
    pixels = resize(picture.pixels, (SIDE, SIDE), way)[None, ..., None].astype(np.float32)
    names = [one.name for one in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"grey_pixels": pixels}), strict=True))
    return found, picture.note


@pytest.mark.slow
def test_the_page_gives_what_the_file_gives_in_python(page_file, pictures, open_page):
    started = time.perf_counter()
    page = open_page(page_file)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    assert ask(page, pictures[0]) == ""
    seconds, size = time.perf_counter() - started, page_file.stat().st_size / 1e6
    differences, probabilities = {}, []
    for file in pictures:
        assert ask(page, file) == "", file
        (found, note), name = run(page_file, file, "stretch"), file.name
        probability = float(found["probabilities"][0, 0])
        differences[name] = abs(value(page, "#probability") - probability)
        probabilities.append(probability)
        assert value(page, "#distance") == pytest.approx(float(found["distance"][0]), abs=2e-3), name
        decision = (
            "No decision" if 0.49 <= probability <= 0.51 else "Fractured" if probability > 0.5 else "Non-F"
        )
        if min(abs(probability - bound) for bound in (0.49, 0.51)) > 1e-3:
            assert page.inner_text("#decision").startswith(decision), name
        assert ("colour photograph" in page.inner_text("#warnings")) == ("colour" in note), name
        assert ("too small" in page.inner_text("#warnings")) == ("too small" in note), name
    print(
        f"\n{size:.1f} MB; first answer after {seconds:.1f} s; largest difference of {len(pictures)} "
        f"pictures {max(differences.values()):.1g}"
    )
    assert len(pictures) >= 20
    assert np.ptp(probabilities) > 0.1
    assert max(differences.values()) < 1e-3, differences
    assert requests == page.complaints == []


@pytest.mark.slow
def test_several_classes_and_padding(types_file, pictures, open_page):
    page = open_page(types_file, 390, "dark")
    for file in pictures[-12:]:
        assert ask(page, file) == "", file
        expected = run(types_file, file, "pad")[0]["probabilities"][0]
        cells = page.locator("#classes td").evaluate_all("cells => cells.map(cell => +cell.dataset.value)")
        assert cells == pytest.approx(expected.tolist(), abs=1e-3), file
        assert value(page, "#probability") == pytest.approx(expected[1:].sum(), abs=1e-3), file
    assert page.locator("#classes th").all_inner_texts() == ["Intact", "Oblique", "Spiral"]
    assert "Probability of Broken" in page.inner_text("#result")
    assert page.complaints == []


@pytest.mark.slow
def test_pixels_are_resized_as_by_opencv(types_file, open_page):
    page, rng = open_page(types_file), np.random.default_rng(1)
    for height, width in ((192, 192), (288, 480), (250, 133), (96, 96), (300, 60), (40, 50)):
        pixels = rng.integers(0, 256, (height, width)).astype(np.uint8)
        for way in ("stretch", "pad"):
            given = {"grey": pixels.ravel().tolist(), "width": width, "height": height}
            call = "([p, way, n]) => Array.from(resize({...p, grey: Uint8Array.from(p.grey)}, [n, n], way))"
            found = np.array(page.evaluate(call, [given, way, SIDE])).reshape(SIDE, SIDE)
            difference = np.abs(found - resize(pixels, (SIDE, SIDE), way).astype(int))
            assert difference.max() <= 1, (height, width, way)
            assert (difference > 0).mean() < 0.001, (height, width, way)  # of OpenCV on other processors


@pytest.mark.slow
def test_what_the_package_refuses_or_reads_otherwise_is_refused(types_file, pictures, open_page, tmp_path):
    page, image = open_page(types_file), Image.open(pictures[0]).convert("L")
    wide = np.asarray(image).astype(np.uint16) * 200
    Image.new("L", (200, 200), 90).save(tmp_path / "blank.png")
    Image.fromarray(wide).save(tmp_path / "deep.png")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.save(tmp_path / "other.tif")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    for suffix in ("png", "jpg", "webp"):
        image.save(tmp_path / f"whole.{suffix}")
        data = (tmp_path / f"whole.{suffix}").read_bytes()
        (tmp_path / f"half.{suffix}").write_bytes(data[: len(data) // 2])
    for name, said in {
        "blank.png": "almost one grey",
        "deep.png": "16 bits",
        "cmyk.jpg": "CMYK",
        "other.tif": "reads PNG, JPEG and WebP",
        "empty.png": "empty",
        "text.jpg": "reads PNG, JPEG and WebP",
        "half.png": "truncated",
        "half.jpg": "truncated",
        "half.webp": "truncated",
    }.items():
        words = ask(page, tmp_path / name)
        assert said in words, (name, words)
        assert words.count(". ") == 0, words
    for name in ("blank.png", "half.png", "half.jpg", "half.webp"):
        with pytest.raises(UnreadableError):
            check_picture(read_radiograph(tmp_path / name))
    assert ask(page, tmp_path / "whole.png") == ""
    assert page.complaints == []


def damage(page_file, place, block, change):
    """Write a copy of a page with another content in one of its data blocks."""
    html = page_file.read_text(encoding="utf-8")
    found = re.search(rf'id="{block}">([^<]*)<', html)
    place.write_text(html[: found.start(1)] + change(found[1]) + html[found.end(1) :], encoding="utf-8")
    return place


def change_model(text):
    """Change one byte of the model; what is around it is in order."""
    data = bytearray(gzip.decompress(base64.b64decode(text)))
    data[len(data) // 2] ^= 1
    return base64.b64encode(gzip.compress(bytes(data))).decode()


def change_letter(text):
    half = len(text) // 2
    return text[:half] + ("A" if text[half] != "A" else "B") + text[half + 1 :]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "change"), [("model", change_model), ("model", change_letter), ("wasm", change_letter)]
)
def test_a_changed_byte_is_refused_in_one_sentence(types_file, open_page, tmp_path, block, change):
    page = open_page(damage(types_file, tmp_path / "page.html", block, change))
    page.locator("#error:not([hidden])").wait_for()
    assert page.inner_text("#error") == "This file is damaged: get a fresh copy of it."
    assert page.complaints == []


@pytest.mark.slow
def test_a_changed_threshold_does_not_run(types_file, open_page, tmp_path):
    html = types_file.read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(
        html.replace('"threshold": 0.5,', '"threshold": 0.9,'), encoding="utf-8"
    )
    page = open_page(tmp_path / "page.html")
    page.wait_for_timeout(500)
    assert "get a fresh copy" in page.inner_text("#status")
    assert "Content Security Policy" in page.complaints[0]


@pytest.mark.slow
def test_a_browser_that_alters_pictures_or_computes_otherwise_is_refused(
    types_file, runtime, browser, tmp_path
):
    from xray_helpers.export.page import collect_facts, render

    alters = """const read = OffscreenCanvasRenderingContext2D.prototype.getImageData;
        OffscreenCanvasRenderingContext2D.prototype.getImageData = function (...place) {
            const image = read.apply(this, place);
            image.data[4001] ^= 1;
            return image;
        };"""
    facts = collect_facts(types_file.parents[3], "MobileNetV2", PROOF) | {"expected": [1.0, 0.0, 0.0]}
    facts["uncertain"] = [0.0, 0.51]
    model = types_file.with_name("page.onnx").read_bytes()
    (tmp_path / "page.html").write_text(render(facts, model, runtime), encoding="utf-8")
    assert "all images up to 0.510, and never answers Intact." in (tmp_path / "page.html").read_text("utf-8")
    for file, script, said in (
        (types_file, alters, "alters the pictures"),
        (tmp_path / "page.html", "", "computes other probabilities"),
    ):
        context = browser.new_context(offline=True)
        context.add_init_script(script)
        page = context.new_page()
        page.goto(file.as_uri())
        page.locator("#error:not([hidden])").wait_for()
        assert said in page.inner_text("#error")
        context.close()


@pytest.mark.slow
def test_the_page_reaches_nothing_says_what_it_is_and_is_accessible(types_file, pictures, open_page):
    page = open_page(types_file, 390)
    assert "For research. Not a medical device; not for diagnosis." in page.inner_text("main")
    assert "AUROC 0.80 (0.70 to 0.90)" in page.inner_text("main")
    assert "120 test images in 40 groups of the study" in page.inner_text("main")
    assert "differ by at most 0.0012 and decisions on 1; verdict: may be used." in page.inner_text("main")
    fetched = page.evaluate("fetch('data:,x').then(() => 'reached', () => 'refused')")
    assert fetched == "refused"
    page.complaints.clear()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "choose"
    for width, scheme in ((1280, "light"), (390, "dark")):
        page = open_page(types_file, width, scheme)
        assert ask(page, pictures[0]) == ""
        before = page.locator("#picture").screenshot()
        page.check("#show")
        assert page.locator("#picture").screenshot() != before
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert page.complaints == []
        found = Axe().run(page).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found] == []


def test_a_model_that_was_not_compared_gets_no_page(tmp_path):
    from xray_helpers.export.page import write_page

    with pytest.raises(InputError, match="was not exported to onnx-float16"):
        write_page(tmp_path, "MobileNetV2")


@pytest.mark.parametrize("content", [None, b"no archive", "other"])
def test_another_runtime_is_refused(root, tmp_path, content):
    archive = tmp_path / "runtime.tgz"
    if content == "other":
        with tarfile.open(archive, "w:gz") as opened:
            for name in browser_runtime._HASHES:
                entry = tarfile.TarInfo(f"package/dist/{name}")
                entry.size = 5
                opened.addfile(entry, io.BytesIO(b"other"))
    elif content:
        archive.write_bytes(content)
    with pytest.raises(InputError, match=r"npm pack onnxruntime-web@1\.30\.0"):
        browser_runtime.load_browser_runtime(archive)
    assert not list((root / "data" / "cache").glob("onnxruntime*"))


def test_without_a_network_it_says_how_the_runtime_is_had(root, monkeypatch):
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9/")
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9/onnxruntime-web/-/.*--runtime FILE\.tgz"):
        browser_runtime.load_browser_runtime()
