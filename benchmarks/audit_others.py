"""Runs other tools on a folder, for `audits.py`, in an environment of their own; prints one JSON object: by
tool pairs of file names, seconds, version, or why it was not run.
"""

import contextlib
import itertools
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

THRESHOLD = 8  # bits, of pHash in eight orientations


def imagededup(folder: Path, method: str) -> list[tuple[str, str]]:
    """At its default threshold; the network needs its weights."""
    import imagededup.methods

    found = getattr(imagededup.methods, method)(verbose=False).find_duplicates(image_dir=str(folder))
    return [(a, b) for a, others in found.items() for b in others]


def cleanvision(folder: Path) -> list[tuple[str, str]]:
    """Exact and near duplicates, as by default."""
    from cleanvision import Imagelab

    lab = Imagelab(data_path=str(folder))
    lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, n_jobs=os.cpu_count(), verbose=False)
    sets = [
        s for kind in ("exact_duplicates", "near_duplicates") for s in lab.info.get(kind, {}).get("sets", [])
    ]
    return [(Path(s[0]).name, Path(other).name) for s in sets for other in s[1:]]


def phash(folder: Path) -> list[tuple[str, str]]:
    """By ImageHash, the least distance over rotations by 90 degrees and mirrors."""
    import imagehash
    from PIL import Image

    names = sorted(os.listdir(folder))
    hashes = []
    for name in names:
        with Image.open(folder / name) as image:
            grey = image.convert("L")
        forms = [grey.transpose(way) if way is not None else grey for way in (None, *Image.Transpose)]
        hashes.append([imagehash.phash(form).hash.ravel() for form in forms])
    bits = np.array(hashes, np.int16)  # (n, 8, 64)
    own = bits[:, 0] * 2 - 1
    distance = np.min([(64 - own @ (bits[:, form] * 2 - 1).T) / 2 for form in range(bits.shape[1])], axis=0)
    return [
        (names[a], names[b])
        for a, b in itertools.combinations(range(len(names)), 2)
        if distance[a, b] <= THRESHOLD
    ]


def selfclean(folder: Path) -> list[tuple[str, str]]:
    """Needs weights pretrained on ImageNet."""
    from selfclean import SelfClean
    from selfclean.cleaner.selfclean import PretrainingType

    SelfClean().run_on_image_folder(
        folder.parent, ssl_pre_training=False, pretraining_type=PretrainingType.IMAGENET
    )
    raise NotImplementedError("its ranking has no threshold")


TOOLS = {
    "imagededup PHash": ("imagededup", lambda folder: imagededup(folder, "PHash")),
    "imagededup DHash": ("imagededup", lambda folder: imagededup(folder, "DHash")),
    "imagededup CNN": ("imagededup", lambda folder: imagededup(folder, "CNN")),
    "cleanvision": ("cleanvision", cleanvision),
    f"pHash, 8 orientations, <= {THRESHOLD} bits": ("imagehash", phash),
    "SelfClean": ("selfclean", selfclean),
}


def main() -> None:
    """Run the tools on the folder given, but for those named after it."""
    folder, results = Path(sys.argv[1]), {}
    for name, (package, run) in TOOLS.items():
        if name in sys.argv[2:]:
            continue
        started = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            try:
                results[name] = {"pairs": run(folder), "version": version(package)}
            except Exception as error:  # the others are to run all the same
                results[name] = {"error": f"{type(error).__name__}: {error}"[:160]}
        results[name]["seconds"] = time.perf_counter() - started
    print(json.dumps(results))


if __name__ == "__main__":
    main()
