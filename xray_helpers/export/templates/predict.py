"""Classify radiographs by the model beside this file: python predict.py FILE ...; without files: a test."""

import hashlib, json, pathlib, sys  # noqa: E401, I001

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).resolve().parent
for checksum, name in (line.split("  ", 1) for line in (HERE / "SHA256SUMS").read_text("utf-8").splitlines()):
    if not (HERE / name).is_file() or hashlib.sha256((HERE / name).read_bytes()).hexdigest() != checksum:
        sys.exit(f"{name} is missing, renamed or not as it was handed over: get the whole folder again.")
ABOUT, EXPECTED = (json.loads((HERE / f).read_text("utf-8")) for f in ("preprocessing.json", "expected.json"))
SIZE, THRESHOLD, (LOW, HIGH) = ABOUT["size"], ABOUT["threshold"], ABOUT["abstains_between"]
RUN = Interpreter(str(HERE / ABOUT["file"])).get_signature_runner()


def weigh(old, new, kind):
    """Return how OpenCV weights the pixels along a side: of the first neighbour, and of the next one."""
    at, x, scale, mixed = np.arange(new)[:, None], np.arange(old), 1 / (new / old), kind == "mixed"
    shared = np.minimum((at + 1) * scale, x + 1) - np.maximum(at * scale, x)
    if kind == "area":
        return np.clip(shared, 0, None) / scale, 0
    place = at * scale if mixed else np.float32((at + 0.5) * scale - 0.5)
    low = np.floor(place)
    part = np.maximum(np.float32(at + 1 - (low + 1) * (new / old) if mixed else place - low), 0) % 1
    return [(x == np.clip(low + k, 0, old - 1)) * np.rint(2048 * w) for k, w in ((0, 1 - part), (1, part))]


def read(path):
    """Return a picture as the model takes it, resized as OpenCV does: by the mean of areas, or linearly."""
    try:
        image = ImageOps.exif_transpose(Image.open(path))
    except (OSError, SyntaxError) as error:  # missing, cut, or no picture
        sys.exit(f"{path} cannot be read: {error}.")
    if image.mode[0] in "IF":
        sys.exit(f"{path} has more than 8 bits: convert it to 8-bit grey first.")
    if image.mode not in "1L" or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    grey = np.asarray(image.convert("L"), float)
    scale = min(np.divide(SIZE, grey.shape))
    h, w = [max(1, round(side * scale)) for side in grey.shape] if ABOUT["resize"] == "pad" else SIZE
    kind = "linear" if max(n := np.subtract(grey.shape, (h, w))) <= 0 else "area" if min(n) >= 0 else "mixed"
    (a, b), (c, d) = weigh(grey.shape[0], h, kind), weigh(grey.shape[1], w, kind)
    if kind == "area":
        grey = np.rint(np.float32(a @ grey @ c.T) + 1e-3 * (grey.shape == (2 * h, 2 * w)))  # ties go up there
    else:
        across = np.floor(grey @ (c + d).T / 16)
        grey = np.floor((np.floor(a @ across / 65536) + np.floor(b @ across / 65536) + 2) / 4)
    edges = [((whole - part) // 2, -((part - whole) // 2)) for whole, part in zip(SIZE, (h, w), strict=True)]
    return np.pad(grey, edges)[None, ..., None].astype(np.float32)


for path in sys.argv[1:] or [HERE / name for name in EXPECTED]:
    p = float(RUN(**{ABOUT["input"]: read(path)})["probability"][0, ABOUT["positive_outputs"]].sum())
    answer = "abstains" if LOW <= p <= HIGH and LOW < HIGH else ABOUT["classes"][int(p >= THRESHOLD)]
    print(f"{path}: P({ABOUT['classes'][1]}) = {p:.6f}, {answer}. For research only.")
    if not sys.argv[1:] and abs(p - EXPECTED[path.relative_to(HERE).as_posix()]) > 1e-4:
        sys.exit(f"{path} should have given {EXPECTED}: this machine computes otherwise.")
