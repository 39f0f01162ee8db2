"""Nineteen kinds of change that pictures of a set go through, for `audits.py`: each gives another picture of
the same source.
"""

import cv2
import numpy as np

Picture = np.ndarray  # uint8 grey (height, width), 0-255


def _turn(x: Picture, angle: float) -> Picture:
    height, width = x.shape
    matrix = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), angle, 1.0)
    return cv2.warpAffine(x, matrix, (width, height), flags=cv2.INTER_LINEAR)


def _crop(x: Picture, area: float, rng: np.random.Generator) -> Picture:
    height, width = (max(8, round(side * area**0.5)) for side in x.shape)
    top, left = (
        rng.integers(0, whole - part + 1) for whole, part in zip(x.shape, (height, width), strict=True)
    )
    return np.ascontiguousarray(x[top : top + height, left : left + width])


def _levels(x: np.ndarray) -> Picture:
    return np.clip(np.round(x), 0, 255).astype(np.uint8)


def any_rotation(x: Picture, rng: np.random.Generator) -> Picture:
    """By 10 to 350 degrees within the frame."""
    return _turn(x, rng.uniform(10, 350))


def rot90_flip(x: Picture, rng: np.random.Generator) -> Picture:
    """By a multiple of 90 degrees, then mirrored."""
    return np.ascontiguousarray(np.rot90(x, rng.integers(1, 4))[:, ::-1])


def gamma(x: Picture, rng: np.random.Generator) -> Picture:
    """0.5 to 0.7 or 1.5 to 2."""
    power = rng.uniform(0.5, 0.7) if rng.random() < 0.5 else rng.uniform(1.5, 2.0)
    return _levels(255 * (x / 255) ** power)


def small_copy(x: Picture, rng: np.random.Generator) -> Picture:
    """64 pixels on the longer side."""
    scale = 64 / max(x.shape)
    size = tuple(max(1, round(side * scale)) for side in x.shape[::-1])
    return cv2.resize(x, size, interpolation=cv2.INTER_AREA)


def stretch(x: Picture, rng: np.random.Generator) -> Picture:
    """1.6 times wider."""
    return cv2.resize(x, None, fx=1.6, fy=1.0)


def combined(x: Picture, rng: np.random.Generator) -> Picture:
    """Rotation to 20 degrees, a crop of 80 % of the area, a flip, brightness and contrast."""
    x = _crop(_turn(x, rng.uniform(-20, 20)), 0.8, rng)
    x = x[:, ::-1] if rng.random() < 0.5 else x[::-1]
    return _levels(x * rng.uniform(0.7, 1.3) + rng.uniform(-30, 30))


def half_crop(x: Picture, rng: np.random.Generator) -> Picture:
    """Half of the area, anywhere."""
    return _crop(x, 0.5, rng)


def crop_30(x: Picture, rng: np.random.Generator) -> Picture:
    """30 % of the area, anywhere."""
    return _crop(x, 0.3, rng)


def jpeg_10(x: Picture, rng: np.random.Generator) -> Picture:
    """JPEG of quality 10."""
    return cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, 10])[1], cv2.IMREAD_GRAYSCALE)


def blur(x: Picture, rng: np.random.Generator) -> Picture:
    """Gaussian, sigma 3 pixels."""
    return cv2.GaussianBlur(x, (0, 0), 3)


def canvas(x: Picture, rng: np.random.Generator) -> Picture:
    """On an evenly grey canvas 1.5 times as wide and high, anywhere."""
    height, width = x.shape
    whole = np.full((round(height * 1.5), round(width * 1.5)), rng.choice([0, 128, 255]), np.uint8)
    top, left = rng.integers(0, whole.shape[0] - height + 1), rng.integers(0, whole.shape[1] - width + 1)
    whole[top : top + height, left : left + width] = x
    return whole


def noise(x: Picture, rng: np.random.Generator) -> Picture:
    """Gaussian, sigma 20 grey levels."""
    return _levels(x + rng.normal(0, 20, x.shape))


def clahe(x: Picture, rng: np.random.Generator) -> Picture:
    """Contrast-limited adaptive histogram equalisation: limit 4, 8 x 8 tiles."""
    return cv2.createCLAHE(4.0, (8, 8)).apply(x)


def cut_outs(x: Picture, rng: np.random.Generator) -> Picture:
    """Three rectangles of 20 to 35 % of each side, black, grey or white."""
    x = x.copy()
    for _ in range(3):
        height, width = (max(1, round(side * rng.uniform(0.2, 0.35))) for side in x.shape)
        top, left = rng.integers(0, x.shape[0] - height + 1), rng.integers(0, x.shape[1] - width + 1)
        x[top : top + height, left : left + width] = rng.choice([0, 128, 255])
    return x


