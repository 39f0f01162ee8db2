"""Studies that several files of tests look at: run once."""

import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

SMALL = {
    "img_size": [80, 80],
    "epochs": 3,
    "weights": "random",
    "use_subset": 1.0,
    "augment_views": 1,
    "repeats": 1,
    "threshold_rule": "youden",
    "maps": 12,
    "localizer": "off",  # trained in test_localize alone
}
PLANTED = (
    "planted-user",
    "planted-host",
    "Planted^Patient",
    "planted-secret",
)  # none of these may get into a study


@pytest.fixture(scope="session")
def root_folder(tmp_path_factory):
    """A root that all these tests share, so that features are computed once."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture
def home(root_folder, monkeypatch):
    """The shared root, in force."""
    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(root_folder))
    return root_folder


@pytest.fixture(scope="session")
def small():
    """Settings under which a study is quick."""
    return SMALL


def write_scan(pixels, path):
    """Write a DICOM file that says whose it is."""
    ds = pydicom.Dataset()
    ds.PatientName, ds.PatientID, ds.InstitutionName = PLANTED[2], "Planted-ID", "Planted-Hospital"
    ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID, ds.Modality = (
        "1.2.840.10008.5.1.4.1.1.1",
        "1.2.3",
        "9.8.7.6.5",
        "CR",
    )
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME1", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelData = 8, 8, 7, (255 - pixels).tobytes()
    ds["PixelData"].VR = "OB"
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="session")
def secret_csv(phantom_csv, tmp_path_factory):
    """Phantoms, of which one file names a patient in its text, and a DICOM file does so in its header."""
    place = tmp_path_factory.mktemp("ward-7") / "set"
    shutil.copytree(phantom_csv.parent, place)
    picture, words = sorted(place.rglob("*.png"))[0], PngInfo()
    words.add_text("PatientName", PLANTED[2])
    Image.open(picture).save(picture, pnginfo=words)
    table = pd.read_csv(place / phantom_csv.name, dtype="string")
    write_scan(np.asarray(Image.open(picture).convert("L")), place / "scan.dcm")
    table.loc[len(table)] = (
        table.loc[0]
        .where(table.columns != "path", "scan.dcm")
        .where(table.columns != "patient", "px")
        .mask(table.columns == "exam")
    )
    table.to_csv(place / phantom_csv.name, index=False)
    return place / phantom_csv.name


@pytest.fixture(scope="session")
def study(root_folder, secret_csv, tmp_path_factory):
    """The five-model study, run by the command line, by a person and on images that have something to hide.

    The first run is killed, at once and without a chance to clean up, while its first training writes to the
    cache, or soon after; the second ends it. That its numbers are those of a study that was left alone is
    what the tests with `failed_study` and papermill show.
    """
    person = tmp_path_factory.mktemp(PLANTED[0])
    pairs = [part for key, value in SMALL.items() for part in ("-p", f"{key}={value}")]
    command = [
        sys.executable,
        "-m",
        "xray_helpers",
        "run",
        "--name",
        "small",
        "--data",
        str(secret_csv),
        *pairs,
    ]
    env = os.environ | {
        "XRAY_HELPERS_ROOT": str(root_folder),
        "HOME": str(person),
        "USER": PLANTED[0],
        "LOGNAME": PLANTED[0],
        "HOSTNAME": PLANTED[1],
        "API_TOKEN": PLANTED[3],
    }
    folder = root_folder / "reports" / "small"
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    explored, writing = folder / "01_data_exploration.done.json", root_folder / "data" / "cache"
    while not (explored.exists() and list(writing.glob(".*.partial*"))) and not list(
        folder.glob("*/history.csv")
    ):
        assert killed.poll() is None
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "01_data_exploration kept" in done.stderr
    assert done.stdout.strip().endswith("index.html")
    assert [path for path in root_folder.rglob("*partial*")] == []
    return folder


@pytest.fixture(scope="session")
def failed_study(study, root_folder, secret_csv):
    """Two models, of which the training of one is made to fail."""
    from xray_helpers.runner import scheduler, series, steps
    from xray_helpers.settings import build_settings

    parameters = steps.notebook_parameters

    def sabotage(step, settings):
        extra = {"learning_rate": -1.0} if step.name == "VGG16/02_train_model" else {}
        return parameters(step, settings) | extra

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XRAY_HELPERS_ROOT", str(root_folder))
        patch.setattr(scheduler, "notebook_parameters", sabotage)
        settings = build_settings(
            **SMALL, name="again", data=str(secret_csv), models=["MobileNetV2", "VGG16"]
        )
        return series.run_study(settings).parent
