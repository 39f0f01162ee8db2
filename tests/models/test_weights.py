"""Weights files: chosen, downloaded from a local server, checked, and loaded in every layout of Keras."""

import hashlib
import threading
import time
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest
from weight_files import write_numbers

from xray_helpers.models import weights
from xray_helpers.models.backbones import BACKBONES, embedder_weights, get_backbone, resolve_weights
from xray_helpers.models.weights import choose_file, count_parameters, find_problem, keras_file
from xray_helpers.settings import InputError

NOWHERE = "http://127.0.0.1:9/"  # nothing listens there


@pytest.fixture
def small(monkeypatch):
    """Give MobileNetV2 and VGG16 in the registry few parameters and no hash, so that tests can write them."""
    for name, count in (("MobileNetV2", 1000), ("VGG16", 2000)):
        monkeypatch.setitem(BACKBONES, name, replace(BACKBONES[name], parameters=count, file_hash=""))


@pytest.fixture
def home(tmp_path, monkeypatch, root):
    """Give Keras an empty folder, and no network."""
    place = tmp_path / "keras"
    (place / "models").mkdir(parents=True)
    monkeypatch.setenv("KERAS_HOME", str(place))
    monkeypatch.setattr(weights, "BASE_URL", NOWHERE)
    return place / "models"


