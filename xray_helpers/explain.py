"""Where a model looked, and whether that follows from what it learned.

Grad-CAM (Selvaraju et al. 2017) is the map; occlusion (Zeiler and Fergus 2014) is a second opinion that needs no
gradient; permuting the weights (after Adebayo et al. 2018) shows whether the map depends on what was learned.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
from scipy.stats import rankdata

from xray_helpers.intervals import grouped_mean
from xray_helpers.pixels import find_inner
from xray_helpers.settings import InputError, nearest

if TYPE_CHECKING:
    import keras

_BATCH = 16
OCCLUDED = 8  # images of which there is an occlusion map too, at most
CONTROLLED = 16  # images on which weights are permuted, as far as there are maps with anything in them
PERMUTATIONS = 3  # of the weights: one alone may leave the maps alike, or empty, by chance
_LEAST = 4  # occlusion maps at least, where there are so many images: as many as are shown
GRID = 6  # occluded places a side
PERMUTED = "permuted: "  # before what was permuted, a method of the table of maps
_SANITY = (
    "permuted", "layers", "correlation", "ci_low", "ci_high", "n", "empty", "n_groups", "permutations", "emptied",
)  # fmt: skip


def find_layer(model: "keras.Model", name: str = "") -> str:
    """Return the layer whose output Grad-CAM weighs: `name`, or the last convolution.

    Without a name that is the last layer that still has places and does not pool: the last convolution, after its
    normalization and activation.

    Raises
    ------
    InputError
        When there is no such layer, or its output has no places.
    """
    spatial = [layer.name for layer in model.layers[1:] if len(layer.output.shape) == 4]
    default = next(word for word in reversed(spatial) if "Pooling" not in type(model.get_layer(word)).__name__)
    if not name:
        return default
    if name not in spatial:
        known = [layer.name for layer in model.layers]
        why = "has no places left" if name in known else f"is not there{nearest(name, spatial)}"
        raise InputError(f"Grad-CAM at the layer {name!r} of {model.name}: it {why}; the default is {default}.")
    return name


class GradCam:
    """Grad-CAM maps of a joined model, in batches.

    Parameters
    ----------
    model : keras.Model
        Of `training.load_model`: one flat graph that ends in a dense layer.
    layer : str
        See `find_layer`.
    """

    def __init__(self, model: "keras.Model", layer: str = "") -> None:
        import keras
        import tensorflow as tf

        self.layer, self.size, last = find_layer(model, layer), model.input_shape[1:3], model.layers[-1]
        both = keras.Model(model.input, [model.get_layer(self.layer).output, last.input])

        def run(pixels: "tf.Tensor") -> "tf.Tensor":
            with tf.GradientTape() as tape:
                tape.watch(pixels)
                activation, features = both(pixels, training=False)
                logit = tf.matmul(features, last.kernel) + last.bias  # a sigmoid's gradient vanishes where it is sure
            weights = tf.reduce_mean(tape.gradient(logit, activation), axis=(1, 2), keepdims=True)
            return tf.nn.relu(tf.reduce_sum(weights * activation, axis=-1))

        shape = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
        self._run = tf.function(run, input_signature=[shape], autograph=False)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return what speaks for Fractured at each place.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (n, height, width), 0-255

        Returns
        -------
        ndarray of float32, shape (n, rows, columns)
            0 and above; all 0 where nothing speaks for it.
        """
        batches = (np.asarray(pixels[i : i + _BATCH], np.float32)[..., None] for i in range(0, len(pixels), _BATCH))
        return np.concatenate([self._run(batch).numpy() for batch in batches])


