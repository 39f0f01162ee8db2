"""What a site sends, what is checked of it, and how the updates of several sites become one."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Weights = list[np.ndarray]


class Update(NamedTuple):
    """What leaves a site in a round.

    Attributes
    ----------
    weights : list of ndarray, or None
        What is trained, after its local epochs; None where only their masked sum is known.
    images : int
        Training images.
    validation_images : int
    validation_loss : float
        Mean loss of the weights that the site received, on its validation part.
    """

    weights: Weights | None
    images: int
    validation_images: int
    validation_loss: float


def check_update(update: Update, like: Weights) -> str:
    """Return why an update cannot be used, in a sentence; empty where it can.

    Parameters
    ----------
    update : Update
    like : list of ndarray
        The weights that were sent out.
    """
    if update.images < 1:
        return "it reports no training images"
    if not np.isfinite(update.validation_loss):
        return "its validation loss is not a finite number"
    if update.weights is None:
        return ""
    shapes = [array.shape for array in update.weights]
    expected = [array.shape for array in like]
    if shapes != expected:
        return f"its weights have the shapes {_list_shapes(shapes)} in place of {_list_shapes(expected)}"
    bad = sum(int((~np.isfinite(array)).sum()) for array in update.weights)
    return f"{bad} of its weights are not finite numbers" if bad else ""


def _list_shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join("x".join(map(str, shape)) or "scalar" for shape in shapes) or "none"


def average(updates: Mapping[str, Update], *, equal: bool = False) -> Weights:
    """Return the mean of the sites' weights, each site counted by its training images.

    FedAvg of McMahan et al. (AISTATS 2017), computed in float64, in the order of the sites' names.

    Parameters
    ----------
    updates : mapping of str to Update
    equal : bool
        Whether each site counts the same, as differential privacy needs.
    """
    chosen = [updates[site] for site in sorted(updates)]
    counts = np.array([1 if equal else update.images for update in chosen], float)
    return [
        np.tensordot(counts / counts.sum(), np.stack(arrays).astype(np.float64), axes=1).astype(
            arrays[0].dtype
        )
        for arrays in zip(*(update.weights for update in chosen), strict=True)
    ]


def privacy_loss(noise: float, rounds: int, delta: float = 1e-5) -> float:
    """Return epsilon of (epsilon, delta)-differential privacy of a site after so many rounds.

    The Gaussian mechanism with this noise multiplier has 1 / (2 noise^2) of zero-concentrated privacy loss a
    round, which adds up; converted by proposition 1.3 of Bun and Steinke (TCC 2016). Nothing is gained by
    sampling, as every site takes part in every round.
    """
    rho = rounds / (2 * noise**2) if noise > 0 else np.inf
    return float(rho + 2 * np.sqrt(rho * np.log(1 / delta)))


Combine = Callable[[Mapping[str, Update], int], Weights]
