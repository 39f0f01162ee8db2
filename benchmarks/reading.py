"""How fast files are read; prints a table.

    python benchmarks/reading.py [--count 2000] [--quick]

Writes so many JPEGs of 224 pixels and a tenth as many uncompressed DICOM files of two megapixels and 16 bits,
then reads them with a thread a core, as the manifest does, the second time from the page cache.
"""

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pydicom
from PIL import Image
from small import QUICK


def write_jpegs(folder: Path, count: int) -> list[str]:
    """Write pictures of smooth limbs and noise."""
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.linspace(0, 120, 224), np.linspace(0, 80, 224))
    for number in range(count):
        picture = np.clip(np.roll(ramp, number) + rng.normal(0, 8, (224, 224)), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{number:05d}.jpg", quality=90)
    return [f"{number:05d}.jpg" for number in range(count)]


def write_dicoms(folder: Path, count: int) -> list[str]:
    """Write digital radiographs of 1,600 x 1,250 pixels, 12 of 16 bits."""
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 4096, (1600, 1250), dtype=np.uint16)
    for number in range(count):
        ds = pydicom.Dataset()
        ds.Modality, ds.SOPClassUID, ds.SOPInstanceUID, ds.PatientID = (
            "DX",
            "1.2.840.10008.5.1.4.1.1.1.1",
            "1.2",
            str(number),
        )
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 1600, 1250, 1, "MONOCHROME1"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.WindowCenter, ds.WindowWidth, ds.PixelData = 2048, 4096, np.roll(stored, number).tobytes()
        ds["PixelData"].VR = "OW"
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        ds.save_as(folder / f"{number:05d}.dcm", enforce_file_format=True)
    return [f"{number:05d}.dcm" for number in range(count)]


@click.command()
@click.option("--count", default=2000)
@click.option("--quick", is_flag=True, help=QUICK)
def main(count: int, quick: bool) -> None:
    """Measure both kinds."""
    count = 40 if quick else count
    with tempfile.TemporaryDirectory() as place:
        os.environ["XRAY_HELPERS_ROOT"] = place
        from xray_helpers.images.radiographs import ImageFolder

        folder, rows = ImageFolder(Path(place)), []
        kinds = {
            "JPEG, 224 x 224": write_jpegs(folder.path, count),
            "DICOM, 1,600 x 1,250, 16 bits": write_dicoms(folder.path, max(4, count // 10)),
        }
        for kind, names in kinds.items():
            for _ in range(2):
                started = time.perf_counter()
                with ThreadPoolExecutor() as pool:
                    for _ in pool.map(lambda name: folder.read(name).pixels.shape, names):
                        pass
                seconds = time.perf_counter() - started
            rows.append(
                {
                    "kind": kind,
                    "files": len(names),
                    "seconds": seconds,
                    "files a second": len(names) / seconds,
                }
            )
        print(pd.DataFrame(rows).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
