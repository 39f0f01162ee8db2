"""Every standard encoding of a radiograph is decoded; damaged and unknown ones name their transfer syntax."""

from concurrent.futures import ThreadPoolExecutor
from time import sleep

import numpy as np
import pytest
from dicom_files import DX, build, encode, read, read_whole_range, scale
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder, pixel_array

from xray_helpers.images import decoders
from xray_helpers.images.decoders import PLUGIN, read_header, register
from xray_helpers.images.radiographs import UnreadableError
from xray_helpers.synthetic.limb import build_patient, render_view

PLAIN = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
)


@pytest.fixture(scope="module")
def radiograph():
    """A synthetic radiograph of 12 bits with detector noise, uint16."""
    rng = np.random.default_rng(5)
    pixels, _ = render_view(rng, build_patient(rng, "displaced"))
    grey = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    return np.clip(np.round(grey * 4000 + rng.normal(40, 6, grey.shape)), 0, 4095).astype(np.uint16)


@pytest.fixture(autouse=True)
def _root(root):
    """Write the salt of patients' hashes to a temporary folder."""


LOSSLESS = {
    "JPEG Lossless, predictor 1": (uid.JPEGLosslessSV1, "ljpeg", {"bitspersample": 12}),
    "JPEG Lossless in 16 bits": (uid.JPEGLosslessSV1, "ljpeg", {"bitspersample": 16}),
    **{
        f"JPEG Lossless, predictor {number}": (
            uid.JPEGLossless,
            "jpeg8",
            {"lossless": True, "predictor": number, "bitspersample": 12},
        )
        for number in range(2, 8)
    },
    "JPEG-LS": (uid.JPEGLSLossless, "jpegls", {}),
    "JPEG 2000": (uid.JPEG2000Lossless, "jpeg2k", {"level": 0, "codecformat": "j2k", "reversible": True}),
    "JPEG 2000 of 12 bits": (
        uid.JPEG2000Lossless,
        "jpeg2k",
        {"level": 0, "codecformat": "j2k", "reversible": True, "bitspersample": 12},
    ),
    "JPEG 2000 in a JP2 file": (
        uid.JPEG2000Lossless,
        "jpeg2k",
        {"level": 0, "codecformat": "jp2", "reversible": True},
    ),
    "High-Throughput JPEG 2000": (uid.HTJ2KLossless, "htj2k", {}),
}
LOSSY = {
    "JPEG Extended of 12 bits": (uid.JPEGExtended12Bit, "jpeg8", {"level": 90, "bitspersample": 12}),
    "JPEG-LS, near-lossless": (uid.JPEGLSNearLossless, "jpegls", {"level": 3}),
    "JPEG 2000": (uid.JPEG2000, "jpeg2k", {"level": 55, "codecformat": "j2k", "bitspersample": 12}),
    "High-Throughput JPEG 2000": (uid.HTJ2K, "htj2k", {"level": 0.001}),
}


@pytest.mark.parametrize("syntax", PLAIN, ids=lambda syntax: syntax.name)
def test_uncompressed_and_rle_values_are_exact(tmp_path, radiograph, syntax):
    found = read_whole_range(build(radiograph, 12, syntax=syntax, SOPClassUID=DX), tmp_path)
    assert (found == scale(radiograph)).all()


@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEG2000Lossless], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("signed", [False, True])
def test_files_of_other_encoders_are_exact(tmp_path, radiograph, syntax, signed):
    stored = radiograph.astype(np.int16) - 2048 if signed else radiograph
    assert (read_whole_range(build(stored, 12, syntax=syntax), tmp_path) == scale(radiograph)).all()


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_encodings_are_exact(tmp_path, radiograph, name):
    syntax, codec, options = LOSSLESS[name]
    ds = build(radiograph, 12, syntax=syntax, codestream=encode(radiograph, codec, **options))
    assert (read_whole_range(ds, tmp_path) == scale(radiograph)).all()


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_encodings_are_within_three_grey_levels(tmp_path, radiograph, name):
    syntax, codec, options = LOSSY[name]
    codestream = encode(radiograph, codec, **options)
    found = read_whole_range(build(radiograph, 12, syntax=syntax, codestream=codestream), tmp_path).astype(
        int
    )
    off = np.abs(found - scale(radiograph))
    assert 0 < off.mean() < 3
    assert off.max() < 30  # nothing wraps from white to black


@pytest.mark.parametrize(
    "syntax", [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit], ids=lambda syntax: syntax.name
)
def test_jpeg_of_eight_bits_in_either_syntax(tmp_path, radiograph, syntax):
    stored = (radiograph >> 4).astype(np.uint8)
    codestream = encode(stored, "jpeg8", level=95)
    ds = build(stored, 8, syntax=syntax, codestream=codestream, WindowCenter=128, WindowWidth=256)
    assert np.abs(read(ds, tmp_path).pixels.astype(int) - stored).mean() < 1