def elastic(x: Picture, rng: np.random.Generator) -> Picture:
    """Smooth random displacements, at most 5 % of the side, of 8 % correlation length."""
    columns, rows = np.meshgrid(*(np.arange(side, dtype=np.float32) for side in x.shape[::-1]))
    moved = []
    for grid in (columns, rows):
        smooth = cv2.GaussianBlur(rng.normal(size=(64, 64)), (0, 0), 0.08 * 64)
        field = cv2.resize(smooth / np.abs(smooth).max(), x.shape[::-1], interpolation=cv2.INTER_CUBIC)
        moved.append(grid + np.float32(0.05 * min(x.shape)) * field.astype(np.float32))
    return cv2.remap(x, *moved, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def screen(x: Picture, rng: np.random.Generator) -> Picture:
    """A photograph of a screen: perspective, uneven light, moire, a little blur and noise, JPEG 70."""
    height, width = x.shape
    corners = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
    moved = corners + rng.uniform(-0.1, 0.1, (4, 2)) * (width, height)
    moved = (moved - moved.min(axis=0)).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(corners, moved)
    size = tuple(np.ceil(moved.max(axis=0)).astype(int).tolist())
    seen = cv2.warpPerspective(x, matrix, size, borderValue=40).astype(float)
    rows, columns = np.indices(seen.shape)
    way, angle, period = rng.uniform(0, 2 * np.pi, 3)
    slope = (np.cos(way) * (columns / size[0] - 0.5) + np.sin(way) * (rows / size[1] - 0.5)) * 0.7
    wave = columns * np.cos(angle) + rows * np.sin(angle)
    period = (3 + 5 * period / (2 * np.pi)) * max(size) / 256
    seen = (20 + 0.85 * seen) * (1 + slope) + 10 * np.sin(2 * np.pi * wave / period)
    seen = cv2.GaussianBlur(seen, (0, 0), 0.8) + rng.normal(0, 4, seen.shape)
    coded = cv2.imencode(".jpg", _levels(seen), [cv2.IMWRITE_JPEG_QUALITY, 70])[1]
    return cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)


def annotated(x: Picture, rng: np.random.Generator) -> Picture:
    """A white frame around it with a line of text, and an arrow on the picture."""
    height, width = x.shape
    unit = max(x.shape) / 224
    edge = round(rng.uniform(0.05, 0.12) * max(x.shape))
    x = cv2.copyMakeBorder(x, edge, 2 * edge, edge, edge, cv2.BORDER_CONSTANT, value=255)
    place, thick = (edge, x.shape[0] - edge // 2), max(1, round(unit))
    text = f"Case {rng.integers(1, 999)}: {rng.choice(['Fracture of the radius', 'AP view', 'Figure 2a'])}"
    cv2.putText(x, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45 * unit, 0, thick, cv2.LINE_AA)
    tip = np.array([edge + width * rng.uniform(0.3, 0.7), edge + height * rng.uniform(0.3, 0.7)])
    angle = rng.uniform(0, 2 * np.pi)
    tail = tip + 0.25 * min(x.shape) * np.array([np.cos(angle), np.sin(angle)])
    ends = [tuple(point.round().astype(int).tolist()) for point in (tail, tip)]
    cv2.arrowedLine(x, *ends, 255, max(2, round(3 * unit)), cv2.LINE_AA, tipLength=0.3)
    return x


def negative(x: Picture, rng: np.random.Generator) -> Picture:
    """White for black."""
    return 255 - x


def negative_rotation(x: Picture, rng: np.random.Generator) -> Picture:
    """A negative, turned by up to 20 degrees."""
    return _turn(255 - x, rng.uniform(-20, 20))


CHANGES = {
    "any rotation": any_rotation,
    "rot90 + flip": rot90_flip,
    "gamma": gamma,
    "64-pixel copy": small_copy,
    "stretch 1.6x": stretch,
    "rotation + crop + flip + brightness": combined,
    "half crop": half_crop,
    "30 % crop": crop_30,
    "JPEG 10": jpeg_10,
    "blur, sigma 3": blur,
    "canvas 1.5x": canvas,
    "noise, sigma 20": noise,
    "CLAHE": clahe,
    "three cut-outs": cut_outs,
    "elastic": elastic,
    "photograph of a screen": screen,
    "white frame, text, arrow": annotated,
    "negative": negative,
    "negative + rotation": negative_rotation,
}
