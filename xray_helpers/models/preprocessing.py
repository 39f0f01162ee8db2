"""From grey pixels to what a pretrained network expects, as layers that a saved model has."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras
BORDER, CORNER = 0.10, 0.20  # shares of the side that `border` treats as border, and as corners
POOLED = "pooled"  # the layer of the pooled features
# Scale and offset per channel, as the networks were trained: x * scale + offset, where x is grey, 0-255, in
# three equal channels.
_MEAN, _STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
_BGR_MEAN = np.array([103.939, 116.779, 123.68])  # grey needs no reordering
PREPROCESSING = {
    "caffe": ([1.0, 1.0, 1.0], (-_BGR_MEAN).tolist()),
    "torch": ((1 / (255 * _STD)).tolist(), (-_MEAN / _STD).tolist()),
    "minus_one_to_one": ([1 / 127.5] * 3, [-1.0] * 3),
    "unit": ([1 / 255] * 3, [0.0] * 3),
    "none": ([1.0] * 3, [0.0] * 3),
    "radimagenet": ([1 / 255] * 3, (-_BGR_MEAN / 255).tolist()),
}
_IN_WORDS = {
    "caffe": "less the ImageNet mean of each channel (caffe)",
    "torch": "[0, 1], less the ImageNet mean, by the standard deviation (torch)",
    "minus_one_to_one": "to [-1, 1]",
    "unit": "to [0, 1]",
    "none": "0 to 255, as the network scales them itself",
    "radimagenet": "less the ImageNet mean of each channel, then by 255 (RadImageNet)",
}


def describe_preprocessing(name: str) -> str:
    """Return what a key of `PREPROCESSING` does to grey pixels, in words."""
    return _IN_WORDS[name]


def prepare_pixels(
    img_size: tuple[int, int],
    scale: Sequence[float],
    offset: Sequence[float],
    border: str = "keep",
    size: tuple[int, int] | None = None,
) -> tuple["keras.KerasTensor", "keras.KerasTensor"]:
    """Return the input of a graph, and the pixels as a network receives them.

    Parameters
    ----------
    img_size : (int, int)
        Height and width of the pictures.
    scale, offset : sequence of float
        One per channel of the network; a pixel becomes ``grey * scale + offset``.
    border : {'keep', 'blank', 'only'}
        See `Backbone.build`.
    size : (int, int), optional
        The only height and width that the network takes.

    Returns
    -------
    pixels : KerasTensor
        Grey, (n, height, width, 1), 0-255.
    scaled : KerasTensor
        (n, height, width, channels).
    """
    import keras

    inputs = keras.Input((*img_size, 1), name="grey_pixels")
    grey = _mask_border(inputs, border)
    if size and tuple(size) != tuple(img_size):
        # not the layer Resizing, after which dropout and the like would be active
        grey = keras.ops.image.resize(grey, tuple(size), interpolation="bilinear")
    if len(scale) > 1:
        grey = keras.layers.Concatenate(name="to_three_channels")([grey] * len(scale))
    return inputs, keras.layers.Rescaling(list(scale), list(offset), name="preprocessing")(grey)


def keep_border(pictures: np.ndarray) -> np.ndarray:
    """Return pictures (n, height, width) that are black but for border and corners, as ``border = only``."""
    middle = np.zeros(pictures.shape[1:], bool)
    for top, left in ((BORDER, CORNER), (CORNER, BORDER)):
        down, across = (round(share * side) for share, side in zip((top, left), middle.shape, strict=True))
        middle[down : len(middle) - down, across : middle.shape[1] - across] = True
    return np.where(middle, 0, pictures).astype(pictures.dtype)


def _mask_border(pixels: "keras.KerasTensor", border: str) -> "keras.KerasTensor":
    """Make the border and the corners black, or everything else, in the graph, so that it is saved."""
    import keras

    if border == "keep":
        return pixels

    def crop(top: float, left: float) -> "keras.KerasTensor":
        shares = zip((top, left), pixels.shape[1:3], strict=True)
        cut = [(round(share * side),) * 2 for share, side in shares]
        return keras.layers.ZeroPadding2D(cut)(keras.layers.Cropping2D(cut)(pixels))

    middle = keras.layers.Maximum(name="without_border")([crop(BORDER, CORNER), crop(CORNER, BORDER)])
    return middle if border == "blank" else keras.layers.Subtract(name="border_only")([pixels, middle])