def occlude(predict: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, grid: int = GRID) -> np.ndarray:
    """Return how much each place matters: the fall of the log odds when it is covered by the mean grey.

    A patch one and a half times a cell of the grid takes the mean grey of the picture, which keeps exposure as it is.

    Parameters
    ----------
    predict : callable
        Of uint8 pictures (n, height, width), P(Fractured), shape (n,).
    pixels : ndarray of uint8, shape (n, height, width), 0-255
    grid : int

    Returns
    -------
    ndarray of float32, shape (n, grid, grid)
        0 and above; a place that speaks against a fracture is 0.
    """
    height, width = pixels.shape[1:]
    ends = [
        [
            (round(max(0.0, (i - 0.25) * side / grid)), round(min(float(side), (i + 1.25) * side / grid)))
            for i in range(grid)
        ]
        for side in (height, width)
    ]
    maps = np.zeros((len(pixels), grid, grid), np.float32)
    for picture, found in zip(np.asarray(pixels), maps, strict=True):
        covered = np.repeat(picture[None], grid * grid + 1, axis=0)
        for number in range(grid * grid):
            (top, bottom), (left, right) = ends[0][number // grid], ends[1][number % grid]
            covered[number, top:bottom, left:right] = round(float(picture.mean()))
        odds = _log_odds(predict(covered))
        found[:] = np.maximum(odds[-1] - odds[:-1], 0).reshape(grid, grid)
    return maps


def _log_odds(p: np.ndarray) -> np.ndarray:
    p = np.clip(np.asarray(p, float), 1e-7, 1 - 1e-7)
    return np.log(p / (1 - p))


def permute_weights(
    model: "keras.Model", cam: GradCam, pixels: np.ndarray, group: Any, seed: int = 0, permutations: int = PERMUTATIONS
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Permute the weights of more and more layers from the top, and compare the maps with those of the model.

    Each weight array keeps its values and loses their order; the model is as before afterwards. A map that stays the
    same shows the picture's edges, not what was learned. An empty map shows nothing that could change, and one that is
    empty afterwards nothing that could be compared: either is left out and counted, and counts for no correlation.

    Parameters
    ----------
    model : keras.Model
    cam : GradCam
        Of it.
    pixels : ndarray of uint8, shape (n, height, width)
    group : sequence, shape (n,)
    seed : int
    permutations : int
        How often it is done, each time in another order; an image's correlation is its mean over them.

    Returns
    -------
    sanity : DataFrame
        permuted (what), layers (how many), correlation, ci_low, ci_high (mean Spearman correlation with the maps of
        the model as it is, and its 95 % interval over groups; missing where there is nothing to compare), n (images
        compared), empty (left out because there is nothing in their map), n_groups (of n), permutations, emptied (share
        of the maps after permuting that are empty, of those with something in them before).
    after : dict
        What was permuted to the maps after it the first time, float32 of shape (n, rows, columns).
    """
    kept, layers = model.get_weights(), [layer for layer in reversed(model.layers) if layer.weights]
    head = [layer for layer in layers if layer.name in ("p_fractured", "dense")]
    stages = {"the head": len(head), "and the upper half": len(layers) // 2, "all layers": len(layers)}
    before, found = cam(pixels), {name: [] for name in stages}
    try:
        for number in range(permutations):
            rng, done = np.random.default_rng([seed, 7, number]), 0
            for name, count in stages.items():
                _permute(layers[done:count], rng)
                done = max(done, count)
                found[name].append(np.nan_to_num(cam(pixels), posinf=0))
            model.set_weights(kept)
    finally:
        model.set_weights(kept)
    rows, at = [], 0
    for name, count in stages.items():
        at = max(at, count)
        rows.append({"permuted": name, "layers": at} | _compare_permuted(before, found[name], group))
    return pd.DataFrame(rows)[list(_SANITY)], {name: each[0] for name, each in found.items()}


def _permute(layers: list["keras.layers.Layer"], rng: np.random.Generator) -> None:
    for layer in layers:
        layer.set_weights([rng.permutation(w.ravel()).reshape(w.shape) if w.ndim else w for w in layer.get_weights()])


def _compare_permuted(before: np.ndarray, after: list[np.ndarray], group: Any) -> dict[str, Any]:
    """Return the mean over permutations of each image's rank agreement, flat maps apart, and over images with interval."""
    full = ~is_flat(before)
    told = np.array([full & ~is_flat(maps) for maps in after])
    values = np.array([rank_agreement(before, maps) for maps in after])
    compared = told.any(axis=0)
    names = np.asarray(group, dtype=object)[compared]
    counts = {"n": int(compared.sum()), "empty": int((~full).sum()), "n_groups": len(set(names.tolist())),
              "permutations": len(after), "emptied": float(1 - told[:, full].mean()) if full.any() else np.nan}  # fmt: skip
    if not compared.any():
        return {"correlation": None, "ci_low": None, "ci_high": None} | counts
    means = np.where(told, values, 0).sum(axis=0)[compared] / told.sum(axis=0)[compared]
    entry = grouped_mean(means, names)
    return {"correlation": entry["value"], "ci_low": entry["ci_low"], "ci_high": entry["ci_high"]} | counts


def agree(maps: Any, others: Any, counted: np.ndarray, group: Any) -> dict[str, Any]:
    """Return the mean rank agreement of the pairs that are counted, with its interval, as `intervals.grouped_mean` does."""
    if not counted.any():
        return {"value": None, "ci_low": None, "ci_high": None, "reason": "no map with anything in it"}
    pairs = zip(maps, others, counted, strict=True)
    values = [rank_agreement(one[None], other[None])[0] for one, other, count in pairs if count]
    return grouped_mean(values, np.asarray(group, dtype=object)[counted])


def is_flat(maps: Any) -> np.ndarray:
    """Return which maps say the same everywhere, as an empty one does: bool, shape (n,)."""
    return np.array([np.ptp(grid) == 0 for grid in maps], bool)


def rank_agreement(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of each pair of maps, shape (n,); 0 where one of them is flat.

    The second is resized to the places of the first.
    """
    shape = maps.shape[1:]
    pairs = zip(maps, (scale_map(other, shape) for other in others), strict=True)
    return np.array([_spearman(one.ravel(), other.ravel()) for one, other in pairs])


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def scale_map(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a map at another size (height, width), float32, interpolated between the places' centres."""
    return cv2.resize(np.asarray(grid, np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)


def fit_map(grid: np.ndarray, shape: tuple[int, int], size: tuple[int, int], way: str = "stretch") -> np.ndarray:
    """Return the part of a map that lies over the picture itself, without what padding added.

    Parameters
    ----------
    grid : ndarray of float, shape (rows, columns)
        Over what the model saw.
    shape : (int, int)
        Height and width of the picture.
    size : (int, int)
        Height and width that the model sees.
    way : {'stretch', 'pad'}
        How the picture became `size`.

    Returns
    -------
    ndarray of float32
        Over the whole picture, at whatever size.
    """
    if way != "pad":
        return np.asarray(grid, np.float32)
    top, left, height, width = find_inner(shape, size)
    return scale_map(grid, size)[top : top + height, left : left + width]


# --- keeping maps ---------------------------------------------------------------------------------------


def choose_images(part: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Return at most `count` rows drawn at random, as far as can be half of them fractured, in no particular order."""
    shuffled = part.sample(frac=1, random_state=seed)
    turn = shuffled.groupby("y_true").cumcount()
    return shuffled.iloc[np.argsort(turn.to_numpy(), kind="stable")[:count]].reset_index(drop=True)


def explain_images(
    model: "keras.Model",
    predict: Callable[[np.ndarray], np.ndarray],
    part: pd.DataFrame,
    load: Callable[[pd.DataFrame], Any],
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make the maps of images, and look whether they follow the weights.

    Parameters
    ----------
    model : keras.Model
        Of `training.load_model`.
    predict : callable
        As for `occlude`; the same model, by the fastest way.
    part : DataFrame
        Rows of the manifest. Of all there is a Grad-CAM map; on the first `CONTROLLED` whose map is not empty, as far as
        there are so many, weights are permuted, and of at most `OCCLUDED` of them, or of a twelfth of all (at least 4) where
        there are few, there is an occlusion map as well, which takes longer.
    load : callable
        Of such rows, uint8 pictures (n, height, width).
    seed : int

    Returns
    -------
    maps, sanity : DataFrame
        Of `build_maps`, methods Grad-CAM, occlusion, and `PERMUTED` with what was permuted; and of `permute_weights`.
        Both without rows where `part` has none.
    """
    if part.empty:
        return build_maps([], "Grad-CAM", np.zeros((0, 1, 1)), (1, 1)), pd.DataFrame(columns=_SANITY)
    pictures, cam = load(part), GradCam(model)
    few, maps = min(OCCLUDED, max(_LEAST, len(part) // 12), len(part)), cam(pictures)
    at = np.sort(np.argsort(is_flat(maps), kind="stable")[:CONTROLLED])  # empty maps have nothing that could change
    first, paths, group = np.asarray(pictures[at]), part["path"].iloc[at], part["group"].iloc[at]
    sanity, after = permute_weights(model, cam, first, group, seed)
    made = [(part["path"], "Grad-CAM", maps), (paths[:few], "occlusion", occlude(predict, first[:few]))]
    made += [(paths, PERMUTED + name, grids) for name, grids in after.items()]
    return pd.concat([build_maps(*each, first.shape[1:]) for each in made], ignore_index=True), sanity


def build_maps(paths: Any, method: str, maps: np.ndarray, size: tuple[int, int]) -> pd.DataFrame:
    """Return the table of maps.

    Returns
    -------
    DataFrame
        path, method, height, width (`size`: of what the model saw, in pixels), rows, columns, values (from the upper
        left, by rows, space between).
    """
    values = [" ".join(f"{value:.4g}" for value in grid.ravel()) for grid in maps]
    shapes = {"height": size[0], "width": size[1], "rows": maps.shape[1], "columns": maps.shape[2]}
    return pd.DataFrame({"path": list(paths), "method": method} | shapes | {"values": values})


def seen_size(table: pd.DataFrame) -> tuple[int, int] | None:
    """Return height and width of what the model of `build_maps`'s table saw; None where it holds no map."""
    return None if table.empty else (int(table["height"].iloc[0]), int(table["width"].iloc[0]))


def read_maps(table: pd.DataFrame, method: str = "Grad-CAM") -> dict[str, np.ndarray]:
    """Return the maps of `build_maps` by path, float32 of shape (rows, columns)."""
    return {
        row.path: np.array(row.values.split(), np.float32).reshape(row.rows, row.columns)
        for row in table[table["method"] == method].itertuples(index=False)
    }
