"""The optimizer of fine-tuning: rates by layer, a warm-up and a cosine, and averaged weights."""

import re
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from xray_helpers.settings import InputError, Settings

if TYPE_CHECKING:
    import keras
GROUPS = 5  # of trained layers, each of which learns by `layer_decay` times the rate of the one above


def group_layers(layers: Sequence) -> list[list]:
    """Part trained layers, lowest first, into at most `GROUPS` groups of equal depth, highest first."""
    parts = np.array_split(np.arange(len(layers)), min(GROUPS, len(layers)))
    return [[layers[number] for number in part] for part in reversed(parts)]


def build_schedule(
    rate: float, steps: int, settings: Settings
) -> "keras.optimizers.schedules.LearningRateSchedule":
    """Return the learning rate of each step: in a line up to `rate`, then by a cosine down to 0.

    Parameters
    ----------
    rate : float
    steps : int
        Steps of all epochs.
    settings : Settings
    """
    import keras

    rising = round(settings.warmup * steps)
    cosine = keras.optimizers.schedules.CosineDecay
    if not rising:
        return cosine(rate, steps)
    return cosine(0.0, max(1, steps - rising), warmup_target=rate, warmup_steps=rising)


def check_keras(settings: Settings) -> None:
    """Raise `InputError` if fine-tuning is to have learning rates by layer, which came with Keras 3.15."""
    version = metadata.version("keras")
    numbers = [int(number) for number in re.findall(r"\d+", version)[:2]]
    if settings.tuning_epochs and settings.layer_decay != 1 and numbers < [3, 15]:
        raise InputError(
            f"Learning rates by layer need Keras 3.15, and {version} is installed: pip install -U keras, or "
            "give -p layer_decay=1."
        )


def build_optimizer(
    layers: Sequence["keras.layers.Layer"], steps: int, settings: Settings
) -> "keras.optimizers.Optimizer":
    """Return Adam, with a learning rate of its own for each group of layers.

    Parameters
    ----------
    layers : sequence of keras.layers.Layer
        Those that are trained, lowest first.
    steps : int
        Steps of an epoch.
    settings : Settings
    """
    import keras

    momentum = 1 - 1 / max(1, settings.ema_epochs * steps)

    def adam(factor: float) -> "keras.optimizers.Adam":
        rate = settings.fine_tune_learning_rate * factor
        schedule = build_schedule(rate, steps * settings.tuning_epochs, settings)
        return keras.optimizers.Adam(schedule, use_ema=settings.ema_epochs > 0, ema_momentum=momentum)

    if settings.layer_decay == 1:
        return adam(1)
    _, *lower = group_layers(layers)
    groups = [(group, adam(settings.layer_decay**depth)) for depth, group in enumerate(lower, 1)]
    return rates_by_layer(adam(1), groups)


def rates_by_layer(
    other: "keras.optimizers.Optimizer",
    groups: Sequence[tuple[Sequence["keras.layers.Layer"], "keras.optimizers.Optimizer"]],
) -> "keras.optimizers.MultiOptimizer":
    """Return one optimizer that trains each group of layers by its own, and all else by `other`."""
    import keras

    rates = keras.optimizers.OptimizerMap(other)
    for group, optimizer in groups:
        paths = {variable.path for layer in group for variable in layer.trainable_variables}
        rates["|".join(map(re.escape, sorted(paths)))] = optimizer
    return keras.optimizers.MultiOptimizer(rates)


def learning_rate(optimizer: "keras.optimizers.Optimizer") -> float:
    """Return the present learning rate of the uppermost layers."""
    top = optimizer.optimizers[-1] if hasattr(optimizer, "optimizers") else optimizer
    return float(top.learning_rate)