@pytest.mark.parametrize(
    ("kind", "colorspace"),
    [("YBR_FULL_422", "YCBCR"), ("YBR_FULL", "YCBCR"), ("RGB", "RGB"), ("RGB", "YCBCR")],
)
def test_colour_spaces_of_jpeg_are_recognised(tmp_path, radiograph, kind, colorspace):
    grey = (radiograph >> 4).astype(np.uint8)
    colour = np.stack([grey, grey // 2, grey // 4], axis=-1)
    codestream = encode(
        colour, "jpeg8", level=98, colorspace="RGB", outcolorspace=colorspace, subsampling="444"
    )
    ds = build(
        colour,
        8,
        kind,
        uid.JPEGBaseline8Bit,
        codestream=codestream,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.7",
        Modality="OT",
    )
    luminance = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read(ds, tmp_path).pixels - luminance).mean() < 1.5


@pytest.mark.parametrize(
    ("name", "values"),  # as pydicom's own tests have them
    [("JPEG-lossy.dcm", {(420, 140): 244, (230, 120): 95}), ("SC_rgb_jpeg.dcm", {(100, 100): 244})],
)
def test_jpeg_of_other_manufacturers(name, values):
    register()
    stored = pixel_array(dcmread(get_testdata_file(name)), index=0, decoding_plugin=PLUGIN)
    for place, value in values.items():
        assert (stored[place] == value).all()


@pytest.mark.parametrize(
    "name", ["JPEG2000.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm", "examples_jpeg2k.dcm"]
)
def test_jpeg_2000_of_other_manufacturers_agrees_with_another_decoder(name):
    register()
    ds = dcmread(get_testdata_file(name))
    ours, theirs = (pixel_array(ds, index=0, decoding_plugin=plugin) for plugin in (PLUGIN, "pylibjpeg"))
    assert (ours == theirs).all()


@pytest.mark.parametrize("name", [*LOSSLESS, "JPEG Extended of 12 bits", "RLE"])
@pytest.mark.parametrize("share", [0.4, 0.95])
def test_truncated_frames_are_refused_and_name_their_syntax(tmp_path, radiograph, name, share):
    if name == "RLE":
        ds = build(radiograph, 12, syntax=uid.RLELossless)
        whole = get_frame(ds.PixelData, 0, number_of_frames=1)
        ds.PixelData = encapsulate([whole[: int(share * len(whole))]])
    else:
        syntax, codec, options = {**LOSSLESS, **LOSSY}[name]
        whole = encode(radiograph, codec, **options)
        ds = build(radiograph, 12, syntax=syntax, codestream=whole[: int(share * len(whole))])
    syntax = ds.file_meta.TransferSyntaxUID
    with pytest.raises(UnreadableError) as caught:
        read(ds, tmp_path)
    assert str(caught.value).startswith(f"cannot be decoded ({syntax.name}, {syntax}): ")


@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        (uid.MPEG2MPML, "MPEG2 Main Profile / Main Level, 1.2.840.10008.1.2.4.100"),
        (uid.UID("1.2.3.4"), "1.2.3.4"),
    ],
)
def test_an_unknown_syntax_is_named(tmp_path, radiograph, syntax, name):
    ds = build(radiograph, 12, syntax=uid.MPEG2MPML, codestream=b"\0\0\1\xb3" * 9)
    ds.file_meta.TransferSyntaxUID = syntax
    with pytest.raises(UnreadableError) as caught:
        read(ds, tmp_path)
    assert str(caught.value).startswith(f"cannot be decoded ({name}): ")


@pytest.mark.parametrize(
    ("stored", "coded"),
    [((40, 30), (40, 30, 3)), ((40, 30, 3), (40, 30)), ((40, 30), (30, 40))],
    ids=["colour tagged as grey", "grey tagged as colour", "turned"],
)
@pytest.mark.parametrize(
    ("syntax", "codec", "options"),
    [
        (uid.JPEGBaseline8Bit, "jpeg8", {"level": 95}),
        (uid.JPEG2000Lossless, "jpeg2k", {"level": 0, "codecformat": "j2k", "reversible": True}),
        (uid.JPEGLSLossless, "jpegls", {}),
    ],
    ids=["JPEG", "JPEG 2000", "JPEG-LS"],
)
def test_tags_that_contradict_the_frame_are_refused(tmp_path, stored, coded, syntax, codec, options):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, coded, dtype=np.uint8)
    kind = "RGB" if len(stored) == 3 else "MONOCHROME2"
    ds = build(np.zeros(stored, np.uint8), 8, kind, syntax, codestream=encode(pixels, codec, **options))
    with pytest.raises(UnreadableError, match=r"where its tags say .*: export it again"):
        read(ds, tmp_path)


def test_headers_are_read_without_decoding(radiograph):
    height, width = radiograph.shape
    for syntax, codec, options in {**LOSSLESS, **LOSSY}.values():
        header = read_header(encode(radiograph, codec, **options)[:700])
        assert header[:3] == (height, width, 1), syntax.name
        assert header.precision in (12, 16)
    assert read_header(b"no codestream") is None
    assert read_header(b"\xff\xd8\xff\xe0") is None


def test_several_threads_may_register_the_decoder(monkeypatch):
    """A second registration would raise an exception, so that a good file would be refused."""
    decoders.register()
    known = [get_decoder(syntax) for syntax in decoders.DECODER_DEPENDENCIES]
    for decoder in known:
        decoder.remove_plugin(decoders.PLUGIN)
        monkeypatch.setattr(
            decoder, "add_plugin", lambda *given, add=decoder.add_plugin: (sleep(0.005), add(*given))
        )
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: decoders.register(), range(16)))
    assert all(decoders.PLUGIN in decoder.available_plugins for decoder in known)