class _Handler(BaseHTTPRequestHandler):
    """Serves files by the last part of their address, in the way that a test asks for."""

    def __init__(self, *arguments, folder: Path, how: str, asked: list, **options):
        self.folder, self.how, self.asked = folder, how, asked
        super().__init__(*arguments, **options)

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        self.asked.append(self.path)
        file = self.folder / self.path.split("/")[-1]
        if self.how == "404" or not file.exists():
            self.send_error(404)
            return
        if self.how == "hangs":
            time.sleep(1.5)
            return
        content = (
            b"<!DOCTYPE html><html>Sign in to the hospital's network</html>"
            if self.how == "page"
            else file.read_bytes()
        )
        self.send_response(200)
        if self.how != "truncated":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.how in ("truncated", "breaks off") else content)
        if self.how == "stalls":
            time.sleep(1.5)


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Start a local server; return its folder and the list of paths requested."""
    servers = []

    def start(how: str = "well") -> tuple[Path, list]:
        folder, asked = tmp_path / "served", []
        folder.mkdir(exist_ok=True)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, folder=folder, how=how, asked=asked))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        monkeypatch.setattr(weights, "BASE_URL", f"http://127.0.0.1:{server.server_port}/")
        return folder, asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


MOBILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{}_no_top.h5"


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (
            [MOBILE.format("1.0_96"), MOBILE.format("1.0_224"), MOBILE.format("1.0_160")],
            MOBILE.format("1.0_224"),
        ),
        ([MOBILE.format("1.0_96")], MOBILE.format("1.0_96")),
        ([MOBILE.format("1.0_96"), "MobileNet-V2_notop.weights.h5"], "MobileNet-V2_notop.weights.h5"),
        (["mobilenetv2.h5", "mobilenetv2_notop.h5"], "mobilenetv2_notop.h5"),
        (["MobileNetV2.keras", "._MobileNetV2.h5", "mobilenetv3_notop.h5"], "MobileNetV2.keras"),
        ([MOBILE.format("1.0_224"), "mobilenetv2_imagenet_notop.weights.h5"], MOBILE.format("1.0_224")),
    ],
)
def test_of_several_files_that_fit_the_best_named_is_chosen(small, tmp_path, names, chosen):
    for name in names:
        write_numbers(tmp_path / name, 1000)
    assert choose_file(BACKBONES["MobileNetV2"].published, tmp_path).name == chosen
    assert get_backbone("MobileNetV2").locate_weights(str(tmp_path)).name == chosen


def test_content_goes_before_names(small, tmp_path):
    write_numbers(tmp_path / "mobilenetv2_notop.h5", 700)  # of another width, whatever it is called
    write_numbers(tmp_path / "mobilenet_v2.h5", 1000)
    assert choose_file(BACKBONES["MobileNetV2"].published, tmp_path).name == "mobilenet_v2.h5"


@pytest.mark.parametrize(
    "names",
    [[MOBILE.format("1.0_96"), MOBILE.format("1.0_160")], ["mobilenetv2_notop.h5", "mobilenet_v2_notop.h5"]],
)
def test_a_choice_that_cannot_be_made_is_refused_by_name(small, tmp_path, names):
    for name in names:
        write_numbers(tmp_path / name, 1000)
    with pytest.raises(InputError, match="2 weights files of MobileNetV2 that are equally good") as caught:
        resolve_weights(str(tmp_path), ("MobileNetV2",))
    assert all(name in str(caught.value) for name in names)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("MobileNetV2", MOBILE.format("0.5_224")),
        ("MobileNetV2", MOBILE.format("1.4_224")),
        ("MobileNetV2", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"),
        ("ResNet50", "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("ResNet50", "ResNet50_V2.keras"),
        ("VGG16", "vgg16_weights_tf_dim_ordering_tf_kernels.h5"),
    ],
)
def test_another_width_version_or_the_top_is_refused_by_name(tmp_path, model, name):
    write_numbers(tmp_path / name, 1234)
    with pytest.raises(InputError, match="is another network, or with its top") as caught:
        resolve_weights(str(tmp_path), (model,))
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("VGG16", "vgg19_notop.h5"),
        ("MobileNetV2", "mobilenet_v3_notop.h5"),
        ("InceptionV3", "inception_resnet_v2_notop.h5"),
    ],
)
def test_a_neighbours_file_is_not_taken(tmp_path, model, name):
    write_numbers(tmp_path / name, 1234)
    with pytest.raises(InputError, match=f"There are no weights of {model}"):
        choose_file(BACKBONES[model].published, tmp_path)


def test_all_files_that_a_folder_lacks_are_named_at_once(small, tmp_path):
    write_numbers(tmp_path / "vgg16_notop.h5", 2000)
    with pytest.raises(InputError, match="Leave the model out") as caught:
        resolve_weights(str(tmp_path), ("MobileNetV2", "VGG16", "ResNet50", "InceptionV3@radimagenet"))
    said = str(caught.value)
    assert "no weights of MobileNetV2, no weights of ResNet50, no RadImageNet weights of InceptionV3" in said
    assert all(BACKBONES[name].published.file in said for name in ("MobileNetV2", "ResNet50"))
    assert "VGG16" not in said and "weights=random" not in said


def test_one_file_for_several_models_is_refused_before_any_work(small, tmp_path):
    file = write_numbers(tmp_path / "weights.h5", 1000)
    assert resolve_weights(str(file), ("MobileNetV2",)) == str(file)
    with pytest.raises(
        InputError, match=r"weights.h5 do not fit VGG16 .* it holds 1,000 parameters, not 2,000"
    ):
        resolve_weights(str(file), ("MobileNetV2", "VGG16"))


@pytest.mark.parametrize("content", [b"", b"x", b"<html>404</html>", b"PK\x03\x04 no archive", None])
def test_a_damaged_file_is_a_sentence(small, tmp_path, home, content, capsys):
    whole = write_numbers(tmp_path / "whole.h5", 1000).read_bytes()
    content = whole[:-100] if content is None else content
    folder = tmp_path / "mine"
    folder.mkdir()
    for place in (folder / "mobilenetv2_notop.h5", keras_file(BACKBONES["MobileNetV2"].published)):
        place.write_bytes(content)
    with pytest.raises(InputError, match="damaged, or no weights file at all"):
        resolve_weights(str(folder), ("MobileNetV2",))
    with pytest.raises(InputError, match=r"cannot be used .it is damaged.* Three ways out"):
        resolve_weights("imagenet", ("MobileNetV2",))
    assert resolve_weights("auto", ("MobileNetV2",)) == "random"
    assert "Random weights stand in" in capsys.readouterr().out
    assert embedder_weights("imagenet") is embedder_weights("auto") is embedder_weights(str(folder)) is None
    assert capsys.readouterr().out.count("goes on without them") == 3


def test_published_weights_are_downloaded_once_and_only_the_224_file(small, home, serve):
    folder, asked = serve()
    for side in (96, 128, 160, 192, 224):
        write_numbers(folder / MOBILE.format(f"1.0_{side}"), 1000)
    assert resolve_weights("auto", ("MobileNetV2",)) == "imagenet"
    assert resolve_weights("imagenet", ("MobileNetV2",)) == embedder_weights("auto") == "imagenet"
    assert asked == [f"/tensorflow/keras-applications/mobilenet_v2/{MOBILE.format('1.0_224')}"]
    assert [file.name for file in home.iterdir()] == [MOBILE.format("1.0_224")]


@pytest.mark.parametrize("how", ["404", "page", "truncated", "breaks off", "hangs"])
def test_a_download_that_fails_leaves_nothing_and_is_a_sentence(small, home, serve, how, capsys, monkeypatch):
    folder, _ = serve(how)
    monkeypatch.setattr(weights, "_ANSWER_SECONDS", 0.5)
    write_numbers(folder / MOBILE.format("1.0_224"), 1000)
    with pytest.raises(
        InputError,
        match=r"MobileNetV2 cannot be had: .*_1.0_224_no_top.h5 is missing, and its download failed",
    ):
        resolve_weights("imagenet", ("MobileNetV2",))
    assert resolve_weights("auto", ("MobileNetV2",)) == "random"
    assert embedder_weights("auto") is None
    assert "goes on without them" in capsys.readouterr().out
    assert not list(home.iterdir())


def test_a_download_that_stalls_is_given_up(small, home, serve, monkeypatch):
    folder, _ = serve("stalls")
    monkeypatch.setattr(weights, "_STALL_SECONDS", 0.3)
    file = write_numbers(folder / MOBILE.format("1.0_224"), 1000)
    original = _Handler.do_GET

    def slow(handler):  # the header, half of the file, and then nothing for long
        content = file.read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:1000])
        handler.wfile.flush()
        time.sleep(1.5)

    monkeypatch.setattr(_Handler, "do_GET", slow)
    with pytest.raises(InputError, match="timed out"):
        resolve_weights("imagenet", ("MobileNetV2",))
    monkeypatch.setattr(_Handler, "do_GET", original)
    assert not list(home.iterdir())


def test_a_file_with_another_hash_is_not_taken_and_a_damaged_one_is_fetched_anew(
    small, home, serve, monkeypatch
):
    folder, asked = serve()
    name = BACKBONES["VGG16"].published.file
    good = write_numbers(folder / name, 2000).read_bytes()
    monkeypatch.setitem(
        BACKBONES, "VGG16", replace(BACKBONES["VGG16"], file_hash=hashlib.md5(good).hexdigest())
    )
    write_numbers(
        home / name, 2000, seed=1
    )  # readable, with the right number of parameters: only the hash differs
    assert "MD5" in find_problem(BACKBONES["VGG16"].published, home / name, by_hash=True)
    assert resolve_weights("imagenet", ("VGG16",)) == "imagenet"
    assert (home / name).read_bytes() == good
    assert len(asked) == 1
    (home / name).unlink()
    write_numbers(folder / name, 2000, seed=2)  # a proxy that answers with something else
    with pytest.raises(
        InputError,
        match="the file received cannot be used: it is damaged, or not the file that Keras publishes",
    ):
        resolve_weights("imagenet", ("VGG16",))
    assert not (home / name).exists()


def test_all_models_fall_back_together(small, home, serve):
    folder, _ = serve()
    write_numbers(folder / MOBILE.format("1.0_224"), 1000)
    assert resolve_weights("auto", ("MobileNetV2", "VGG16")) == "random"


def test_a_folder_of_keras_that_cannot_be_written_is_a_sentence(small, home, serve, monkeypatch, tmp_path):
    folder, _ = serve()
    write_numbers(folder / MOBILE.format("1.0_224"), 1000)
    (tmp_path / "a file").write_text("no folder")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "a file"))
    with pytest.raises(InputError, match="its download failed"):
        resolve_weights("imagenet", ("MobileNetV2",))


@pytest.mark.parametrize("name", list(BACKBONES))
def test_the_registry_has_the_files_and_hashes_that_keras_states(name):
    import importlib
    import inspect

    import keras

    module = inspect.getmodule(inspect.unwrap(getattr(keras.applications, name)))
    if module.__name__.split(".")[-1] == "resnet_v2":
        module = importlib.import_module("keras.src.applications.resnet")
    source, entry = inspect.getsource(module), BACKBONES[name]
    assert entry.file_hash in source
    assert bool(entry.file_hash) == ("hash" in source), name
    assert entry.weights_file.split("/")[-2] in source
    assert entry.published.file.split("_notop")[0].split("_no_top")[0].split("_")[0] in source


def test_weights_are_identified_by_the_content_of_their_file(small, home):
    file = write_numbers(keras_file(BACKBONES["MobileNetV2"].published), 1000)
    first = get_backbone("MobileNetV2").identify_weights("imagenet")
    assert first == get_backbone("MobileNetV2").identify_weights(str(file))
    write_numbers(file, 1000, seed=1)
    assert get_backbone("MobileNetV2").identify_weights("imagenet") != first


LAYOUTS = ("legacy", "whole model", "Keras 3", "archive")


def save(network, path: Path, layout: str) -> None:
    """Save weights to `path` in a layout of Keras 2, of a complete model, or of Keras 3."""
    from keras.src.legacy.saving import legacy_h5_format

    if layout == "legacy":
        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, network)
            assert "top_level_model_weights" in file
    elif layout == "whole model":
        network.save(path)
        with h5py.File(path, "r") as file:
            assert set(file) >= {"model_weights"}
    else:
        written = path.with_name("x.weights.h5" if layout == "Keras 3" else "x.keras")
        network.save_weights(written) if layout == "Keras 3" else network.save(written)
        written.rename(path)


@pytest.fixture(scope="module", params=["MobileNetV2", "VGG16", "ConvNeXtTiny", "MobileNetV3Small"])
def plain(request):
    """Each network as Keras builds it, with weights that differ from layer to layer."""
    import keras

    keras.utils.set_random_seed(3)
    network = getattr(keras.applications, request.param)(
        include_top=False, weights=None, input_shape=(96, 96, 3)
    )
    rng = np.random.default_rng(0)
    small = [part + rng.uniform(0, 0.01, part.shape).astype("float32") for part in network.get_weights()]
    network.set_weights(small)
    yield request.param, network
    keras.backend.clear_session()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_backbone_is_fetched_and_loaded_from_every_layout(plain, layout, home, serve, monkeypatch):
    name, network = plain
    folder, asked = serve()
    entry = BACKBONES[name]
    file = folder / entry.published.file
    save(network, file, layout)
    assert count_parameters(file) == entry.parameters == network.count_params()
    if entry.file_hash:
        md5 = hashlib.md5(file.read_bytes()).hexdigest()
        monkeypatch.setitem(BACKBONES, name, replace(entry, file_hash=md5))
    assert resolve_weights("imagenet", (name,)) == "imagenet"
    built = get_backbone(name).build((96, 96), "imagenet")[0]
    assert len(asked) == 1
    for mine, theirs in zip(built.get_weights(), network.get_weights(), strict=True):
        assert (mine == theirs).all()
    mine = get_backbone(name).build((96, 96), str(file))[0]  # the same file, given by hand
    assert all((a == b).all() for a, b in zip(mine.get_weights(), network.get_weights(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("side", [96, 128, 224])
def test_the_224_file_serves_every_size_without_a_network(side, home):
    import keras

    keras.utils.set_random_seed(1)
    network = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(224, 224, 3))
    save(network, home / MOBILE.format("1.0_224"), "legacy")
    by_hand = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(side, side, 3))
    by_hand.load_weights(home / MOBILE.format("1.0_224"))
    grey = np.random.default_rng(0).uniform(0, 255, (2, side, side, 1)).astype("float32")
    expected = np.asarray(by_hand(np.repeat(grey, 3, axis=-1) / 127.5 - 1)).mean(axis=(1, 2))
    found = np.asarray(get_backbone("MobileNetV2").build((side, side), "imagenet")[0](grey))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.slow
def test_numbers_that_are_not_finite_are_refused(home, tmp_path):
    import keras

    network = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(96, 96, 3))
    broken = [
        part * np.float32("nan") if number == 7 else part for number, part in enumerate(network.get_weights())
    ]
    network.set_weights(broken)
    network.save_weights(tmp_path / "MobileNetV2.weights.h5")
    with pytest.raises(InputError, match="not finite"):
        get_backbone("MobileNetV2").build((96, 96), str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("there", [True, False])
def test_audit_takes_the_224_file_or_says_that_it_goes_without(there, home, phantom_csv, tmp_path):
    from xray_helpers.reports.audit import audit_folder

    if there:
        import keras

        network = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(224, 224, 3))
        save(network, home / MOBILE.format("1.0_224"), "legacy")
    found = audit_folder(str(phantom_csv), tmp_path / "out")
    words = "MobileNetV2, ImageNet weights" if there else "Fourier-Mellin signatures"
    assert found.facts["pairs proposed by"].startswith(words)
